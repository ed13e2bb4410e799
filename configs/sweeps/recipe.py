"""The parts of the recipe of configs/toptag.py, a row a change: from the study's augmentations to ours.

The command that runs them, and what they gave: docs/recipe.md.
"""

from dataclasses import replace

from augmentations import Chain, CollinearSplit, Rotate, SoftLoss, SoftSmear, Transform, Translate
from jetclr.config import Config
from jetclr.encoder import Encoder
from jetclr.features import Features
from jetclr.objectives import SupCon

SOFT_COLLINEAR = (SoftSmear(scale=0.1, floor=0.1), CollinearSplit())
STUDY: dict[str, Transform] = {
    "none": Chain(),
    "translations": Translate(),
    "rotations": Rotate(),
    "soft + collinear": Chain(*SOFT_COLLINEAR),
    "all of the study": Chain(Rotate(), *SOFT_COLLINEAR, Translate()),
}
"""Augmentations of arXiv:2108.04253, each put on both views here."""


def rows(config: Config) -> dict[str, Config]:
    """Name and config of each row, in the order of the table; `config` is that of configs/toptag.py."""
    # Every row has the head, the objective and the optimiser of the recipe. It begins with the study's inputs and
    # constituents, attention without pairs, one pooling, and a wider last layer: all embeddings are equally wide.
    paired = replace(config, encoder=as_wide(replace(config.encoder, depth="last"), config.encoder))
    plain = replace(paired, encoder=replace(paired.encoder, pairwise=()))
    fifty = replace(plain, data=replace(config.data, constituents=50, buckets=()))
    study = replace(fifty, features=Features(("pt_600", "eta", "phi"), center=False))
    made = {name: with_views(study, view) for name, view in STUDY.items()}
    # One after another, each kept.
    made["+ inputs: fractions of pT, angles from the centroid"] = with_views(fifty, STUDY["all of the study"])
    made["+ blurred views that lose constituents"] = fifty
    made["+ 80 constituents"] = plain
    made["+ pairs in attention"] = paired
    made["+ pooled after every block: the recipe"] = config
    # The recipe with one thing changed.
    turn, mirror, blur, pt, loss, split = config.views[0].steps  # type: ignore[attr-defined]  # a Chain
    changed: dict[str, tuple[Transform, ...]] = {
        "neither loss nor splitting": (turn, mirror, blur, pt),
        "angles blurred a third as much": (turn, mirror, SoftSmear(scale=0.5, floor=0.5), pt, loss, split),
        "exact pT": (turn, mirror, blur, loss, split),
        "neither rotation nor reflection": (blur, pt, loss, split),
    }
    more = (SoftLoss(scale=4.0), CollinearSplit(), CollinearSplit())
    changed["loss up to 4 GeV, splitting of all, twice"] = (turn, mirror, blur, pt, *more)
    made |= {name: with_views(config, Chain(*steps)) for name, steps in changed.items()}
    made["labels instead of copies (SupCon)"] = replace(config, objective=SupCon(temperature=0.2))
    safe = replace(config.encoder, irc_safe=True, pooling=("pt",), pairwise=("ln_dr",))
    made["IRC-safe encoder"] = replace(
        config,
        features=Features(("eta", "phi", "r", "r2")),
        encoder=as_wide(safe, config.encoder),
    )
    return made


def as_wide(encoder: Encoder, other: Encoder) -> Encoder:
    """The encoder with as many units after pooling as make its embedding as wide as the other's."""
    return replace(encoder, wide=other.wide + other.pooled_width - encoder.pooled_width)


def with_views(config: Config, view: Transform) -> Config:
    """The config with `view` on both sides."""
    return replace(config, views=(view, view))
