"""One self-contained HTML page about a run: its data, its training, what its embedding is worth and what it ignores."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from augmentations import center
from jetclr import __version__, step
from jetclr.benchmark.invariance import ROTATION, changed, cosines, embedded
from jetclr.benchmark.representations import Encoded
from jetclr.checkpoint import Which
from jetclr.config import to_json
from jetclr.data.store import Store, make_parent
from jetclr.embed import embed_jets
from jetclr.errors import UserError
from jetclr.logs import read_metrics
from jetclr.run import Run, open_run
from probes.metrics import Estimate
from probes.report import PROBE_COLUMNS, Page, curves, histograms, palette, probe_row, projection, roc, similarity

SIMILARITY_JETS = 1024
PROJECTED_JETS = 4000
HISTOGRAM_JETS = 100_000
UNITS = {"jet_pt": "GeV", "jet_mass": "GeV", "jet_phi": "rad"}
MONITORS = {
    "loss": "loss",
    "probe_auc": "linear probe on validation jets: AUC",
    "alignment": "alignment of the two views (0: equal)",
    "uniformity": "uniformity over jets (lower: better spread)",
    "effective_rank": "effective rank of the projection",
    "anomaly_similarity": "cosine of a jet and its anomalous view",
    "jets_per_s": "jets/s",
}


def write_report(run_path: Path, store: Store, probe_file: Path | None, out: Path, *, which: Which = "latest") -> None:
    """Write the page about the run at `run_path` to `out`, with `store`'s jets for every plot of jets.

    `probe_file` is what `jetclr probe --json` wrote; without it the table and the ROC curves are left out. Raises
    UserError if the run or that file is not what it should be.
    """
    run = open_run(run_path, which)
    probes = read_probe_file(probe_file) if probe_file is not None else None
    make_parent(out)
    page = Page(
        f"Pretraining run {run_path.name}",
        f"jetclr {__version__}, {run.step:,} of {run.config.steps:,} steps, {len(store):,} jets shown from "
        + ", ".join(path.name for path in store.paths),
    )
    if probes is not None:
        _add_probes(page, probes)
    _add_training(page, run)
    _add_embedding(page, run, store)
    _add_data(page, store)
    page.section("Settings", "Every setting of the run, as in its config.json.")
    page.facts(_flat(json.loads(to_json(run.config))))
    page.write(out)


def read_probe_file(path: Path) -> dict[str, Any]:
    """The JSON that `jetclr probe --json` wrote; raises UserError if it is something else."""
    try:
        found = json.loads(path.read_text())
        for by_probe in found["results"].values():
            for result in by_probe.values():
                for name in ("auc", "accuracy", "r30", "r50"):
                    result[name] = Estimate(**result[name])
                _ = result["roc"]["eps_s"], result["roc"]["eps_b"]
        _ = found["jets"]["train"], found["jets"]["test"], _against_untrained(found["trained_minus_untrained"])
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} was not written by jetclr probe --json ({error!r})") from None
    return found


def best_probe(probes: Mapping[str, Any], representation: str) -> str:
    """Name of the probe with the higher AUC on a representation."""
    by_probe = probes["results"][representation]
    return max(by_probe, key=lambda name: by_probe[name]["auc"].value)


def _add_probes(page: Page, probes: dict[str, Any]) -> None:
    page.section(
        "What the frozen representation is worth",
        f"Linear probes fitted on {probes['jets']['train']:,} labelled jets and measured on {probes['jets']['test']:,} "
        "others. R30 and R50 are the background rejection 1/eps_B at signal efficiencies of 0.3 and 0.5. Brackets are "
        "95 % bootstrap intervals over the test jets. The untrained control is the same network with random weights, "
        "its probe tuned in the same way.\n\n" + _against_untrained(probes["trained_minus_untrained"]),
    )
    rows = [
        probe_row(representation, probe, {k: result[k] for k in ("auc", "accuracy", "r30", "r50")})
        for representation, by_probe in probes["results"].items()
        for probe, result in by_probe.items()
    ]
    page.table(rows, PROBE_COLUMNS)
    shown = [n for n in ("trained embedding", "untrained embedding", "raw constituents") if n in probes["results"]]
    lines = {}
    for name in shown:
        probe = best_probe(probes, name)
        points = probes["results"][name][probe]["roc"]
        lines[f"{name} ({probe})"] = (np.asarray(points["eps_s"]), np.asarray(points["eps_b"]))
    page.figure(
        roc(lines),
        "Background rejection against signal efficiency of the better probe on each representation; further up is "
        "better. Lines turn faint where fewer than ten background jets are left.",
        "ROC curves of " + ", ".join(lines),
    )


def _against_untrained(comparisons: dict[str, Any]) -> str:
    """The paired comparisons in words."""
    told = [
        f"{c['auc']['value']:+.4f} [{c['auc']['low']:+.4f}, {c['auc']['high']:+.4f}] with {name} (p = "
        f"{c['auc_p_value']:.2g})"
        for name, c in comparisons.items()
    ]
    return f"Trained against untrained embedding, AUC on the same resampled jets: {', '.join(told)}."


def _add_training(page: Page, run: Run) -> None:
    rows = read_metrics(run.path)
    series = {}
    for name, title in MONITORS.items():
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            x, y = np.array(points, float).T
            series[title] = (x, y)
    if series:
        page.section("Training", "The loss and the monitors that would show a collapse of the representation.")
        page.figure(curves(series, "step"), "The run step by step.", "training curves: " + ", ".join(series))


def _add_embedding(page: Page, run: Run, store: Store) -> None:
    page.section(
        "What the embedding ignores, and how it lies",
        "An encoder that has learned a symmetry gives a jet and its transformed copy the same embedding: cosine "
        "similarity one at every angle. How alike two different jets are sets the scale.",
    )
    page.figure(
        similarity(_rotation_similarity(run, store)),
        "Mean cosine similarity between the embeddings of a jet and of the same jet turned about its axis; bands hold "
        "the central 68 % of jets.",
        "similarity against rotation angle",
    )
    if "label" in store.columns:
        indices = _sample(store, PROJECTED_JETS)
        features = embed_jets(run.config, run.params, store, indices, ("embedding",))["embedding"]
        label, names = store.by_label()
        xy, share = principal_plane(features)
        page.figure(
            projection(xy, label[indices], names, _colours(store)),
            f"The two leading principal components of the standardised embedding, {share:.0%} of its variance. Labels "
            "colour the points; the encoder never saw them.",
            "scatter plot of the embeddings in two dimensions",
        )


def _add_data(page: Page, store: Store) -> None:
    page.section("The jets", "Kinematics by label, before any augmentation.")
    page.figure(data_histograms(store), "Shares of jets by label.", "histograms of jet kinematics by label")


def data_histograms(store: Store) -> Any:
    """Figure of pT, eta, phi, mass and multiplicity by label, from at most 100,000 jets spread over the store."""
    indices = _sample(store, HISTOGRAM_JETS)
    columns = [n for n in ("jet_pt", "jet_eta", "jet_phi", "jet_mass") if n in store.columns] + ["multiplicity"]
    label, names = store.by_label()
    values = {c: store.column(c)[indices] for c in columns}
    split = {c: {names[v]: x[label[indices] == v] for v in names} for c, x in values.items()}
    return histograms(split, UNITS, _colours(store))


def principal_plane(features: Float[np.ndarray, "B D"]) -> tuple[Float[np.ndarray, "B 2"], float]:
    """The two leading principal components of standardised features, and their share of the variance."""
    spread = features.std(axis=0)
    x = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    _, singular, axes = np.linalg.svd(x, full_matrices=False)
    return x @ axes[:2].T, float((singular[:2] ** 2).sum() / max((singular**2).sum(), 1e-30))


def _rotation_similarity(run: Run, store: Store) -> dict[str, tuple[np.ndarray, ...]]:
    """Label -> (angle, mean, low, high) of the cosine between a jet's embedding and its rotated copy's."""
    data = run.config.data
    jets = center(step.to_jets(store.gather(_sample(store, SIMILARITY_JETS), data.constituents, data.extras)))
    angles = np.array(ROTATION.strengths)
    out: dict[str, tuple[np.ndarray, ...]] = {}
    trained = Encoded("trained", "run", run.config, run.params)
    for one in (trained, replace(trained, name="untrained", params=step.init_params(run.config))):
        straight = embedded(one.name, one.embed, jets)
        turned = changed(one.name, one.embed, jets, data.constituents, ROTATION)
        cosine = np.stack([cosines(straight, copy) for copy in turned])
        out[f"{one.name} embedding, rotated jet"] = (angles, cosine.mean(1), *np.quantile(cosine, (0.16, 0.84), axis=1))
        if one is trained:
            between = cosines(straight, np.roll(straight, 1, axis=0))
            level = [np.full(len(angles), v) for v in (between.mean(), *np.quantile(between, (0.16, 0.84)))]
            out["trained embedding, another jet"] = (angles, *level)
    return out


def _sample(store: Store, jets: int) -> np.ndarray:
    """At most `jets` indices, the same at every call, spread over the store."""
    return np.sort(np.random.default_rng(0).permutation(len(store))[:jets]).astype(np.int64)


def _colours(store: Store) -> dict[str, str]:
    return palette([name for _, name in sorted(store.label_names.items())])


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict) and "type" not in value:
        return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}{name}.").items()}
    if prefix == "views." and isinstance(value, list):
        return {f"view {letter}": _transform_text(v) for letter, v in zip("ab", value, strict=False)}
    return {prefix.rstrip("."): value if isinstance(value, str) else json.dumps(value)}


def _transform_text(value: Any) -> str:
    """A transform's JSON as it stands in a config file: Chain(Rotate(), ...)."""
    if isinstance(value, dict) and "type" in value:
        inside = value.get("steps") or [
            v if isinstance(v, dict) else f"{k}={v}" for k, v in value.items() if k != "type"
        ]
        return f"{value['type']}({', '.join(map(_transform_text, inside))})"
    return str(value)
