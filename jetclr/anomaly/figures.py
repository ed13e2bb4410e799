"""The figures of an anomaly benchmark, each with its caption."""

import statistics
from collections.abc import Sequence

import numpy as np

from jetclr.anomaly.results import AnomalyBenchmark, HeadScore, Hunt, SearchScore, SicCurve
from jetclr.anomaly.tables import direction
from jetclr.benchmark.figures import Drawing
from probes import plots
from probes.anomaly.bumphunt import BumpHunt, PValue, Window
from probes.metrics import SignificanceImprovement
from probes.plots import Look
from probes.plots.comparing import Interval

MOST_LINES = 7


def figures(benchmark: AnomalyBenchmark) -> list[Drawing]:
    """All figures for which there are results, in the order of a page."""
    others = [contamination(benchmark), injection(benchmark), hunt(benchmark)]
    return [*heads(benchmark), *sic(benchmark), *(drawing for drawing in others if drawing is not None)]


def _called(score: HeadScore) -> str:
    return score.head if score.kind == "constituents" else f"{score.head}, {score.representation}"


def _clean(benchmark: AnomalyBenchmark) -> list[HeadScore]:
    return [s for s in benchmark.heads if not s.contamination]


def _featured(scores: Sequence[HeadScore]) -> list[str]:
    """Of each direction the best heads that see embeddings or jets, until there are enough for one figure."""
    out: list[str] = []
    shown = [s for s in scores if s.kind in ("run", "constituents")]
    directions = list(dict.fromkeys((s.background, s.signal) for s in shown))
    ranked = [
        sorted((s for s in shown if (s.background, s.signal) == d), key=lambda s: -s.test["auc"].value)
        for d in directions
    ]
    for place in zip(*ranked, strict=False):
        for score in place:
            if _called(score) not in out and len(out) < MOST_LINES:
                out.append(_called(score))
    return out


