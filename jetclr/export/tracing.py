"""A frozen encoder traced for any number of jets and constituents: what ONNX and StableHLO are made from."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from jetclr.export.flavors import Flavor
from jetclr.export.graph import Frozen


def symbolic_inputs(frozen: Frozen, flavor: Flavor) -> list[jax.ShapeDtypeStruct]:
    """Shapes of a model's inputs, float32, in which B and N stand for any number."""
    inputs, scope = flavor.inputs(frozen), export.SymbolicScope()
    names = {size for one in inputs for size in one.shape if isinstance(size, str)}
    sizes: dict[Any, Any] = {name: export.symbolic_shape(name, scope=scope)[0] for name in names}
    return [jax.ShapeDtypeStruct(tuple(sizes.get(n, n) for n in one.shape), jnp.float32) for one in inputs]


def model_of(frozen: Frozen, flavor: Flavor) -> Callable[..., tuple[Any, ...]]:
    """The pure function from the inputs of a flavor to all outputs."""
    return lambda *arrays: flavor.apply(frozen, *arrays)
