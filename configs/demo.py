"""A first look in minutes: the views and the encoder of `configs/toptag.py` on the jets that `make demo` generates.

    jetclr pretrain configs/demo.py --workdir runs/demo

12,000 jets, 500 steps: two minutes on two cores. Linear probes on 5,000 labelled jets, measured on 5,000 others, AUC /
R50: trained embedding 0.9731 / 104, untrained 0.9672 / 64 (logistic regression).
"""

from augmentations import Chain, CollinearSplit, PtSmear, Reflect, Rotate, SoftLoss, SoftSmear
from jetclr.config import Checkpoint, Config, Data, Log, Probe
from jetclr.encoder import Encoder, Head
from jetclr.features import Features
from jetclr.objectives import NTXent
from jetclr.optim import Optim

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
    data=Data(train=("data/demo/top-pretrain", "data/demo/qcd-pretrain"), constituents=40),
    views=(view, view),
    features=Features(("z", "log_z", "eta", "phi", "r", "r2")),
    encoder=Encoder(width=64, layers=2, heads=4, feedforward=128, pooling=("pt", "mean"), wide=512),
    head=Head(hidden=(256,), width=128),
    objective=NTXent(temperature=0.2),
    optim=Optim(peak_lr=1e-3, warmup_steps=50),
    log=Log(every=10),
    checkpoint=Checkpoint(every=200),
    probe=Probe(every=100, jets=600),
    batch=256,
    steps=500,
)
