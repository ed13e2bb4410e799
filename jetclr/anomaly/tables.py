"""What `jetclr anomaly` and the anomaly benchmark found, as tables and in sentences."""

import math
import statistics
from collections.abc import Sequence

from jetclr.anomaly.detect import Detection
from jetclr.anomaly.events import OBSERVABLES
from jetclr.anomaly.results import AnomalyBenchmark, Chance, HeadScore, Kind, SearchScore
from jetclr.benchmark.table import Table
from jetclr.benchmark.tables import print_tables
from probes.metrics import Estimate
from probes.report import Number, Row

GROUPS: dict[Kind, str] = {
    "run": "On frozen embeddings",
    "untrained": "On the same encoders, untrained",
    "baseline": "On observables built by hand",
    "constituents": "On the jets themselves",
}
METRICS = {"auc": "AUC", "r50": "R50", "max_sic": "max SIC"}
BOOTSTRAP = "Brackets are 95 % bootstrap intervals over the test jets"


def print_detection(detection: Detection) -> None:
    """The table of `jetclr anomaly`, and where the heads are."""
    rows: list[Row] = [
        (found.head, found.signal, *(found.test[key] for key in ("auc", "r30", "r50", "max_sic")))
        for found in detection.found
    ]
    table = Table(
        "Anomaly heads",
        ("head", "signal", "AUC", "R30", "R50", "max SIC"),
        rows,
        f"Fitted on {detection.fitted_jets:,} background jets, measured against {detection.background_jets:,} others. "
        f"{BOOTSTRAP}; a value after > is a lower bound.",
    )
    print_tables({"heads": table}, [f"kept in {', '.join(map(str, detection.files.values()))}"])


def tables(benchmark: AnomalyBenchmark) -> dict[str, Table]:
    """All tables that have rows, by short names."""
    made = {f"heads_{key}": heads(benchmark, key) for key in METRICS}
    made |= {
        "contamination": contamination(benchmark),
        "sculpting": sculpting(benchmark),
        "searches": searches(benchmark),
        "injection": injection(benchmark),
        "hunts": hunts(benchmark),
    }
    return {name: table for name, table in made.items() if table.rows}


def direction(background: str, signal: str) -> str:
    return f"{background} → {signal}"


def _directions(scores: Sequence[HeadScore]) -> list[str]:
    return list(dict.fromkeys(direction(s.background, s.signal) for s in scores))


def heads(benchmark: AnomalyBenchmark, key: str) -> Table:
    """A row for each head on each representation, a column for each direction."""
    clean = [s for s in benchmark.heads if not s.contamination]
    directions = _directions(clean)
    lines: dict[tuple[str, str], dict[str, Estimate]] = {}
    kinds: list[Kind] = []
    for s in clean:
        if (s.representation, s.head) not in lines:
            kinds.append(s.kind)
        lines.setdefault((s.representation, s.head), {})[direction(s.background, s.signal)] = s.test[key]
    rows: list[Row] = [
        (representation, head, *(_cell(found.get(d), key) for d in directions))
        for (representation, head), found in lines.items()
    ]
    told = {
        "auc": "",
        "r50": " R50 is the background rejection 1/eps_B at 50 % signal efficiency; a value after > is a lower bound, "
        "because fewer than ten background jets are left.",
        "max_sic": " The largest eps_S / sqrt(eps_B) of the cuts whose eps_B is known to 20 %.",
    }[key]
    return Table(
        f"Heads: {METRICS[key]}",
        ("representation", "head", *directions),
        rows,
        f"{METRICS[key]}, background → signal: fitted on background jets alone, then those told from signal. "
        f"{BOOTSTRAP}.{told}",
        _best(list(lines.values())),
        {i: GROUPS[kind] for i, kind in enumerate(kinds) if not i or kind != kinds[i - 1]},
        ("head",),
    )


def _cell(estimate: Estimate | None, key: str) -> object:
    """An estimate with as many digits as all of its table have."""
    if estimate is None or key == "auc":
        return estimate
    if key == "r50":
        return Number(format(estimate, ".1f" if estimate.value < 2 else ""))
    return Number(format(estimate, ".2f"))


