"""Normalised autoencoders: the reconstruction error as the energy of a density, made large where no jets are.

A plain autoencoder may copy jets it never saw. Here exp(-U) / Z with U = |x - copy(x)|^2 / (2 variance) is fitted as a
density of the background: its jets' energies are pushed down, those of points that the model itself draws are pushed
up (arXiv:2105.05735, for jets arXiv:2206.14225). Points are drawn by Langevin steps, first among latent numbers, so
that they begin where the decoder reaches, then among inputs. Latent numbers lie on a sphere: without a bound on them
there may be no Z.

Shapes: B jets, D numbers of an input, L latent numbers, S points drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from probes.anomaly.arrays import required
from probes.anomaly.autoencoder import Reconstruction
from probes.anomaly.codec import TableCodec
from probes.anomaly.head import Inputs, Progress, State, no_progress
from probes.anomaly.image_components import ImageComponentInputs
from probes.anomaly.inputs import FeatureInputs
from probes.anomaly.langevin import Energy, Partition, langevin, log_partition
from probes.anomaly.network_head import NetworkDetector, NetworkHead, Objective, fit_codec, values
from probes.training import Params, batches, compiled_step, rate

RECORDS = 20
"""Moments of a fit at which energies are written down."""

LIMIT = 1000.0
"""Energy for each number of an input (background: one half) above which a fit counts as run away."""


class Record(NamedTuple):
    """Mean energies since the last record, for each number of an input: one half is that of a normal distribution."""

    step: float
    data: float
    negatives: float
    accepted: float
    """Share of the Langevin steps among inputs that were accepted."""


@dataclass(frozen=True)
class SphereCodec(TableCodec):
    """Multilayer perceptrons with latent numbers of unit length; the decoder sees the direction alone."""

    def encoder(self, x: Float[Array, "B D"]) -> Float[Array, "B L"]:
        return _direction(super().encoder(x))

    def decoder(self, z: Float[Array, "B L"], width: int) -> Float[Array, "B D"]:
        return super().decoder(_direction(z), width)


def _direction(z: Float[Array, "B L"]) -> Float[Array, "B L"]:
    return z * jax.lax.rsqrt(jnp.sum(z**2, axis=1, keepdims=True) + 1e-8)


@dataclass(frozen=True)
class Contrast:
    """Mean energy of data minus that of negatives, and `restraint` times both squared, which bounds the difference."""

    objective: Objective
    restraint: float

    def __call__(self, params: Params, piece: Any, key: Key[Array, ""]) -> Float[Array, ""]:
        x, negatives, variance = piece
        data, drawn = (self.objective.each(params, points, None) / (2 * variance) for points in (x, negatives))
        return data.mean() - drawn.mean() + self.restraint * (jnp.mean(data**2) + jnp.mean(drawn**2))


@dataclass(frozen=True)
class NormalisedHead(NetworkHead):
    """Settings of a normalised autoencoder on some inputs: a plain one for `steps`, then `normalising_steps`.

    Each step draws `batch` points: `latent_steps` of size `latent_step` on the sphere, from a buffer of where earlier
    ones ended, but for `fresh` of them that begin anywhere; then `input_steps` of size `input_step`, in units of the
    variance. The variance is `temperature` times the plain autoencoder's mean squared error.
    """

    latent: int = 3
    hidden: tuple[int, ...] = (64, 64)
    normalising_steps: int = 1000
    normalising_lr: float = 3e-4
    latent_steps: int = 10
    latent_step: float = 0.05
    input_steps: int = 10
    input_step: float = 0.3
    buffer: int = 4096
    fresh: float = 0.05
    temperature: float = 1.0
    restraint: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent < 2:
            raise ValueError(f"a sphere needs at least two latent numbers, got {self.latent}")
        if min(self.normalising_steps, self.latent_steps, self.input_steps, self.buffer) < 1:
            raise ValueError(f"normalising_steps, latent_steps, input_steps and buffer must be positive, got {self}")
        sizes = (self.normalising_lr, self.latent_step, self.input_step, self.temperature)
        if not all(size > 0 for size in sizes):
            raise ValueError(f"normalising_lr, latent_step, input_step and temperature must be positive, got {self}")
        if not 0 <= self.fresh <= 1 or not self.restraint >= 0:
            raise ValueError(f"0 <= fresh <= 1 and restraint >= 0 are needed, got {self.fresh} and {self.restraint}")

    @property
    def objective(self) -> Objective:
        return Reconstruction(SphereCodec(self.latent, hidden=self.hidden))

    def fit(self, x: Inputs, *, seed: int = 0, progress: Progress = no_progress) -> NormalisedDetector:
        """Raises ValueError for jets that are not finite, do not vary or are fewer than 20, and where it runs away."""
        prepared = self.prepare(x)
        table = prepared(x)
        params, _ = fit_codec(self.objective, table, self.training(seed), self.name, progress)
        variance = self.temperature * float(values(self.objective, params, table).mean())
        if not variance > 0:
            raise ValueError(f"{self.name} copies its jets without any error; give it fewer latent numbers")
        params, history = _normalised(self, params, table, variance, seed, progress)
        return NormalisedDetector(self, prepared, params, np.float32(variance), history)

    def restore(self, state: State) -> NormalisedDetector:
        """Raises ValueError where arrays are missing or do not fit together."""
        plain = super().restore(state)
        variance, history = np.float32(required(state, "variance")), required(state, "history", None, 4)
        if not variance > 0:
            raise ValueError(f"the variance must be positive, got {variance}")
        return NormalisedDetector(
            self, plain.inputs, plain.params, variance, [Record(*row) for row in history.tolist()]
        )


@dataclass(frozen=True)
class NormalisedDetector(NetworkDetector):
    """A fitted density exp(-U) / Z; `history` says how the energies went while it was fitted."""

    variance: np.float32
    history: list[Record]

    def score(self, x: Inputs) -> Float[np.ndarray, " B"]:
        """U of each jet: minus its log-density in the head's inputs, but for log Z, one number for all."""
        return super().score(x) * (self.inputs.width / (2 * float(self.variance)))

    def traced(self, x: Any) -> Float[Array, " B"]:
        """`score` as pure JAX."""
        return super().traced(x) * (self.inputs.width / (2 * float(self.variance)))

    def log_partition(self, x: Inputs, *, seed: int = 0, chains: int = 1000, levels: int = 200) -> Partition:
        """log Z by annealed importance sampling that begins around some jets; it means little in many dimensions."""
        return log_partition(
            _energy(self.head.objective, self.params, jnp.float32(self.variance)),
            self.inputs(x),
            seed=seed,
            chains=chains,
            levels=levels,
        )

    def state(self) -> dict[str, np.ndarray]:
        return super().state() | {
            "variance": np.asarray(self.variance),
            "history": np.asarray(self.history, np.float64).reshape(-1, 4),
        }


