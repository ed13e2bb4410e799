"""Verbs about a finished run: embed, probe, report, benchmark."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from jetclr.errors import UserError
from jetclr.verbs import Part, Stores, Which, app


@app.command
def embed(run: Positional[Path], stores: Annotated[Positional[Stores], tyro.conf.arg(metavar="STORE... OUT")],
          layers: tuple[str, ...] = ("embedding",), columns: tuple[str, ...] = ("all",),
          dtype: Literal["f32", "f16"] = "f32", also: Stores = (), shard: Part = None,
          checkpoint: Which = "latest") -> None:  # fmt: skip
    """Write the frozen embeddings of all jets of stores, beside jet-level columns; the same command again resumes.

    Args:
        run: A pretraining run.
        stores: Stores to read, and the file to make: OUT.h5, OUT.parquet, OUT.arrow, OUT.feather or OUT.root.
        layers: Which layers to write.
        columns: Jet-level columns to write beside them: names, all or none; source, row, event and other keys always.
        dtype: Precision that layers are written in.
        also: More runs to embed with, in one pass over the jets; layers are then named RUN_LAYER.
        shard: Embed only part I (from 0) of N of the jets; `jetclr join` puts the parts together.
        checkpoint: Of each run, the newest, the one with the best validation probe, or that of a step.
    """
    if len(stores) < 2:
        raise UserError("embed needs a run, at least one store and, last, the file to make")
    from jetclr.embed import embed_store

    jets, widths = embed_store(
        run, stores[:-1], stores[-1], layers, also=also, columns=columns, dtype=dtype, shard=shard, which=checkpoint
    )
    print(f"{stores[-1]}: {jets:,} jets, " + ", ".join(f"{name} [{width}]" for name, width in widths.items()))


@app.command
def probe(
    run: Positional[Path],
    train: Stores,
    test: Stores,
    json: Path | None = None,
    overwrite: bool = False,
    seed: int = 0,
    checkpoint: Which = "latest",
) -> None:
    """Fit linear probes on frozen layers and print their table, beside the untrained encoder and raw constituents.

    Args:
        run: A pretraining run.
        train: Labelled stores to fit on.
        test: Labelled stores to measure on.
        json: File to write the same numbers to.
        overwrite: Replace that file if it exists.
        seed: Of the split that chooses L2, and of the bootstrap.
        checkpoint: The newest, the one with the best validation probe, or that of a step.
    """
    from jetclr.data.store import make_parent, refuse_existing, write_json
    from jetclr.evaluate import probe_run, to_json

    if json is not None and not overwrite:
        refuse_existing(json)
    from jetclr.tables import print_evaluation

    if json is not None:
        make_parent(json)
    evaluation = probe_run(run, train, test, seed=seed, which=checkpoint)
    print_evaluation(evaluation)
    if json is not None:
        write_json(json, to_json(evaluation))


@app.command
def report(
    run: Positional[Path],
    data: Stores,
    probe: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    checkpoint: Which = "latest",
) -> None:
    """Write one self-contained HTML page about a run.

    Args:
        run: A pretraining run.
        data: Stores whose jets are shown.
        probe: What `jetclr probe --json` wrote; RUN/probe.json if it is there.
        out: The page; RUN/report.html if not given.
        overwrite: Replace the page if it exists.
        checkpoint: The newest, the one with the best validation probe, or that of a step.
    """
    from jetclr.data.store import Store, refuse_existing
    from jetclr.report import write_report

    out = out or run / "report.html"
    if not overwrite:
        refuse_existing(out)
    default = run / "probe.json"
    write_report(run, Store(*data), probe or (default if default.exists() else None), out, which=checkpoint)
    print(out)


@app.command
def benchmark(
    runs: Positional[Stores] = (),
    *,
    suite: str,
    data: Path | None = None,
    embeddings: Stores = (),
    shifted: tuple[str, ...] = (),
    workdir: Path | None = None,
    baselines: tuple[str, ...] | None = None,
    taggers: tuple[str, ...] | None = None,
    label_counts: tuple[int, ...] | None = None,
    draws: int | None = None,
    finetune: bool | None = None,
    heads: tuple[str, ...] | None = None,
    checkpoint: Which = "latest",
) -> None:
    """Compare representations: probes, label efficiency, fine-tuning, invariance, robustness, beside all baselines.

    The same command again, or with one more run, computes only what is new.

    Args:
        runs: Pretraining runs.
        suite: toptag, jetclass, qg; anomaly for anomaly heads and searches; or a Python file that sets
            `suite = Suite(...)` or `suite = AnomalySuite(...)`.
        data: Folder with stores or public files train, val and test (anomaly: NAME-train, NAME-test, dijet-background,
            dijet-signal); stores/SUITE if not given.
        embeddings: HDF5 files of embeddings, a row for every training, validation and test jet, in this order.
        shifted: NAME=STORE: other test jets, such as those of another generator tune.
        workdir: Folder for the results and all that is kept between calls; runs/benchmark-SUITE if not given.
        baselines: Instead of the suite's: raw-constituents, observables, EFP; none for nothing.
        taggers: Instead of the suite's: PFN, EFN, ParticleNet-lite, transformer, jet-image-CNN; none for nothing.
        label_counts: Instead of the suite's numbers of labelled jets.
        draws: Instead of the suite's number of draws of labelled jets.
        finetune: Whether encoders are trained on labels too.
        heads: Of anomaly suites: only these anomaly heads.
        checkpoint: Of the runs: the newest, the one with the best validation probe, or that of a step.
    """
    if not runs and not embeddings:
        raise UserError("benchmark needs a run, or a file of --embeddings")
    from jetclr.anomaly.suite import NAME, AnomalySuite, find_anomaly_suite
    from jetclr.benchmark.suite import Suite, changed, find_suite, suite_from_file

    folder = workdir or Path("runs") / f"benchmark-{Path(suite).stem}"
    if suite.endswith(".py") and data is not None:
        raise UserError("--data is for the named suites; a suite file names its stores itself")
    found: Suite | AnomalySuite
    if suite.endswith(".py"):
        found = suite_from_file(Path(suite), (Suite, AnomalySuite))
    else:
        found = find_anomaly_suite(data) if suite == NAME else find_suite(suite, data, folder / "stores")
    if isinstance(found, AnomalySuite):
        if embeddings or shifted or any(x is not None for x in (baselines, taggers, label_counts, draws, finetune)):
            raise UserError("an anomaly suite compares heads on runs; of the other options it takes --heads")
        from jetclr.anomaly.benchmark import run_anomaly_benchmark
        from jetclr.anomaly.writing import write_anomaly_results

        asked = found if heads is None else replace(found, heads=heads)
        write_anomaly_results(run_anomaly_benchmark(asked, runs, folder, which=checkpoint), folder)
        return
    if heads is not None:
        raise UserError("--heads is for anomaly suites")
    from jetclr.benchmark.benchmark import run_benchmark
    from jetclr.benchmark.writing import write_results

    chosen = changed(
        found,
        shifted=shifted,
        baselines=baselines,
        taggers=taggers,
        label_counts=label_counts,
        draws=draws,
        finetune=finetune,
    )
    write_results(run_benchmark(chosen, runs, embeddings, folder, which=checkpoint), folder)
