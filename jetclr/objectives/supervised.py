"""The supervised contrastive objective: not self-supervised, but what all others are measured against.

Shape glossary: B jets, V views of each, P projection width, K = B V views that are compared.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jetclr.objectives.contrastive import log_total_of_others, side_by_side, unit_vectors
from jetclr.objectives.monitors import monitors
from jetclr.objectives.protocol import Loss, Memory, Objective, Seen, Whole, alone, check_positive


@dataclass(frozen=True)
class SupCon(Objective):
    """Supervised contrastive learning (arXiv:2004.11362, L_out): views of all jets of one label are partners.

    Each view must find its partners, which are the other views of its jet and all views of jets with the same label,
    among all other views, by cosine similarity / `temperature`; the cross entropy is the mean over partners. A label
    that is NaN equals none. The stores need a column "label".
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, "temperature")

    @property
    def labels(self) -> bool:
        return True

    def compared(self, views: int) -> int:
        return views

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        z, _ = unit_vectors(seen)
        if seen.label is None:
            raise ValueError("SupCon compares jets by their labels; it needs a column 'label'")
        rows = side_by_side(z)
        everything = whole(jax.lax.stop_gradient(rows))
        log_total = log_total_of_others(rows, everything, self.temperature, whole)
        by_jet = everything.reshape(z.shape)
        partners = _similarity_of_partners(z, jnp.sum(by_jet, axis=1), seen.label, whole(seen.label))
        loss = jnp.mean(log_total) - jnp.mean(partners) / self.temperature
        return Loss(loss, monitors(z, by_jet[:, 0], logged), memory)


def _similarity_of_partners(
    z: Float[Array, "B V P"],
    sums: Float[Array, "B P"],
    label: Float[Array, " B"],
    all_labels: Float[Array, " B"],
) -> Float[Array, "B V"]:
    """Mean cosine of each view with its partners; `sums` are those over the views of each jet, on each device.

    How much two views count for each other is symmetric, so the whole gradient of a row, as one that looks for partners
    and as a partner of others, is twice that of its own product: nothing more is exchanged.
    """
    jets, views = z.shape[:2]
    row, key = (jax.lax.broadcasted_iota(jnp.int32, (jets, jets), axis) for axis in (0, 1))
    same = ((label[:, None] == all_labels[None, :]) | (row == key)).astype(z.dtype)
    partners = jnp.sum(same, axis=1) * views - 1
    of_class = jnp.matmul(same, sums, precision=jax.lax.Precision.HIGHEST)
    with_class = jnp.sum(z * of_class[:, None], axis=2)
    twice = 2 * with_class - jax.lax.stop_gradient(with_class)
    return (twice - jnp.sum(z * z, axis=2)) / partners[:, None]
