"""What two constituents are to each other, for the attention between them, as in Particle Transformer.

Shape glossary: N constituents, P features of a pair. Everything takes one jet or any batch of jets [*B].
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from augmentations.jets import wrap_phi
from jetclr.features import FLOOR

PairFeature = Literal["ln_dr", "ln_kt", "ln_z", "ln_m2"]

NEAR = 0.005
"""Angles count from here on, added in quadrature: below what detectors resolve, and a constituent's own pair has it."""

# Mean and spread over the pairs of jets of large radius, so that all are of order one.
_MEAN: dict[PairFeature, float] = {"ln_dr": -1.7, "ln_kt": -6.5, "ln_z": -1.5, "ln_m2": -12.0}
_SPREAD: dict[PairFeature, float] = {"ln_dr": 1.2, "ln_kt": 1.3, "ln_z": 0.9, "ln_m2": 2.5}


STEEPEST = 9.0
"""Squares of terms count up to here: those of the softest pairs would be many times as large."""


def with_squares(x: Float[Array, "P *B N N"]) -> Float[Array, "T *B N N"]:
    """Features of all pairs and their squares, of which each head adds some to its scores.

    A parabola in the logarithm of an angle lets a head look at one scale. A network in its place (arXiv:2202.03772)
    would take its width in memory and time for every pair.
    """
    return jnp.concatenate([x, jnp.minimum(x * x, STEEPEST)])


def pair_features(
    names: tuple[PairFeature, ...],
    eta: Float[Array, "*B N"],
    phi: Float[Array, "*B N"],
    z: Float[Array, "*B N"],
    seen: Bool[Array, "*B N"],
) -> Float[Array, "P *B N N"]:
    """Logarithms of distance, relative kT, momentum sharing and mass of all pairs (arXiv:2202.03772, eq. 3).

    Of massless constituents with the shares `z` of the jet's pT in place of momenta, brought to order one. Symmetric,
    smooth where two coincide, and zero for pairs of which one is not `seen`.
    """
    d_eta, d_phi = (x[..., :, None] - x[..., None, :] for x in (eta, phi))
    d_phi = wrap_phi(d_phi)
    ln_z = jnp.log(jnp.maximum(z, FLOOR))
    softer = jnp.minimum(ln_z[..., :, None], ln_z[..., None, :])
    both = seen[..., :, None] & seen[..., None, :]

    def feature(name: PairFeature) -> Float[Array, "*B N N"]:
        if name == "ln_z":
            return softer - jnp.log(jnp.maximum(z[..., :, None] + z[..., None, :], FLOOR))
        if name == "ln_m2":  # cosh - cos without the difference of two numbers near 1
            mass = 4 * (jnp.sinh(d_eta / 2) ** 2 + jnp.sin(d_phi / 2) ** 2)
            return ln_z[..., :, None] + ln_z[..., None, :] + jnp.log(mass + NEAR**2)
        ln_dr = 0.5 * jnp.log(d_eta**2 + d_phi**2 + NEAR**2)
        return ln_dr if name == "ln_dr" else softer + ln_dr

    of_order_one = [(feature(name) - _MEAN[name]) / _SPREAD[name] for name in names]
    return jnp.stack([jnp.where(both, x, 0) for x in of_order_one])
