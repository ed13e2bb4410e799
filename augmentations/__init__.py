"""Physics augmentations of jets in pure JAX: `transform(key, jets) -> jets`, one jet at a time, batched with vmap."""

from augmentations.detector import (
    AngularSmear,
    DeadRegion,
    Efficiency,
    PtScale,
    PtShift,
    PtSmear,
    Resolution,
    Threshold,
)
from augmentations.jets import Jets, center, make_jets, trimmed
from augmentations.pileup import PileUp
from augmentations.qcd import CollinearSplit, SoftLoss, SoftRadiation, SoftSmear, radiate, split_collinear
from augmentations.symmetry import Boost, Reflect, Rotate, Translate, boost, rotate, translate
from augmentations.transform import Chain, Maybe, Transform, batched

__all__ = [
    "AngularSmear",
    "Boost",
    "Chain",
    "CollinearSplit",
    "DeadRegion",
    "Efficiency",
    "Jets",
    "Maybe",
    "PileUp",
    "PtScale",
    "PtShift",
    "PtSmear",
    "Reflect",
    "Resolution",
    "Rotate",
    "SoftLoss",
    "SoftRadiation",
    "SoftSmear",
    "Threshold",
    "Transform",
    "Translate",
    "batched",
    "boost",
    "center",
    "make_jets",
    "radiate",
    "rotate",
    "split_collinear",
    "translate",
    "trimmed",
]
