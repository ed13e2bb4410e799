"""What shows a collapse, and other properties of projections that are watched while training.

Shape glossary: B jets, V views, P projection width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jetclr.objectives.protocol import Metrics, Seen, Whole


def watch(seen: Seen, whole: Whole, logged: Bool[Array, ""] | bool) -> Metrics:
    """The monitors of projections that the objective itself need not have on each device: the first views go there."""
    z = normalize(seen.rows["projection"])
    return monitors(z, whole(jax.lax.stop_gradient(z[:, 0])), logged)


def monitors(z: Float[Array, "B V P"], all_first: Float[Array, "B P"], logged: Bool[Array, ""] | bool) -> Metrics:
    """What shows a collapse, of unit vectors z; `all_first` are those of the first views on each device.

    Alignment is that of the first two views.
    """
    return {
        "alignment": alignment(z[:, 0], z[:, 1]),
        "uniformity": uniformity(jax.lax.stop_gradient(z[:, 0]), all_first),
        # Eigenvalues of P x P take longer than the rest of the loss: only when somebody looks.
        "effective_rank": jax.lax.cond(logged, effective_rank, _not_taken, all_first),
    }


def _not_taken(z: Float[Array, "B P"]) -> Float[Array, ""]:
    return jnp.float32(jnp.nan)


def normalize(z: Float[Array, "*B P"]) -> Float[Array, "*B P"]:
    """Rows brought to unit length; a zero row stays zero, with a zero gradient. What is not finite stays so."""
    square = jnp.sum(z * z, axis=-1, keepdims=True)
    return jnp.where(square == 0, 0, z * jax.lax.rsqrt(jnp.where(square == 0, 1, square)))


def alignment(z_a: Float[Array, "B P"], z_b: Float[Array, "B P"]) -> Float[Array, ""]:
    """Mean squared distance between unit vectors of the two views, 0 at best (arXiv:2005.10242, alpha = 2)."""
    return jnp.mean(jnp.sum((z_a - z_b) ** 2, axis=-1))


def anomaly_similarity(z: Float[Array, "B V P"], z_anomalous: Float[Array, "B P"]) -> Float[Array, ""]:
    """Mean cosine between unit vectors of the views of a jet and that of its anomalous view: 1 when unseen."""
    return jnp.mean(jnp.sum(jnp.mean(z, axis=1) * z_anomalous, axis=1))


def uniformity(z: Float[Array, "B P"], everything: Float[Array, "B P"] | None = None) -> Float[Array, ""]:
    """log mean exp(-2 d^2) over pairs of different jets: 0 when collapsed, -4 when spread (arXiv:2005.10242).

    `everything` is z again, on each device; without it, z.
    """
    distance2 = jnp.maximum(2 - 2 * z @ (z if everything is None else everything).T, 0)
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
