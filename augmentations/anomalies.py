"""Jets that are not what they were: changes of a background jet that stand in for new physics.

Elsewhere a transform leaves what a jet is; these change it on purpose, in multiplicity, in how momentum is shared, in
angles. In pretraining their outputs are negatives (AnomalyCLR, arXiv:2301.04660; DarkCLR, arXiv:2312.03067): the
encoder learns to see such changes, where other augmentations teach it to overlook some. No signal is needed for it.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from augmentations import random
from augmentations.jets import Jets, centroid, in_disc, keep, pt_fraction, relative_to, total_pt, trimmed, wrap_phi
from augmentations.transform import Transform, check_range


@dataclass(frozen=True)
class OneOf:
    """One of several transforms, each equally often: every jet gets its own draw."""

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        if not self.transforms:
            raise ValueError("OneOf.transforms is empty; give one transform or more")

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        choice, inner = random.split(key)
        return jax.lax.switch(random.randint(choice, (), 0, len(self.transforms)), self.transforms, inner, jets)


@dataclass(frozen=True)
class DarkLoss:
    """Lose constituents at random, hard or soft, as a jet does whose shower is partly invisible (arXiv:2312.03067).

    Their share is drawn for each jet, uniform between `least` and `most`, and each constituent is lost with this
    chance; one at least stays. With `rescale` the others are scaled to the jet's total pT, since jets are selected by
    what is visible; without, energy is missing.
    """

    least: float = 0.3
    most: float = 0.8
    rescale: bool = True

    def __post_init__(self) -> None:
        check_range("DarkLoss.most", self.most, 0, 1)
        check_range("DarkLoss.least", self.least, 0, self.most)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        share, constituent = random.split(key)
        chance = random.uniform(share, (), jets.pt.dtype, self.least, self.most)
        luck = jnp.where(jets.mask, random.uniform(constituent, jets.pt.shape), -1)
        seen = keep(jets, (luck >= chance) | (luck == jnp.max(luck)))
        if not self.rescale:
            return seen
        visible = total_pt(seen)
        return seen._replace(pt=seen.pt * total_pt(jets) / jnp.where(visible > 0, visible, 1))


@dataclass(frozen=True)
class Prongs:
    """Deal the constituents out to two or more prongs, as if several hard partons had made the jet.

    There are 2 to `most` prongs, equally often, at places uniform in the disc of `radius` about the centroid; every
    constituent falls to one of them at random, and keeps its place relative to it, shrunk by the factor `width`. Every
    pT, the multiplicity and the centroid stay; the mass becomes about that of a decay with such angles.
    """

    most: int = 3
    radius: float = 0.5
    width: float = 0.5

    def __post_init__(self) -> None:
        check_range("Prongs.most", self.most, 2, 100)
        check_range("Prongs.radius", self.radius, 0, 3)
        check_range("Prongs.width", self.width, 0, 10)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        number, place, deal = random.split(key, 3)
        eta0, phi0 = centroid(jets)
        prongs = random.randint(number, (), 2, self.most + 1)
        eta, phi = in_disc(place, jets, self.radius, self.most)
        prong = random.randint(deal, jets.pt.shape, 0, prongs)
        return _moved(jets, self.width, (eta - eta0)[prong], wrap_phi(phi - phi0)[prong])


@dataclass(frozen=True)
class WideSplit:
    """Split each of the `number` hardest constituents in two at a wide angle: more hard partons than QCD makes.

    pT is shared z : 1 - z with z uniform, and the two are apart by a vector uniform in the disc of `radius`, with their
    pT-weighted mean where the parent was. Total pT and centroid stay if there is room; in a full jet the softest
    constituents go. Children carry their parent's extras; the result is sorted, hardest first.
    """

    number: int = 5
    radius: float = 0.5

    def __post_init__(self) -> None:
        check_range("WideSplit.number", self.number, 1, 1000)
        check_range("WideSplit.radius", self.radius, 0, 3)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        share, place = random.split(key)
        slots = jets.pt.size
        number = min(self.number, slots)
        jets = trimmed(jets, slots)
        parents = jax.tree.map(lambda x: x[:number], jets)
        tiny = float(jnp.finfo(jets.pt.dtype).eps)  # neither side may be left without momentum
        z = random.uniform(share, (number,), jets.pt.dtype, tiny, 1 - tiny)
        eta0, phi0 = centroid(jets)
        eta, phi = in_disc(place, jets, self.radius, number)
        d_eta, d_phi = eta - eta0, wrap_phi(phi - phi0)
        first, second = (
            parents._replace(
                pt=part * parents.pt,
                eta=jnp.where(parents.mask, parents.eta + arm * d_eta, 0),
                phi=jnp.where(parents.mask, wrap_phi(parents.phi + arm * d_phi), 0),
            )
            for part, arm in ((z, 1 - z), (1 - z, -z))
        )
        rest = jax.tree.map(lambda x: x[number:], jets)
        return trimmed(jax.tree.map(lambda *parts: jnp.concatenate(parts), first, second, rest), slots)


@dataclass(frozen=True)
class PtPower:
    """Share the jet's pT out anew, in proportion to a power of what each constituent had.

    The power is uniform in [`low`, `high`]: below 1 momentum is spread over the soft ones, as in a shower that goes on
    longer, above 1 the hard ones take more. Total pT, angles and multiplicity stay.
    """

    low: float = 0.3
    high: float = 0.7

    def __post_init__(self) -> None:
        check_range("PtPower.high", self.high, 0, 10)
        check_range("PtPower.low", self.low, 0, self.high)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        power = random.uniform(key, (), jets.pt.dtype, self.low, self.high)
        hardest = jnp.max(jets.pt)
        # Relative to the hardest: no power overflows, and what underflows keeps a share too small to matter.
        relative = jnp.where(jets.mask, jets.pt / jnp.where(hardest > 0, hardest, 1), 1)
        least = jnp.finfo(jets.pt.dtype).tiny ** 0.5
        weight = jnp.where(jets.mask, jnp.maximum(relative**power, least), 0)
        whole = jnp.sum(weight)
        return jets._replace(pt=weight * total_pt(jets) / jnp.where(whole > 0, whole, 1))


@dataclass(frozen=True)
class AngularScale:
    """Multiply all distances from the centroid by one factor, log-uniform in [`low`, `high`].

    Above 1 the jet becomes wider and heavier in proportion, below 1 narrower. Every pT and the centroid stay.
    """

    low: float = 1.5
    high: float = 3.0

    def __post_init__(self) -> None:
        check_range("AngularScale.high", self.high, 1e-3, 100)
        check_range("AngularScale.low", self.low, 1e-3, self.high)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        low, high = jnp.log(jnp.asarray([self.low, self.high], jets.pt.dtype))
        factor = jnp.exp(random.uniform(key, (), jets.pt.dtype) * (high - low) + low)
        return _moved(jets, factor, jnp.zeros_like(jets.eta), jnp.zeros_like(jets.phi))


def _moved(jets: Jets, scale: Array | float, d_eta: Array, d_phi: Array) -> Jets:
    """Distances from the centroid times `scale`, each constituent then moved by its own shift, the centroid kept."""
    eta0, phi0 = centroid(jets)
    local = relative_to(jets, eta0, phi0)
    z = pt_fraction(jets)
    d_eta, d_phi = d_eta - jnp.sum(z * d_eta), d_phi - jnp.sum(z * d_phi)
    return relative_to(local._replace(eta=scale * local.eta + d_eta, phi=scale * local.phi + d_phi), -eta0, -phi0)
