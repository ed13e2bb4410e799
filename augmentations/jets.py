"""Jets as arrays: a pytree of padded constituents, and the masked reductions every transform needs.

Shape glossary: B jets, N constituents (padding included). Everything here is written for ONE jet [N] and works
unchanged on a batch [..., N], because it reduces over the last axis only.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from augmentations import random

Padded: TypeAlias = Float[Array, "*B N"] | Float[np.ndarray, "*B N"]


class Jets(NamedTuple):
    """One jet or a batch of jets, zero-padded: pt [GeV], eta and phi (relative to the jet after `center`)."""

    pt: Float[Array, "*B N"]
    eta: Float[Array, "*B N"]
    phi: Float[Array, "*B N"]
    mask: Bool[Array, "*B N"]  # true for a real constituent
    extras: dict[str, Float[Array, "*B N"]]  # charge, impact parameters, ...: carried along by every transform


def make_jets(pt: Padded, eta: Padded, phi: Padded, extras: Mapping[str, Padded] | None = None) -> Jets:
    """Jets from padded JAX or numpy arrays; a constituent is real where its pT is positive."""
    columns = {name: jnp.asarray(x) for name, x in (extras or {}).items()}
    return Jets(jnp.asarray(pt), jnp.asarray(eta), jnp.asarray(phi), jnp.asarray(pt) > 0, columns)


def keep(jets: Jets, mask: Bool[Array, "*B N"]) -> Jets:
    """Only the constituents where `mask` is true as well; the slots of the others become zero padding."""
    mask = jets.mask & mask
    zero = lambda x: jnp.where(mask, x, 0)  # noqa: E731
    return Jets(zero(jets.pt), zero(jets.eta), zero(jets.phi), mask, {name: zero(x) for name, x in jets.extras.items()})


def hardest(jets: Jets) -> Bool[Array, "*B N"]:
    """Which constituent is the hardest; the first of equals, and none of an empty jet."""
    return jets.mask & (jnp.arange(jets.pt.shape[-1]) == jnp.argmax(jets.pt, axis=-1, keepdims=True))


def trimmed(jets: Jets, constituents: int) -> Jets:
    """The `constituents` hardest of each jet, hardest first, in as many slots: what an encoder of that size would get.

    Equally hard ones stay in their order. Raises ValueError if there are fewer slots than that.
    """
    slots = jets.pt.shape[-1]
    if not 0 < constituents <= slots:
        raise ValueError(f"{constituents} constituents were asked of jets with {slots} slots; ask for 1 to {slots}")
    order = jnp.argsort(jnp.where(jets.mask, -jets.pt, 1), axis=-1)[..., :constituents]  # padding comes last
    return jax.tree.map(lambda x: jnp.take_along_axis(x, order, axis=-1), jets)


def padded(jets: Jets, slots: int) -> Jets:
    """The jets with so many more empty slots, for constituents to come."""
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, slots)]), jets)


def overlaid(jets: Jets, others: Jets) -> Jets:
    """One jet with the constituents of another added, in the slots of the first: where all do not fit, the softest go.

    What comes in has zero for extras. The result is sorted, hardest first.
    """
    blank = {name: jnp.zeros(others.pt.shape, x.dtype) for name, x in jets.extras.items()}
    both = (jets, others._replace(extras=blank))
    return trimmed(jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *both), jets.pt.shape[-1])


def wrap_phi(phi: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """An azimuthal angle or difference [rad] brought to (-pi, pi]."""
    # An angle within one turn is moved by exactly 0 or one turn, so small differences keep every bit.
    turns = jnp.ceil((phi - jnp.pi) / (2 * jnp.pi))
    return phi - turns * 2 * jnp.pi


def total_pt(jets: Jets) -> Float[Array, "*B"]:
    """Scalar sum of the constituents' pT [GeV]."""
    return jnp.sum(jets.pt, axis=-1)


def pt_fraction(jets: Jets) -> Float[Array, "*B N"]:
    """Each constituent's share of the jet's scalar pT sum; zero for padding and for an empty jet."""
    total = total_pt(jets)[..., None]
    return jets.pt / jnp.where(total > 0, total, 1)


def centroid(jets: Jets) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """pT-weighted mean (eta, phi); phi differences are taken from the hardest constituent, so it may lie at +-pi."""
    most = jnp.max(jets.pt, axis=-1)
    # Not by argmax and indexing, which cost several times as much as two plain reductions.
    reference = jnp.max(jets.phi, axis=-1, where=jets.pt == most[..., None], initial=-jnp.inf)
    total = total_pt(jets)
    total = jnp.where(total > 0, total, 1)
    # Sums of what is selected: XLA for CPUs would hand plain sums of products to a library, with every constant of
    # them written out as an array.
    eta = jnp.sum(jets.pt * jets.eta, axis=-1, where=jets.mask) / total
    away = jnp.sum(jets.pt * wrap_phi(jets.phi - reference[..., None]), axis=-1, where=jets.mask) / total
    return eta, wrap_phi(reference + away)


def relative_to(jets: Jets, eta: Float[Array, "*B"], phi: Float[Array, "*B"]) -> Jets:
    """The jet seen from the point (eta, phi); padding stays zero."""
    return jets._replace(
        eta=jnp.where(jets.mask, jets.eta - eta[..., None], 0),
        phi=jnp.where(jets.mask, wrap_phi(jets.phi - phi[..., None]), 0),
    )


def center(jets: Jets) -> Jets:
    """The jet with its pT-weighted centroid moved to (0, 0)."""
    return relative_to(jets, *centroid(jets))


def in_disc(
    key: Key[Array, ""], jets: Jets, radius: float, points: int
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """(eta, phi) of `points` random places, uniform over the disc of `radius` about one jet's centroid."""
    eta, phi = centroid(jets)
    from_centre, angle = random.uniform(key, (2, points), jets.pt.dtype)
    distance, angle = radius * jnp.sqrt(from_centre), 2 * jnp.pi * angle
    return eta + distance * jnp.cos(angle), wrap_phi(phi + distance * jnp.sin(angle))
