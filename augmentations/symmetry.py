"""Symmetries of a jet: what turns or moves it as a whole without changing what it is (arXiv:2108.04253)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from augmentations.jets import Jets, centroid, relative_to, wrap_phi


@dataclass(frozen=True)
class Rotate:
    """Turn the jet about its pT-weighted centroid by an angle uniform in [0, 2 pi).

    Keeps every pairwise distance (d_eta^2 + d_phi^2)^1/2, every pT and the centroid (arXiv:2108.04253).
    """

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        return rotate(jets, jax.random.uniform(key, (), jets.pt.dtype, 0, 2 * jnp.pi))


@dataclass(frozen=True)
class Translate:
    """Move the jet in eta and phi by independent uniform shifts of up to `extents` times its own extent.

    The extent is max - min over the REAL constituents (in phi from the centroid, so a jet at +-pi is not a ring),
    as in arXiv:2108.04253; padding never enters.
    """

    extents: float = 1.0

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        local = relative_to(jets, *centroid(jets))
        widest = jnp.stack([_extent(local.eta, jets.mask), _extent(local.phi, jets.mask)])
        shift = jax.random.uniform(key, (2,), jets.pt.dtype, -1, 1) * widest * self.extents
        return relative_to(jets, -shift[0], -shift[1])


@dataclass(frozen=True)
class Reflect:
    """Mirror the jet in phi about its centroid with probability 1/2: parity, and with Rotate the whole O(2)."""

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        eta0, phi0 = centroid(jets)
        local = relative_to(jets, eta0, phi0)
        sign = jax.random.rademacher(key, (), jets.pt.dtype)
        return relative_to(local._replace(phi=sign * local.phi), -eta0, -phi0)


def rotate(jets: Jets, angle: Array) -> Jets:
    """The jet turned about its pT-weighted centroid by `angle` [rad], a scalar or one angle a jet [B]."""
    eta0, phi0 = centroid(jets)
    local = relative_to(jets, eta0, phi0)
    cos, sin = jnp.cos(angle)[..., None], jnp.sin(angle)[..., None]
    turned = local._replace(eta=cos * local.eta - sin * local.phi, phi=wrap_phi(sin * local.eta + cos * local.phi))
    return relative_to(turned, -eta0, -phi0)


def _extent(x: Array, mask: Array) -> Array:
    low = jnp.min(x, axis=-1, initial=jnp.inf, where=mask)
    high = jnp.max(x, axis=-1, initial=-jnp.inf, where=mask)
    return jnp.maximum(high - low, 0)  # an empty jet has extent -inf before this
