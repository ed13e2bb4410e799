"""An exported encoder in PyTorch, timed: a program of its own, for any Python with torch and safetensors.

    python torch_encoder.py FOLDER --threads 2 --seconds 4 --batches 1024 256

FOLDER holds `jetclr_encoder.py`, `jetclr.safetensors` and `jets.npz` with pt, eta and phi [jets, constituents]. Every
size of batch is tried for as long; the best is told, in a line of JSON. The embeddings of all jets are written to
`torch.npy`, so that it can be seen that they are those of the encoder.
"""

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    """Read the arguments, time every size of batch, tell the best."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    sys.path.insert(0, str(asked.folder))
    encoder = import_module("jetclr_encoder").JetEncoder.from_file(asked.folder / "jetclr.safetensors")
    with np.load(asked.folder / "jets.npz") as file:
        columns = {name: torch.from_numpy(file[name]) for name in ("pt", "eta", "phi")}
    columns["mask"] = (columns["pt"] > 0).float()
    with torch.inference_mode():
        rates = {batch: _rate(encoder, columns, batch, asked.seconds) for batch in asked.batches}
        found = [encoder(**few).numpy() for few in _cut(columns, max(asked.batches))]
    np.save(asked.folder / "torch.npy", np.concatenate(found))
    best = max(rates, key=lambda batch: rates[batch])
    print(json.dumps({"torch": torch.__version__, "batch": best, "jets_per_s": rates[best]}))


def _cut(columns: dict[str, torch.Tensor], batch: int) -> list[dict[str, torch.Tensor]]:
    jets = len(columns["pt"])
    return [{name: x[i : i + batch] for name, x in columns.items()} for i in range(0, jets, batch)]


def _rate(encoder: torch.nn.Module, columns: dict[str, torch.Tensor], batch: int, seconds: float) -> float:
    """Jets/s of going through all jets, again and again."""
    pieces = _cut(columns, batch)
    for few in pieces[:2]:
        encoder(**few)
    jets, start = 0, time.perf_counter()
    while not jets or time.perf_counter() < start + seconds:
        few = pieces[jets // batch % len(pieces)]
        encoder(**few)
        jets += len(few["pt"])
    return jets / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
