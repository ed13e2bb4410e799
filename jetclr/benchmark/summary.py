"""What a benchmark comes to, in sentences that say no more than the numbers do."""

from jetclr.benchmark.results import Benchmark, Comparison, Kind, Score
from jetclr.benchmark.rows import p_value, probe_name
from jetclr.benchmark.selection import chosen, comparison_of, control_of, several_layers

OTHERS: dict[Kind, str] = {
    "embeddings": "embeddings from a file",
    "baseline": "baseline built by hand",
    "supervised": "network trained on the labels alone",
    "finetuned": "fine-tuned encoder",
}


def sentences(benchmark: Benchmark) -> list[str]:
    """A few sentences: each run against its control and the best of every other kind, and what limits them."""
    runs = chosen(benchmark, "run")
    told = [_against_control(benchmark, run) for run in runs]
    for other in (best for kind in OTHERS for best in chosen(benchmark, kind)[:1]):
        text = (
            f"The best {OTHERS[other.kind]}, by validation AUC, is {_named(benchmark, other)} with {_figures(other)}."
        )
        compared = comparison_of(benchmark, runs[0], other) if runs else None
        if compared is not None:
            verdict = ("above it", "below it", "not told apart from it")[_sign(compared)]
            text += f" {runs[0].representation} is {verdict} on these test jets: {_difference(compared)}."
        told.append(text)
    return told + _limits(benchmark)


def _against_control(benchmark: Benchmark, run: Score) -> str:
    name = control_of(benchmark, run.representation)
    control = next((s for s in chosen(benchmark, "untrained") if s.representation == name), None)
    text = f"{_named(benchmark, run)} has {_figures(run)}"
    if control is None:
        return f"{text}. There is no untrained control, so how much of this is learned is not known."
    text += f"; untrained, the same network has {_figures(control)}."
    compared = comparison_of(benchmark, run, control)
    if compared is None:
        return text
    verdict = ("raises the AUC", "lowers the AUC", "does not change the AUC by more than chance")[_sign(compared)]
    return f"{text} Pretraining {verdict}: {_difference(compared)}."


def _named(benchmark: Benchmark, score: Score) -> str:
    probe = probe_name(score.representation, score.probe)
    layer = score.layer if score.representation in several_layers(benchmark) else ""
    how = " on ".join(part for part in (probe, layer) if part)
    return f"{score.representation}{f' ({how})' if how else ''}"


def _figures(score: Score) -> str:
    r50 = f", R50 {score.test['r50']}" if "r50" in score.test else ""
    return f"AUC {score.test['auc']}{r50}"


def _sign(compared: Comparison) -> int:
    """0: a is above b, 1: below, 2: undecided; the interval and DeLong's test must agree before anything is claimed."""
    low, high = compared.auc.low, compared.auc.high
    if compared.delong_p >= 0.05 or high is None or low <= 0 <= high:
        return 2
    return 0 if low > 0 else 1


def _difference(compared: Comparison) -> str:
    p = p_value(compared.delong_p)
    probe = f" with {compared.probe}" if compared.probe else ""
    return f"{compared.auc:+.4f}{probe}, DeLong p {p.replace('<', '< ') if '<' in p else f'= {p}'}"


def _limits(benchmark: Benchmark) -> list[str]:
    facts = benchmark.facts
    jets = {split: f"{facts.jets.get(split, 0):,}" for split in ("train", "validation", "test")}
    out = [
        f"Fitted on {jets['train']} labelled jets, chosen by {jets['validation']} validation jets, measured on "
        f"{jets['test']} test jets, by which nothing was fitted or chosen. {facts.test_looks:,} predictors have been "
        "measured on them so far; p-values are not corrected for that."
    ]
    if chosen(benchmark, "run") and not benchmark.seeds:
        out.append("One training seed a run: intervals are of the test jets, not of training again.")
    return [*out, *facts.notes]
