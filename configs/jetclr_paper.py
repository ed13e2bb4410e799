"""The settings of the JetCLR study (arXiv:2108.04253), for an accelerator: 500 epochs of 100,000 jets.

    jetclr pretrain configs/jetclr_paper.py --workdir runs/jetclr_paper --data.train STORE

Half of the jets should be tops and half QCD. Not run to its end yet: on two cores a step takes many seconds.

As in the study: inputs (pT / 600 GeV, eta, phi) of up to 50 constituents, model and feed-forward width 1000, 4 layers
of 4 heads, dropout 0.1, pT-weighted attention and sum, two head layers of 1000, temperature 0.1, batch 128, learning
rate 5e-5, no weight decay. Different here: layers are normalised before attention and not after it, the weights of the
sum are pT fractions and not pT, and the learning rate warms up.
"""

from augmentations import Chain, CollinearSplit, Rotate, SoftSmear, Translate
from jetclr.config import Checkpoint, Config, Data, Log, Probe
from jetclr.encoder import Encoder, Head
from jetclr.features import Features
from jetclr.objectives import NTXent
from jetclr.optim import Optim

config = Config(
    # Two rounds of splitting can double the constituents; without room most tops would never split.
    data=Data(train=("stores/toptag/train",), constituents=50, slots=100),
    views=(
        Chain(Rotate(), Translate()),
        Chain(Rotate(), CollinearSplit(), CollinearSplit(), SoftSmear(scale=0.1, floor=0.1), Translate()),
    ),
    features=Features(("pt_600", "eta", "phi"), center=False),
    encoder=Encoder(
        width=1000, layers=4, heads=4, feedforward=1000, dropout=0.1, attention="pt", pooling=("pt",), wide=0
    ),
    head=Head(hidden=(1000,), width=1000),
    objective=NTXent(temperature=0.1),
    optim=Optim(peak_lr=5e-5, warmup_steps=500, schedule="constant", weight_decay=0.0),
    log=Log(every=50),
    checkpoint=Checkpoint(every=2000),
    probe=Probe(every=5000),
    batch=128,
    steps=390_625,
)
