"""The smallest run that exercises every part; used by the tests only."""

from augmentations import Chain, CollinearSplit, Maybe, PtScale, Rotate, SoftLoss, SoftSmear, Translate
from jetclr.config import Checkpoint, Config, Data, Log, Probe
from jetclr.encoder import Encoder, Head
from jetclr.objectives import NTXent
from jetclr.optim import Optim

config = Config(
    data=Data(constituents=16, holdout=0.2, window_blocks=2),
    views=(
        Chain(Rotate(), Translate(), SoftSmear(), Maybe(SoftLoss(), 0.5)),
        Chain(Rotate(), CollinearSplit(), PtScale()),
    ),
    encoder=Encoder(width=16, layers=1, heads=2, feedforward=16, wide=24, dropout=0.1),
    head=Head(hidden=(16,), width=8),
    objective=NTXent(temperature=0.2),
    optim=Optim(peak_lr=1e-3, warmup_steps=2),
    log=Log(every=2),
    checkpoint=Checkpoint(every=4),
    probe=Probe(every=4),
    batch=32,
    steps=8,
)
