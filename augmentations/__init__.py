"""Physics augmentations of jets in pure JAX: `transform(key, jets) -> jets`, one jet at a time, batched with vmap."""

from augmentations.anomalies import AngularScale, DarkLoss, OneOf, Prongs, PtPower, WideSplit
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
    "AngularScale",
    "AngularSmear",
    "Boost",
    "Chain",
    "CollinearSplit",
    "DarkLoss",
    "DeadRegion",
    "Efficiency",
    "Jets",
    "Maybe",
    "OneOf",
    "PileUp",
    "Prongs",
    "PtPower",
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
    "WideSplit",
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
