"""Symmetries of a jet: what turns, moves or boosts it as a whole without changing what it is (arXiv:2108.04253)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Key

from augmentations import random
from augmentations.jets import Jets, centroid, relative_to, wrap_phi
from augmentations.transform import check_range


@dataclass(frozen=True)
class Rotate:
    """Turn the jet about its pT-weighted centroid by an angle uniform in [0, 2 pi).

    Keeps every pairwise distance (d_eta^2 + d_phi^2)^1/2, every pT and the centroid (arXiv:2108.04253).
    """

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        return rotate(jets, random.uniform(key, (), jets.pt.dtype, 0, 2 * jnp.pi))


@dataclass(frozen=True)
class Translate:
    """Move the jet in eta and phi by independent uniform shifts of up to `extents` times its own extent.

    The extent is max - min over the REAL constituents (in phi from the centroid, so a jet at +-pi is not a ring),
    as in arXiv:2108.04253; padding never enters.
    """

    extents: float = 1.0

    def __post_init__(self) -> None:
        check_range("Translate.extents", self.extents, 0, 100)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        local = relative_to(jets, *centroid(jets))
        widest = jnp.stack([_extent(local.eta, jets.mask), _extent(local.phi, jets.mask)])
        shift = random.uniform(key, (2,), jets.pt.dtype, -1, 1) * widest * self.extents
        return relative_to(jets, -shift[0], -shift[1])


@dataclass(frozen=True)
class Reflect:
    """Mirror the jet in phi about its centroid with probability 1/2: parity, and with Rotate the whole O(2)."""

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        eta0, phi0 = centroid(jets)
        local = relative_to(jets, eta0, phi0)
        sign = jnp.where(random.uniform(key) < 0.5, -1, 1)
        return relative_to(local._replace(phi=sign * local.phi), -eta0, -phi0)


@dataclass(frozen=True)
class Boost:
    """Boost the jet along its own axis by a rapidity uniform in [-`rapidity`, `rapidity`]; see `boost`."""

    rapidity: float = 0.3

    def __post_init__(self) -> None:
        check_range("Boost.rapidity", self.rapidity, 0, 5)

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        return boost(jets, random.uniform(key, (), jets.pt.dtype, -self.rapidity, self.rapidity))


def rotate(jets: Jets, angle: Array) -> Jets:
    """The jet turned about its pT-weighted centroid by `angle` [rad], a scalar or one angle a jet [B]."""
    eta0, phi0 = centroid(jets)
    local = relative_to(jets, eta0, phi0)
    cos, sin = jnp.cos(angle)[..., None], jnp.sin(angle)[..., None]
    turned = local._replace(eta=cos * local.eta - sin * local.phi, phi=wrap_phi(sin * local.eta + cos * local.phi))
    return relative_to(turned, -eta0, -phi0)


def translate(jets: Jets, d_eta: Array, d_phi: Array) -> Jets:
    """The jet moved by (`d_eta`, `d_phi`), scalars or one shift a jet [B]; padding stays zero."""
    return relative_to(jets, -d_eta, -d_phi)


def boost(jets: Jets, rapidity: Array) -> Jets:
    """The jet in a frame where it is faster by `rapidity` along its momentum, a scalar or one a jet [B].

    Constituents are taken as massless, and the axis is their summed momentum. The jet keeps its mass and direction;
    its energy E and momentum p turn to E cosh y + p sinh y and p cosh y + E sinh y, and it becomes narrower by about
    exp(-y). Angles are used as they are: in a jet moved to eta = 0, which for massless constituents is itself a boost
    along the beam, the axis is transverse, so its pT changes, while the lab axis would have shared this with eta.
    """
    pt, eta, phi = (jnp.where(jets.mask, x, 0) for x in (jets.pt, jets.eta, jets.phi))
    energy = pt * jnp.cosh(eta)
    p = jnp.stack([pt * jnp.cos(phi), pt * jnp.sin(phi), pt * jnp.sinh(eta)])
    total = jnp.sum(p, axis=-1, keepdims=True)
    squared = jnp.sum(total**2, axis=0)
    axis = total / jnp.sqrt(jnp.where(squared > 0, squared, 1))
    cosh, sinh = jnp.cosh(rapidity)[..., None], jnp.sinh(rapidity)[..., None]
    along = jnp.sum(p * axis, axis=0)
    px, py, pz = p + axis * (sinh * energy + (cosh - 1) * along)
    # Along the beam pT would be zero and eta infinite; padding, where everything is zero, needs a finite gradient too.
    least = jnp.finfo(pt.dtype).eps * (cosh * energy + sinh * along)
    new_pt = jnp.sqrt(jnp.where(jets.mask, jnp.maximum(px**2 + py**2, least**2), 1))
    new_phi = jnp.arctan2(jnp.where(jets.mask, py, 0), jnp.where(jets.mask, px, 1))
    return jets._replace(
        pt=jnp.where(jets.mask, new_pt, 0),
        eta=jnp.where(jets.mask, jnp.arcsinh(pz / new_pt), 0),
        phi=jnp.where(jets.mask, new_phi, 0),
    )


def _extent(x: Array, mask: Array) -> Array:
    low = jnp.min(x, axis=-1, initial=jnp.inf, where=mask)
    high = jnp.max(x, axis=-1, initial=-jnp.inf, where=mask)
    return jnp.maximum(high - low, 0)  # an empty jet has extent -inf before this
