"""Objectives: (z_a, z_b) -> (loss, metrics), over the GLOBAL batch.

Shape glossary: B jets, P projection width. z_a[i] and z_b[i] are the projections of two views of jet i.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Metrics = dict[str, Float[Array, ""]]


@dataclass(frozen=True)
class NTXent:
    """Normalised temperature-scaled cross entropy (SimCLR, arXiv:2002.05709; JetCLR, arXiv:2108.04253).

    Each of the 2B views must find its partner among the 2B - 1 others by cosine similarity / `temperature`.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"NTXent.temperature is {self.temperature}; it must be positive")

    def __call__(self, z_a: Float[Array, "B P"], z_b: Float[Array, "B P"]) -> tuple[Float[Array, ""], Metrics]:
        z = normalize(jnp.concatenate([z_a, z_b]))
        pairs = z.shape[0] // 2
        similarity = z @ z.T / self.temperature
        itself = jnp.eye(2 * pairs, dtype=bool)
        log_total = jax.nn.logsumexp(jnp.where(itself, -jnp.inf, similarity), axis=1)
        partner = jnp.roll(jnp.arange(2 * pairs), pairs)
        loss = jnp.mean(log_total - similarity[jnp.arange(2 * pairs), partner])
        return loss, {
            "alignment": alignment(z[:pairs], z[pairs:]),
            "uniformity": uniformity(z[:pairs]),
            "effective_rank": effective_rank(z[:pairs]),
        }


def normalize(z: Float[Array, "B P"]) -> Float[Array, "B P"]:
    """Rows brought to unit length; a zero row stays zero, with a zero gradient. What is not finite stays so."""
    square = jnp.sum(z * z, axis=-1, keepdims=True)
    return jnp.where(square == 0, 0, z * jax.lax.rsqrt(jnp.where(square == 0, 1, square)))


def alignment(z_a: Float[Array, "B P"], z_b: Float[Array, "B P"]) -> Float[Array, ""]:
    """Mean squared distance between unit vectors of the two views, 0 at best (arXiv:2005.10242, alpha = 2)."""
    return jnp.mean(jnp.sum((z_a - z_b) ** 2, axis=-1))


def uniformity(z: Float[Array, "B P"]) -> Float[Array, ""]:
    """log mean exp(-2 d^2) over pairs of different jets: 0 when collapsed, -4 when spread (arXiv:2005.10242)."""
    distance2 = jnp.maximum(2 - 2 * z @ z.T, 0)
    jets = z.shape[0]
    different = ~jnp.eye(jets, dtype=bool)
    return jax.nn.logsumexp(jnp.where(different, -2 * distance2, -jnp.inf)) - jnp.log(jets * (jets - 1))


def effective_rank(z: Float[Array, "B P"]) -> Float[Array, ""]:
    """exp of the entropy of the normalised singular values of the centred batch (Roy & Vetterli, EUSIPCO 2007).

    1 when everything lies on a line, at most min(B - 1, P), and 0 when all rows are alike within rounding: what
    rounding leaves behind has full rank, and would hide a collapse. From the Gram matrix, without a gradient.
    """
    eps = jnp.finfo(z.dtype).eps
    size = jnp.max(jnp.abs(z))
    z = jax.lax.stop_gradient(z - jnp.mean(z, axis=0))
    gram = z.T @ z if z.shape[0] > z.shape[1] else z @ z.T
    eigenvalues = jnp.linalg.eigvalsh(gram)
    singular = jnp.sqrt(jnp.where(eigenvalues > 10 * eps * eigenvalues[-1], eigenvalues, 0))
    share = singular / jnp.maximum(jnp.sum(singular), jnp.finfo(z.dtype).tiny)
    collapsed = jnp.sqrt(jnp.sum(z * z) / z.size) <= 8 * eps * size
    return jnp.where(collapsed, 0, jnp.exp(jnp.sum(jax.scipy.special.entr(share))))
