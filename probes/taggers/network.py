"""What the taggers share: the protocol filled in, the numbers they see of a constituent, turned copies of jets.

Shapes: B jets, N constituents, F features, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from probes.taggers import Constituents
from probes.training import Params

FLOOR = 1e-8
"""Softer than any constituent that a detector sees, as pT [GeV] and as a fraction; keeps logarithms finite."""


@dataclass(frozen=True)
class Tagger(ABC):
    """A network over constituents as a `probes.training.Model`; a subclass adds its settings, `name` and `logits`.

    With `turned` every jet is rotated by a random angle about its centroid and mirrored at random while training:
    symmetries of the beam's transverse view that labels do not know (arXiv:2108.04253).
    """

    classes: int = 2
    turned: bool = True

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"a tagger needs at least two classes, got {self.classes}")

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def logits(self, jets: Constituents) -> Float[Array, "B C"]:
        """The network itself, in Haiku; what lies where the mask is False is zero."""

    def init(self, key: Key[Array, ""], inputs: Constituents) -> Params:
        """Random parameters; they do not depend on the number of constituents."""
        return jax.jit(hk.transform(self.logits).init)(key, clean(inputs))

    def apply(self, params: Params, inputs: Constituents, key: Key[Array, ""] | None) -> Float[Array, "B C"]:
        """Logits of each class; with a `key` of jets turned at random, if the settings say so."""
        jets = clean(inputs)
        if key is not None and self.turned:
            jets = turn(key, jets)
        return hk.transform(self.logits).apply(params, None, jets)


def clean(jets: Constituents) -> Constituents:
    """The same jets with zeros where the mask is False, whatever was there."""
    mask = jnp.asarray(jets.mask)
    pt, eta, phi = (jnp.where(mask, jnp.asarray(field), 0.0) for field in jets[:3])
    return Constituents(pt, eta, phi, mask)


def turn(key: Key[Array, ""], jets: Constituents) -> Constituents:
    """Each jet turned about its centroid by an angle uniform in [0, 2 pi), and mirrored in phi with probability 1/2."""
    angle_key, mirror_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, (len(jets.pt), 1), maxval=2 * jnp.pi)
    sign = jax.random.rademacher(mirror_key, (len(jets.pt), 1), jnp.float32)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    eta, phi = jnp.asarray(jets.eta), jnp.asarray(jets.phi)
    return jets._replace(eta=cos * eta - sin * phi, phi=sign * (sin * eta + cos * phi))


def fraction(jets: Constituents) -> Float[Array, "B N"]:
    """z = pT over the summed pT of the jet's constituents; 0 where padded."""
    pt = jnp.asarray(jets.pt)
    return pt / jnp.maximum(jnp.sum(pt, axis=1, keepdims=True), FLOOR)


def angles(jets: Constituents) -> Float[Array, "B N 4"]:
    """eta, phi, r and r^2 of each constituent, of order one for a large-radius jet; nothing of its pT."""
    eta, phi = jnp.asarray(jets.eta) / 0.3, jnp.asarray(jets.phi) / 0.3
    r2 = eta**2 + phi**2
    return jnp.stack([eta, phi, jnp.sqrt(r2), r2], axis=-1)


def features(jets: Constituents) -> Float[Array, "B N 7"]:
    """z, log z, log pT [GeV], eta, phi, r and r^2 of each constituent, of order one; all 0 where padded."""
    z = fraction(jets)
    logarithms = [
        (jnp.log(jnp.maximum(z, FLOOR)) + 5) / 2,
        (jnp.log(jnp.maximum(jnp.asarray(jets.pt), FLOOR)) - 1.5) / 2,
    ]
    x = jnp.concatenate([jnp.stack([4 * z, *logarithms], axis=-1), angles(jets)], axis=-1)
    return jnp.where(jets.mask[..., None], x, 0.0)


def layers(widths: Sequence[int], name: str) -> hk.nets.MLP:
    """Linear layers, each followed by a rectifier; raises ValueError if a width is not positive or there is none."""
    if min(widths, default=0) < 1:
        raise ValueError(f"{name} needs positive widths, got {list(widths)}")
    return hk.nets.MLP(widths, activate_final=True, name=name)


def norm(x: Float[Array, "*B D"], name: str) -> Float[Array, "*B D"]:
    """Layer normalisation (arXiv:1607.06450): it keeps no state, and padding cannot enter it."""
    return hk.LayerNorm(-1, create_scale=True, create_offset=True, name=name)(x)
