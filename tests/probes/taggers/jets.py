"""Toy jets as the taggers take them, and the taggers in a size that compiles fast."""

import numpy as np

from probes.taggers import Constituents, constituents
from probes.taggers.efn import EnergyFlow
from probes.taggers.image import JetImage
from probes.taggers.particlenet import ParticleNet
from probes.taggers.pfn import ParticleFlow
from probes.taggers.transformer import Transformer
from tests.toys import toy_batch

SMALL = [
    ParticleFlow(per_constituent=(16, 16), per_jet=(16,)),
    EnergyFlow(per_constituent=(16, 16), per_jet=(16,)),
    ParticleNet(neighbours=3, blocks=((8, 8), (8, 8)), per_jet=16),
    Transformer(width=16, blocks=1, heads=2, feedforward=16, per_jet=16),
    JetImage(pixels=16, channels=(8, 8), per_jet=16),
]


def toy_jets(jets: int, seed: int = 0, slots: int = 24) -> Constituents:
    """Jets of one prong (even) and of three (odd)."""
    batch = toy_batch(seed, jets, slots)
    return constituents(batch["pt"], batch["eta"], batch["phi"], batch["pt"] > 0)


def repadded(jets: Constituents, slots: int, seed: int = 0) -> Constituents:
    """The same jets in `slots` slots, each jet's constituents in another order, with rubbish where there is nothing."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((len(jets.mask), slots), bool)
    fields = [rng.normal(size=mask.shape).astype(np.float32) * 100 for _ in range(3)]
    for i, real in enumerate(jets.mask):
        where = rng.permutation(slots)[: real.sum()]
        mask[i, where] = True
        for new, old in zip(fields, jets[:3], strict=True):
            new[i, where] = old[i, real]
    return Constituents(*fields, mask)
