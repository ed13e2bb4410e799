"""The verb that hands a frozen encoder to other software: export."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from jetclr.verbs import Stores, Which, app


@app.command
def export(
    run: Positional[Path],
    out: Positional[Path],
    to: Literal["onnx", "stablehlo", "safetensors", "torch"],
    flavor: Literal["batch", "cms", "atlas"] = "batch",
    layers: tuple[str, ...] = ("embedding",),
    dtype: Literal["f32", "f16"] = "f32",
    name: str = "jetclr",
    data: Stores = (),
    head: Stores = (),
    probe: Stores = (),
    license: str = "not stated",
    seed: int = 0,
    checkpoint: Which = "latest",
) -> None:
    """Write the frozen encoder as a folder that other software reads, with a model card, and check it against JAX.

    Args:
        run: A pretraining run.
        out: The folder to make.
        to: onnx: for ONNX Runtime 1.17 and newer; stablehlo: for JAX without this package; safetensors: the
            parameters; torch: these and a PyTorch module that reads them.
        flavor: Of ONNX: batch takes pt, eta, phi and mask [B, N]; cms [1, F, N] and preprocess.json; atlas [n, F].
        layers: Which layers the model gives; none: only the scores of heads and probe.
        dtype: How the parameters are kept; it computes in float32 either way.
        name: Of the model and its file; for Athena of letters and digits alone.
        data: Stores with the real jets of the check; those of the run if they are there.
        head: Files of fitted anomaly heads to append, as jetclr anomaly writes them.
        probe: Labelled stores to fit a linear probe on, which is appended.
        license: Of the weights, for the model card.
        seed: Of the random jets of the check, and of the probe.
        checkpoint: The newest, the one with the best validation probe, or that of a step.
    """
    from jetclr.export.export import Order, export_run
    from jetclr.export.told import print_export

    given = () if layers == ("none",) else layers
    order = Order(to, flavor, given, dtype, name, data, head, probe, license, seed)
    print_export(out, export_run(run, out, order, checkpoint))
