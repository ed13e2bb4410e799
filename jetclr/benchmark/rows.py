"""A benchmark as tables: rows, their order and captions, for whoever sets them (terminal, Markdown, LaTeX, HTML)."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from typing import TypeVar

from jetclr.benchmark.results import Benchmark, Efficiency, Score, SeedSpread
from jetclr.benchmark.selection import GROUPS, best_of_groups, in_order, main_layer, several_layers
from jetclr.benchmark.table import Table
from probes.metrics import Estimate
from probes.report import Number, Row

METRICS = {"auc": "AUC", "accuracy": "accuracy", "r30": "R30", "r50": "R50"}
SHOWN = ("logistic", "LDA")
"""Probes that the first table shows for every representation, on its embedding, beside the chosen one."""

BOOTSTRAP = "Brackets are 95 % bootstrap intervals over the test jets"
SPREAD = "The spread is the standard deviation over draws of the labels; it is apart from the error of the test jets"

T = TypeVar("T")
K = TypeVar("K")


def tables(benchmark: Benchmark, full: bool = True) -> dict[str, Table]:
    """All tables that have rows by short names, the headline first; `full` adds the one of every layer and probe."""
    made = {
        "headline": headline(benchmark),
        "by_class": by_class(benchmark),
        "comparisons": comparisons(benchmark),
        "label_efficiency_auc": label_efficiency(benchmark, "AUC"),
        "label_efficiency_r50": label_efficiency(benchmark, "R50"),
        "seeds": seeds(benchmark),
        "regression": regression(benchmark),
        "geometry": geometry(benchmark),
        "robustness": robustness(benchmark),
        "sculpting": sculpting(benchmark),
        "calibration": calibration(benchmark),
        **({"every_score": every_score(benchmark)} if full else {}),
    }
    return {name: table for name, table in made.items() if table.rows}


def headline(benchmark: Benchmark) -> Table:
    """The chosen row of each representation in bold, beside it logistic regression and LDA on its embedding."""
    main = main_layer(benchmark)
    scores = [s for s in in_order(benchmark) if s.chosen or (s.probe in SHOWN and s.layer == main[s.representation])]
    best = best_of_groups(benchmark)
    columns, rows = _score_rows(benchmark, scores)
    # What a fit costs is in the table of all; a number that all rows share is said once.
    labels = sorted({score.labels for score in scores})
    shared = f" Labelled jets used, validation included: {labels[0]:,}." if len(labels) == 1 else ""
    left_out = {"fitted numbers", "seconds"} | ({"labels"} if len(labels) == 1 else set())
    columns, rows = _without(left_out, columns, rows)
    starred = [(f"{row[0]} *", *row[1:]) if score in best else row for row, score in zip(rows, scores, strict=True)]
    return Table(
        "Representations and taggers",
        columns,
        starred,
        "In bold: the layer and probe of a representation that have its best validation AUC; * marks the best of a "
        f"group, on validation jets too. {_what_is_measured(benchmark)} {BOOTSTRAP}; a value after > is a lower bound, "
        "because fewer than ten background jets are left. Width: numbers a jet that the probe sees. val. AUC: of "
        f"validation jets.{shared}",
        _strong(scores),
        _headings(scores),
        ("layer", "probe"),
        ("width", "labels", "max SIC", "val. AUC"),
    )


def every_score(benchmark: Benchmark) -> Table:
    """Every layer and probe of every representation, as `headline` without its selection."""
    scores = in_order(benchmark)
    columns, rows = _score_rows(benchmark, scores)
    return Table(
        "Every layer and probe",
        columns,
        rows,
        f"In bold what was chosen on validation jets. {BOOTSTRAP}. To pick the best row of this table by its test "
        "figures is to choose on test jets.",
        _strong(scores),
        _headings(scores),
        ("layer", "probe"),
        ("width", "labels", "max SIC", "val. AUC", "fitted numbers", "seconds"),
    )


def by_class(benchmark: Benchmark) -> Table:
    """Many classes: the rejection of each, for the chosen row of each representation."""
    scores = [score for score in in_order(benchmark) if score.chosen]
    keys = list(dict.fromkeys(key for score in scores for key in score.test if key not in METRICS))
    rows: list[Row] = [
        (s.representation, *(Number(str(s.test[key]).split(" ")[0]) if key in s.test else None for key in keys))
        for s in scores
        if keys
    ]
    return Table(
        "Background rejection by class",
        ("representation", *(key.removeprefix("r50 ") for key in keys)),
        rows,
        f"R50 = 1/eps_B at eps_S = 0.5 of each class as signal against {benchmark.facts.classes[0]} alone, of the "
        "layer and probe chosen on validation jets. The intervals are in the JSON file; a value after > is a lower "
        "bound.",
        groups=_headings(scores),
    )


def comparisons(benchmark: Benchmark) -> Table:
    """Pairs on the same test jets."""
    rows: list[Row] = [
        (
            f"{c.a} − {c.b}",
            c.probe or None,
            _signed(c.auc),
            Number(p_value(c.bootstrap_p)),
            Number(f"{c.delong_z:+.1f}"),
            Number(p_value(c.delong_p)),
            None if c.log_r50 is None else Number(f"{c.log_r50:+.2f}"),
        )
        for c in benchmark.comparisons
    ]
    return Table(
        "Differences on the same test jets",
        ("a − b", "probe", "difference in AUC", "bootstrap p", "DeLong z", "DeLong p", "in log R50"),
        rows,
        "Both predictors are measured on the same resampled test jets (95 % intervals); bootstrap p is one-sided, for "
        '"a is not better than b", DeLong p is two-sided. They hold for these trained networks, not for other training '
        f"seeds, and are not corrected for there being {len(rows)} of them. The difference in log R50 is missing where "
        "either predictor leaves fewer than ten background jets.",
        folded=("probe",),
        optional=("DeLong z", "in log R50"),
    )


def label_efficiency(benchmark: Benchmark, metric: str) -> Table:
    """AUC or R50 against the number of labels: mean and standard deviation over draws."""
    counts = sorted({e.labels for e in benchmark.efficiency})
    lines = _together(benchmark.efficiency, lambda e: (e.representation, e.kind, e.probe))
    rows: list[Row] = []
    for (representation, _, probe), entries in lines.items():
        cells = {e.labels: drawn_auc(e) if metric == "AUC" else drawn_r50(e) for e in entries}
        if any(cell is not None for cell in cells.values()):
            rows.append((representation, probe_name(representation, probe), *(cells.get(count) for count in counts)))
    bounds = " A value after > is a lower bound: some draws leave fewer than ten background jets."
    return Table(
        f"Label efficiency: {metric}",
        ("representation", "probe", *(f"{count:,}" for count in counts)),
        rows,
        f"{metric} on the test jets after fitting on so many labelled jets. {SPREAD}; where there is none, there was "
        f"one draw.{bounds if metric == 'R50' else ''}",
        folded=("probe",),
    )


def seeds(benchmark: Benchmark) -> Table:
    """Runs that differ by their seed."""
    rows: list[Row] = [
        (s.representation, s.probe, ", ".join(s.runs), len(s.runs), _mean(s.auc, ".4f"), drawn_r50(s))
        for s in benchmark.seeds
    ]
    return Table(
        "Spread over training seeds",
        ("representation", "probe", "runs", "number", "AUC", "R50"),
        rows,
        "Mean and standard deviation over runs that differ by their seed alone: how much training again would change, "
        "apart from the error of the test jets.",
        optional=("runs",),
    )


def regression(benchmark: Benchmark) -> Table:
    """What ridge regression reads from each representation."""
    targets = list(dict.fromkeys((r.target, r.unit) for r in benchmark.regression))
    lines = _together(benchmark.regression, lambda r: (r.representation, r.kind, r.layer))
    columns = ["representation", "layer"]
    for target, unit in targets:
        columns += [f"{target} R²", f"{target} resolution" + (f" [{unit}]" if unit else "")]
    rows: list[Row] = []
    for (representation, _, layer), entries in lines.items():
        found = {r.target: (r.r2, r.resolution) for r in entries}
        rows.append((representation, layer or None, *(v for t, _ in targets for v in found.get(t, (None, None)))))
    return Table(
        "What can be read off linearly",
        tuple(columns),
        rows,
        f"Ridge regression of a jet's property. R² is the share of its variance that is explained. {BOOTSTRAP}; "
        "the resolution is the standard deviation of predicted − true.",
        folded=("layer",),
    )


def geometry(benchmark: Benchmark) -> Table:
    """How the embeddings lie."""
    rows: list[Row] = [
        (
            g.representation,
            Number(f"{g.width:,}"),
            g.alignment,
            g.uniformity,
            Number(f"{g.effective_rank:.1f}"),
            g.between,
        )
        for g in benchmark.geometry
    ]
    return Table(
        "How the embeddings lie",
        ("representation", "width", "alignment", "uniformity", "effective rank", "cosine of different jets"),
        rows,
        "Alignment: mean squared distance of a jet and its augmented copy (0: equal). Uniformity: lower is better "
        "spread (arXiv:2005.10242). Effective rank: directions in use, of as many as the width. The cosine is that of "
        "the embeddings as they are; their mean is part of it.",
        optional=("width",),
    )


def robustness(benchmark: Benchmark) -> Table:
    """The same predictors on changed test jets, by change."""
    by_shift = _together(benchmark.robustness, lambda r: r.shift)
    rows: list[Row] = []
    groups = {}
    for shift, entries in by_shift.items():
        groups[len(rows)] = shift
        for r in entries:
            change = None if r.auc_change is None else _signed(r.auc_change)
            rows.append((r.representation, probe_name(r.representation, r.probe), r.auc, change, r.r50))
    return Table(
        "Robustness",
        ("representation", "probe", "AUC", "change of AUC", "R50"),
        rows,
        f"Predictors fitted on the suite's own jets, measured on test jets that something was done to. {BOOTSTRAP}; "
        "the change is on the same resampled jets, and is missing where the jets are others.",
        groups=groups,
        folded=("probe",),
    )


def sculpting(benchmark: Benchmark) -> Table:
    """How scores depend on the jet mass."""
    cuts = sorted({eps_b for s in benchmark.sculpting for eps_b in s.eps_b}, reverse=True)
    if len(cuts) > 4:  # the figure has them all
        cuts = [cuts[0], cuts[len(cuts) // 2], cuts[-1]]
    rows: list[Row] = []
    for s in benchmark.sculpting:
        at = dict(zip(s.eps_b, s.jsd, strict=True))
        divergences = [Number(f"{at[cut]:.3f}") if cut in at else None for cut in cuts]
        r50 = Number(f">{math.floor(s.r50)}" if s.r50_is_bound else f"{s.r50:.1f}")
        row = (
            s.representation,
            probe_name(s.representation, s.probe),
            Number(f"{s.auc:.4f}"),
            r50,
            Number(f"{s.distance_correlation:.3f}"),
        )
        rows.append((*row, *divergences))
    if benchmark.sculpting:
        at = dict(zip(benchmark.sculpting[0].eps_b, benchmark.sculpting[0].random_jsd, strict=True))
        chance = Number(f"{benchmark.sculpting[0].random_distance_correlation:.3f}")
        divergences = [Number(f"{at[cut]:.3f}") if cut in at else None for cut in cuts]
        rows.append(("independent of the mass", None, None, None, chance, *divergences))
    return Table(
        "Dependence of the score on the jet mass",
        ("representation", "probe", "AUC", "R50", "distance correlation", *(f"JSD at {cut:g}" for cut in cuts)),
        rows,
        "On background test jets. Distance correlation of score and mass (arXiv:2001.05310; 0: independent). JSD: "
        "Jensen-Shannon divergence [bits] of the mass spectrum before and after a cut at that background efficiency. "
        "The last row is what a score that knows nothing of the mass shows on so many jets.",
        folded=("probe",),
    )


def calibration(benchmark: Benchmark) -> Table:
    """Whether the probabilities can be taken at their word."""
    rows: list[Row] = [
        (
            c.representation,
            probe_name(c.representation, c.probe),
            Number(f"{c.error:.4f}"),
            Number(f"{c.temperature:.3f}"),
            Number(f"{c.scaled_error:.4f}"),
            Number(f"{c.perfect_error:.4f}"),
        )
        for c in benchmark.calibration
    ]
    return Table(
        "Calibration",
        ("representation", "probe", "ECE", "temperature", "ECE after scaling", "of perfect ones"),
        rows,
        "ECE: expected calibration error on test jets, the mean distance of predicted probability and "
        f"{'share of right answers' if len(benchmark.facts.classes) > 2 else 'share of signal'}. The temperature was "
        "fitted on validation jets. The last column is what perfect probabilities show on so many jets.",
        folded=("probe",),
    )


def drawn_auc(entry: Efficiency) -> Number | None:
    """Mean and standard deviation of the AUC over draws."""
    return _mean(entry.auc, ".4f")


def drawn_r50(entry: Efficiency | SeedSpread) -> Number | None:
    """As `drawn_auc`; with a bound among the draws, their mean bounds the mean from below."""
    if any(entry.r50_is_bound):
        return Number(f">{math.floor(statistics.fmean(entry.r50))}")
    return _mean(entry.r50, ".1f" if entry.r50 and statistics.fmean(entry.r50) < 100 else ".0f")


def probe_name(representation: str, probe: str) -> str | None:
    """The probe, unless its name says no more than that of the representation: a tagger is its own."""
    return None if probe == "" or representation.endswith(probe) else probe


def p_value(p: float) -> str:
    """A p-value with two digits, and no more zeros than anybody believes."""
    return "<0.0001" if p < 1e-4 else f"{p:.2g}"


def _mean(values: Sequence[float], spec: str) -> Number | None:
    if not values:
        return None
    mean = format(statistics.fmean(values), spec)
    return Number(mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):{spec}}")


def _score_rows(benchmark: Benchmark, scores: Sequence[Score]) -> tuple[tuple[str, ...], list[Row]]:
    """Columns of which some row has something, and a row for each score."""
    metrics = [key for key in METRICS if any(key in score.test for score in scores)]
    columns: tuple[str, ...] = (
        "representation", "layer", "probe", "width", "labels", *(METRICS[key] for key in metrics), "max SIC",
        "val. AUC", "fitted numbers", "seconds",
    )  # fmt: skip
    layered = several_layers(benchmark)
    rows: list[Row] = [
        (
            s.representation,
            s.layer if s.representation in layered else None,
            probe_name(s.representation, s.probe),
            Number(f"{s.width:,}") if s.width else None,
            Number(f"{s.labels:,}"),
            *(s.test.get(key) for key in metrics),
            None if s.max_sic is None else Number(f"{s.max_sic:.1f}"),
            Number(f"{s.validation_auc:.4f}"),
            Number(f"{s.parameters:,}"),
            Number(f"{s.seconds:,.1f}"),
        )
        for s in scores
    ]
    empty = {name for i, name in enumerate(columns) if all(row[i] is None for row in rows)}
    return _without(empty, columns, rows)


def _without(left_out: Set[str], columns: tuple[str, ...], rows: list[Row]) -> tuple[tuple[str, ...], list[Row]]:
    kept = [i for i, name in enumerate(columns) if name not in left_out]
    return tuple(columns[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


def _strong(scores: Sequence[Score]) -> frozenset[int]:
    """Rows that were chosen, where there was a choice."""
    rows = Counter(score.representation for score in scores)
    return frozenset(i for i, score in enumerate(scores) if score.chosen and rows[score.representation] > 1)


def _headings(scores: Sequence[Score]) -> dict[int, str]:
    """Row -> heading of the group that begins there."""
    of = {kind: title for title, kinds in GROUPS.items() for kind in kinds}
    titles = [of[score.kind] for score in scores]
    return {i: title for i, title in enumerate(titles) if i == 0 or titles[i - 1] != title}


def _what_is_measured(benchmark: Benchmark) -> str:
    if len(benchmark.facts.classes) > 2:
        return (
            "AUC is the mean over pairs of classes, with DeLong's interval; accuracy is that of all classes together."
        )
    return (
        "Accuracy is at a predicted probability of 0.5; R30 and R50 are 1/eps_B at eps_S = 0.3 and 0.5; max SIC is "
        "the largest eps_S / sqrt(eps_B) where eps_B is known to 20 %."
    )


def _together(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def _signed(estimate: Estimate) -> Number:
    return Number(f"{estimate:+.4f}")
