"""Objectives: (z_a, z_b[, z_anomalous]) -> (loss, metrics), over the GLOBAL batch.

Shape glossary: B jets, P projection width. z_a[i] and z_b[i] are the projections of two views of jet i, and
z_anomalous[i], where a run has anomalies, that of what an anomaly augmentation makes of it.

On several devices the rows of z are spread over them. `whole` puts a copy of an array on each: an objective that calls
it on z once, and then works row by row, costs one gather of the embeddings and no more, forwards and backwards.
Monitors that cost much are NaN in steps that are not `logged`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Metrics = dict[str, Float[Array, ""]]
Whole = Callable[[Array], Array]


def alone(x: Array) -> Array:
    """The `whole` of one device: there is nothing to gather."""
    return x


@dataclass(frozen=True)
class NTXent:
    """Normalised temperature-scaled cross entropy (SimCLR, arXiv:2002.05709; JetCLR, arXiv:2108.04253).

    Each of the 2B views must find its partner among the 2B - 1 others, and the B anomalous ones if there are any, by
    cosine similarity / `temperature`. Anomalous views are only ever others: they look for no partner.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        _check_temperature(self)

    def __call__(
        self,
        z_a: Float[Array, "B P"],
        z_b: Float[Array, "B P"],
        whole: Whole = alone,
        logged: Bool[Array, ""] | bool = True,
        z_anomalous: Float[Array, "B P"] | None = None,
    ) -> tuple[Float[Array, ""], Metrics]:
        views = [normalize(z) for z in (z_a, z_b, z_anomalous) if z is not None]
        z_a, z_b, *anomalous = views
        z = _side_by_side(views)
        everything = whole(jax.lax.stop_gradient(z))
        log_total = _log_total_of_others(z, everything, self.temperature, whole)
        if anomalous:
            log_total = log_total.reshape(-1, len(views))[:, :2]
        loss = jnp.mean(log_total) - jnp.mean(jnp.sum(z_a * z_b, axis=1)) / self.temperature
        all_a = everything.reshape(-1, len(views), z.shape[1])[:, 0]
        metrics = _monitors(z_a, z_b, all_a, logged)
        if anomalous:
            metrics["anomaly_similarity"] = anomaly_similarity(z_a, z_b, *anomalous)
        return loss, metrics


@dataclass(frozen=True)
class AnomCLR:
    """The losses of AnomalyCLR (arXiv:2301.04660): a jet's views attract, its anomalous view is repelled by both.

    With s the cosine similarity over `temperature`, every view z with partner z' and anomalous view z* gives
    -log exp(s(z, z') - s(z, z*)) (AnomCLR+). With `others` this is divided by the sum of exp s(z, k) over the views k
    of all other jets, which spreads the jets (AnomCLR); the anomalous views are not in that sum.
    """

    temperature: float = 0.1
    others: bool = False

    def __post_init__(self) -> None:
        _check_temperature(self)

    def __call__(
        self,
        z_a: Float[Array, "B P"],
        z_b: Float[Array, "B P"],
        whole: Whole = alone,
        logged: Bool[Array, ""] | bool = True,
        z_anomalous: Float[Array, "B P"] | None = None,
    ) -> tuple[Float[Array, ""], Metrics]:
        if z_anomalous is None:
            raise ValueError("AnomCLR compares views with anomalous ones; give z_anomalous, from Config.anomalies")
        z_a, z_b, z_anomalous = normalize(z_a), normalize(z_b), normalize(z_anomalous)
        repelled = anomaly_similarity(z_a, z_b, z_anomalous)
        loss = (repelled - jnp.mean(jnp.sum(z_a * z_b, axis=1))) / self.temperature
        z = _side_by_side([z_a, z_b])
        everything = whole(jax.lax.stop_gradient(z))
        if self.others:
            loss += jnp.mean(_log_total_of_others(z, everything, self.temperature, whole, 2))
        all_a = everything.reshape(-1, 2, z.shape[1])[:, 0]
        return loss, _monitors(z_a, z_b, all_a, logged) | {"anomaly_similarity": repelled}


Objective = NTXent | AnomCLR


def _check_temperature(objective: Objective) -> None:
    if objective.temperature <= 0:
        raise ValueError(f"{type(objective).__name__}.temperature is {objective.temperature}; it must be positive")


