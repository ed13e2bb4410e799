"""Is an exported model the encoder? Both see the same jets, random and real, and must give the same numbers.

Shape glossary: B jets, N constituents, D width of a layer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from augmentations.jets import make_jets
from jetclr import sharding, step
from jetclr.data.chunk import COORDINATES
from jetclr.data.names import CONSTITUENT_TYPES
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.export.flavors import Feed, Flavor
from jetclr.export.graph import Frozen

LIMIT = 1e-5
"""Of `difference`, for layers: what float32 leaves when sums are taken in another order."""

RANDOM_JETS, REAL_JETS = 64, 256

Checked = dict[str, Float[np.ndarray, "B N"]]
"""Padded jets: columns by name, and "mask"."""

Outputs = Mapping[str, Float[np.ndarray, "..."]]
Runs = Callable[[Feed], Sequence[Float[np.ndarray, "..."]]]
"""One call of an exported model: its outputs in order."""


def difference(found: Float[np.ndarray, "..."], expected: Float[np.ndarray, "..."]) -> float:
    """Largest |a - b| / (1 + |b|): absolute where numbers are small, relative where they are large.

    NaN wherever one of both is; infinity for other shapes.
    """
    if found.shape != expected.shape:
        return np.inf
    if not found.size:
        return 0.0
    apart = np.abs(found.astype(np.float64) - expected) / (1 + np.abs(expected))
    return float(apart.max())


def random_jets(frozen: Frozen, seed: int = 0) -> Checked:
    """RANDOM_JETS jets: one empty, one of a single constituent, ..., several full ones; rubbish in their padding."""
    rng, n = np.random.default_rng(seed), frozen.config.data.constituents
    shape = (RANDOM_JETS, n)
    count = np.concatenate([[0, 1, n, n], rng.integers(0, n + 1, RANDOM_JETS - 4)])
    axis = rng.uniform((-2, -np.pi), (2, np.pi), (RANDOM_JETS, 2))
    angles = axis[:, :, None] + rng.normal(0, 0.2, (RANDOM_JETS, 2, n))
    jets = {
        "pt": np.sort(rng.lognormal(1.5, 1.5, shape), axis=1)[:, ::-1],
        "eta": angles[:, 0],
        "phi": np.angle(np.exp(1j * angles[:, 1])),
    } | {name: _random_extra(rng, name, shape) for name in frozen.extras}
    return {name: x.astype(np.float32) for name, x in jets.items()} | {
        "mask": (np.arange(n) < count[:, None]).astype(np.float32)
    }


def _random_extra(rng: np.random.Generator, name: str, shape: tuple[int, int]) -> np.ndarray:
    if name == "type":
        return rng.integers(0, len(CONSTITUENT_TYPES), shape)
    if name == "charge":
        return rng.integers(-1, 2, shape)
    return rng.normal(0, 1, shape) if name in ("d0", "dz") else rng.uniform(0, 1, shape)


def real_jets(frozen: Frozen, store: Store, jets: int = REAL_JETS) -> Checked:
    """The hardest constituents of jets from all over a store; raises UserError if it lacks a column that is needed."""
    rows = np.unique(np.linspace(0, len(store) - 1, jets).astype(np.int64))
    read = store.gather(rows, frozen.config.data.constituents, frozen.extras)
    return {name: read[name] for name in frozen.columns} | {"mask": (read["pt"] > 0).astype(np.float32)}


def expected(frozen: Frozen, jets: Checked) -> dict[str, Float[np.ndarray, "B ..."]]:
    """What `jetclr embed` gives for these jets, and what scores in float64 make of it."""
    config = frozen.config
    # What stands in padding is of the exported model to ignore; embed's batches have zeros there.
    batch = {name: np.where(jets["mask"] > 0, jets[name], 0) for name in frozen.columns}
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), frozen.params)
    rows = len(batch["pt"])
    mesh = sharding.local_mesh()
    filled = {name: np.pad(x, ((0, -rows % mesh.size), (0, 0))) for name, x in batch.items()}
    found = step.make_embed(config, frozen.computed, mesh)(params, jax.device_put(filled, sharding.split(mesh)))
    table = {name: np.asarray(x)[:rows] for name, x in found.items()}
    pt, eta, phi = (batch[name] for name in COORDINATES)
    whole = make_jets(pt, eta, phi, {name: batch[name] for name in frozen.extras})
    scores = {tail.name: tail.score(table[tail.layer] if tail.layer else whole) for tail in frozen.tails}
    return {name: table[name] for name in frozen.layers} | scores


def expected_of(frozen: Frozen, groups: Mapping[str, Checked]) -> dict[str, dict[str, Float[np.ndarray, "..."]]]:
    """`expected` of every group, of jets with equally many slots: in one go, so that JAX compiles once."""
    joined = {name: np.concatenate([jets[name] for jets in groups.values()]) for name in (*frozen.columns, "mask")}
    ends = np.cumsum([len(jets["mask"]) for jets in groups.values()])[:-1]
    parts = {name: np.split(x, ends) for name, x in expected(frozen, joined).items()}
    return {group: {name: x[i] for name, x in parts.items()} for i, group in enumerate(groups)}


def check(frozen: Frozen, flavor: Flavor, groups: Mapping[str, Checked], runs: Mapping[str, Runs]) -> dict[str, Any]:
    """Every model of `runs`, by what runs it, against JAX on every group of jets, as JSON values.

    Raises UserError if one differs by more than LIMIT (scores: the tail's limit), or gives NaN where JAX does not.
    """
    limits = dict.fromkeys(frozen.layers, LIMIT) | {tail.name: tail.limit for tail in frozen.tails}
    told: dict[str, Any] = {"limits": limits}
    told["jets"] = {group: len(jets["mask"]) for group, jets in groups.items()}
    told["differences"] = {runtime: {} for runtime in runs}
    wanted = expected_of(frozen, groups)
    for group, jets in groups.items():
        want = wanted[group]
        for name, x in want.items():
            if not np.isfinite(x).all():
                raise UserError(f"the encoder itself gives NaN or infinity for {group} jets in {name!r}: no use")
        for runtime, run in runs.items():
            told["differences"][runtime][group] = _differences(
                frozen, flavor, jets, want, limits, f"{group} jets", (runtime, run)
            )
    return told


def _differences(
    frozen: Frozen,
    flavor: Flavor,
    jets: Checked,
    want: Outputs,
    limits: Mapping[str, float],
    told: str,
    runtime: tuple[str, Runs],
) -> dict[str, float]:
    name, run = runtime
    found = [run(feed) for feed in flavor.feeds(frozen, jets)]
    apart = {}
    for place, output in enumerate(frozen.outputs):
        apart[output] = difference(np.concatenate([outputs[place] for outputs in found]), want[output])
        if not apart[output] <= limits[output]:
            raise UserError(
                f"{name} gives other numbers than JAX for {told}: {output!r} differs by {apart[output]:.2g}, more than "
                f"{limits[output]:g}; nothing was exported"
            )
    return apart
