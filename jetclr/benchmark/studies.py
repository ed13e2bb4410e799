"""From scores to results: what tables and figures show, each study a function of measured predictors.

Nothing here is chosen by; what was chosen, was chosen in `fitting` by validation jets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from augmentations import Jets
from jetclr import step
from jetclr.benchmark import invariance
from jetclr.benchmark.cache import Entry
from jetclr.benchmark.fitting import RIDGE, choose, quality
from jetclr.benchmark.panel import Measured, Panel
from jetclr.benchmark.representations import Encoded, Representation
from jetclr.benchmark.results import (
    Calibration,
    Comparison,
    Curve,
    Efficiency,
    Geometry,
    Regression,
    Robustness,
    Score,
    Sculpting,
    SeedSpread,
    Similarity,
)
from jetclr.benchmark.robustness import NOMINAL, robustness_rows
from probes import metrics
from probes.calibration import expected_error_of_calibrated, fit_temperature, probabilities, reliability
from probes.delong import auc_interval, delong_test
from probes.dependence import mass_sculpting
from probes.metrics import Estimate
from probes.multiclass import accuracy, evaluate_logits, macro_auc_interval
from probes.ridge import regression_quality

ROC_POINTS = 400
SIMILARITY_JETS = 1024
SCULPTING_EPS_B = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
NO_UNIT = {"multiplicity": ""}


def estimates(panel: Panel, measured: Measured, view: str = NOMINAL) -> dict[str, Estimate]:
    """All metrics of a predictor with bootstrap intervals over the test jets; kept, for that takes a second."""

    def compute() -> Entry:
        classes, scores = panel.sealed.classes(view), measured.test[view]
        if panel.development.many:
            found = evaluate_logits(scores, classes, panel.development.classes.names, seed=panel.suite.seed)
        else:
            found = metrics.evaluate_scores(scores, classes, threshold=0.0, seed=panel.suite.seed)
        return Entry({name: asdict(estimate) for name, estimate in found.items()}, {})

    kept = panel.once("estimates", {"of": measured.key, "view": view}, compute).values
    return {name: Estimate(**value) for name, value in kept.items()}


def score_rows(panel: Panel, group: Sequence[Measured]) -> list[Score]:
    """A row for every predictor of one representation, the best on validation jets marked."""
    validation = [panel.quality(m) for m in group]
    best = choose(validation)
    rows = []
    for i, m in enumerate(group):
        curve, sic = None, None
        if not panel.development.many:
            classes, scores = panel.sealed.classes(), m.test[NOMINAL]
            eps_s, eps_b = metrics.roc_curve(scores, classes)
            at = np.unique(np.linspace(0, len(eps_s) - 1, ROC_POINTS).astype(int))
            curve = Curve(_floats(eps_s[at]), _floats(eps_b[at]))
            sic = metrics.significance_improvement(scores, classes).maximum
        rows.append(
            Score(
                m.representation.name,
                m.representation.kind,
                m.task.layer,
                m.probe,
                m.values["width"],
                m.values["parameters"],
                m.values["labels"],
                validation[i],
                i == best,
                estimates(panel, m),
                curve,
                sic,
                m.values["settings"],
                m.values["seconds"],
            )
        )
    return rows


def chosen(panel: Panel, group: Sequence[Measured]) -> Measured:
    """The predictor with the best AUC on validation jets."""
    return group[choose([panel.quality(m) for m in group])]


def comparison(panel: Panel, a: Measured, b: Measured) -> Comparison | None:
    """Predictor a minus b on the same test jets: DeLong's test and a paired bootstrap.

    None where both separate the classes without any overlap, so that nothing varies.
    """
    classes = panel.sealed.classes()
    scores = a.test[NOMINAL], b.test[NOMINAL]
    try:
        test = delong_test(*scores, classes)
    except ValueError:
        return None

    def compute() -> Entry:
        found = metrics.paired_bootstrap(*scores, classes, seed=panel.suite.seed)
        return Entry(asdict(found), {})

    kept = panel.once("paired bootstrap", {"a": a.key, "b": b.key}, compute).values
    log_r50 = None if kept["log_r50"] is None else Estimate(**kept["log_r50"])
    plain = a.probe == b.probe and all(m.task.layer == m.representation.main for m in (a, b))
    probe = a.probe if plain else ""
    names = (a.representation.name, b.representation.name) if probe else (a.name, b.name)
    return Comparison(*names, probe, Estimate(**kept["auc"]), kept["auc_p_value"], test.z, test.p_value, log_r50)


def efficiency(panel: Panel, draws: Sequence[Measured]) -> Efficiency:
    """One representation at one number of labels, over the draws of labelled jets."""
    classes = panel.sealed.classes()
    first, scores = draws[0], [m.test[NOMINAL] for m in draws]
    many = panel.development.many
    auc = [quality(s, classes) for s in scores]
    if many:
        rejections: list[Any] = []
        share = [accuracy(s, classes) for s in scores]
        interval = macro_auc_interval(scores[0], classes)
    else:
        rejections = [metrics.background_rejection(s, classes, 0.5) for s in scores]
        share = [metrics.accuracy(s, classes, 0.0) for s in scores]
        interval = auc_interval(scores[0], classes)
    labels = first.task.labels or len(panel.development.train_class)
    return Efficiency(
        first.representation.name,
        first.representation.kind,
        first.task.probe,
        labels,
        _floats(auc),
        _floats([r.value for r in rejections]),
        tuple(r.is_lower_bound for r in rejections),
        _floats(share),
        interval,
    )


def seed_spread(panel: Panel, name: str, probe: str, runs: Sequence[Measured]) -> SeedSpread:
    """Runs that differ by their seed alone."""
    classes = panel.sealed.classes()
    scores = [m.test[NOMINAL] for m in runs]
    r50 = [] if panel.development.many else [metrics.background_rejection(s, classes, 0.5) for s in scores]
    return SeedSpread(
        name,
        probe,
        tuple(m.representation.name for m in runs),
        _floats([quality(s, classes) for s in scores]),
        _floats([r.value for r in r50]),
        tuple(r.is_lower_bound for r in r50),
    )


def regression(panel: Panel, m: Measured) -> Regression:
    """How well a property of the jet is read off linearly."""
    target = m.task.probe.removeprefix(RIDGE)
    true = panel.sealed.column(target).astype(np.float64)
    found = regression_quality(m.test[NOMINAL], true, seed=panel.suite.seed)
    return Regression(
        m.representation.name,
        m.representation.kind,
        m.task.layer,
        target,
        NO_UNIT.get(target, "GeV" if target in ("jet_mass", "jet_pt") else ""),
        found["r2"],
        found["resolution"].value,
    )


def robustness(panel: Panel, m: Measured) -> list[Robustness]:
    """The same predictor on test jets that something was done to."""
    sealed = panel.sealed

    def compute() -> Entry:
        same = {view: scores for view, scores in m.test.items() if not sealed.other(view) and view != NOMINAL}
        others = {view: (scores, sealed.classes(view)) for view, scores in m.test.items() if sealed.other(view)}
        r, classes = m.representation, sealed.classes()
        rows = robustness_rows(r.name, r.kind, m.probe, classes, m.test[NOMINAL], same, others, seed=panel.suite.seed)
        return Entry({"rows": [asdict(row) for row in rows]}, {})

    kept = panel.once("robustness", {"of": m.key}, compute).values["rows"]
    return [Robustness(**_with_estimates(row, ("auc", "r50", "auc_change")) | _named(m.representation)) for row in kept]


def similarity(panel: Panel, r: Encoded) -> list[Similarity]:
    """How alike the embeddings of a jet and of its changed copies are, on validation jets."""

    def compute() -> Entry:
        found = invariance.similarity(r.name, r.kind, r.embed, _sample(panel, r), r.constituents, seed=panel.suite.seed)
        return Entry({"rows": [asdict(row) for row in found]}, {})

    kept = panel.once("similarity", {"of": dict(r.identity), "seed": panel.suite.seed}, compute).values["rows"]
    return [Similarity(**_tuples(row) | _named(r)) for row in kept]


def geometry(panel: Panel, r: Encoded) -> Geometry:
    """How the embeddings of validation jets lie."""

    def compute() -> Entry:
        found = invariance.geometry(r.name, r.kind, r.embed, _sample(panel, r), r.constituents, seed=panel.suite.seed)
        return Entry(asdict(found), {})

    return Geometry(
        **panel.once("geometry", {"of": dict(r.identity), "seed": panel.suite.seed}, compute).values | _named(r)
    )


def _sample(panel: Panel, r: Encoded) -> Jets:
    """The same validation jets for every representation, with slots to spare."""
    part = panel.development.validation
    rows = np.sort(np.random.default_rng(panel.suite.seed).permutation(part.indices)[:SIMILARITY_JETS])
    return step.to_jets(part.store.gather(rows, r.constituents + invariance.SPARE, r.extras))


def sculpting(panel: Panel, m: Measured) -> Sculpting | None:
    """How the score depends on the mass of background jets; cuts that leave none of them are not made.

    None where all have the same mass.
    """
    classes, scores = panel.sealed.classes(), m.test[NOMINAL]
    background = classes == 0
    mass = panel.sealed.column("jet_mass")[background].astype(np.float64)
    if np.ptp(mass) == 0:
        return None
    cuts = tuple(eps_b for eps_b in SCULPTING_EPS_B if eps_b * len(mass) >= 1)
    found = mass_sculpting(scores[background], mass, eps_b=cuts)
    rejection = metrics.background_rejection(scores, classes, 0.5)
    return Sculpting(
        m.representation.name,
        m.representation.kind,
        m.probe,
        metrics.auc(scores, classes),
        rejection.value,
        found.distance_correlation,
        _floats(found.jsd),
        cuts,
        _floats(found.edges),
        _floats(found.before),
        _floats(found.after[-1]),
        found.random_distance_correlation,
        _floats(found.random_jsd),
        rejection.is_lower_bound,
    )


def calibration(panel: Panel, m: Measured) -> Calibration | None:
    """Are the predictor's probabilities right? Its temperature is fitted on validation jets.

    None where they set none, because every one of them is classified rightly, or no better than by chance.
    """
    try:
        temperature = fit_temperature(m.validation, panel.development.validation_class)
    except ValueError:
        return None
    classes, scores = panel.sealed.classes(), m.test[NOMINAL]
    raw, scaled = (reliability(probabilities(scores, t), classes) for t in (1.0, temperature))
    return Calibration(
        m.representation.name,
        m.representation.kind,
        m.probe,
        temperature,
        raw.expected_error,
        scaled.expected_error,
        _floats(scaled.predicted),
        _floats(scaled.observed),
        tuple(int(n) for n in scaled.jets),
        expected_error_of_calibrated(probabilities(scores, temperature), seed=panel.suite.seed).value,
    )


def _with_estimates(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {k: Estimate(**v) if k in names and v is not None else v for k, v in row.items()}


def _named(r: Representation) -> dict[str, Any]:
    """What may differ between two that share their numbers, such as equal untrained encoders."""
    return {"representation": r.name, "kind": r.kind}


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _floats(v) if isinstance(v, list | tuple) else v for k, v in row.items()}


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
