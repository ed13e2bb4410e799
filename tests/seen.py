"""What an objective says of projections that are given, as if the step had put them together."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jetclr.features import Inputs
from jetclr.objectives import Objective
from jetclr.objectives.protocol import Loss, Memory, Outputs, Rows, Seen, Views


def compare(
    objective: Objective,
    *views: jax.Array,
    anomalous: jax.Array | None = None,
    label: jax.Array | None = None,
    memory: Memory = (),
) -> Loss:
    """The loss of jets whose `views` have these projections [B, P]."""
    rows = {"projection": jnp.stack(views, axis=1)}
    return _loss(objective, Seen(rows, None if anomalous is None else {"projection": anomalous}, label), memory)


def judge(objective: Objective, rows: Mapping[str, jax.Array], memory: Memory = (), views: int = 2) -> Loss:
    """The loss of rows [M, ...] of views that lie side by side."""
    by_jet = {name: jnp.asarray(x).reshape(-1, views, *x.shape[1:]) for name, x in rows.items()}
    return _loss(objective, Seen(by_jet, None, None), memory)


@partial(jax.jit, static_argnums=0)  # one program is compiled sooner than its operations are, one after the other
def _loss(objective: Objective, seen: Seen, memory: Memory) -> Loss:
    return objective(seen, memory=memory)


def outputs(
    projection: jax.Array, constituents: jax.Array | None = None, /, **networks: tuple[np.ndarray, np.ndarray]
) -> Outputs:
    """Of an encoder that has these, whose own networks are single layers of weights and biases."""

    def apply(name: str, x: jax.Array) -> jax.Array:
        w, b = networks[name]
        return x @ w + b

    return Outputs({"projection": projection, "embedding": projection}, constituents, apply)


def rows_of(
    objective: Objective,
    student: Outputs,
    teacher: Outputs | None = None,
    x: jax.Array | None = None,
    hidden: jax.Array | None = None,
    memory: Memory = (),
) -> Rows:
    """The rows of views with features x [M, N, F], of which some are hidden."""
    x = jnp.zeros((len(student.layers["projection"]), 1, 1)) if x is None else x
    inputs = Inputs(x, x[..., 0], jnp.ones(x.shape[:2], bool), x[..., 0], x[..., 1 % x.shape[2]])
    return objective.rows(student, teacher, Views(inputs, hidden), memory)
