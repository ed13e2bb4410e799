"""An encoder for anomaly detection that has seen QCD jets only, and changed ones as negatives (arXiv:2301.04660).

    jetclr pretrain configs/anomaly_qcd.py --workdir runs/anomaly_qcd

The recipe of configs/anomaly.py with a third view of every jet; docs/anomaly.md generates the jets, docs/training.md
explains the anomalies. The objective was chosen in runs of 600 steps with 128 jets on validation jets.
"""

from augmentations import (
    AngularScale,
    Chain,
    CollinearSplit,
    DarkLoss,
    Prongs,
    PtPower,
    PtSmear,
    Reflect,
    Rotate,
    SoftLoss,
    SoftSmear,
    WideSplit,
)
from jetclr.config import Checkpoint, Config, Data, Log, Probe
from jetclr.encoder import Encoder, Head
from jetclr.features import Features
from jetclr.objectives import AnomCLR
from jetclr.optim import Optim

# Those of configs/toptag.py, which says why they are so strong, with more loss and more splitting.
view = Chain(
    Rotate(),
    Reflect(),
    SoftSmear(scale=1.5, floor=0.5),
    PtSmear(width=0.25),
    SoftLoss(scale=4.0),
    CollinearSplit(),
    CollinearSplit(),
)

# Multiplicity, hard substructure, momentum and angles are each changed beyond what the views blur. The views come
# after: an anomalous jet that alone is not blurred would be known by that.
changes = (DarkLoss(), Prongs(), WideSplit(), PtPower(), AngularScale())

config = Config(
    data=Data(train=("stores/anomaly/qcd-train",), constituents=40),
    views=(view, view),
    anomalies=tuple(Chain(change, view) for change in changes),
    features=Features(("z", "log_z", "eta", "phi", "r", "r2")),
    encoder=Encoder(width=64, layers=2, heads=4, feedforward=128, pooling=("pt", "mean"), wide=1024),
    head=Head(hidden=(256,), width=128),
    objective=AnomCLR(temperature=0.2),
    optim=Optim(peak_lr=1e-3, warmup_steps=50),
    log=Log(every=20),
    checkpoint=Checkpoint(every=500),
    probe=Probe(every=0),  # which needs labels of two kinds
    batch=256,
    steps=4000,
)
