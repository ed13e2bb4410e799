"""A tagger in PyTorch on embeddings that `jetclr embed` wrote. Needs numpy and torch, and h5py or pyarrow.

python pytorch_mlp.py TRAIN TEST [--linear] [--layer embedding]

TRAIN and TEST are HDF5 or Parquet files with a column `label`, whose lowest value is background. A fifth of the
training jets decides when to stop, or how strong the penalty is; the test jets are looked at once, at the end.
With --linear it is logistic regression solved to convergence, the same fit as that of `jetclr probe`.
"""

import argparse
import copy

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

Line = tuple[torch.Tensor, torch.Tensor]  # weights [width] and intercept


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


def auc(scores: torch.Tensor, signal: torch.Tensor) -> float:
    """Chance that a signal jet scores above a background jet; equal scores count one half."""
    background, signal_scores = scores[signal == 0].sort().values, scores[signal == 1].contiguous()
    below = torch.searchsorted(background, signal_scores) + torch.searchsorted(background, signal_scores, right=True)
    return float(below.double().mean() / 2 / len(background))


def split(signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which jets are fitted and which are held out: a fifth of each class."""
    held = torch.zeros(len(signal), dtype=torch.bool)
    for kind in (0, 1):
        members = torch.nonzero(signal == kind)[:, 0]
        held[members[torch.randperm(len(members))[: len(members) // 5]]] = True
    return torch.nonzero(~held)[:, 0], torch.nonzero(held)[:, 0]


def train_mlp(x: torch.Tensor, signal: torch.Tensor, fit: torch.Tensor, held: torch.Tensor) -> nn.Module:
    """Two hidden layers, stopped where the held-out jets are told apart best."""
    width = x.shape[1]
    model = nn.Sequential(
        nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01)
    best, since, kept = 0.0, 0, copy.deepcopy(model.state_dict())
    for _ in range(50):
        model.train()
        for rows in fit[torch.randperm(len(fit))].split(256):
            optimizer.zero_grad()
            cross_entropy(model(x[rows])[:, 0], signal[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            reached = auc(model(x[held])[:, 0], signal[held])
        if reached > best:
            best, since, kept = reached, 0, copy.deepcopy(model.state_dict())
        elif (since := since + 1) == 5:
            break
    print(f"AUC held out {best:.4f}")
    model.load_state_dict(kept)
    return model


def solve(
    turned: torch.Tensor, signal: torch.Tensor, spread: torch.Tensor, l2: float, start: Line, tolerance: float
) -> Line:
    """Weights and intercept that minimise the SUM of the cross-entropies + l2/2 |weights|^2.

    In the solver's units the SUM rises by about 1/2 at distance 1 from its minimum, and `tolerance` is that distance.
    """
    scale = 1 / (spread * len(turned) / 4 + l2).sqrt()  # in these units the problem is nearly round
    u, intercept = (start[0] / scale).requires_grad_(), start[1].clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [u, intercept],
        max_iter=2000,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        weights = u * scale
        found = cross_entropy(turned @ weights + intercept, signal, reduction="sum") + l2 / 2 * weights.square().sum()
        found.backward()
        return found

    solver.step(loss)
    return (u * scale).detach(), intercept.detach()


def train_linear(x: torch.Tensor, signal: torch.Tensor, fit: torch.Tensor, held: torch.Tensor) -> nn.Module:
    """Logistic regression in double precision; the strength is that of the best held-out AUC, refitted to all jets."""
    x, signal = x.double(), signal.double()
    # A rotation changes neither the fit nor the penalty, and along the axes of the covariance the solver is quick.
    spread, axes = torch.linalg.eigh(x.T @ x / len(x))
    turned, spread = x @ axes, spread.clamp(min=0)
    turned_fit, turned_held = turned[fit], turned[held]
    reached: dict[float, float] = {}
    l2, line = 10**3.5, (torch.zeros_like(spread), torch.zeros_like(spread[0]))
    # Weaker and weaker, for as long as one of the last two steps helped.
    while len(reached) < 3 or max(reached, key=reached.__getitem__) in list(reached)[-2:]:
        line = solve(turned_fit, signal[fit], spread, l2, line, tolerance=0.1)
        reached[l2] = auc(turned_held @ line[0], signal[held])
        l2 /= 10**0.5
    l2 = max(reached, key=reached.__getitem__)
    print(f"l2 {l2:.3g} of {min(reached):.2g} to {max(reached):.4g}, AUC held out {reached[l2]:.4f}")
    weights, intercept = solve(turned, signal, spread, l2, line, tolerance=1e-3)
    model = nn.Linear(x.shape[1], 1).double()
    with torch.no_grad():
        model.weight.copy_(axes @ weights)
        model.bias.copy_(intercept)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("train", help="embeddings with labels, .h5 or .parquet")
    parser.add_argument("test", help="embeddings of other jets")
    parser.add_argument("--linear", action="store_true", help="logistic regression instead of a network")
    parser.add_argument("--layer", default="embedding", help="column with the embedding")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the network")
    options = parser.parse_args()
    torch.manual_seed(options.seed)

    x, label = read(options.train, options.layer)
    x_test, label_test = read(options.test, options.layer)
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    spread[spread == 0] = 1  # of relu networks some outputs are always 0
    background = label.min()  # the lowest label, as `jetclr probe` has it

    def tensors(x: np.ndarray, label: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor((x - mean) / spread).float(), torch.tensor(label > background).float()

    x_all, signal = tensors(x, label)
    fit, held = split(signal)
    model = (train_linear if options.linear else train_mlp)(x_all, signal, fit, held).eval()
    x_test, signal_test = tensors(x_test, label_test)
    with torch.no_grad():
        scores = model(x_test.to(next(model.parameters()).dtype))[:, 0]
    print(f"test AUC {auc(scores, signal_test):.4f} on {len(x_test):,} jets")


if __name__ == "__main__":
    main()
