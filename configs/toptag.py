"""Top tagging on two cores in 30 minutes: pretrained on the 60,000 training jets without labels.

    jetclr pretrain configs/toptag.py --workdir runs/toptag
    jetclr probe runs/toptag --train stores/toptag/val --test stores/toptag/test

Measured on two cores of an AMD EPYC server (Zen 3): 30 minutes for the 3,000 steps (440 jets/s, 2.2 GiB). Probes are
fitted on the 10,000 jets of val.h5 and measured on the 10,000 of test.h5 (Pythia 8 jets in the reference layout, not
Zenodo's own):

    representation        probe       AUC                      R30               R50
    trained embedding     logistic    0.9839 [0.9819, 0.9859]  > 318             208 [143, 333]
    trained embedding     LDA         0.9823 [0.9799, 0.9845]  454 [278, 1000]   172 [125, 263]
    untrained embedding   logistic    0.9757 [0.9729, 0.9783]  250 [172, 417]    104 [79, 143]
    untrained embedding   LDA         0.9751 [0.9722, 0.9776]  294 [192, 555]    102 [77, 139]
    raw constituents      LDA         0.7483 [0.7387, 0.7578]  8.3 [7.6, 9.1]    4.8 [4.5, 5.1]

With all 60,000 labels and beside other controls: the table of the README, by `jetclr benchmark`.

Trained - untrained, logistic: AUC +0.0083 [+0.0068, +0.0098], p = 0.001 (paired bootstrap, 1,000 resamples). With
`--steps 8000`, 77 minutes, the trained embedding has 0.9845 [0.9825, 0.9866], R50 217 [151, 357]: +0.0089 [+0.0072,
+0.0105] above untrained.
What each part of the recipe is worth, row by row: docs/recipe.md. All was chosen on val.h5.
"""

from augmentations import Chain, CollinearSplit, PtSmear, Reflect, Rotate, SoftLoss, SoftSmear
from jetclr.config import Checkpoint, Config, Data, Log, Probe
from jetclr.encoder import Encoder, Head
from jetclr.features import Features
from jetclr.objectives import NTXent
from jetclr.optim import Optim

# Both views have every angle and momentum blurred, far more than in the study: with a width of 1.5 GeV / pT soft
# constituents are thrown across the jet or out of it, and only the hard substructure is left to match the views by. Of
# the soft tail and of the multiplicity enough is lost that neither marks a jet, and enough stays to be learnt from.
view = Chain(
    Rotate(),
    Reflect(),
    SoftSmear(scale=1.5, floor=0.5),
    PtSmear(width=0.25),
    SoftLoss(scale=1.0),
    CollinearSplit(fraction=0.3),
)
config = Config(
    data=Data(train=("stores/toptag/train",), constituents=80, buckets=(48, 64)),
    views=(view, view),
    features=Features(("z", "log_z", "eta", "phi", "r", "r2")),
    encoder=Encoder(
        width=64,
        layers=2,
        heads=4,
        feedforward=128,
        pooling=("pt", "mean"),
        wide=128,
        pairwise=("ln_dr", "ln_kt", "ln_z", "ln_m2"),
        depth="all",
    ),
    head=Head(hidden=(256,), width=128),
    objective=NTXent(temperature=0.2),
    optim=Optim(peak_lr=1e-3, warmup_steps=50),
    log=Log(every=20),
    checkpoint=Checkpoint(every=500),
    probe=Probe(every=1000, l2=1.0),
    batch=256,
    steps=3000,
)
