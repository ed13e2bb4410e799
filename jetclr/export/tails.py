"""Anomaly heads and linear probes as ends of an exported graph: one file from constituents to a score.

Shape glossary: B jets, N constituents, D width of a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from augmentations.jets import Jets, center, keep
from jetclr.anomaly.detect import word_of
from jetclr.anomaly.saved import SavedHead, open_head
from jetclr.benchmark.representations import Encoded, OnConstituents
from jetclr.data.store import Store
from jetclr.embed import embed_jets
from jetclr.errors import UserError
from jetclr.evaluate import signal_of
from jetclr.export.graph import Tail
from jetclr.run import Run, refuse_unknown_layers
from probes.anomaly.head import Detector
from probes.anomaly.traced import product, single
from probes.linear import LinearProbe, fit_logistic
from probes.taggers import Constituents

SIGNAL_LOGIT = "signal_logit"

LIMIT = 1e-4
"""How far a score may lie from that of float64, as |a - b| / (1 + |b|)."""

STEEP = {"normalising flow": 2e-3, "isolation forest": 2e-3}
"""Of heads that give the embedding's own rounding more weight: splines are steep, and trees jump at their cuts."""


def head_tail(path: Path, run: Run) -> Tail:
    """The head in a file that `jetclr anomaly` wrote, as the output "score_" and its name.

    Raises UserError for a file that is none, and for a head that was fitted on anything but this run's encoder or the
    constituents themselves.
    """
    head = open_head(path)
    name = f"score_{word_of(head.name).replace('-', '_')}"
    where = "the constituents" if isinstance(head.seen, OnConstituents) else f"the layer {head.layer!r}"
    meaning = f"{head.name} on {where}, larger for stranger jets; usual are those of {_background(head)}"
    if isinstance(head.seen, OnConstituents):
        end = _OnJets(head.detector, head.seen.constituents)
        return Tail(name, "", end.traced, end.score, meaning, LIMIT)
    if head.seen is None:
        raise UserError(
            f"{path} was fitted on a file of embeddings, and nothing tells which encoder these are from; fit it on the "
            f"run itself: jetclr anomaly {run.path}"
        )
    if head.seen.identity != Encoded(head.seen.name, head.seen.kind, run.config, run.params).identity:
        raise UserError(
            f"{path} was fitted on another encoder than {run.path} at step {run.step}; export the run and the "
            f"--checkpoint that it was fitted on, or fit it again: jetclr anomaly {run.path}"
        )
    return Tail(name, head.layer, head.detector.traced, head.detector.score, meaning, STEEP.get(head.name, LIMIT))


def probe_tail(run: Run, stores: Sequence[Path], layer: str, seed: int) -> Tail:
    """A logistic probe of a layer, fitted on the labelled jets of `stores`, as the output "signal_logit".

    As `jetclr probe` fits it: the lowest label is background, every other one signal. Raises UserError for stores
    without labels or of one class, a layer that there is not, or where no probe can be fitted.
    """
    refuse_unknown_layers(run, [layer])
    store = Store(*stores)
    (signal,) = signal_of([store])
    features = embed_jets(run.config, run.params, store, np.arange(len(store)), (layer,))[layer]
    try:
        probe = fit_logistic(features, signal, seed=seed)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"no probe can be fitted on the layer {layer!r} of {store}: {error}") from None
    names = ", ".join(path.name for path in stores)
    meaning = f"logistic probe of the layer {layer!r}, larger for signal; fitted on {len(store)} jets of {names}"
    return Tail(SIGNAL_LOGIT, layer, lambda x: _logit(probe, x), probe.score, meaning, LIMIT)


def _logit(probe: LinearProbe, x: Float[Array, "B D"]) -> Float[Array, " B"]:
    """`probe.score` as pure JAX; features are centred before they are multiplied, or digits would cancel."""
    return product(x - single(probe.mean), (probe.weights / probe.scale)[:, None])[:, 0] + probe.bias


def _background(head: SavedHead) -> str:
    jets, stores = (head.facts.get(name, "unknown") for name in ("jets", "background"))
    return f"{stores} ({jets} jets)"


@dataclass(frozen=True)
class _OnJets:
    """A head that sees constituents: the so many hardest, about their centroid, as when it was fitted."""

    detector: Detector
    constituents: int

    def traced(self, jets: Jets) -> Float[Array, " B"]:
        return self.detector.traced(self._seen(jets))

    def score(self, jets: Jets) -> Float[np.ndarray, " B"]:
        """Without a constituent there is nothing to score, but the graph gives a number: that one."""
        scores = np.array(jax.jit(self.traced)(jets), np.float64)
        seen = jax.tree.map(np.asarray, jax.jit(self._seen)(jets))
        there = seen.mask.any(axis=1)
        scores[there] = self.detector.score(jax.tree.map(lambda x: x[there], seen))
        return scores

    def _seen(self, jets: Jets) -> Constituents:
        slots = jnp.zeros((jets.pt.shape[0], self.constituents))
        pt, eta, phi = (jnp.concatenate([x, slots], axis=1) for x in keep(jets, jets.pt > 0)[:3])
        pt, hardest = jax.lax.top_k(pt, self.constituents)
        eta, phi = (jnp.take_along_axis(x, hardest, axis=1) for x in (eta, phi))
        return Constituents(*center(Jets(pt, eta, phi, pt > 0, {}))[:4])
