"""What a run's frozen representations are worth: linear probes on every layer, beside the controls.

Controls are the same encoder untrained (same seed, same width, the probe tuned the same way) and the raw padded
constituents: physics is claimed only for what lies above them.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32

from augmentations.jets import center
from jetclr import encoder, step
from jetclr.checkpoint import Which
from jetclr.config import Data
from jetclr.data.pipeline import Slice
from jetclr.data.store import Store
from jetclr.embed import embed_jets
from jetclr.errors import UserError
from jetclr.progress import jet_progress
from jetclr.run import Run, open_run
from probes.baselines import raw_constituents
from probes.linear import LinearProbe, fit_lda, fit_logistic
from probes.metrics import Estimate, PairedComparison, evaluate_scores, paired_bootstrap, roc_curve

ROC_POINTS = 400


@dataclass(frozen=True)
class ProbeResult:
    """One probe on one representation, measured on the test jets."""

    representation: str  # "trained embedding", "untrained layer_1", "raw constituents", ...
    probe: str  # "logistic" or "LDA"
    width: int
    l2: float | None  # chosen on a split of the training jets; None for LDA
    l2_at_edge: bool  # no stronger or no weaker one was tried beyond it
    estimates: dict[str, Estimate]  # auc, accuracy, r30, r50
    roc: tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]  # eps_S, eps_B
    scores: Float[np.ndarray, " test"]


@dataclass(frozen=True)
class Evaluation:
    """All probes of a run, and the paired comparison of its embedding with the untrained one, by probe."""

    run: Path
    step: int
    train: list[str]
    test: list[str]
    jets: dict[str, int]
    results: list[ProbeResult]
    against_untrained: dict[str, PairedComparison]


def probe_run(
    run_path: Path, train: Sequence[Path], test: Sequence[Path], *, seed: int = 0, which: Which = "latest"
) -> Evaluation:
    """Fit linear probes on `train` jets' representations and measure them on `test` jets.

    The lowest label (mostly 0, QCD) is background, every other one signal. Raises UserError if a store has no labels or
    only one class, or if the run has no checkpoint.
    """
    run = open_run(run_path, which)
    stores = Store(*train), Store(*test)
    _warn_of_overlap(run, train, test)
    labels = signal_of(stores)
    results: list[ProbeResult] = []
    sets = list(_representations(run))
    with jet_progress("probing", total=2 * len(sets), unit="fits") as advance:
        for name, features in _features(run, sets, stores):
            for fitted in _fit_both(name, features[0], labels[0], seed):
                results.append(_measure(name, fitted, features[1], labels[1], seed))
                advance(1)
    scores = {(r.representation, r.probe): r.scores for r in results}
    against = {
        p: paired_bootstrap(scores["trained embedding", p], scores["untrained embedding", p], labels[1], seed=seed)
        for p in ("logistic", "LDA")
    }
    return Evaluation(
        run_path,
        run.step,
        [str(p) for p in train],
        [str(p) for p in test],
        {"train": len(stores[0]), "test": len(stores[1])},
        results,
        against,
    )


def _warn_of_overlap(run: Run, train: Sequence[Path], test: Sequence[Path]) -> None:
    """Say on the terminal when test jets were fitted or pretrained on: such numbers prove nothing."""
    measured = {path.resolve() for path in test}
    for what, others in (("the probes are fitted on", train), ("the encoder was pretrained on", run.config.data.train)):
        for path in sorted(measured & {Path(other).resolve() for other in others}):
            print(f"warning: {what} the test jets of {path.name}; do not quote these numbers", file=sys.stderr)


def _representations(run: Run) -> Iterator[tuple[str, str]]:
    """(state, layer) of everything that is probed: ("trained", "layer_1"), ..., ("raw", "constituents")."""
    names = encoder.layer_names(run.config.encoder, run.config.head)
    yield from (("trained", name) for name in names)
    yield from (("untrained", name) for name in names)
    yield "raw", "constituents"


def _features(
    run: Run, sets: Sequence[tuple[str, str]], stores: Sequence[Store]
) -> Iterator[tuple[str, list[Float32[np.ndarray, "B D"]]]]:
    """Name and features of the training and the test jets, one representation after the other."""
    indices = [Slice().indices(store) for store in stores]
    for state, params in (("trained", run.params), ("untrained", step.init_params(run.config))):
        layers = tuple(layer for kind, layer in sets if kind == state)
        found = [embed_jets(run.config, params, s, i, layers) for s, i in zip(stores, indices, strict=True)]
        for layer in layers:
            yield f"{state} {layer}", [part.pop(layer) for part in found]
    yield "raw constituents", [_raw(s, i, run.config.data) for s, i in zip(stores, indices, strict=True)]


def _raw(store: Store, indices: np.ndarray, data: Data) -> Float32[np.ndarray, "B D"]:
    """What the encoder is given, as it is: pt, eta and phi of all constituents, then each extra of all."""
    jets = center(step.to_jets(store.gather(indices, data.constituents, data.extras)))
    pt, eta, phi, mask = (np.asarray(x) for x in (jets.pt, jets.eta, jets.phi, jets.mask))
    raw = raw_constituents(pt, eta, phi, mask, data.constituents)
    return np.concatenate([raw, *(np.asarray(jets.extras[name]) for name in data.extras)], axis=1)


def _fit_both(name: str, x: Float32[np.ndarray, "B D"], y: Int32[np.ndarray, " B"], seed: int) -> Iterator[LinearProbe]:
    if not np.isfinite(x).all():
        raise UserError(f"the representation {name!r} is not finite for every training jet; the run is not usable")
    try:
        yield fit_logistic(x, y, seed=seed)
        yield fit_lda(x, y)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"no probe can be fitted on the representation {name!r}: {error}") from None


def _measure(
    name: str, fitted: LinearProbe, x: Float32[np.ndarray, "B D"], y: Int32[np.ndarray, " B"], seed: int
) -> ProbeResult:
    if not np.isfinite(x).all():
        raise UserError(f"the representation {name!r} is not finite for every test jet; the run is not usable")
    scores = fitted.score(x)
    eps_s, eps_b = roc_curve(scores, y)
    at = np.unique(np.linspace(0, len(eps_s) - 1, ROC_POINTS).astype(int))
    return ProbeResult(
        name,
        fitted.name,
        x.shape[1],
        fitted.l2 or None,
        fitted.l2_at_edge,
        evaluate_scores(scores, y, threshold=fitted.threshold, seed=seed),
        (eps_s[at], eps_b[at]),
        scores,
    )


def signal_of(stores: Sequence[Store]) -> list[Int32[np.ndarray, " _"]]:
    """Which jets of each store are signal: 0 for those of the lowest label in any of them, else 1."""
    for store in stores:
        if "label" not in store.columns:
            raise UserError(f"{store} has no labels; a probe needs a column 'label'")
    found = [store.column("label") for store in stores]
    for store, label in zip(stores, found, strict=True):
        if not np.isfinite(label).all():
            raise UserError(f"jet {np.argmin(np.isfinite(label))} of {store} has a label that is NaN or infinite")
    background = min(label.min() for label in found)
    signal = [(label > background).astype(np.int32) for label in found]
    for store, one in zip(stores, signal, strict=True):
        if len(np.unique(one)) < 2:
            raise UserError(f"all jets of {store} are {'signal' if one[0] else 'background'}; a probe needs both")
    return signal


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as JSON values: results[representation][probe] holds auc, accuracy, r30, r50 with intervals."""
    results: dict[str, Any] = {}
    for r in evaluation.results:
        results.setdefault(r.representation, {})[r.probe] = (
            {"width": r.width, "l2": r.l2, "l2_at_edge": r.l2_at_edge}
            | {name: asdict(estimate) for name, estimate in r.estimates.items()}
            | {"roc": {"eps_s": np.round(r.roc[0], 6).tolist(), "eps_b": np.round(r.roc[1], 6).tolist()}}
        )
    return {
        "run": str(evaluation.run),
        "step": evaluation.step,
        "train": evaluation.train,
        "test": evaluation.test,
        "jets": evaluation.jets,
        "results": results,
        "trained_minus_untrained": {name: asdict(c) for name, c in evaluation.against_untrained.items()},
    }
