"""Top tagging on two cores (draft)."""

from augmentations import Chain, CollinearSplit, PtScale, Rotate, SoftLoss, SoftSmear
from jetclr.config import Config, Data
from jetclr.encoder import Encoder
from jetclr.objectives import NTXent
from jetclr.optim import Optim

view = Chain(Rotate(), SoftSmear(scale=0.5, floor=0.5), SoftLoss(), CollinearSplit(), CollinearSplit(), PtScale(0.1))
config = Config(
    data=Data(train=("stores/toptag/train",), constituents=40),
    views=(view, view),
    encoder=Encoder(),
    objective=NTXent(temperature=0.2),
    optim=Optim(peak_lr=1e-3),
    batch=256,
    steps=500,
)
