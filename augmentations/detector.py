"""What an imperfect detector does to a jet: scale and resolution."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from augmentations.jets import Jets


@dataclass(frozen=True)
class PtScale:
    """Multiply every pT of the jet by one common factor exp(normal * `width`): an uncertain energy scale.

    Takes the jet's absolute pT away as a mark by which two views could be matched.
    """

    width: float = 0.1

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        return jets._replace(pt=jets.pt * jnp.exp(self.width * jax.random.normal(key, (), jets.pt.dtype)))


@dataclass(frozen=True)
class PtSmear:
    """Multiply each constituent's pT by its own factor exp(normal * `width`): a relative momentum resolution."""

    width: float = 0.1

    def __call__(self, key: Key[Array, ""], jets: Jets) -> Jets:
        factor = jnp.exp(self.width * jax.random.normal(key, jets.pt.shape, jets.pt.dtype))
        return jets._replace(pt=jets.pt * factor)
