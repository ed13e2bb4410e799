"""Jets in GeV -> network inputs: the ONE place, shared by training, embedding and export.

Shape glossary: N constituents, F features. Written for one jet, works on any batch of jets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from augmentations.jets import Jets, center, pt_fraction
from jetclr.data.names import CONSTITUENT_TYPES

FeatureName = Literal[
    "pt_600", "z", "log_z", "log_pt", "eta", "phi", "r", "r2", "charge", "d0", "d0_error", "dz", "dz_error", "puppi",
    "charged_hadron", "neutral_hadron", "photon", "electron", "muon",
]  # fmt: skip

# Softer than any constituent that a detector sees; keeps logarithms of padding finite.
FLOOR = 1e-8

# Each is of order one for a large-radius jet, so the first layer needs no learned normalisation.
_FEATURES: dict[str, Callable[[Jets, Array], Array]] = {
    "pt_600": lambda jets, z: jets.pt / 600,  # the study's scaling (arXiv:2108.04253)
    "z": lambda jets, z: 4 * z,
    "log_z": lambda jets, z: (jnp.log(jnp.maximum(z, FLOOR)) + 5) / 2,
    "log_pt": lambda jets, z: (jnp.log(jnp.maximum(jets.pt, FLOOR)) - 1.5) / 2,  # pt in GeV
    "eta": lambda jets, z: jets.eta / 0.3,
    "phi": lambda jets, z: jets.phi / 0.3,
    "r": lambda jets, z: jnp.hypot(jets.eta, jets.phi) / 0.3,
    "r2": lambda jets, z: (jets.eta**2 + jets.phi**2) / 0.09,  # its pT-weighted mean is (mass / pT)^2 at leading order
}


# Features made of one extra: the name of this, and what becomes of it. Impact parameters as in arXiv:2202.03772.
_OF_EXTRAS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "charge": ("charge", lambda x: x),
    "d0": ("d0", jnp.tanh),
    "d0_error": ("d0_error", lambda x: jnp.clip(x, 0, 1)),
    "dz": ("dz", jnp.tanh),
    "dz_error": ("dz_error", lambda x: jnp.clip(x, 0, 1)),
    "puppi": ("puppi", lambda x: x),
} | {
    kind.replace(" ", "_"): ("type", lambda x, number=number: jnp.asarray(x == number, x.dtype))
    for number, kind in enumerate(CONSTITUENT_TYPES)
    if kind != "other"
}


class Inputs(NamedTuple):
    """What the encoder sees of one jet: features [N, F], pT fractions, mask and angles [N]; all zero where padded.

    The angles [rad] are for pairs of constituents; where nothing takes them, a jitted program does without them.
    """

    x: Float[Array, "*B N F"]
    z: Float[Array, "*B N"]
    mask: Bool[Array, "*B N"]
    eta: Float[Array, "*B N"]
    phi: Float[Array, "*B N"]


@dataclass(frozen=True)
class Features:
    """Which numbers of a constituent the encoder sees.

    `columns` are names of `FeatureName`: pT / 600 GeV, pT fraction z, its logarithm, log pT [GeV], eta, phi, distance
    from the centroid; and, of the extras of the same names, charge, tanh of the impact parameters [mm], their errors up
    to 1 mm, PUPPI weight, and whether extra `type` is that of a charged_hadron, neutral_hadron, photon, electron or
    muon. With `center` the angles are taken from the pT-weighted centroid, which makes the encoder exactly invariant
    under translations.
    """

    columns: tuple[FeatureName, ...] = ("z", "log_z", "eta", "phi", "r")
    center: bool = True

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("Features.columns is empty; the encoder needs at least one feature")

    @property
    def needs(self) -> dict[str, str]:
        """The features that are made of extras: name of the feature -> name of the extra."""
        return {name: _OF_EXTRAS[name][0] for name in self.columns if name in _OF_EXTRAS}

    def __call__(self, jets: Jets) -> Inputs:
        if self.center:
            jets = center(jets)
        z = pt_fraction(jets)
        x = jnp.stack([_feature(name, jets, z) for name in self.columns], axis=-1)
        eta, phi = (jnp.where(jets.mask, angle, 0) for angle in (jets.eta, jets.phi))
        return Inputs(jnp.where(jets.mask[..., None], x, 0), z, jets.mask, eta, phi)


def _feature(name: str, jets: Jets, z: Array) -> Array:
    if name in _FEATURES:
        return _FEATURES[name](jets, z)
    extra, change = _OF_EXTRAS[name]
    return change(jets.extras[extra])