def _side_by_side(views: list[Float[Array, "B P"]]) -> Float[Array, "M P"]:
    """The views of a jet one after the other, not first one of all jets: each device keeps its own rows."""
    return jnp.stack(views, axis=1).reshape(-1, views[0].shape[1])


def _monitors(
    z_a: Float[Array, "B P"], z_b: Float[Array, "B P"], all_a: Float[Array, "B P"], logged: Bool[Array, ""] | bool
) -> Metrics:
    """What shows a collapse; `all_a` is z_a on each device, without a gradient."""
    return {
        "alignment": alignment(z_a, z_b),
        "uniformity": uniformity(jax.lax.stop_gradient(z_a), all_a),
        # Eigenvalues of P x P take longer than the rest of the loss: only when somebody looks.
        "effective_rank": jax.lax.cond(logged, effective_rank, lambda z: jnp.float32(jnp.nan), all_a),
    }


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _log_total_of_others(
    z: Float[Array, "M P"], everything: Float[Array, "M P"], temperature: float, whole: Whole, group: int = 1
) -> Float[Array, " M"]:
    """log sum over k of exp(z_i . z_k / temperature) for every row i; `everything` is z on each device.

    k runs over all rows but those of i's own group, which are `group` rows one after the other: i alone if it is 1.
    """
    return jax.nn.logsumexp(_similarity_to_others(z, everything, temperature, group), axis=1)


def _similarity_to_others(
    z: Float[Array, "M P"], everything: Float[Array, "M P"], temperature: float, group: int
) -> Float[Array, "M M"]:
    # At temperatures of 0.1 the short products of an accelerator would show in the loss.
    similarity = jnp.matmul(z, everything.T, precision=jax.lax.Precision.HIGHEST) / temperature
    # Counted in two dimensions: a vector of groups would lie on all devices, and be gathered.
    row, key = (jax.lax.broadcasted_iota(jnp.int32, similarity.shape, axis) // group for axis in (0, 1))
    return jnp.where(row == key, -jnp.inf, similarity)


def _log_total_forward(
    z: Array, everything: Array, temperature: float, whole: Whole, group: int
) -> tuple[Array, tuple[Array, Array, Array]]:
    log_total = _log_total_of_others(z, everything, temperature, whole, group)
    return log_total, (z, everything, log_total)


def _log_total_backward(
    temperature: float, whole: Whole, group: int, saved: tuple[Array, Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    """The whole gradient of a row from that row of similarities alone.

    Row i acts on total i by p_ik and on every total k by p_ki. Similarity is symmetric, so p_ki = exp(s_ik - total_k)
    needs the totals (one number a view) of the other devices, and not a second exchange of embeddings. The M x M
    matrix is computed again and not kept. A total that the loss does not have, of an anomalous view, has no cotangent.
    """
    z, everything, log_total = saved
    similarity = _similarity_to_others(z, everything, temperature, group)
    as_query = jnp.exp(similarity - log_total[:, None]) * cotangent[:, None]
    as_key = jnp.exp(similarity - whole(log_total)[None, :]) * whole(cotangent)[None, :]
    gradient = jnp.matmul(as_query + as_key, everything, precision=jax.lax.Precision.HIGHEST) / temperature
    return gradient, jnp.zeros_like(everything)


_log_total_of_others.defvjp(_log_total_forward, _log_total_backward)


def normalize(z: Float[Array, "B P"]) -> Float[Array, "B P"]:
    """Rows brought to unit length; a zero row stays zero, with a zero gradient. What is not finite stays so."""
    square = jnp.sum(z * z, axis=-1, keepdims=True)
    return jnp.where(square == 0, 0, z * jax.lax.rsqrt(jnp.where(square == 0, 1, square)))


def alignment(z_a: Float[Array, "B P"], z_b: Float[Array, "B P"]) -> Float[Array, ""]:
    """Mean squared distance between unit vectors of the two views, 0 at best (arXiv:2005.10242, alpha = 2)."""
    return jnp.mean(jnp.sum((z_a - z_b) ** 2, axis=-1))


def anomaly_similarity(
    z_a: Float[Array, "B P"], z_b: Float[Array, "B P"], z_anomalous: Float[Array, "B P"]
) -> Float[Array, ""]:
    """Mean cosine between unit vectors of the two views of a jet and that of its anomalous view: 1 when unseen."""
    return jnp.mean(jnp.sum((z_a + z_b) / 2 * z_anomalous, axis=1))


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
