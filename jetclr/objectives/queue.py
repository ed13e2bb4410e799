"""Momentum contrast: negatives from a memory, so that their number does not hang on the batch.

Shape glossary: B jets, V views of each, P projection width, Q views in the queue.
"""

from dataclasses import dataclass
from itertools import permutations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jetclr.objectives.monitors import normalize, watch
from jetclr.objectives.protocol import (
    Loss,
    Memory,
    Objective,
    Outputs,
    Rows,
    Seen,
    Sizes,
    Views,
    Whole,
    alone,
    check_positive,
)


@dataclass(frozen=True)
class MoCo(Objective):
    """Momentum contrast (arXiv:1911.05722): a view must find its partner among the views of earlier jets.

    The partners are the other views of the jet, the others the `queue` last jets of earlier steps, one view of each,
    all as the teacher, a running mean of the network, sees them; by cosine similarity / `temperature`. Every partner is
    looked for by itself, and the cross entropies averaged. The queue begins with random directions.
    """

    temperature: float = 0.1
    queue: int = 4096

    def __post_init__(self) -> None:
        check_positive(self, "temperature", "queue")

    @property
    def teacher(self) -> bool:
        return True

    def begin(self, sizes: Sizes) -> Memory:
        return normalize(jax.random.normal(jax.random.key(0), (self.queue, sizes.projection)))

    def rows(self, student: Outputs, teacher: Outputs | None, views: Views, memory: Memory) -> Rows:
        assert teacher is not None
        return {"projection": student.layers["projection"], "key": teacher.layers["projection"]}

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        query, key = (normalize(seen.rows[name]) for name in ("projection", "key"))
        key = jax.lax.stop_gradient(key)
        earlier: Float[Array, "Q P"] = memory
        others = jnp.einsum("bvp,qp->bvq", query, earlier, precision=jax.lax.Precision.HIGHEST) / self.temperature
        total = jax.nn.logsumexp(others, axis=2)
        losses = []
        for v, w in permutations(range(query.shape[1]), 2):
            partner = jnp.sum(query[:, v] * key[:, w], axis=1) / self.temperature
            losses.append(jnp.mean(jnp.logaddexp(total[:, v], partner) - partner))
        queue = jnp.concatenate([whole(key[:, 0]), earlier])[: self.queue]
        return Loss(jnp.mean(jnp.stack(losses)), watch(seen, whole, logged), queue)
