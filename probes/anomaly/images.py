"""Jet images as autoencoders see them: softened, so that one hard pixel is not all that counts.

Shapes: B jets, N constituents, P pixels a side, D = P x P.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probes.anomaly.pieces import in_pieces
from probes.constituents import positive
from probes.taggers import Constituents
from probes.taggers.image import image


def jet_images(
    jets: Constituents, pixels: int, extent: float, power: float = 1.0, smoothing: float = 0.0
) -> Float[np.ndarray, "B D"]:
    """pT fractions in pixels x pixels over (-extent, extent)^2, flattened, float32; each image sums to one.

    Centred, principal axis upright, flipped (`probes.taggers.image`). Each pixel is raised to `power` and the image
    smeared by a Gaussian of `smoothing` pixels (arXiv:2206.14225): a small power lifts soft pixels, smearing tells a
    decoder that missed a pixel by little that it did. A jet without pT in the image is all zero.

    Raises ValueError for jets that are NaN or infinite or of negative pT, and for settings out of range.
    """
    if pixels < 1 or not extent > 0 or not power > 0 or not smoothing >= 0:
        raise ValueError(
            f"an image needs pixels, extent and power > 0 and smoothing >= 0, got {pixels}, {extent}, {power}, "
            f"{smoothing}"
        )
    # Checked as they come: in an image, what is infinitely far away would only be missing.
    jets = Constituents(*positive(*map(np.asarray, jets)))
    return in_pieces(
        functools.partial(traced_images, pixels=pixels, extent=extent, power=power, smoothing=smoothing), jets
    )


@functools.partial(jax.jit, static_argnames=("pixels", "extent", "power", "smoothing"))
def traced_images(
    jets: Constituents, pixels: int, extent: float, power: float, smoothing: float
) -> Float[Array, "B D"]:
    """`jet_images` as pure JAX; refuses nothing. What is padded has no pT."""
    raised = image(jets, pixels, extent) ** power
    if smoothing:
        kernel = _smearing(pixels, smoothing)
        raised = jnp.einsum("ix,bxy,jy->bij", kernel, raised, kernel)
    flat = raised.reshape(raised.shape[0], pixels**2)
    return flat / jnp.maximum(flat.sum(axis=1, keepdims=True), jnp.finfo(jnp.float32).tiny)


def _smearing(pixels: int, width: float) -> Float[Array, "P P"]:
    """Gaussian weights between the pixels of one axis; what would leave the image is kept inside, spread alike."""
    place = jnp.arange(pixels)
    weight = jnp.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    return weight / weight.sum(axis=0)
