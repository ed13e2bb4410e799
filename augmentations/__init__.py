"""Physics augmentations of jets in pure JAX: `transform(key, jets) -> jets`, one jet at a time, batched with vmap."""

from augmentations.detector import PtScale, PtSmear
from augmentations.jets import Jets, center, make_jets
from augmentations.qcd import CollinearSplit, SoftLoss, SoftSmear
from augmentations.symmetry import Reflect, Rotate, Translate, rotate
from augmentations.transform import Chain, Maybe, Transform, batched

__all__ = [
    "Chain",
    "CollinearSplit",
    "Jets",
    "Maybe",
    "PtScale",
    "PtSmear",
    "Reflect",
    "Rotate",
    "SoftLoss",
    "SoftSmear",
    "Transform",
    "Translate",
    "batched",
    "center",
    "make_jets",
    "rotate",
]