def _best(lines: Sequence[dict[str, Estimate]]) -> frozenset[int]:
    """The rows whose worst value over all directions is the largest."""
    worst = [min(estimate.value for estimate in found.values()) for found in lines]
    return frozenset(i for i, w in enumerate(worst) if w == max(worst))


def contamination(benchmark: AnomalyBenchmark) -> Table:
    """AUC against the share of signal among the fitted jets."""
    mixed = {(s.representation, s.head, s.background, s.signal) for s in benchmark.heads if s.contamination}
    shares = sorted({s.contamination for s in benchmark.heads}) if mixed else []
    rows: list[Row] = []
    for key in dict.fromkeys((s.representation, s.head, s.background, s.signal) for s in benchmark.heads):
        if key in mixed:
            found = {
                s.contamination: s.test["auc"]
                for s in benchmark.heads
                if (s.representation, s.head, s.background, s.signal) == key
            }
            rows.append((key[0], key[1], direction(*key[2:]), *(found.get(share) for share in shares)))
    return Table(
        "Signal among the fitted jets",
        ("representation", "head", "direction", *(f"{100 * share:g} %" for share in shares)),
        rows,
        f"AUC of heads fitted on background of which so much was replaced by signal. {BOOTSTRAP}.",
        folded=("head", "direction"),
    )


def sculpting(benchmark: AnomalyBenchmark) -> Table:
    """How scores depend on the jet mass of background."""
    cuts = sorted({cut for s in benchmark.sculpting for cut in s.eps_b}, reverse=True)
    rows: list[Row] = []
    for s in benchmark.sculpting:
        at = dict(zip(s.eps_b, s.jsd, strict=True))
        rows.append(
            (
                s.representation,
                s.head,
                s.background,
                Number(f"{s.distance_correlation:.3f}"),
                *(Number(f"{at[cut]:.3f}") if cut in at else None for cut in cuts),
            )
        )
    chance = max((s.random_distance_correlation for s in benchmark.sculpting), default=0.0)
    return Table(
        "Dependence on the jet mass",
        ("representation", "head", "background", "distance correlation", *(f"JSD at {cut:g}" for cut in cuts)),
        rows,
        "Of background test jets: distance correlation of score and jet mass (arXiv:2001.05310), and the "
        "Jensen-Shannon divergence [bits] of the mass spectrum of the jets that a cut at this eps_B keeps from that of "
        f"all. By chance the correlation is up to {chance:.3f}.",
        folded=("head", "background"),
    )


def searches(benchmark: AnomalyBenchmark) -> Table:
    """Maximum SIC at the share of signal with most seeds."""
    most = max((len(s.max_sic) for s in benchmark.searches), default=0)
    rows: list[Row] = [
        (
            s.search,
            s.features,
            Number(f"{100 * s.fraction:g} %"),
            Number(f"{round(statistics.mean(s.signal_events)):,} / {s.background_events:,}"),
            Number(_spread(s.max_sic)),
            Number(f"{s.mass_correlation:.3f}"),
            Number(f"{s.seconds:.0f}"),
        )
        for s in benchmark.searches
        if len(s.max_sic) == most
    ]
    return Table(
        "Searches for a resonance",
        ("search", "features", "S/B", "S / B events", "max SIC", "mass correlation", "seconds"),
        rows,
        "Signal over background, and events of both, in the signal region. Maximum of eps_S / sqrt(eps_B) in the "
        "signal region where eps_B is known to 20 %, on events that were not searched: mean and standard deviation "
        "over draws of the signal and seeds of training. Mass correlation: distance correlation of the score with the "
        "dijet mass in the sidebands, 0 where a cut cannot sculpt a bump. Supervised knows all labels, idealised true "
        "background of the signal region, but less of it than there is to search.",
        optional=("seconds",),
    )


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def injection(benchmark: AnomalyBenchmark) -> Table:
    """Maximum SIC against the share of signal."""
    fractions = sorted({s.fraction for s in benchmark.searches})
    lines: dict[tuple[str, str], dict[float, SearchScore]] = {}
    for s in benchmark.searches:
        lines.setdefault((s.search, s.features), {})[s.fraction] = s
    rows: list[Row] = [
        (*key, *(Number(_spread(found[f].max_sic)) if f in found else None for f in fractions))
        for key, found in lines.items()
        if len(found) > 1
    ]
    return Table(
        "Searches: maximum SIC against the injected signal",
        ("search", "features", *(f"{100 * f:g} %" for f in fractions)),
        rows,
        "By signal over background in the signal region; one draw of the signal where there is no spread.",
        folded=("features",),
    )


