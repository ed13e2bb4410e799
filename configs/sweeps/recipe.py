"""The table of docs/recipe.md: what each part of configs/toptag.py is worth, a row for each change.

    jetclr sweep configs/toptag.py --space configs/sweeps/recipe.py --workdir runs/recipe --steps 600 \
        --fit stores/toptag/train --judge stores/toptag/val --labels 10000 --seeds 0 1 2

`--only ROW` trains one of them. The first five rows are the augmentations of the JetCLR study (arXiv:2108.04253) at its
strengths, with everything else as in configs/toptag.py.
"""

from dataclasses import replace

from augmentations import (
    Boost,
    Chain,
    CollinearSplit,
    Efficiency,
    PtScale,
    PtSmear,
    Reflect,
    Rotate,
    SoftLoss,
    SoftSmear,
    Transform,
    Translate,
)
from jetclr.config import Config
from jetclr.objectives import (
    BYOL,
    DINO,
    IBOT,
    BarlowTwins,
    Combined,
    MaskedParticles,
    MoCo,
    NTXent,
    SimSiam,
    SupCon,
    Term,
    VICReg,
)

ROTATE, REFLECT = Rotate(), Reflect()
SMEAR, PT, LOSS, SPLIT = SoftSmear(scale=1.5, floor=0.5), PtSmear(width=0.25), SoftLoss(scale=1.0), CollinearSplit(0.3)
OURS = (ROTATE, REFLECT, SMEAR, PT, LOSS, SPLIT)


def rows(config: Config) -> dict[str, Config]:
    """Name and config of each row, in the order of the table."""
    return _study(config) | _views(config) | _network(config) | _objectives(config)


def _study(config: Config) -> dict[str, Config]:
    soft, split, move = SoftSmear(scale=0.1, floor=0.1), CollinearSplit(), Translate()
    # Centred features make the encoder blind to translations, so that these would be no augmentation at all.
    as_they_are = replace(config, features=replace(config.features, center=False))
    return {
        "study: none": _viewed(config),
        "study: translations": _viewed(as_they_are, move),
        "study: rotations": _viewed(config, ROTATE),
        "study: soft + collinear": _viewed(config, soft, split),
        "study: all": _viewed(as_they_are, ROTATE, soft, split, move),
    }


def _views(config: Config) -> dict[str, Config]:
    def without(*left_out: Transform) -> Config:
        return _viewed(config, *(step for step in OURS if step not in left_out))

    def instead(old: Transform, new: Transform) -> Config:
        return _viewed(config, *(new if step is old else step for step in OURS))

    return {
        "toptag": config,
        "no rotations": without(ROTATE, REFLECT),
        "no reflections": without(REFLECT),
        "no smearing of angles": without(SMEAR),
        "no smearing of pT": without(PT),
        "no loss of soft constituents": without(LOSS),
        "no splitting": without(SPLIT),
        "neither loss nor splitting": without(LOSS, SPLIT),
        "loss up to 4 GeV": instead(LOSS, SoftLoss(scale=4.0)),
        "every constituent may split, twice": _viewed(config, *OURS[:-1], CollinearSplit(), CollinearSplit()),
        "smearing a third as strong": _viewed(
            config, ROTATE, REFLECT, SoftSmear(scale=0.5, floor=0.5), PtSmear(width=0.1), LOSS, SPLIT
        ),
        "smearing of angles twice as strong": instead(SMEAR, SoftSmear(scale=3.0, floor=0.5)),
        "half of the constituents": _viewed(config, ROTATE, REFLECT, SMEAR, PT, Efficiency(0.5)),
        "one view without augmentation": replace(config, views=(Chain(*OURS), Chain(ROTATE))),
        "boosts too": _viewed(config, *OURS, Boost(0.3)),
        "pT scale too": _viewed(config, *OURS, PtScale(0.1)),
        "four views": replace(config, views=(Chain(*OURS),) * 4, batch=config.batch // 2),
    }


def _network(config: Config) -> dict[str, Config]:
    data, encoder = config.data, config.encoder
    return {
        "40 constituents": replace(config, data=replace(data, constituents=40, buckets=())),
        "no features of pairs": replace(config, encoder=replace(encoder, pairwise=())),
        "pairs: distance alone": replace(config, encoder=replace(encoder, pairwise=("ln_dr",))),
        "study's features": replace(config, features=replace(config.features, columns=("pt_600", "eta", "phi"))),
        "pooled by pT alone": replace(config, encoder=replace(encoder, pooling=("pt",))),
        "pooled by attention too": replace(config, encoder=replace(encoder, pooling=("pt", "mean", "attention"))),
        "sum pooled too": replace(config, encoder=replace(encoder, pooling=("pt", "mean", "sum"))),
        "no wide layer": replace(config, encoder=replace(encoder, wide=0)),
        "wide layer of 1,024": replace(config, encoder=replace(encoder, wide=1024)),
        "4 layers": replace(config, encoder=replace(encoder, layers=4)),
        "width 128": replace(config, encoder=replace(encoder, width=128, feedforward=256)),
        "temperature 0.1": replace(config, objective=NTXent(temperature=0.1)),
        "temperature 0.4": replace(config, objective=NTXent(temperature=0.4)),
        "running mean of the weights": replace(config, average=0.99),
        "twice the batch, half the steps": replace(config, batch=2 * config.batch, steps=config.steps // 2),
        "infrared and collinear safe": _safe(config),
    }


def _objectives(config: Config) -> dict[str, Config]:
    averaged = replace(config, average=0.99)
    masked = MaskedParticles(share=0.3)
    return {
        "MoCo": replace(averaged, objective=MoCo(temperature=0.2)),
        "VICReg": replace(config, objective=VICReg()),
        "Barlow Twins": replace(config, objective=BarlowTwins()),
        "BYOL": replace(averaged, objective=BYOL()),
        "SimSiam": replace(config, objective=SimSiam()),
        "DINO": replace(averaged, objective=DINO()),
        "iBOT": replace(averaged, objective=IBOT()),
        "masked particles": replace(config, objective=masked),
        "NT-Xent + masked particles": replace(config, objective=Combined((Term(1.0, NTXent(0.2)), Term(0.3, masked)))),
        "labels: SupCon": replace(config, objective=SupCon(temperature=0.2)),
    }


def _safe(config: Config) -> Config:
    """The same without momenta but as weights."""
    encoder = replace(config.encoder, irc_safe=True, pooling=("pt",), pairwise=("ln_dr",))
    return replace(config, encoder=encoder, features=replace(config.features, columns=("eta", "phi", "r", "r2")))


def _viewed(config: Config, *steps: Transform) -> Config:
    return replace(config, views=(Chain(*steps), Chain(*steps)))