def _looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each name; a colour that comes back is told apart by its dash and marker."""
    looks, markers = {}, "os^DvPX"
    for i, name in enumerate(dict.fromkeys(names)):
        again, colour = divmod(i, len(plots.COLOURS))
        dash, marker = plots.DASHES[again % len(plots.DASHES)], markers[again % len(markers)]
        looks[name] = Look(plots.COLOURS[colour], dash, marker)
    return looks


def heads(benchmark: AnomalyBenchmark) -> list[Drawing]:
    """AUC of every head as dots with intervals: a panel a background, a colour a signal."""
    panels: dict[str, dict[str, dict[str, Interval]]] = {}
    for s in _clean(benchmark):
        auc = s.test["auc"]
        high = auc.value if auc.high is None else auc.high
        rows = panels.setdefault(f"AUC, {s.background} → signal", {})
        rows.setdefault(_called(s), {})[s.signal] = (auc.value, auc.low, high)
    if not panels:
        return []
    signals = [signal for rows in panels.values() for row in rows.values() for signal in row]
    return [
        Drawing(
            "heads",
            plots.dots(panels, _looks(signals)),
            "AUC of every head, fitted on one kind of jets and asked for another; bars are 95 % intervals over the "
            "test jets. Below 0.5 a head takes the strange for more usual than the usual.",
            "AUC of " + ", ".join(next(iter(panels.values()))),
        )
    ]


def sic(benchmark: AnomalyBenchmark) -> list[Drawing]:
    """Significance improvement against signal efficiency: a figure a background, a panel a signal."""
    drawn, scores = [], _clean(benchmark)
    for number, background in enumerate(dict.fromkeys(s.background for s in scores)):
        mine = [s for s in scores if s.background == background]
        names = _featured(mine)
        panels: dict[str, dict[str, SignificanceImprovement]] = {}
        for s in mine:
            if _called(s) in names:
                panels.setdefault(direction(s.background, s.signal), {})[_called(s)] = _curve(s.curve)
        if panels:
            drawn.append(
                Drawing(
                    f"sic_{number}",
                    plots.significance_improvements(panels, _looks(names)),
                    f"Significance improvement eps_S / sqrt(eps_B) of heads fitted on {background} jets, those with "
                    "the highest AUCs; faint where eps_B is known to less than 20 %, dotted a random choice.",
                    f"significance improvement over {background} of " + ", ".join(names),
                )
            )
    return drawn


def _curve(curve: SicCurve) -> SignificanceImprovement:
    eps_s, values, known = np.array(curve.eps_s), np.array(curve.sic), np.array(curve.known, bool)
    best = int(np.flatnonzero(known)[np.argmax(values[known])])
    return SignificanceImprovement(eps_s, values, known, float(values[best]), float(eps_s[best]))


def contamination(benchmark: AnomalyBenchmark) -> Drawing | None:
    """AUC against the share of signal among the fitted jets."""
    mixed = {(_called(s), s.background, s.signal) for s in benchmark.heads if s.contamination}
    lines: dict[str, list[HeadScore]] = {}
    for s in sorted(benchmark.heads, key=lambda s: s.contamination):
        if (_called(s), s.background, s.signal) in mixed:
            lines.setdefault(_called(s), []).append(s)
    if not lines:
        return None
    shown = {}
    for name, found in lines.items():
        aucs = [s.test["auc"] for s in found]
        shares = np.array([s.contamination for s in found])
        middle, low = (np.array([getattr(a, key) for a in aucs]) for key in ("value", "low"))
        high = np.array([a.value if a.high is None else a.high for a in aucs])
        shown[name] = (shares, middle, low, high)
    return Drawing(
        "contamination",
        plots.signal_shares({"AUC": shown}, "signal among the fitted jets", _looks(list(shown))),
        "What is left of a head when the jets that it learns from are not all background; bands are 95 % intervals.",
        "AUC against contamination of " + ", ".join(shown),
    )


def injection(benchmark: AnomalyBenchmark) -> Drawing | None:
    """Maximum SIC of searches against the injected signal, a panel a kind of features."""
    panels: dict[str, dict[str, list[SearchScore]]] = {}
    for s in sorted(benchmark.searches, key=lambda s: s.fraction):
        panels.setdefault(s.features, {}).setdefault(s.search, []).append(s)
    if not panels or all(len(found) < 2 for lines in panels.values() for found in lines.values()):
        return None
    shown = {
        f"max SIC on {features}": {
            name: (
                np.array([s.fraction for s in found]),
                np.array([statistics.mean(s.max_sic) for s in found]),
                np.array([min(s.max_sic) for s in found]),
                np.array([max(s.max_sic) for s in found]),
            )
            for name, found in lines.items()
        }
        for features, lines in panels.items()
    }
    names = [name for lines in shown.values() for name in lines]
    return Drawing(
        "injection",
        plots.signal_shares(shown, "signal over background in the signal region", _looks(names)),
        "Largest significance improvement of searches against the injected signal; where several draws of the signal "
        "were made the line is their mean and the band their range.",
        "maximum significance improvement of " + ", ".join(dict.fromkeys(names)),
    )


def hunt(benchmark: AnomalyBenchmark) -> Drawing | None:
    """The bump hunt of the search with the smallest p-value."""
    found = [h for h in benchmark.hunts if h.fraction]
    if not found:
        return None
    best = min(found, key=lambda h: h.region_p.value)
    return Drawing(
        "hunts",
        plots.bump(_rebuilt(best)),
        f"Dijet mass of the {100 * best.kept:g} % of events with the highest score of {best.search} on "
        f"{best.features}, with {100 * best.fraction:g} % signal in the signal region (between dotted lines), and the "
        "background fitted outside the best window (shaded).",
        "dijet mass spectrum of the selected events with the fitted background",
    )


def _rebuilt(hunt: Hunt) -> BumpHunt:
    best, region = (
        Window(w.low, w.high, w.counted, w.background, w.error, w.local_p_value) for w in (hunt.best, hunt.region)
    )
    global_p, region_p, fit_p = (
        PValue(p.value, p.error, p.is_upper_bound) for p in (hunt.global_p, hunt.region_p, hunt.fit_p)
    )
    return BumpHunt(
        edges=np.array(hunt.edges),
        counts=np.array(hunt.counts),
        background=np.array(hunt.background),
        background_error=np.array(hunt.background_error),
        deviance=hunt.deviance,
        fit_p_value=fit_p,
        best=best,
        global_p_value=global_p,
        region=region,
        region_p_value=region_p,
    )
