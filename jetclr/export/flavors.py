"""How software hands jets to a model: names and shapes of the inputs, for each kind of software.

Shape glossary: B jets, N constituents, F columns of a constituent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jetclr.data.names import CONSTITUENT_COLUMNS
from jetclr.export.graph import Frozen

FlavorName = Literal["batch", "cms", "atlas"]

Feed = dict[str, Float[np.ndarray, "..."]]
"""Input name -> float32 array."""


class Input(NamedTuple):
    """One input of a model: its shape with names for what may vary, and what its columns are."""

    name: str
    shape: tuple[str | int, ...]
    columns: tuple[str, ...]


@runtime_checkable
class Flavor(Protocol):
    """One way to hand over jets."""

    @property
    def name(self) -> FlavorName: ...

    def inputs(self, frozen: Frozen) -> tuple[Input, ...]:
        """What the model takes, in order."""
        ...

    def apply(self, frozen: Frozen, *arrays: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
        """The model: its outputs in the order of `frozen.outputs`, for inputs as `inputs` says. Pure JAX."""
        ...

    def feeds(self, frozen: Frozen, jets: Mapping[str, Any]) -> Sequence[Feed]:
        """Padded jets [B, N], by column and "mask", as calls of the model; their outputs in a row are those of all."""
        ...


@dataclass(frozen=True)
class Batch:
    """Inputs pt, eta, phi, extras and mask, each [B, N]: for Python, and whoever has many jets at once."""

    name: FlavorName = "batch"

    def inputs(self, frozen: Frozen) -> tuple[Input, ...]:
        return tuple(Input(name, ("B", "N"), (name,)) for name in (*frozen.columns, "mask"))

    def apply(self, frozen: Frozen, *arrays: Float[Array, "B N"]) -> tuple[Float[Array, "B ..."], ...]:
        *columns, mask = arrays
        found = frozen(dict(zip(frozen.columns, columns, strict=True)), mask)
        return tuple(found[name] for name in frozen.outputs)

    def feeds(self, frozen: Frozen, jets: Mapping[str, Any]) -> Sequence[Feed]:
        return [{name: jets[name] for name in (*frozen.columns, "mask")}]


@dataclass(frozen=True)
class Cms:
    """Inputs pf_features [B, F, N] and pf_mask [B, 1, N], matched by name, as CMSSW's producers of jet tags fill them.

    CMSSW runs one jet at a time, [1, F, N]; axis 0 is the batch.
    """

    name: FlavorName = "cms"

    def inputs(self, frozen: Frozen) -> tuple[Input, ...]:
        return (
            Input("pf_features", ("B", len(frozen.columns), "N"), frozen.columns),
            Input("pf_mask", ("B", 1, "N"), ("mask",)),
        )

    def apply(self, frozen: Frozen, *arrays: Float[Array, "B _ N"]) -> tuple[Float[Array, "B ..."], ...]:
        features, mask = arrays
        found = frozen({name: features[:, i] for i, name in enumerate(frozen.columns)}, mask[:, 0])
        return tuple(found[name] for name in frozen.outputs)

    def feeds(self, frozen: Frozen, jets: Mapping[str, Any]) -> Sequence[Feed]:
        features = np.stack([jets[name] for name in frozen.columns], axis=1)
        return [{"pf_features": features, "pf_mask": np.asarray(jets["mask"])[:, None]}]


@dataclass(frozen=True)
class Atlas:
    """Input track_features [N, F]: the constituents of one jet, without a batch axis and without padding or mask.

    As Athena's flavour tagging hands over tracks. There may be none; outputs are [1, D] and [1].
    """

    name: FlavorName = "atlas"

    def inputs(self, frozen: Frozen) -> tuple[Input, ...]:
        return (Input("track_features", ("N", len(frozen.columns)), frozen.columns),)

    def apply(self, frozen: Frozen, *arrays: Float[Array, "N F"]) -> tuple[Float[Array, "1 ..."], ...]:
        (tracks,) = arrays
        # One empty slot more, or a jet without constituents would have nothing to look for the hardest in.
        slots = jnp.concatenate([tracks, jnp.zeros((1, tracks.shape[1]), tracks.dtype)])
        found = frozen({n: slots[None, :, i] for i, n in enumerate(frozen.columns)}, jnp.ones_like(slots[None, :, 0]))
        return tuple(found[name] for name in frozen.outputs)

    def feeds(self, frozen: Frozen, jets: Mapping[str, Any]) -> Sequence[Feed]:
        table = np.stack([jets[name] for name in frozen.columns], axis=-1)
        return [{"track_features": x[mask > 0]} for x, mask in zip(table, np.asarray(jets["mask"]), strict=True)]


FLAVORS: dict[FlavorName, Flavor] = {"batch": Batch(), "cms": Cms(), "atlas": Atlas()}


def describe(frozen: Frozen, flavor: Flavor) -> list[dict[str, Any]]:
    """The inputs with shapes, units and meaning, as JSON values."""

    def column(name: str) -> dict[str, str]:
        if name == "mask":
            return {"name": name, "unit": "1", "meaning": "1 for a constituent, 0 for padding"}
        known = CONSTITUENT_COLUMNS[name]
        return {"name": name, "unit": known.unit, "meaning": known.meaning}

    return [
        {"name": one.name, "shape": list(one.shape), "dtype": "float32", "columns": [column(c) for c in one.columns]}
        for one in flavor.inputs(frozen)
    ]
