"""Frozen encoders in Python: `jetclr.load` opens a run or an exported folder; numpy goes in and comes out.

Shape glossary: B jets, N constituents with padding, D width of a layer.
"""

import html
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from jetclr import constituents as jets_in
from jetclr import run as runs
from jetclr.checkpoint import Which
from jetclr.config import Config
from jetclr.data.chunk import COORDINATES
from jetclr.data.names import CONSTITUENT_COLUMNS
from jetclr.errors import UserError
from jetclr.export import models
from jetclr.export.folder import CARD_JSON, model_file, read_card
from jetclr.export.graph import Frozen

BATCH = 512
"""Jets computed at once."""

# Sizes that models are compiled for, the number of constituents of the encoder being another; arrays are filled up.
ROWS = (1, 32, BATCH)
SLOTS = (16, 32, 64, 128)

Outputs = dict[str, Float32[np.ndarray, "..."]]


def load(
    path: str | Path, *, layers: str | Sequence[str] | None = None, checkpoint: Which = "latest"
) -> "FrozenEncoder":
    """The encoder of a run folder, or of any folder that `jetclr export` made.

    `layers` are the outputs to give, by default those of the export, or a run's "embedding"; of ONNX and StableHLO only
    what is in the file. `checkpoint` of a run is "latest", "best" or a step. It computes on JAX's default device, ONNX
    on CUDA if ONNX Runtime has it. Raises UserError for what is neither, for what is damaged, and for unknown layers.
    Nothing of the folder is executed.

    >>> encoder = jetclr.load("runs/toptag")  # doctest: +SKIP
    >>> encoder([210.0, 90.5], [0.1, -0.2], [3.0, 3.1]).shape  # doctest: +SKIP
    (1152,)
    """
    path = Path(path)
    asked = (layers,) if isinstance(layers, str) else None if layers is None else tuple(layers)
    if asked is not None and not asked:
        raise UserError("layers is empty; name at least one, or leave it out")
    if (path / CARD_JSON).is_file():
        if checkpoint != "latest":
            raise UserError(f"{path} is exported and has no checkpoints; open the run for checkpoint {checkpoint!r}")
        return _exported(path, asked)
    if not (path / runs.CONFIG).is_file():
        raise UserError(f"{path} is neither a run (with {runs.CONFIG}) nor an exported folder (with {CARD_JSON})")
    run = _quietly_open(path, checkpoint)
    frozen = Frozen(run.config, run.params, asked or ("embedding",))
    about = About(path.resolve().name, "run", run.config, run.step, None)
    return FrozenEncoder(about, frozen, models.widths(frozen), models.in_jax(frozen))