def hunts(benchmark: AnomalyBenchmark) -> Table:
    """The bump hunt on selected events."""
    rows: list[Row] = [
        (
            h.search,
            h.features,
            Number(f"{100 * h.fraction:g} %"),
            Number(f"{h.events:,}"),
            f"{h.best.low:.0f} to {h.best.high:.0f} GeV",
            Number(f"{h.best.counted:,} / {h.best.background:.1f} ± {h.best.error:.1f}"),
            Number(_p(Chance(h.best.local_p_value, 0.0, False))),
            Number(_p(h.global_p)),
            Number(_p(h.region_p)),
        )
        for h in benchmark.hunts
    ]
    return Table(
        "Bump hunt on the selected events",
        ("search", "features", "S/B", "events", "window", "seen / expected", "local p", "global p", "p of the region"),
        rows,
        "The most significant window of all positions and widths; the global p-value is the share of background-only "
        "pseudo-experiments with a window at least as significant, the background fitted again in each. The last "
        "column is that of the signal region alone, which was known beforehand. At S/B of 0 % there is no signal.",
        optional=("window",),
    )


def _p(p: Chance) -> str:
    text = f"{p.value:.1e}" if p.value < 0.001 else f"{p.value:.3f}"
    if p.is_upper_bound:
        return f"<{text}"
    return f"{text} ± {p.error:.3f}" if p.error >= 0.0005 else text


def sentences(benchmark: AnomalyBenchmark) -> list[str]:
    """What the tables come to."""
    clean = [s for s in benchmark.heads if not s.contamination]
    told = []
    for d in _directions(clean):
        here = [s for s in clean if direction(s.background, s.signal) == d]
        best = max(here, key=lambda s: s.test["auc"].value)
        told.append(f"{d}: the highest AUC is {best.test['auc']}, of {best.head} on {best.representation}.")
    told.append(
        "The best of many heads on the same test jets is a little too good to be true; which one to take is to be "
        "decided elsewhere."
    )
    return [*told, *_searched(benchmark), *benchmark.facts.notes]


def _searched(benchmark: AnomalyBenchmark) -> list[str]:
    """Each search on embeddings against CWoLa on observables, where the signal is drawn most often."""
    most = max((len(s.max_sic) for s in benchmark.searches), default=0)
    main = [s for s in benchmark.searches if len(s.max_sic) == most]
    reference = next((s for s in main if s.search == "CWoLa" and s.features == OBSERVABLES), None)
    if reference is None:
        return []
    told = []
    for s in main:
        if s.search in ("CWoLa", "CATHODE") and s.features != reference.features:
            told.append(
                f"At S/B = {100 * s.fraction:g} % {s.search} on {s.features} {_verdict(s, reference)} CWoLa on "
                f"{reference.features} in maximum SIC: {_spread(s.max_sic)} against {_spread(reference.max_sic)}."
            )
    return told


def _verdict(a: SearchScore, b: SearchScore) -> str:
    """Which has the larger maximum SIC, where the difference is larger than its spread over draws of the signal."""
    difference = statistics.mean(a.max_sic) - statistics.mean(b.max_sic)
    spread = math.hypot(*(statistics.stdev(s.max_sic) if len(s.max_sic) > 1 else math.inf for s in (a, b)))
    if abs(difference) <= spread:
        return "is not told apart from"
    return "beats" if difference > 0 else "does not beat"
