"""Objectives: what an encoder is trained for, as values. `protocol` says what one is; each family has a file."""

from typing import TypeAlias

from jetclr.objectives.combined import Combined, Term
from jetclr.objectives.contrastive import AnomCLR, NTXent
from jetclr.objectives.distillation import BYOL, DINO, IBOT, SimSiam
from jetclr.objectives.masked import MaskedParticles
from jetclr.objectives.protocol import Objective
from jetclr.objectives.queue import MoCo
from jetclr.objectives.redundancy import BarlowTwins, VICReg
from jetclr.objectives.supervised import SupCon

AnyObjective: TypeAlias = (
    NTXent | AnomCLR | MoCo | SupCon | VICReg | BarlowTwins | BYOL | SimSiam | DINO | IBOT | MaskedParticles | Combined
)
"""Those that a config can name."""

__all__ = [
    "BYOL",
    "DINO",
    "IBOT",
    "AnomCLR",
    "AnyObjective",
    "BarlowTwins",
    "Combined",
    "MaskedParticles",
    "MoCo",
    "NTXent",
    "Objective",
    "SimSiam",
    "SupCon",
    "Term",
    "VICReg",
]
