"""JetClass (arXiv:2202.03772) at its own size, for accelerators: 100 million jets of ten classes, with particle types.

    jetclr cost configs/jetclass.py --devices 64 --jets 100000000 --tflops 400 --objective-tflops 30 --link-gb-per-s 200
    jetclr pretrain configs/jetclass.py --workdir runs/jetclass --data.train STORE ...

Up to 128 constituents with charge, impact parameters and particle type, a transformer of 12 blocks with pairwise
attention, batches of 8,192 jets in bfloat16. Not run yet: known are the shapes of a whole step (tests) and what the
model of docs/scaling.md says of it: 43.3 million parameters, 80.7 GFLOP a jet, 14.4 GiB on each of 16 devices.

Of particle types and impact parameters the views keep everything: no augmentation knows how a detector errs on them.
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
    SoftLoss(scale=1.0),
    CollinearSplit(fraction=0.3),
)

config = Config(
    data=Data(
        train=("stores/jetclass/train",),
        constituents=128,
        extras=("charge", "d0", "d0_error", "dz", "dz_error", "type"),
        buckets=(48, 80),
    ),
    views=(view, view),
    features=Features(
        (
            "z", "log_z", "log_pt", "eta", "phi", "r", "r2", "charge", "d0", "d0_error", "dz", "dz_error",
            "charged_hadron", "neutral_hadron", "photon", "electron", "muon",
        )
    ),
    encoder=Encoder(
        width=512,
        layers=12,
        heads=8,
        feedforward=2048,
        dropout=0.1,
        pooling=("pt", "mean"),
        pairwise=("ln_dr", "ln_kt", "ln_z", "ln_m2"),
        wide=2048,
    ),
    head=Head(hidden=(1024,), width=256),
    objective=NTXent(temperature=0.2),
    optim=Optim(peak_lr=1e-3, warmup_steps=2000, b2=0.95),
    average=0.999,
    log=Log(every=50),
    checkpoint=Checkpoint(every=1000),
    probe=Probe(every=2000, jets=20_000),
    precision="bfloat16",
    batch=8192,
    chunks=4,
    steps=122_000,  # ten epochs
)  # fmt: skip
