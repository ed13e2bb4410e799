"""Verbs about what is unlike the rest: anomaly, score."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from jetclr.errors import UserError
from jetclr.verbs import Stores, Which, app


@app.command
def anomaly(run: Positional[Path | None] = None, *, background: Stores, test: Stores,
            head: tuple[str, ...] = ("Mahalanobis",), embeddings: Path | None = None, layer: str = "",
            workdir: Path | None = None, overwrite: bool = False, seed: int = 0,
            checkpoint: Which = "latest") -> None:  # fmt: skip
    """Fit anomaly heads on background jets, measure them on others, and keep them for `jetclr score`.

    Args:
        run: A pretraining run.
        background: Stores of the jets that are usual; labels are not looked at, but tell which test jets are usual.
        test: Labelled stores to measure on, with background jets that were not fitted and others.
        head: Mahalanobis, relative-Mahalanobis, kNN, Gaussian-mixture, one-class-SVM, isolation-forest,
            normalising-flow, autoencoder, VAE, NAE, contrastive on embeddings; image-autoencoder, image-VAE, image-NAE,
            constituent-autoencoder, constituent-VAE on the jets themselves; all for every one.
        embeddings: Instead of a run, an HDF5 file with a row for each background jet and then each test jet.
        layer: Of the run or file; the embedding if not given, the projection for contrastive.
        workdir: Folder for the fitted heads; RUN/anomaly if not given.
        overwrite: Replace heads that are there.
        seed: Of what is random in a fit, and of the bootstrap.
        checkpoint: The newest, the one with the best validation probe, or that of a step.
    """
    if (run is None) == (embeddings is None):
        raise UserError("anomaly needs a run, or --embeddings FILE, and not both")
    if workdir is None and run is None:
        raise UserError("say with --workdir where the fitted heads go")
    from jetclr.anomaly.detect import detect
    from jetclr.anomaly.tables import print_detection

    source = run or embeddings
    assert source is not None
    detection = detect(
        source,
        head,
        background,
        test,
        workdir or source / "anomaly",
        from_file=run is None,
        layer=layer,
        overwrite=overwrite,
        which=checkpoint,
        seed=seed,
    )
    print_detection(detection)


@app.command
def score(head: Positional[Path], inputs: Annotated[Positional[Stores], tyro.conf.arg(metavar="STORE... OUT")]) -> None:
    """Write a fitted head's score of every jet of stores, beside their jet-level columns; larger is stranger.

    Args:
        head: What `jetclr anomaly` kept.
        inputs: Stores to read (or one HDF5 file, for a head on embeddings), and the file to make, with the
            ending of any format of `jetclr embed`.
    """
    if len(inputs) < 2:
        raise UserError("score needs a head, at least one store and, last, the file to make")
    from jetclr.anomaly.score import score_files

    jets = score_files(head, inputs[:-1], inputs[-1])
    print(f"{inputs[-1]}: {jets:,} jets")
