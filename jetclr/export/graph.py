"""The frozen encoder as one pure function of constituents in GeV: what every export holds, and is compared with.

Shape glossary: B jets, N constituents, D width of a layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from augmentations.jets import keep, make_jets
from jetclr import encoder
from jetclr.config import Config
from jetclr.data.chunk import COORDINATES
from jetclr.errors import UserError

Weights = Mapping[str, Mapping[str, Array | np.ndarray]]
"""Parameters as `encoder.Params`, of NumPy or JAX."""


class Tail(NamedTuple):
    """Something fitted on a layer, appended to the graph: a linear probe or an anomaly head."""

    name: str  # of the output
    layer: str  # "" for one that sees the jets themselves
    traced: Callable[[Any], Float[Array, " B"]]  # of the layer [B, D], or of Jets [B, N]; pure JAX, any B
    score: Callable[[Any], np.ndarray]  # what it must agree with: of the same as numpy arrays
    meaning: str  # one line for people
    limit: float  # of the difference between the two, |a - b| / (1 + |b|)


@dataclass(frozen=True)
class Frozen:
    """An encoder with its preprocessing, the layers that are asked for, and what is appended to them.

    `params` may be float16, and is computed with as float32. Raises UserError for a layer that there is not, or for two
    outputs of one name.
    """

    config: Config
    params: Weights
    layers: tuple[str, ...] = ("embedding",)
    tails: tuple[Tail, ...] = ()

    def __post_init__(self) -> None:
        known = encoder.layer_names(self.config.encoder, self.config.head)
        for name in self.computed:
            if name not in known:
                raise UserError(f"the encoder has no layer {name!r}; it has {', '.join(known)}")
        if len(set(self.outputs)) < len(self.outputs) or not self.outputs:
            raise UserError(f"outputs must be there and have different names, got {', '.join(self.outputs) or 'none'}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what is given, in order: the layers [B, D], then the scores [B]."""
        return (*self.layers, *(tail.name for tail in self.tails))

    @property
    def computed(self) -> tuple[str, ...]:
        """The layers that are given, and those that scores are made of."""
        return tuple(dict.fromkeys((*self.layers, *(tail.layer for tail in self.tails if tail.layer))))

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the constituent columns that the features need beside pt, eta and phi."""
        return tuple(sorted(set(self.config.features.needs.values())))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all constituent columns that go in, without the mask."""
        return (*COORDINATES, *self.extras)

    def __call__(
        self, columns: Mapping[str, Float[Array, "B N"]], mask: Float[Array, "B N"]
    ) -> dict[str, Float[Array, "B ..."]]:
        """All outputs for padded jets: `columns` by name, `mask` 1 for a real constituent and 0 for padding.

        What stands in padding does not matter, nor does the order of constituents. Jets without constituents give
        finite numbers.
        """
        network = encoder.build(self.config.encoder, self.config.head)
        params = jax.tree.map(lambda p: jnp.asarray(p).astype(jnp.float32), self.params)
        pt, eta, phi = (columns[name] for name in COORDINATES)
        extras = {name: columns[name] for name in self.extras}
        jets = keep(make_jets(pt, eta, phi, extras), mask > 0.5)
        found = network.apply(params, self.config.features(jets), None)
        scores = {tail.name: tail.traced(found[tail.layer] if tail.layer else jets) for tail in self.tails}
        return {name: found[name] for name in self.layers} | scores
