"""The sizes that training, augmenting and encoding are measured at: the recipe of the JetCLR study (arXiv:2108.04253).

Both views have the 50 slots of their jets, as in the study, so that splittings fill what is free and no more.
"""

from typing import Literal

from augmentations import Chain, CollinearSplit, Rotate, SoftSmear, Translate
from jetclr.config import Config, Data, Log, Probe
from jetclr.encoder import Encoder, Head, Precision
from jetclr.features import Features
from jetclr.objectives import NTXent
from jetclr.optim import Optim

Size = Literal["small", "paper"]

WIDTHS: dict[Size, tuple[int, int]] = {"small": (128, 256), "paper": (1000, 1000)}
"""Width of the model, and of its feed-forward layers; the study's are those of "paper"."""


def config_of(size: Size, precision: Precision = "float32") -> Config:
    """The settings of a size."""
    width, feedforward = WIDTHS[size]
    return Config(
        data=Data(constituents=50, slots=50),
        views=(
            Chain(Rotate(), Translate()),
            Chain(Rotate(), CollinearSplit(), CollinearSplit(), SoftSmear(scale=0.1, floor=0.1), Translate()),
        ),
        features=Features(("pt_600", "eta", "phi"), center=False),
        encoder=Encoder(
            width=width,
            layers=4,
            heads=4,
            feedforward=feedforward,
            dropout=0.1,
            attention="pt",
            pooling=("pt",),
            wide=0,
        ),
        head=Head(hidden=(width,), width=width),
        objective=NTXent(temperature=0.1),
        optim=Optim(peak_lr=5e-5, warmup_steps=0, schedule="constant", weight_decay=0.0),
        # No step that is measured is a logged one, whose monitors others do not take.
        log=Log(every=1_000_000),
        probe=Probe(every=0),
        precision=precision,
        batch=128,
        steps=2_000_000,
    )
