"""What an anomaly benchmark compares, on which jets and events: a folder of stores, or one's own as a Python file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jetclr.data.store import Store
from jetclr.errors import UserError

NAME = "anomaly"
TRAIN, TEST = "-train", "-test"
DIJET = "dijet-"
EVENTS = DIJET + "background", DIJET + "signal"


@dataclass(frozen=True)
class Events:
    """Dijet events for searches: a signal that peaks in `dijet_mass` is injected into background, masses in GeV."""

    background: tuple[str, ...]
    """Stores of background events, two neighbouring jets each, with the columns dijet_mass and jet_index."""
    signal: tuple[str, ...]
    """Stores of signal events of the same kind."""
    signal_region: tuple[float, float] = (3300.0, 3700.0)
    sidebands: tuple[float, float] = (2800.0, 4500.0)
    """Outer limits of the sidebands on either side of the signal region."""
    held_out: float = 0.3
    """Share of the background events that is not searched, to measure on."""
    fractions: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.006, 0.02, 0.05)
    """Injected signal over background in the signal region."""
    main: float = 0.006
    """The one of these at which everything is compared, with more seeds and a bump hunt."""
    seeds: int = 3
    """Draws of signal events and seeds of training at `main`; one elsewhere."""
    kept: tuple[float, ...] = (0.01, 0.003)
    """Shares of events, with the highest scores, in which a bump is hunted."""

    def __post_init__(self) -> None:
        low, high = self.signal_region
        if not self.sidebands[0] < low < high < self.sidebands[1]:
            raise ValueError(f"sidebands {self.sidebands} must lie on both sides of the signal region {(low, high)}")
        if self.main not in self.fractions or not all(0 < f < 1 for f in self.fractions):
            raise ValueError(f"fractions must lie in (0, 1) and hold main, {self.main}; they are {self.fractions}")
        if not 0 < self.held_out < 1 or not all(0 < k < 1 for k in self.kept) or self.seeds < 1:
            raise ValueError("held_out and kept must lie in (0, 1), seeds be positive")


@dataclass(frozen=True)
class AnomalySuite:
    """Heads are fitted on each of `background`, and tell its own test jets from those of every other kind."""

    name: str
    background: Mapping[str, tuple[str, ...]]
    """Kinds of jets that heads are fitted on, the first the usual one: name -> stores."""
    test: Mapping[str, tuple[str, ...]]
    """Kinds of jets that are measured, those of `background` among them: name -> stores."""
    train_jets: int = 20_000
    """Jets of each background that are fitted at most."""
    constituents: int = 50
    """The hardest constituents that heads on jets and observables see."""
    heads: tuple[str, ...] = ()
    """Heads by name; none: all."""
    control_heads: tuple[str, ...] = ("Mahalanobis", "kNN", "Gaussian mixture")
    """Those that untrained encoders and observables are given to as well."""
    contamination: tuple[float, ...] = (0.001, 0.01, 0.05)
    """Shares of the second background's jets among the fitted jets of the first."""
    contaminated_heads: tuple[str, ...] = ("Mahalanobis", "kNN", "normalising flow", "autoencoder", "image autoencoder")
    """Heads that are fitted again at each of these."""
    events: Events | None = None
    """For searches; None: none are made."""
    seed: int = 0

    def __post_init__(self) -> None:
        missing = [name for name in self.background if name not in self.test]
        if missing or not self.background or len(self.test) < 2:
            raise ValueError("an anomaly suite needs backgrounds, test jets of each, and of another kind")
        for stores in (*self.background.values(), *self.test.values()):
            if isinstance(stores, (str, Path)) or not stores:
                raise ValueError(f"stores are tuples of paths, not {stores!r}")
        if min(self.train_jets, self.constituents) < 1 or self.seed < 0:
            raise ValueError("train_jets and constituents must be positive, seed not negative")
        if not all(0 < share < 1 for share in self.contamination):
            raise ValueError(f"contamination is {self.contamination}; shares lie in (0, 1)")

    @property
    def directions(self) -> list[tuple[str, str]]:
        """Each background with each other kind of test jets."""
        return [(b, s) for b in self.background for s in self.test if s != b]


def find_anomaly_suite(data: Path | None) -> AnomalySuite:
    """The suite on the stores of a folder, stores/anomaly if none is given.

    In the folder NAME-train are backgrounds, NAME-test are measured, dijet-background and dijet-signal are events;
    kinds are called as their stores label them. Raises UserError for a folder without what is needed.
    """
    folder = Path("stores") / NAME if data is None else data
    if not folder.is_dir():
        raise UserError(f"there is no data folder {folder}; name one with --data, or make one (docs/anomaly.md)")
    stores = sorted(path.parent for path in folder.glob("*/metadata.json") if not path.parent.name.startswith(DIJET))
    kinds = {
        ending: {_kind(path): (str(path),) for path in stores if path.name.endswith(ending)} for ending in (TRAIN, TEST)
    }
    # QCD first: it is what there is most of.
    background = dict(sorted(kinds[TRAIN].items(), key=lambda item: (item[0] != "QCD", item[0])))
    test = background.keys() & kinds[TEST].keys()
    if not background or len(kinds[TEST]) < 2 or len(test) < len(background):
        raise UserError(
            f"{folder} holds {', '.join(path.name for path in stores) or 'no stores'}; an anomaly benchmark needs "
            f"NAME{TRAIN} of at least one background, NAME{TEST} of each of them and of another kind"
        )
    events = None
    if all((folder / store / "metadata.json").is_file() for store in EVENTS):
        events = Events((str(folder / EVENTS[0]),), (str(folder / EVENTS[1]),))
    ordered = {name: kinds[TEST][name] for name in (*background, *(n for n in kinds[TEST] if n not in background))}
    return AnomalySuite(NAME, background, ordered, events=events)


def _kind(path: Path) -> str:
    """The name of the one label of a store."""
    store = Store(path)
    labels = {int(v) for v in store.column("label")} if "label" in store.columns else set()
    if len(labels) != 1:
        raise UserError(f"{path} holds {len(labels)} labels; stores of an anomaly benchmark hold jets of one kind")
    return store.label_names.get(labels.pop(), path.name.rsplit("-", 1)[0])
