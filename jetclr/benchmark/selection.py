"""What is shown of a benchmark and in which order: chosen by kind and on validation jets, never by what is tested."""

from jetclr.benchmark.results import Benchmark, Comparison, Kind, Score

GROUPS: dict[str, tuple[Kind, ...]] = {
    "Pretrained encoders, frozen, each with its untrained control": ("run", "untrained"),
    "Embeddings from files": ("embeddings",),
    "Built by hand": ("baseline",),
    "Networks trained on the labels alone": ("supervised",),
    "Pretrained encoders, fine-tuned on the labels": ("finetuned",),
}

MOST_RUNS = 2
"""Runs that the figures show, the best on validation jets; the tables have all."""


def in_order(benchmark: Benchmark) -> list[Score]:
    """Scores by group; each run followed by its untrained control; of a representation the chosen one first."""
    by_name = _by_name(benchmark)
    names: list[str] = []
    for kind in (kind for kinds in GROUPS.values() for kind in kinds):
        for name in (name for name, scores in by_name.items() if scores[0].kind == kind):
            control = control_of(benchmark, name) if kind == "run" else None
            names += [name] if control is None else [name, control]
    return [s for name in dict.fromkeys(names) for s in sorted(by_name[name], key=lambda score: not score.chosen)]


def chosen(benchmark: Benchmark, *kinds: Kind) -> list[Score]:
    """The chosen score of each representation of these kinds, the best on validation jets first."""
    found = [score for score in benchmark.scores if score.chosen and score.kind in kinds]
    return sorted(found, key=lambda score: -score.validation_auc)


def best_of_groups(benchmark: Benchmark) -> list[Score]:
    """Of each group with several representations, the chosen score with the best validation AUC."""
    groups = [chosen(benchmark, *kinds) for kinds in GROUPS.values()]
    return [group[0] for group in groups if len(group) > 1]


def featured(benchmark: Benchmark, runs: int = MOST_RUNS) -> list[Score]:
    """The few that figures show: the best runs with their controls, and the best of every other kind."""
    found = []
    for run in chosen(benchmark, "run")[:runs]:
        control = control_of(benchmark, run.representation)
        found += [run, *(s for s in chosen(benchmark, "untrained") if s.representation == control)]
    others: tuple[Kind, ...] = ("embeddings", "baseline", "supervised", "finetuned")
    for kind in others:
        found += chosen(benchmark, kind)[:1]
    return found


def main_layer(benchmark: Benchmark) -> dict[str, str]:
    """Representation -> the layer that stands for it: the embedding of an encoder, else the last one."""
    layers = {name: [score.layer for score in scores] for name, scores in _by_name(benchmark).items()}
    return {name: "embedding" if "embedding" in found else found[-1] for name, found in layers.items()}


def several_layers(benchmark: Benchmark) -> set[str]:
    """Representations that are read at more than one layer."""
    return {name for name, scores in _by_name(benchmark).items() if len({score.layer for score in scores}) > 1}


def control_of(benchmark: Benchmark, run: str) -> str | None:
    """The untrained control of a run: what is called "RUN untrained".

    Runs that begin from the same weights share one; then it is the first one that the run is compared with, or the only
    one with its layers.
    """
    untrained = {score.representation for score in benchmark.scores if score.kind == "untrained"}
    compared = [c.b for c in benchmark.comparisons if c.a == run]
    named = next((name for name in (f"{run} untrained", *compared) if name in untrained), None)
    if named is not None:
        return named
    shapes = {n: {(s.layer, s.width) for s in scores} for n, scores in _by_name(benchmark).items()}
    alike = [name for name in untrained if shapes[name] == shapes.get(run)]
    return alike[0] if len(alike) == 1 else None


def run_of(benchmark: Benchmark, name: str) -> str | None:
    """The run that a representation such as "RUN fine-tuned" was made from, by its name; the longest that fits."""
    runs = {score.representation for score in benchmark.scores if score.kind == "run"}
    return max((run for run in runs if name.startswith(f"{run} ")), key=len, default=None)


def comparison_of(benchmark: Benchmark, a: Score, b: Score) -> Comparison | None:
    """The comparison of these two predictors, or else of two others on the same two representations."""
    of_a, of_b = (
        {s.representation, f"{s.representation} {s.probe}", f"{s.representation} {s.probe} on {s.layer}"}
        for s in (a, b)
    )
    found = [c for c in benchmark.comparisons if c.a in of_a and c.b in of_b]
    return next((c for c in found if c.probe in ("", a.probe)), found[0] if found else None)


def _by_name(benchmark: Benchmark) -> dict[str, list[Score]]:
    found: dict[str, list[Score]] = {}
    for score in benchmark.scores:
        found.setdefault(score.representation, []).append(score)
    return found
