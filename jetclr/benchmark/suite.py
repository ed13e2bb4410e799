"""What a benchmark compares, on which jets: three suites for public layouts, and anybody's own as a Python file."""

import runpy
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from jetclr.data.convert import convert
from jetclr.data.store import Store
from jetclr.errors import UserError

ProbeName = Literal["logistic", "LDA", "kNN", "MLP"]
BaselineName = Literal["raw constituents", "observables", "EFP"]
TaggerName = Literal["PFN", "EFN", "ParticleNet-lite", "transformer", "jet-image CNN"]

SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
"""Splits, and what their stores or files are called in a data folder."""

RAW_ENDINGS = (".h5", ".hdf5", ".root", ".npz", ".parquet", ".feather", ".arrow")


@dataclass(frozen=True)
class Suite:
    """A benchmark. `train` jets are fitted, `validation` jets choose, `test` jets are only measured.

    With `many` every label is a class of its own; otherwise the lowest label is background and all others signal.
    """

    name: str
    train: tuple[str, ...]
    """Labelled stores that probes and taggers are fitted on."""
    validation: tuple[str, ...]
    """Labelled stores by which layers, probes and temperatures are chosen."""
    test: tuple[str, ...]
    """Labelled stores that are opened only to measure what has been fitted."""
    many: bool = False
    shifted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other test jets for the same probes: another generator tune, a detector; name -> stores."""
    train_jets: int = 0
    """At most so many jets of each class are fitted, drawn at random; 0: all."""
    constituents: int = 50
    """The hardest constituents that baselines and taggers see; a run sees as many as it was pretrained on."""
    extras: tuple[str, ...] = ()
    """Columns of constituents that the raw-constituent baseline sees beside pt, eta and phi."""
    label_counts: tuple[int, ...] = (100, 1_000, 10_000)
    """Labelled jets of the label-efficiency curves; all are always added."""
    draws: int = 5
    """Draws of labelled jets at each count."""
    probes: tuple[ProbeName, ...] = ("logistic", "LDA", "kNN", "MLP")
    baselines: tuple[BaselineName, ...] = ("raw constituents", "observables", "EFP")
    efp_edges: int = 5
    """Energy flow polynomials of all connected multigraphs with up to so many edges."""
    taggers: tuple[TaggerName, ...] = ("PFN", "EFN", "ParticleNet-lite", "transformer", "jet-image CNN")
    finetune: bool = True
    """Whether encoders are also trained on, and from nothing, at each label count."""
    most_steps: int = 0
    """Steps after which a network is taken as trained, for a quick look; 0: as many as each was tuned for."""
    regress: tuple[str, ...] = ("jet_mass", "jet_pt", "multiplicity")
    """Properties of a jet that are read off linearly; "multiplicity" counts its constituents."""
    disco: float = 10.0
    """Strength of the decorrelation from mass in the DisCo-regularised probe."""
    seed: int = 0

    def __post_init__(self) -> None:
        stores = {f"Suite.{name}": getattr(self, name) for name in SPLITS}
        stores |= {f"Suite.shifted[{name!r}]": paths for name, paths in self.shifted.items()}
        for name, paths in stores.items():
            if isinstance(paths, (str, Path)):
                raise ValueError(f"{name} is {str(paths)!r}; it must be a tuple of stores, such as ({str(paths)!r},)")
            if not paths:
                raise ValueError(f"{name} names no store")
        for setting, known in (("probes", ProbeName), ("baselines", BaselineName), ("taggers", TaggerName)):
            for name in getattr(self, setting):
                if name not in get_args(known):
                    raise ValueError(f"Suite.{setting} has {name!r}; known are {', '.join(get_args(known))}")
        if min(self.constituents, self.draws) < 1:
            raise ValueError("Suite.constituents and Suite.draws must be positive")
        if min(self.train_jets, self.most_steps, self.disco, self.seed) < 0:
            raise ValueError("Suite.train_jets, Suite.most_steps, Suite.disco and Suite.seed must not be negative")
        if any(count < 20 or count != int(count) for count in self.label_counts):
            raise ValueError(f"Suite.label_counts is {self.label_counts}; each must be a whole number, at least 20")
        if not 1 <= self.efp_edges <= 7:
            raise ValueError(f"Suite.efp_edges is {self.efp_edges}; it must be from 1 to 7")
        if not self.probes:
            raise ValueError("Suite.probes is empty; choose 'logistic', 'LDA', 'kNN' or 'MLP'")


_NAMED = {
    "toptag": Suite("toptag", ("-",), ("-",), ("-",)),
    "qg": Suite("qg", ("-",), ("-",), ("-",), constituents=100),
    # Ten classes; 100,000 jets of each are as many as two cores fit in an hour.
    "jetclass": Suite(
        "jetclass", ("-",), ("-",), ("-",), many=True, train_jets=100_000, constituents=128, finetune=False
    ),
}


def find_suite(name: str, data: Path | None, scratch: Path) -> Suite:
    """The suite called `name`, on the stores or public files train, val and test in the folder `data`.

    `name` is toptag, jetclass or qg. Files are converted once, into `scratch`. Raises UserError for a name or a folder
    without what is needed.
    """
    if name not in _NAMED:
        raise UserError(f"there is no suite {name!r}; known are {', '.join(_NAMED)}, anomaly, or a Python file NAME.py")
    folder = Path("stores") / name if data is None else data
    if not folder.is_dir():
        raise UserError(f"there is no data folder {folder}; name one that holds train, val and test with --data")
    found: dict[str, Any] = {split: (str(_find_split(folder, SPLITS[split], scratch)),) for split in SPLITS}
    return replace(_NAMED[name], **found)


def changed(suite: Suite, *, shifted: Sequence[str] = (), **given: Any) -> Suite:
    """The suite with what the command line says instead: `shifted` as NAME=STORE, other settings where not None.

    Names of several words may be written with hyphens; "none" alone stands for nothing. Raises UserError for a
    setting that cannot be.
    """
    settings = {name: value for name, value in given.items() if value is not None}
    for name, known in (("baselines", get_args(BaselineName)), ("taggers", get_args(TaggerName))):
        if name in settings:
            settings[name] = _known_names(name, settings[name], known)
    if shifted:
        stores: dict[str, tuple[str, ...]] = dict(suite.shifted)
        for text in shifted:
            name, equals, path = text.partition("=")
            if not (name and equals and path):
                raise UserError(f"--shifted is {text!r}; it must be NAME=STORE")
            stores[name] = (*stores.get(name, ()), path)
        settings["shifted"] = stores
    try:
        return replace(suite, **settings)
    except ValueError as error:
        raise UserError(str(error)) from None


def _known_names(setting: str, words: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    if tuple(words) == ("none",):
        return ()
    by_word = {name.replace(" ", "-").lower(): name for name in known}
    for word in words:
        if word.replace(" ", "-").lower() not in by_word:
            raise UserError(
                f"--{setting} has {word!r}; known are none, {', '.join(n.replace(' ', '-') for n in known)}"
            )
    return tuple(by_word[word.replace(" ", "-").lower()] for word in words)


def _find_split(folder: Path, names: tuple[str, ...], scratch: Path) -> Path:
    for name in names:
        if (folder / name / "metadata.json").is_file():
            return folder / name
        for ending in RAW_ENDINGS:
            file = folder / f"{name}{ending}"
            if file.is_file():
                return _converted(file, scratch / names[0])
    raise UserError(
        f"{folder} holds neither a store {' or '.join(names)} nor a file of that name "
        f"({', '.join(RAW_ENDINGS)}); make one with jetclr convert or jetclr generate"
    )


def _converted(file: Path, out: Path) -> Path:
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        convert("auto", [file], out)
    made_of = Store(out).metadata[0]["source"].get("sources", [{}])[0]
    if (made_of.get("file"), made_of.get("bytes")) != (file.name, file.stat().st_size):
        raise UserError(f"{out} was made from another file than {file}; remove it or choose another --workdir")
    return out


def suite_from_file(path: Path, kinds: tuple[type[Any], ...] = (Suite,)) -> Any:
    """The `suite` that a Python file sets, of one of `kinds`; raises UserError naming what is wrong with it."""
    if not path.is_file():
        raise UserError(f"there is no suite file {path}")
    try:
        suite = runpy.run_path(str(path)).get("suite")
    except Exception as error:  # the user's own program: whatever it raises is theirs to mend
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UserError(f"{place}: {type(error).__name__}: {error}") from None
    if not isinstance(suite, kinds):
        expected = " or ".join(f"`suite = {kind.__name__}(...)`" for kind in kinds)
        raise UserError(f"{path} must set {expected}; it sets {type(suite).__name__}")
    return suite
