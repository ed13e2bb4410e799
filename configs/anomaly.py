"""An encoder for anomaly detection: QCD and top jets together, without labels.

    jetclr pretrain configs/anomaly.py --workdir runs/anomaly
    jetclr benchmark runs/anomaly --suite anomaly

docs/anomaly.md has the commands that generate the jets.
"""

from augmentations import Chain, CollinearSplit, PtSmear, Reflect, Rotate, SoftLoss, SoftSmear
from jetclr.config import Checkpoint, Config, Data, Log, Probe
from jetclr.encoder import Encoder, Head
from jetclr.features import Features
from jetclr.objectives import NTXent
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

config = Config(
    data=Data(train=("stores/anomaly/qcd-train", "stores/anomaly/top-train"), constituents=40),
    views=(view, view),
    features=Features(("z", "log_z", "eta", "phi", "r", "r2")),
    encoder=Encoder(width=64, layers=2, heads=4, feedforward=128, pooling=("pt", "mean"), wide=1024),
    head=Head(hidden=(256,), width=128),
    objective=NTXent(temperature=0.2),
    optim=Optim(peak_lr=1e-3, warmup_steps=50),
    log=Log(every=20),
    checkpoint=Checkpoint(every=500),
    probe=Probe(every=0),
    batch=256,
    steps=4000,
)
