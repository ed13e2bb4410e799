"""What QCD leaves undetermined: soft and collinear radiation, which no sound observable may depend on."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from augmentations.jets import Jets, keep, wrap_phi
from augmentations.transform import check_range


@dataclass(frozen=True)
class SoftSmear:
    """Smear eta and phi of each constituent by a normal of width `scale` / pT: soft ones move, hard ones stay.

    `scale` and `floor` in GeV; pT is floored at `floor`, so no width exceeds scale / floor (arXiv:2108.04253:
    0.1 GeV and 0.1 GeV).
    """

    scale: float = 0.1
    floor: float = 0.1

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        width = jnp.where(jets.mask, self.scale / jnp.maximum(jets.pt, self.floor), 0)
        shift = jax.random.normal(key, (2, *jets.pt.shape), jets.pt.dtype) * width
        return jets._replace(eta=jets.eta + shift[0], phi=wrap_phi(jets.phi + shift[1]))


@dataclass(frozen=True)
class CollinearSplit:
    """Split randomly chosen constituents in two at the same eta and phi, pT shared z : 1 - z with z uniform.

    Children fill the padding; each constituent splits at most once a call (chain it for more); their number is uniform
    between 0 and what `fraction` of the constituents and the free slots allow. Total pT and every IRC-safe observable
    are kept (arXiv:2108.04253). Children carry their parent's extras.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        check_range("CollinearSplit.fraction", self.fraction, 0, 1)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        pick, number, share = jax.random.split(key, 3)
        real = jnp.sum(jets.mask)
        most = jnp.minimum((real * self.fraction).astype(jnp.int32), jets.pt.size - real)
        splits = jax.random.randint(number, (), 0, most + 1)
        # order[r] is the r-th constituent to split, padding comes last; the r-th free slot takes its child.
        order = jnp.argsort(jnp.where(jets.mask, jax.random.uniform(pick, jets.pt.shape), 2.0))
        splitting = jets.mask & (jnp.argsort(order) < splits)
        slot = jnp.cumsum(~jets.mask) - 1
        child = ~jets.mask & (slot < splits)
        parent = order[jnp.clip(slot, 0)]
        tiny = jnp.finfo(jets.pt.dtype).eps  # neither side may be left without momentum
        z = jax.random.uniform(share, jets.pt.shape, jets.pt.dtype, tiny, 1 - tiny)
        kept = jnp.where(splitting, z * jets.pt, jets.pt)
        return Jets(
            jnp.where(child, (jets.pt - kept)[parent], kept),
            jnp.where(child, jets.eta[parent], jets.eta),
            jnp.where(child, jets.phi[parent], jets.phi),
            jets.mask | child,
            {name: jnp.where(child, x[parent], x) for name, x in jets.extras.items()},
        )


@dataclass(frozen=True)
class SoftLoss:
    """Lose each constituent with probability `most` * exp(-pT / `scale`), `scale` in GeV: soft ones come and go.

    The chance itself is drawn for each jet, uniform between 0 and `most`, so multiplicity and the soft tail cannot
    identify a jet across views. The hardest constituent always stays.
    """

    scale: float = 2.0
    most: float = 1.0

    def __post_init__(self) -> None:
        check_range("SoftLoss.most", self.most, 0, 1)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        jet, constituent = jax.random.split(key)
        chance = jax.random.uniform(jet, (), jets.pt.dtype, 0, self.most) * jnp.exp(-jets.pt / self.scale)
        stays = jax.random.uniform(constituent, jets.pt.shape) >= chance
        return keep(jets, stays | (jnp.arange(jets.pt.size) == jnp.argmax(jets.pt)))
