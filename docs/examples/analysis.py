"""Embeddings for the jets of a ROOT file, as a friend tree. Needs numpy, awkward, uproot and onnxruntime.

python analysis.py EXPORT JETS.root FRIEND.root [--tree tree] [--momenta part_px part_py part_pz | --polar PT ETA PHI]

EXPORT is a folder that `jetclr export --to onnx` wrote (flavor batch). An entry of the tree is a jet; the branches are
lists of its constituents, in GeV; the defaults are those of JetClass. The tree `jetclr` of FRIEND.root has an entry for
each jet in the same order, with a branch for each output of the model.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import onnxruntime
import uproot


def batches(tree: uproot.TTree, options: argparse.Namespace, extras: dict[str, str]) -> Iterator[dict[str, ak.Array]]:
    """Lists of constituents of some more jets, by the name of the model's input."""
    wanted = options.polar or options.momenta
    for chunk in tree.iterate([*wanted, *extras.values()], step_size=options.batch, library="ak"):
        a, b, c = (chunk[name] for name in wanted)
        if options.polar:
            found = {"pt": a, "eta": b, "phi": c}
        else:
            pt = np.hypot(a, b)
            # Along the beam eta is infinite; a constituent without pT is none for the model either.
            found = {"pt": pt, "eta": np.arcsinh(c / ak.where(pt > 0, pt, 1)), "phi": np.arctan2(b, a)}
        yield found | {name: chunk[branch] for name, branch in extras.items()}


def padded(columns: dict[str, ak.Array], constituents: int) -> dict[str, np.ndarray]:
    """The hardest constituents [jets, constituents], zeros behind them, and the mask that tells both apart."""
    order = ak.argsort(columns["pt"], ascending=False)
    found = {}
    for name, jagged in columns.items():
        filled = ak.fill_none(ak.pad_none(jagged[order], constituents, clip=True), 0)
        found[name] = ak.to_numpy(filled).astype(np.float32)
    count = ak.to_numpy(ak.num(columns["pt"]))
    found["mask"] = (np.arange(constituents) < count[:, None]).astype(np.float32)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("export", type=Path, help="folder of an exported encoder")
    parser.add_argument("jets", help="ROOT file")
    parser.add_argument("friend", type=Path, help="ROOT file to make")
    parser.add_argument("--tree", default="tree", help="name of the tree with jets")
    parser.add_argument("--momenta", nargs=3, default=["part_px", "part_py", "part_pz"], help="branches px, py, pz")
    parser.add_argument("--polar", nargs=3, help="branches pt, eta, phi, instead of --momenta")
    parser.add_argument("--extra", nargs="*", default=[], help="INPUT=BRANCH for what else the model takes")
    parser.add_argument("--batch", type=int, default=1024, help="jets at once")
    options = parser.parse_args()

    card = json.loads((options.export / "model_card.json").read_text())
    if card["to"] != "onnx" or card["flavor"] != "batch":
        raise SystemExit(f"{options.export} is {card['to']} of flavor {card['flavor']}; needed is onnx, batch")
    session = onnxruntime.InferenceSession(options.export / card["files"]["model"])
    extras = dict(one.split("=", 1) for one in options.extra)
    taken = {one.name for one in session.get_inputs()}
    if taken != {"pt", "eta", "phi", "mask", *extras}:
        raise SystemExit(f"the model takes {', '.join(sorted(taken))}: name the branches of others with --extra")

    outputs = session.get_outputs()
    kinds = {one.name: ("f4", tuple(one.shape[1:])) if one.shape[1:] else "f4" for one in outputs}
    partial = options.friend.with_name(f".{options.friend.name}.partial")  # FRIEND.root is whole, or not there
    done = 0
    with uproot.open(options.jets) as source, uproot.recreate(partial) as target:
        friend = target.mktree("jetclr", kinds)
        for columns in batches(source[options.tree], options, extras):
            found = session.run(None, padded(columns, card["constituents"]))
            friend.extend({one.name: values for one, values in zip(outputs, found, strict=True)})
            done += len(found[0])
    os.replace(partial, options.friend)
    print(f"{options.friend}: {done:,} jets, " + ", ".join(f"{one.name} {one.shape[1:]}" for one in outputs))


if __name__ == "__main__":
    main()