@dataclass(frozen=True)
class NormalisedAutoEncoder(FeatureInputs, NormalisedHead):
    """The energy of the leading `components` of features, each of unit variance on the background.

    Its chains do not mix: read the score as an energy, not as a density. On 12,000 top-tagging jets of one class, of a
    JetCLR embedding of 1,152 features, AUC against the other class on 3,000 jets of each (seed 0): 0.927 fitted on QCD,
    0.924 fitted on tops. The last negatives' energies are 3.4 and 1.5 times those of the jets, chains from the decoder
    and from the jets still differ after 2,000 steps, and of 1,000 chains 5 and 54 count towards `log_partition`.
    """

    name: ClassVar[str] = "NAE"

    components: int = 16
    latent: int = 6


@dataclass(frozen=True)
class ImageNormalisedAutoEncoder(ImageComponentInputs, NormalisedHead):
    """The energy of the leading `components` of jet images, smeared by a pixel, each of unit variance.

    As for features: AUC 0.922 fitted on QCD, 0.821 fitted on tops; the last negatives' energies are 1.6 and 0.7 times
    those of the jets, and 345 and 560 of 1,000 chains count; 11 and 6 s of processor time a fit on a busy core.
    """

    name: ClassVar[str] = "image NAE"

    smoothing: float = 1.0


def _energy(objective: Objective, params: Params, variance: Float[Array, ""]) -> Energy:
    return lambda x: objective.each(params, x, None) * (x.shape[1] / (2 * variance))