def _quietly_open(path: Path, checkpoint: Which) -> runs.Run:
    """The run, without Orbax's words on what it does: warnings of a checkpoint that is only read."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return runs.open_run(path, checkpoint)
    finally:
        logger.setLevel(level)


def _exported(path: Path, asked: tuple[str, ...] | None) -> "FrozenEncoder":
    card = read_card(path)
    opened = models.open_model(model_file(path, card), card, asked)
    about = About(str(card["name"]), f"exported as {card['to']}", opened.frozen.config, card["step"], card)
    return FrozenEncoder(about, opened.frozen, opened.widths, opened.model)


@dataclass(frozen=True)
class About:
    """What a frozen encoder is."""

    name: str
    kind: str
    config: Config
    step: int
    card: dict[str, Any] | None


class FrozenEncoder:
    """A frozen encoder: constituents in, representations and scores out; made by `jetclr.load`.

    Of each jet it sees the `constituents` hardest; their order does not matter, nor what stands in padding. Several
    threads may call it at once.
    """

    def __init__(self, about: About, frozen: Frozen, widths: dict[str, int | None], model: models.Model) -> None:
        self._about, self._frozen, self._widths, self._model = about, frozen, widths, model

    def __call__(self, pt: Any, eta: Any, phi: Any, mask: Any = None, **extras: Any) -> Float32[np.ndarray, "..."]:
        """The first output: mostly the embedding [B, D] of jets [B, N], or [D] of one jet [N].

        `pt` in GeV, `phi` in radians, `mask` 1 or True for a constituent and 0 or False for padding (without it: those
        with pt > 0), `extras` by the names in `columns`; arrays or lists. Raises UserError for other extras, for shapes
        that differ, and for constituents that are not finite or of negative pT.
        """
        return self.outputs(pt, eta, phi, mask, **extras)[self._first]

    def outputs(self, pt: Any, eta: Any, phi: Any, mask: Any = None, **extras: Any) -> Outputs:
        """All outputs by name: layers [B, D] and scores [B]; otherwise as calling the encoder."""
        self._check_extras(extras)
        given = {"pt": pt, "eta": eta, "phi": phi} | {name: extras[name] for name in self._frozen.extras}
        columns, single = jets_in.from_padded(given, mask)
        found = self._joined(self._pieces(columns))
        return {name: x[0] for name, x in found.items()} if single else found

    def embed(self, jets: Any) -> Float32[np.ndarray, "..."]:
        """The first output for an awkward array of jets, [B, D]: the numbers of `jetclr embed`.

        `jets` are lists of records with the fields in `columns` (or vectors), or a jet store's table with its field
        `constituents`. Raises UserError for missing fields and values, and as calling the encoder does.
        """
        return self.embed_outputs(jets)[self._first]

    def embed_outputs(self, jets: Any) -> Outputs:
        """All outputs by name for an awkward array of jets; otherwise as `embed`."""
        jagged, single = jets_in.from_awkward(jets, self._frozen.extras)
        found = self._joined(self._piece(columns) for columns in jets_in.batches(jagged, BATCH))
        return {name: x[0] for name, x in found.items()} if single else found

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the outputs that are representations [B, D], the one that calling gives first."""
        return tuple(name for name, width in self._widths.items() if width is not None)

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the outputs that are one number a jet [B]: probes and anomaly heads in an export."""
        return tuple(name for name, width in self._widths.items() if width is None)

    @property
    def width(self) -> int:
        """D of what calling the encoder gives; 1 for a score."""
        return self._widths[self._first] or 1

    @property
    def constituents(self) -> int:
        """How many constituents of a jet are seen, the hardest."""
        return self._about.config.data.constituents

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the inputs beside the mask: pt, eta, phi and extras."""
        return self._frozen.columns

    @property
    def config(self) -> Config:
        """The settings of the pretraining run."""
        return self._about.config

    @property
    def step(self) -> int:
        """The training step at which it was frozen."""
        return self._about.step

    @property
    def card(self) -> dict[str, Any] | None:
        """The model card of an exported folder; None for a run."""
        return self._about.card

    @property
    def _first(self) -> str:
        return next(iter(self._widths))

    def _check_extras(self, extras: dict[str, Any]) -> None:
        takes = ", ".join((*self.columns, "mask"))
        if unknown := [name for name in extras if name not in self._frozen.extras]:
            raise UserError(f"the encoder takes no column {unknown[0]!r}; it takes {takes}")
        if missing := [name for name in self._frozen.extras if name not in extras]:
            raise UserError(f"the column {missing[0]!r} is missing; the encoder takes {takes}")

    def _pieces(self, columns: jets_in.Columns) -> Iterable[Outputs]:
        for start in range(0, len(columns["pt"]), BATCH):
            yield self._piece({name: x[start : start + BATCH] for name, x in columns.items()})

    def _piece(self, columns: jets_in.Columns) -> Outputs:
        """All outputs of up to BATCH jets, padded to a size that has been compiled before."""
        columns = jets_in.hardest(columns, self.constituents)
        jets, slots = columns["pt"].shape
        rows, length = jets, max(slots, 1)
        if self._model.compiled:
            rows = min(size for size in ROWS if size >= jets)
            length = min([size for size in SLOTS if length <= size < self.constituents], default=self.constituents)
        found = self._model.call(jets_in.resized(columns, rows, length))
        return {name: found[name][:jets] for name in self._widths}

    def _joined(self, pieces: Iterable[Outputs]) -> Outputs:
        there = list(pieces) or [
            {name: np.zeros((0,) if width is None else (0, width), np.float32) for name, width in self._widths.items()}
        ]
        return {name: np.concatenate([piece[name] for piece in there]) for name in self._widths}

    def _facts(self) -> list[tuple[str, str]]:
        """What it is, in words, a line each."""
        config, known = self.config, CONSTITUENT_COLUMNS
        units = (f"{name} [{known[name].unit}]" if known[name].unit != "1" else name for name in self.columns)
        stores = ", ".join(Path(store).name for store in config.data.train) or "unknown jets"
        gives = (name + (" [B]" if width is None else f" [B, {width}]") for name, width in self._widths.items())
        extras = "".join(f", {name}={name}" for name in self._frozen.extras)
        return [
            ("what", f"{self._about.kind}, step {self.step:,} of {config.steps:,}"),
            ("gives", ", ".join(gives)),
            ("takes", f"{', '.join(units)}, mask; sees the {self.constituents} hardest constituents of a jet"),
            ("learnt", f"{type(config.objective).__name__} on {stores}"),
            ("runs on", self._model.where),
            ("use", f"encoder({', '.join(COORDINATES)}, mask{extras}), encoder.embed(awkward_array)"),
        ]

    def __repr__(self) -> str:
        return "\n".join([f"FrozenEncoder {self._about.name}", *(f"  {what:8} {text}" for what, text in self._facts())])

    def _repr_html_(self) -> str:
        """For notebooks."""
        row = '<tr><th style="text-align:left">{}</th><td style="text-align:left">{}</td></tr>'
        rows = (row.format(html.escape(what), html.escape(text)) for what, text in self._facts())
        return f"<b>FrozenEncoder {html.escape(self._about.name)}</b><table>{''.join(rows)}</table>"
