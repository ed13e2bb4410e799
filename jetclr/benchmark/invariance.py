"""What a representation ignores, and how it lies: similarity of changed jets against strength, and its geometry.

Similarity is the cosine of CENTRED embeddings: the mean embedding of the unchanged jets is taken off first. Then 1 is
the same embedding and 0 what different jets have on average, for every representation alike. The plain cosine has no
such scale, because an offset that all jets share hides every change: 1,024 top-tagging jets turned by pi have 0.977 and
two different jets 0.913 in an untrained encoder of width 1,152 (0.994 and 0.321 after pretraining), but centred 0.62
(0.99). The plain cosine of different jets is `Geometry.between`.

Shapes: B jets, N slots, D features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from augmentations import Chain, CollinearSplit, Jets, Rotate, boost, radiate, rotate, split_collinear, translate
from augmentations.jets import padded, trimmed
from jetclr.benchmark.results import Geometry, Kind, Similarity
from jetclr.errors import UserError
from probes import geometry as spread

Features: TypeAlias = Float[np.ndarray, "B D"]
Embed: TypeAlias = Callable[[Jets], Features]
"""Padded jets [B, N] of one N, and any B -> features."""

SPARE = 32
"""Empty slots that every jet gets before a change, for constituents that this adds."""

STANDARD = Chain(Rotate(), CollinearSplit())
"""The augmentation of both views whose alignment is quoted: what tells nothing of a jet's origin."""


@dataclass(frozen=True)
class Change:
    """A change of one jet [N] that can be made stronger and stronger: `apply(key, jets, strength)`."""

    name: str
    strength_label: str
    strengths: tuple[float, ...]
    apply: Callable[[Key[Array, ""], Jets, Array], Jets]


def moved(key: Key[Array, ""], jets: Jets, distance: Array) -> Jets:
    """The jet [N] a `distance` away in (eta, phi), in a random direction."""
    angle = jax.random.uniform(key, (), jets.pt.dtype, 0, 2 * jnp.pi)
    return translate(jets, distance * jnp.cos(angle), distance * jnp.sin(angle))


ROTATION = Change(
    "rotation", "angle [rad]", tuple(np.linspace(0, 2 * np.pi, 25).tolist()), lambda key, jets, s: rotate(jets, s)
)

CHANGES = (
    ROTATION,
    Change("translation", "distance in (eta, phi)", tuple(np.linspace(0, 1, 9).tolist()), moved),
    Change("splitting", "constituents split in two", (0, 1, 2, 4, 8, 16, 24, 32), split_collinear),
    Change("soft radiation", "share of pT", (0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1), radiate),
    Change("boost", "rapidity", tuple(np.linspace(-0.5, 0.5, 9).tolist()), lambda key, jets, s: boost(jets, s)),
)
"""Translations go in a random direction for each jet; soft radiation is ten constituents within 0.8 of the centroid."""


def similarity(
    name: str,
    kind: Kind,
    embed: Embed,
    jets: Jets,
    constituents: int,
    *,
    changes: Sequence[Change] = CHANGES,
    seed: int = 0,
) -> list[Similarity]:
    """Cosine between the centred embeddings of jets and of their changed copies: mean and central 68 % of the jets.

    `embed` gets the `constituents` hardest after the change. `jets` [B, N] should hold more than that, for what was too
    soft before. Raises UserError if N is less, for fewer than two jets, and for features that are not finite.
    """
    _check_jets(jets, constituents)
    straight = embedded(name, embed, trimmed(jets, constituents))
    mean = straight.mean(axis=0)
    out = []
    for change in changes:
        copies = changed(name, embed, jets, constituents, change, seed=seed)
        cosine = np.stack([cosines(straight - mean, copy - mean) for copy in copies])
        low, high = np.quantile(cosine, (0.16, 0.84), axis=1)
        bands = (tuple(x.tolist()) for x in (cosine.mean(axis=1), low, high))
        out.append(Similarity(name, kind, change.name, change.strength_label, change.strengths, *bands))
    return out


def geometry(name: str, kind: Kind, embed: Embed, jets: Jets, constituents: int, *, seed: int = 0) -> Geometry:
    """Alignment of two views under `STANDARD`, and uniformity, effective rank and mean cosine of the jets as they are.

    `jets` as for `similarity`. Raises UserError for what that does, and for jets that have only zeros for features.
    """
    _check_jets(jets, constituents)
    straight = embedded(name, embed, trimmed(jets, constituents))
    keys = (_keys(jets, 2 * seed + view) for view in range(2))
    views = [embedded(name, embed, _changed(_standard, constituents, key, jets, jnp.zeros(()))) for key in keys]
    try:
        return Geometry(
            name,
            kind,
            width=straight.shape[1],
            alignment=spread.alignment(*views),
            uniformity=spread.uniformity(straight),
            effective_rank=spread.effective_rank(straight),
            between=spread.between(straight),
        )
    except ValueError as error:
        raise UserError(f"{name} has no geometry: {error}") from None


def changed(
    name: str, embed: Embed, jets: Jets, constituents: int, change: Change, *, seed: int = 0
) -> Iterator[Features]:
    """Features of the jets changed by each strength in turn; the random numbers of a jet are the same for all."""
    keys = _keys(jets, seed)
    for strength in change.strengths:
        copies = _changed(change.apply, constituents, keys, jets, jnp.asarray(strength, jnp.float32))
        yield embedded(name, embed, copies)


def embedded(name: str, embed: Embed, jets: Jets) -> Features:
    """The features of jets in double precision; raises UserError, naming the representation, if some are not finite."""
    features = np.asarray(embed(jets), np.float64)
    if not np.isfinite(features).all():
        jet = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise UserError(f"{name} gives jet {jet} of {len(features)} features that are NaN or infinite")
    return features


def cosines(a: Features, b: Features) -> Float[np.ndarray, " B"]:
    """Cosine of each row of `a` with the same row of `b`; 0 where one of them has no length."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / np.where(lengths > 0, lengths, 1)


def _check_jets(jets: Jets, constituents: int) -> None:
    count, slots = jets.pt.shape
    if slots < constituents:
        raise UserError(f"jets have {slots} slots, fewer than the {constituents} constituents of the encoder")
    if count < 2:
        raise UserError(f"{count} jets are too few: what different jets have in common needs at least two")


def _keys(jets: Jets, seed: int) -> Key[Array, " B"]:
    """A key for each jet, which does not depend on how many there are."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(jets.pt.shape[0]))


def _standard(key: Key[Array, ""], jets: Jets, strength: Array) -> Jets:
    return STANDARD(key, jets)


@partial(jax.jit, static_argnums=(0, 1))
def _changed(
    apply: Callable[..., Jets], constituents: int, keys: Key[Array, " B"], jets: Jets, strength: Float[Array, ""]
) -> Jets:
    # Many jets have more constituents than slots; without new slots nothing could be added to them.
    return trimmed(jax.vmap(apply, (0, 0, None))(keys, padded(jets, SPARE), strength), constituents)
