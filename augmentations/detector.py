"""What an imperfect detector does to a jet: scale and resolution of momenta and angles, and what it does not see.

Where constituents are lost the hardest one stays: a jet without its core would not have been selected.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Key

from augmentations import random
from augmentations.jets import Jets, hardest, in_disc, keep, wrap_phi
from augmentations.transform import check_range


@dataclass(frozen=True)
class PtScale:
    """Multiply every pT of the jet by one common factor exp(normal * `width`): an uncertain energy scale.

    Takes the jet's absolute pT away as a mark by which two views could be matched.
    """

    width: float = 0.1

    def __post_init__(self) -> None:
        check_range("PtScale.width", self.width, 0, 5)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        return jets._replace(pt=jets.pt * jnp.exp(self.width * random.normal(key, (), jets.pt.dtype)))


@dataclass(frozen=True)
class PtShift:
    """Multiply every pT of every jet by `factor`: a calibration that is off, the same for all jets."""

    factor: float = 1.05

    def __post_init__(self) -> None:
        check_range("PtShift.factor", self.factor, 0.01, 100)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        return jets._replace(pt=jets.pt * self.factor)


@dataclass(frozen=True)
class PtSmear:
    """Multiply each constituent's pT by its own factor exp(normal * `width`): a relative momentum resolution."""

    width: float = 0.1

    def __post_init__(self) -> None:
        check_range("PtSmear.width", self.width, 0, 5)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        factor = jnp.exp(self.width * random.normal(key, jets.pt.shape, jets.pt.dtype))
        return jets._replace(pt=jets.pt * factor)


@dataclass(frozen=True)
class Resolution:
    """Multiply each pT by a random factor of mean 1 and width `stochastic` / sqrt(pT), with `constant` in quadrature.

    The resolution of a calorimeter, pT in GeV. The factor is log-normal, so that no momentum turns negative and soft
    ones, for which the width is of order one, are not biased.
    """

    stochastic: float = 0.5
    constant: float = 0.05

    def __post_init__(self) -> None:
        check_range("Resolution.stochastic", self.stochastic, 0, 5)
        check_range("Resolution.constant", self.constant, 0, 2)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        pt = jnp.where(jets.mask, jets.pt, 1)
        variance = jnp.log1p(self.stochastic**2 / pt + self.constant**2)  # of the factor's logarithm
        # A width of zero has no derivative.
        width = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
        factor = jnp.exp(width * random.normal(key, pt.shape, pt.dtype) - variance / 2)
        return jets._replace(pt=jets.pt * factor)


@dataclass(frozen=True)
class AngularSmear:
    """Smear eta and phi of each constituent by a normal of `width`: an angular resolution, the same at every pT."""

    width: float = 0.01

    def __post_init__(self) -> None:
        check_range("AngularSmear.width", self.width, 0, 1)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        shift = random.normal(key, (2, *jets.pt.shape), jets.pt.dtype) * jnp.where(jets.mask, self.width, 0)
        return jets._replace(eta=jets.eta + shift[0], phi=wrap_phi(jets.phi + shift[1]))


@dataclass(frozen=True)
class Threshold:
    """Lose the constituents below `pt_min` [GeV]."""

    pt_min: float = 1.0

    def __post_init__(self) -> None:
        check_range("Threshold.pt_min", self.pt_min, 0, 1000)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        return keep(jets, (jets.pt >= self.pt_min) | hardest(jets))


@dataclass(frozen=True)
class Efficiency:
    """See each constituent with probability `efficiency`, at every pT."""

    efficiency: float = 0.95

    def __post_init__(self) -> None:
        check_range("Efficiency.efficiency", self.efficiency, 0, 1)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        return keep(jets, (random.uniform(key, jets.pt.shape) < self.efficiency) | hardest(jets))


@dataclass(frozen=True)
class DeadRegion:
    """Lose what falls into a dead disc of `radius`, whose centre is uniform within `within` of the jet's centroid."""

    radius: float = 0.1
    within: float = 0.8

    def __post_init__(self) -> None:
        check_range("DeadRegion.radius", self.radius, 0, 3)
        check_range("DeadRegion.within", self.within, 0, 3)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        eta, phi = in_disc(key, jets, self.within, 1)
        squared = (jets.eta - eta) ** 2 + wrap_phi(jets.phi - phi) ** 2
        return keep(jets, (squared > self.radius**2) | hardest(jets))
