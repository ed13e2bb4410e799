"""A tagger of boosted trees on embeddings that `jetclr embed` wrote. Needs numpy and xgboost, and h5py or pyarrow.

python xgboost_tagger.py TRAIN TEST [--layer embedding]

TRAIN and TEST are HDF5 or Parquet files with a column `label`, whose lowest value is background. A fifth of the
training jets decides when to stop; the test jets are looked at once, at the end.
"""

import argparse

import numpy as np
import xgboost


def read(path: str, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [jets, width] and labels [jets] of a file."""
    if path.endswith(".parquet"):
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path, columns=[layer, "label"])
        vectors = table[layer].combine_chunks()
        return vectors.flatten().to_numpy().reshape(len(vectors), -1).astype(np.float32), table["label"].to_numpy()
    import h5py

    with h5py.File(path) as file:
        return file[layer][:].astype(np.float32), file["label"][:]


def auc(scores: np.ndarray, signal: np.ndarray) -> float:
    """Chance that a signal jet scores above a background jet; equal scores count one half."""
    background = np.sort(scores[~signal])
    below = np.searchsorted(background, scores[signal], "left") + np.searchsorted(background, scores[signal], "right")
    return float(below.mean() / 2 / len(background))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("train", help="embeddings with labels, .h5 or .parquet")
    parser.add_argument("test", help="embeddings of other jets")
    parser.add_argument("--layer", default="embedding", help="column with the embedding")
    parser.add_argument("--trees", type=int, default=500, help="at most so many")
    parser.add_argument("--depth", type=int, default=4, help="of a tree")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the trees")
    options = parser.parse_args()

    x, label = read(options.train, options.layer)
    x_test, label_test = read(options.test, options.layer)
    background = label.min()  # the lowest label, as `jetclr probe` has it
    order = np.random.default_rng(options.seed).permutation(len(x))
    held, fit = np.split(order, [len(x) // 5])
    tables = {
        "fit": xgboost.DMatrix(x[fit], label[fit] > background),
        "held_out": xgboost.DMatrix(x[held], label[held] > background),
    }
    settings = {
        "objective": "binary:logistic",
        "eval_metric": "auc",
        "tree_method": "hist",
        "max_depth": options.depth,
        "eta": 0.1,
        "subsample": 0.8,
        "colsample_bytree": 0.2,  # an embedding is wide, and its numbers say much the same
        "seed": options.seed,
    }
    trees = xgboost.train(
        settings,
        tables["fit"],
        options.trees,
        evals=[(tables["held_out"], "held_out")],
        early_stopping_rounds=30,
        verbose_eval=False,
    )
    best = (0, trees.best_iteration + 1)
    scores = trees.predict(xgboost.DMatrix(x_test), iteration_range=best)
    print(f"{len(fit):,} jets fitted, {len(held):,} held out, {best[1]} trees, AUC held out {trees.best_score:.4f}")
    print(f"test AUC {auc(scores, label_test > background):.4f} on {len(x_test):,} jets")


if __name__ == "__main__":
    main()
