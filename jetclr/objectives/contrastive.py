"""Contrastive objectives: views of a jet are to find each other among those of all other jets.

Shape glossary: B jets, V views of each, P projection width, K = B V (+ B with anomalies) views that are compared.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jetclr.objectives.monitors import anomaly_similarity, monitors, normalize
from jetclr.objectives.protocol import Loss, Memory, Objective, Seen, Whole, alone, check_positive


@dataclass(frozen=True)
class NTXent(Objective):
    """Normalised temperature-scaled cross entropy (SimCLR, arXiv:2002.05709; JetCLR, arXiv:2108.04253).

    Each of the B V views must find its partners, the other views of the jet, among all other views, and the B anomalous
    ones if there are any, by cosine similarity / `temperature`. With several partners the cross entropy is the mean
    over them (arXiv:2004.11362, L_out). Anomalous views are only ever others: they look for no partner.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, "temperature")

    @property
    def takes_anomalies(self) -> bool:
        return True

    def compared(self, views: int) -> int:
        return views

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        z, anomalous = unit_vectors(seen)
        rows, views = side_by_side(z, anomalous), z.shape[1]
        everything = whole(jax.lax.stop_gradient(rows))
        log_total = log_total_of_others(rows, everything, self.temperature, whole)
        if anomalous is not None:
            log_total = log_total.reshape(-1, views + 1)[:, :views]
        loss = jnp.mean(log_total) - jnp.mean(similarity_of_partners(z)) / self.temperature
        metrics = monitors(z, everything.reshape(len(z), -1, z.shape[2])[:, 0], logged)
        if anomalous is not None:
            metrics["anomaly_similarity"] = anomaly_similarity(z, anomalous)
        return Loss(loss, metrics, memory)


@dataclass(frozen=True)
class AnomCLR(Objective):
    """The losses of AnomalyCLR (arXiv:2301.04660): a jet's views attract, its anomalous view is repelled by all.

    With s the cosine similarity over `temperature`, every view z with partner z' and anomalous view z* gives
    -log exp(s(z, z') - s(z, z*)) (AnomCLR+). With `others` this is divided by the sum of exp s(z, k) over the views k
    of all other jets, which spreads the jets (AnomCLR); the anomalous views are not in that sum.
    """

    temperature: float = 0.1
    others: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "temperature")

    @property
    def takes_anomalies(self) -> bool:
        return True

    @property
    def anomalies(self) -> bool:
        return True

    def compared(self, views: int) -> int:
        return views - 1 if self.others else 0

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        z, anomalous = unit_vectors(seen)
        if anomalous is None:
            raise ValueError("AnomCLR compares views with anomalous ones; it needs them, from Config.anomalies")
        repelled = anomaly_similarity(z, anomalous)
        loss = (repelled - jnp.mean(similarity_of_partners(z))) / self.temperature
        rows, views = side_by_side(z), z.shape[1]
        everything = whole(jax.lax.stop_gradient(rows))
        if self.others:
            loss += jnp.mean(log_total_of_others(rows, everything, self.temperature, whole, views))
        metrics = monitors(z, everything.reshape(z.shape)[:, 0], logged)
        return Loss(loss, metrics | {"anomaly_similarity": repelled}, memory)


def unit_vectors(seen: Seen) -> tuple[Float[Array, "B V P"], Float[Array, "B P"] | None]:
    """The projections of a batch at unit length, and those of anomalous views if there are any."""
    anomalous = None if seen.anomalous is None else normalize(seen.anomalous["projection"])
    return normalize(seen.rows["projection"]), anomalous


def side_by_side(z: Float[Array, "B V P"], anomalous: Float[Array, "B P"] | None = None) -> Float[Array, "K P"]:
    """The views of a jet one after the other, not first one of all jets: each device keeps its own rows."""
    if anomalous is not None:
        z = jnp.concatenate([z, anomalous[:, None]], axis=1)
    return z.reshape(-1, z.shape[-1])


def similarity_of_partners(z: Float[Array, "B V P"]) -> Float[Array, " B"]:
    """Mean cosine between different views of each jet, from unit vectors."""
    views = z.shape[1]
    if views == 2:
        return jnp.sum(z[:, 0] * z[:, 1], axis=1)
    total = jnp.sum(z, axis=1)
    return (jnp.sum(total * total, axis=1) - jnp.sum(z * z, axis=(1, 2))) / (views * (views - 1))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def log_total_of_others(
    z: Float[Array, "K P"], everything: Float[Array, "K P"], temperature: float, whole: Whole, group: int = 1
) -> Float[Array, " K"]:
    """log sum over k of exp(z_i . z_k / temperature) for every row i; `everything` is z on each device.

    k runs over all rows but those of i's own group, which are `group` rows one after the other: i alone if it is 1.
    """
    return jax.nn.logsumexp(_similarity_to_others(z, everything, temperature, group), axis=1)


def _similarity_to_others(
    z: Float[Array, "K P"], everything: Float[Array, "K P"], temperature: float, group: int
) -> Float[Array, "K K"]:
    # At temperatures of 0.1 the short products of an accelerator would show in the loss.
    similarity = jnp.matmul(z, everything.T, precision=jax.lax.Precision.HIGHEST) / temperature
    # Counted in two dimensions: a vector of groups would lie on all devices, and be gathered.
    row, key = (jax.lax.broadcasted_iota(jnp.int32, similarity.shape, axis) // group for axis in (0, 1))
    return jnp.where(row == key, -jnp.inf, similarity)


def _log_total_forward(
    z: Array, everything: Array, temperature: float, whole: Whole, group: int
) -> tuple[Array, tuple[Array, Array, Array]]:
    log_total = log_total_of_others(z, everything, temperature, whole, group)
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


log_total_of_others.defvjp(_log_total_forward, _log_total_backward)