@functools.lru_cache(maxsize=32)
def _sampler(
    objective: Objective, latent: tuple[int, float], inputs: tuple[int, float]
) -> Callable[..., tuple[Float[Array, "S L"], Float[Array, "S D"], Float[Array, " 3"]]]:
    """Compiled: where latent chains end, negatives, and the energies a number of data and negatives.

    `latent` and `inputs` are the numbers of steps and their sizes.
    """
    codec = objective.codec

    @jax.jit
    def draw(
        params: Params, x: Float[Array, "B D"], z: Float[Array, "S L"], key: Key[Array, ""], variance: Float[Array, ""]
    ) -> tuple[Float[Array, "S L"], Float[Array, "S D"], Float[Array, " 3"]]:
        energy = _energy(objective, params, variance)

        # The normal factor keeps the length; of the direction, which is all that counts, it says nothing.
        def on_manifold(z: Float[Array, "S L"]) -> Float[Array, " S"]:
            return energy(codec.decode(params, z)) + 0.5 * jnp.sum(z**2, axis=1)

        among_latent, among_inputs = jax.random.split(key)
        z = langevin(on_manifold, z, among_latent, *latent).x
        drawn = langevin(energy, codec.decode(params, z), among_inputs, inputs[0], inputs[1] * variance)
        width = x.shape[1]
        return z, drawn.x, jnp.stack([energy(x).mean() / width, drawn.energy.mean() / width, drawn.accepted])

    return draw


def _normalised(
    head: NormalisedHead, start: Params, x: Float[np.ndarray, "B D"], variance: float, seed: int, progress: Progress
) -> tuple[Params, list[Record]]:
    """Running mean of the parameters over the steps that follow the plain autoencoder's, and how energies went."""
    settings = replace(head.training(seed), steps=head.normalising_steps, peak_lr=head.normalising_lr)
    # The first key's numbers are the plain autoencoder's.
    key, rng = jax.random.fold_in(jax.random.key(seed), 1), np.random.default_rng([seed, 1])
    params = jax.tree.map(lambda p: jnp.array(p, jnp.float32), start)
    rates = jax.tree.map(lambda p: 1.0, params)
    optimiser, update = compiled_step(Contrast(head.objective, head.restraint), 0.0, settings.clip)
    mean, state = jax.tree.map(jnp.copy, params), optimiser.init(params)
    among = (head.latent_steps, head.latent_step), (head.input_steps, head.input_step)
    draw, scale = _sampler(head.objective, *among), np.float32(variance)
    batch = min(settings.batch, len(x))
    buffer = rng.normal(size=(head.buffer, head.latent)).astype(np.float32)
    history, waiting = [], []
    records = set(np.linspace(0, settings.steps, RECORDS + 1).round().astype(int).tolist()) - {0}
    for i, rows in enumerate(batches(len(x), batch, settings.steps, settings.seed)):
        slots = rng.integers(head.buffer, size=batch)
        anew = rng.random(batch) < head.fresh
        z = np.where(anew[:, None], rng.normal(size=(batch, head.latent)), buffer[slots]).astype(np.float32)
        ended, negatives, energies = draw(params, x[rows], z, jax.random.fold_in(key, i), scale)
        buffer[slots] = np.asarray(ended)
        waiting.append(energies)
        keep = min(settings.averaged, (1 + i) / (10 + i))
        piece = (x[rows], negatives, scale)
        params, mean, state, _ = update(params, mean, state, piece, key, i + 1, rates, rate(settings, i), keep)
        progress(1)
        if i + 1 in records:
            history.append(_record(head, i + 1, waiting))
            waiting = []
    mean = jax.tree.map(np.asarray, mean)
    # The last step comes after the last record.
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(mean)):
        raise ValueError(f"the parameters of {head.name} are NaN or infinite; lower its normalising_lr")
    return mean, history


def _record(head: NormalisedHead, step: int, energies: list[Array]) -> Record:
    data, negatives, accepted = np.mean([np.asarray(e) for e in energies], axis=0).astype(float).tolist()
    if not (data < LIMIT and negatives < LIMIT):
        raise ValueError(
            f"{head.name} runs away by step {step}: mean energies {data:.3g} of jets and {negatives:.3g} of points "
            "drawn; lower its normalising_lr or raise its restraint"
        )
    return Record(float(step), data, negatives, accepted)
