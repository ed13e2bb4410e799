"""The figures of a benchmark: what each shows of the results, with its caption.

A run and what belongs to it have one colour in all of them, and their kinds differ by dash and marker. Where there are
many representations, a figure shows those of `selection.featured`; the tables have all.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jetclr.benchmark.results import Benchmark, Calibration, Curve, Efficiency, Kind, Score, Sculpting
from jetclr.benchmark.rows import probe_name
from jetclr.benchmark.selection import chosen, control_of, featured, in_order, run_of, several_layers
from jetclr.data.store import make_parent, replacing
from jetclr.errors import UserError
from probes import plots
from probes.plots import Band, Look, Reliability, Spectrum
from probes.plots.comparing import Interval, Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DASHES: dict[Kind, object] = {
    "untrained": (0, (5, 1.5)),
    "finetuned": (0, (6, 1.5, 1.5, 1.5)),
    "supervised": (0, (1.5, 1.5)),
}
MARKERS: dict[Kind, str] = {
    "run": "o", "untrained": "s", "embeddings": "P", "baseline": "^", "supervised": "X", "finetuned": "D",
}  # fmt: skip
BY_CONTRAST = (*plots.COLOURS[:4], plots.COLOURS[5], plots.COLOURS[4])
"""Grey last: it is taken for the least."""

MOST_TAGGERS = 6


class Drawing(NamedTuple):
    """A figure; `name` is that of its file, `alt` says in words what it shows."""

    name: str
    figure: "Figure"
    caption: str
    alt: str


def figures(benchmark: Benchmark) -> list[Drawing]:
    """All figures for which there are results, in the order of a page."""
    looks = looks_of(benchmark)
    draw: tuple[Callable[[Benchmark, dict[str, Look]], Drawing | None], ...] = (
        rejection, layers, label_efficiency, invariance, robustness, spectra, divergence, calibration
    )  # fmt: skip
    return [drawing for one in draw if (drawing := one(benchmark, looks)) is not None]


def write_figures(benchmark: Benchmark, folder: Path) -> list[Path]:
    """Write each figure, `overview` too; see `write_drawings`."""
    return write_drawings([*figures(benchmark), *([whole] if (whole := overview(benchmark)) else [])], folder)


def write_drawings(drawings: Sequence[Drawing], folder: Path) -> list[Path]:
    """Write each figure as PNG on white and as PDF for papers, each whole; gives what was written.

    Raises UserError if the folder cannot be made or written to.
    """
    written = []
    for drawing in drawings:
        for ending, settings in (
            ("png", {"dpi": 200, "facecolor": "white", "metadata": {"Software": None}}),
            ("pdf", {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}}),
        ):
            path = folder / f"{drawing.name}.{ending}"
            make_parent(path)
            try:
                with replacing(path) as partial, plots.style():
                    drawing.figure.savefig(partial, format=ending, **settings)
            except OSError as error:
                raise UserError(f"{path} cannot be written: {error.strerror}") from None
            written.append(path)
    return written


def looks_of(benchmark: Benchmark, families: bool = True) -> dict[str, Look]:
    """A look for each representation.

    With several runs, and if `families`, what a run leads to (fine-tuned, from scratch) has its colour; an untrained
    control always has.
    """
    kinds = {score.representation: score.kind for score in in_order(benchmark)}
    runs = [score.representation for score in chosen(benchmark, "run")]
    colours = dict(zip(runs, plots.COLOURS * len(runs), strict=False))
    for run in runs:
        control = control_of(benchmark, run)
        colours |= {control: colours[run]} if control else {}
    if families and len(runs) > 1:
        parents = {name: run_of(benchmark, name) for name in kinds if name not in colours}
        colours |= {name: colours[run] for name, run in parents.items() if run is not None}
    dashes = {name: DASHES.get(kinds[name], "-") for name in colours}
    taken = {colours[run] for run in (runs if families else runs[:1])}
    free = [colour for colour in BY_CONTRAST if colour not in taken] or list(BY_CONTRAST)
    # What is in most figures comes first, so that it keeps its distance from the others there.
    first = [s.representation for s in featured(benchmark) if s.representation not in colours]
    colours |= {name: free[i % len(free)] for i, name in enumerate(first)}
    prominent = {colours[name] for name in first}
    for group in (("embeddings", "baseline"), ("supervised",), ("untrained", "finetuned")):
        members = [name for name, kind in kinds.items() if kind in group]
        members.sort(key=lambda name: run_of(benchmark, name) is None)  # these are in more figures
        used = {colours[name] for name in members if name in colours}
        order = sorted(free, key=lambda colour: (colour in used, colour in prominent))
        for i, name in enumerate(name for name in members if name not in colours):
            # A colour that comes back is told apart by its dash.
            again = i // len(free) + (order[i % len(free)] in used)
            colours[name], dashes[name] = order[i % len(free)], plots.DASHES[again % len(plots.DASHES)]
    return {name: Look(colours[name], dashes.get(name, "-"), MARKERS[kind]) for name, kind in kinds.items()}


def rejection(benchmark: Benchmark, looks: dict[str, Look]) -> Drawing | None:
    """ROC curves: frozen representations in one panel, networks trained on the labels in another."""
    frozen = [s for s in featured(benchmark) if s.kind not in ("supervised", "finetuned")]
    frozen += [s for s in chosen(benchmark, "baseline") if s not in frozen][: MOST_TAGGERS - len(frozen)]
    trained = [*chosen(benchmark, "run")[:1], *chosen(benchmark, "finetuned", "supervised")[:MOST_TAGGERS]]
    panels = {"frozen representations": _rocs(frozen)}
    if any(s.kind != "run" for s in trained):
        panels["networks trained on the labels"] = _rocs(trained)
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        return None
    background = benchmark.facts.classes[0]
    return Drawing(
        "roc",
        plots.rejections(panels, looks),
        f"Rejection of {background} jets against signal efficiency, of the layer and probe chosen on validation jets; "
        "further up is better. Lines turn faint where fewer than about ten background jets are left, and the dotted "
        "line is a random choice. The best of each kind on validation jets are shown, the first run in both panels.",
        "ROC curves of " + ", ".join(dict.fromkeys(name for curves in panels.values() for name in curves)),
    )


def label_efficiency(benchmark: Benchmark, looks: dict[str, Look]) -> Drawing | None:
    """AUC and R50 against the number of labelled jets."""
    both = {metric: _bands(benchmark, metric) for metric in ("AUC", "R50")}
    panels = {metric: lines for metric, lines in both.items() if lines}
    if not panels:
        return None
    return Drawing(
        "label_efficiency",
        plots.label_efficiency(panels, looks),
        "What so many labelled jets are enough for: mean over draws of the labels, and their standard deviation as a "
        "band (apart from the error of the test jets). An arrow is a lower bound. Frozen representations with logistic "
        "regression; other probes are in the table.",
        "curves against the number of labelled jets: " + ", ".join(next(iter(panels.values()))),
    )


def overview(benchmark: Benchmark) -> Drawing | None:
    """ROC curves and label efficiency of the best run and what it is held against: the picture for a README."""
    shown = featured(benchmark, runs=1)
    curves, lines = _rocs(shown), _bands(benchmark, "AUC", shown)
    if not curves or not lines:
        return None
    return Drawing(
        "overview",
        plots.overview(curves, "AUC", lines, looks_of(benchmark, families=False)),
        "Background rejection against signal efficiency, and AUC against the number of labelled jets.",
        "ROC curves and label efficiency of " + ", ".join(dict.fromkeys((*curves, *lines))),
    )


def layers(benchmark: Benchmark, looks: dict[str, Look]) -> Drawing | None:
    """AUC of each layer, trained and untrained, with the same probe everywhere."""
    shown = several_layers(benchmark) & {s.representation for s in featured(benchmark)}
    scores = [s for s in benchmark.scores if s.representation in shown]
    if not scores:
        return None
    probe = _usual(s.probe for s in scores)
    series: dict[str, dict[str, Interval]] = {}
    for s in scores:
        if s.probe == probe:
            auc = s.test["auc"]
            high = auc.value if auc.high is None else auc.high
            series.setdefault(s.representation, {})[s.layer] = (auc.value, auc.low, high)
    return Drawing(
        "layers",
        plots.layers(series, f"AUC ({probe})", looks),
        f"AUC of the same probe ({probe}) on each layer, with 95 % intervals over the test jets. The layer of the "
        "first table was chosen on validation jets, not here.",
        "AUC by layer of " + ", ".join(series),
    )


def invariance(benchmark: Benchmark, looks: dict[str, Look]) -> Drawing | None:
    """Cosine with the changed copy, a panel each transform."""
    panels: dict[str, dict[str, tuple[np.ndarray, ...]]] = {}
    for s in _of_featured(benchmark, benchmark.similarity):
        line = tuple(np.array(v) for v in (s.strength, s.mean, s.low, s.high))
        panels.setdefault(s.transform, {})[s.representation] = line
    if not panels:
        return None
    labels = {s.transform: s.strength_label for s in benchmark.similarity}
    return Drawing(
        "invariance",
        plots.similarities(panels, labels, looks),
        "Mean cosine between the embeddings of a jet and of its changed copy, after the mean embedding is taken off; "
        "bands hold the central 68 % of jets. At one the change is ignored, and zero is what different jets have.",
        "similarity against strength for " + ", ".join(panels),
    )


def robustness(benchmark: Benchmark, looks: dict[str, Look]) -> Drawing | None:
    """AUC on changed test jets and its change, in rows."""
    auc: dict[str, dict[str, Interval]] = {}
    change: dict[str, dict[str, Interval]] = {}
    for r in _of_featured(benchmark, benchmark.robustness):
        for panel, estimate in ((auc, r.auc), (change, r.auc_change)):
            if estimate is not None:
                high = estimate.value if estimate.high is None else estimate.high
                panel.setdefault(r.shift, {})[r.representation] = (estimate.value, estimate.low, high)
    if not auc:
        return None
    panels = {"AUC": auc} | ({"change of AUC on the same jets": change} if change else {})
    return Drawing(
        "robustness",
        plots.dots(panels, looks),
        "Left: AUC on test jets that something was done to, of predictors fitted on the suite's own jets. Right: its "
        "change on the same jets, whose error is smaller; other jets have none. Bars are 95 % intervals.",
        "AUC for " + ", ".join(auc),
    )


def spectra(benchmark: Benchmark, looks: dict[str, Look]) -> Drawing | None:
    """Mass spectra of background jets before and after the tightest cut."""
    found: dict[str, dict[str, Sculpting]] = {}
    for s in _of_featured(benchmark, benchmark.sculpting):
        found.setdefault(s.representation, {})[probe_name(s.representation, s.probe) or "its own score"] = s
    panels = {}
    for name, by_probe in found.items():
        one = next(iter(by_probe.values()))
        after = {probe: np.array(s.after) for probe, s in by_probe.items()}
        panels[name] = Spectrum(np.array(one.edges), np.array(one.before), after)
    probes = dict.fromkeys(probe for by_probe in found.values() for probe in by_probe)
    used = {probe: Look(plots.COLOURS[i % 6], plots.DASHES[i % 4]) for i, probe in enumerate(probes)}
    if not panels:
        return None
    return Drawing(
        "mass_spectra",
        plots.mass_spectra(panels, used),
        f"Mass of background jets before (grey) and after a cut that {one.eps_b[-1]:.0%} of them pass, as shares of "
        "their own jets. A score that knows nothing of the mass leaves the spectrum as it is.",
        "mass spectra for " + ", ".join(panels),
    )


def divergence(benchmark: Benchmark, looks: dict[str, Look]) -> Drawing | None:
    """How far a cut changes the mass spectrum, against the cut."""
    series: dict[str, Line] = {}
    used: dict[str, Look] = {}
    for s in _of_featured(benchmark, benchmark.sculpting):
        usual = probe_name(s.representation, s.probe) in (None, "logistic")
        name = s.representation if usual else f"{s.representation}, {s.probe}"
        series[name] = (np.array(s.eps_b), np.array(s.jsd))
        look = looks[s.representation]
        used[name] = look if usual else look._replace(dash=plots.DASHES[2], marker="v")
    if not series:
        return None
    return Drawing(
        "mass_divergence",
        plots.divergence(series, used),
        "Jensen-Shannon divergence between the mass spectra of background jets before and after a cut (0: the same, "
        "1 bit: nothing in common).",
        "divergence of mass spectra for " + ", ".join(series),
    )


def calibration(benchmark: Benchmark, looks: dict[str, Look]) -> Drawing | None:
    """Reliability diagrams."""
    found: dict[str, Calibration] = {}
    for c in _of_featured(benchmark, benchmark.calibration):
        found.setdefault(c.representation, c)
    panels = {
        name: Reliability(np.array(c.predicted), np.array(c.observed), np.array(c.jets), _ece(c))
        for name, c in found.items()
        if any(c.jets)
    }
    if not panels:
        return None
    many = len(benchmark.facts.classes) > 2
    share = "Share whose likeliest class is the true one" if many else "Share of signal"
    return Drawing(
        "calibration",
        plots.reliability(panels, looks),
        f"{share} among test jets against the predicted probability, after temperature scaling on validation jets; "
        "bars are standard errors. ECE is the expected calibration error before and after.",
        "reliability curves of " + ", ".join(panels),
    )


def _ece(c: Calibration) -> str:
    return f"ECE {c.error:.3f} → {c.scaled_error:.3f}"


def _rocs(scores: Iterable[Score]) -> dict[str, Line]:
    """Curves that have background somewhere, by name."""
    found: dict[str, Curve] = {s.representation: s.roc for s in scores if s.roc is not None and any(s.roc.eps_b)}
    return {name: (np.array(curve.eps_s), np.array(curve.eps_b)) for name, curve in found.items()}


def _bands(benchmark: Benchmark, metric: str, few: Sequence[Score] | None = None) -> dict[str, Band]:
    """Mean and standard deviation over draws by name, for one probe of each representation.

    Those are the featured ones and all that was trained on few labels; of `few`, what belongs to its run.
    """
    shown = {s.representation for s in (featured(benchmark) if few is None else few)}
    for e in benchmark.efficiency:
        run = run_of(benchmark, e.representation)
        if e.kind in ("finetuned", "supervised") and (few is None or run is None or run in shown):
            shown.add(e.representation)
    lines: dict[str, dict[str, list[Efficiency]]] = {}
    for e in benchmark.efficiency:
        if e.representation in shown and (e.auc if metric == "AUC" else e.r50):
            lines.setdefault(e.representation, {}).setdefault(e.probe, []).append(e)
    out = {}
    for name, by_probe in lines.items():
        entries = sorted(by_probe[_usual(by_probe)], key=lambda e: e.labels)
        draws = [e.auc if metric == "AUC" else e.r50 for e in entries]
        mean = np.array([statistics.fmean(d) for d in draws])
        spread = np.array([statistics.stdev(d) if len(d) > 1 else 0.0 for d in draws])
        bound = np.array([metric == "R50" and any(e.r50_is_bound) for e in entries])
        low = np.maximum(mean - spread, 1.0 if metric == "R50" else 0.0)
        out[name] = Band(np.array([float(e.labels) for e in entries]), mean, low, mean + spread, bound)
    return out


def _usual(probes: Iterable[str]) -> str:
    """Logistic regression where there is one, so that lines are of the same probe."""
    names = list(probes)
    return "logistic" if "logistic" in names else names[0]


def _of_featured(benchmark: Benchmark, entries: Iterable) -> list:
    """Entries of the representations that figures show, in their order."""
    order = [s.representation for s in featured(benchmark)]
    return sorted((e for e in entries if e.representation in order), key=lambda e: order.index(e.representation))
