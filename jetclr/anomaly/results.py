"""What a benchmark of anomaly detection found, as plain values that tables, figures and results.json are made of."""

from dataclasses import dataclass, field
from typing import Literal

from probes.metrics import Estimate

Kind = Literal["run", "untrained", "baseline", "constituents"]
"""run: an embedding of a pretrained encoder; untrained: of one with random weights; baseline: built by hand;
constituents: a head that sees the jet itself, as an image or as constituents."""


@dataclass(frozen=True)
class SicCurve:
    """eps_S / sqrt(eps_B) along the ROC curve, thinned; `known` where eps_B is known to 20 %."""

    eps_s: tuple[float, ...]
    sic: tuple[float, ...]
    known: tuple[bool, ...]


@dataclass(frozen=True)
class HeadScore:
    """One head fitted on one background, measured on one signal."""

    representation: str
    kind: Kind
    layer: str
    head: str
    background: str
    signal: str
    contamination: float  # share of signal among the fitted jets
    jets: int  # fitted
    width: int  # numbers a jet that the head sees; 0 for constituents
    test: dict[str, Estimate]  # auc, r30, r50, max_sic
    curve: SicCurve
    seconds: float


@dataclass(frozen=True)
class HeadSculpting:
    """How a score depends on the mass of background jets."""

    representation: str
    kind: Kind
    head: str
    background: str
    distance_correlation: float  # arXiv:2001.05310
    random_distance_correlation: float  # of a score that knows nothing of the mass
    eps_b: tuple[float, ...]
    jsd: tuple[float, ...]  # Jensen-Shannon divergence of the mass spectrum after each cut [bits]
    random_jsd: tuple[float, ...]


@dataclass(frozen=True)
class SearchScore:
    """One search on one kind of features at one share of signal in the signal region; one entry a seed."""

    search: str
    features: str
    fraction: float  # signal over background in the signal region
    signal_events: tuple[int, ...]  # in the signal region
    background_events: int  # in the signal region
    max_sic: tuple[float, ...]  # on events that were not searched
    curve: SicCurve  # of the first seed
    mass_correlation: float  # distance correlation of score and resonant mass, in the sidebands
    seconds: float


@dataclass(frozen=True)
class Chance:
    """A share of background-only pseudo-experiments with its error; an upper bound where there was none."""

    value: float
    error: float
    is_upper_bound: bool


@dataclass(frozen=True)
class Counted:
    """Events counted in a mass window [GeV], and expected from the fit outside it."""

    low: float
    high: float
    counted: int
    background: float
    error: float
    local_p_value: float


@dataclass(frozen=True)
class Hunt:
    """The bump hunt on the events that a search selected, of the first seed."""

    search: str
    features: str
    fraction: float  # injected signal over background in the signal region; 0: background alone
    kept: float  # share of events selected
    events: int
    best: Counted  # the most significant window
    global_p: Chance  # of it, after the look-elsewhere effect
    region: Counted  # the signal region, known beforehand
    region_p: Chance
    fit_p: Chance
    deviance: float
    edges: tuple[float, ...]  # [GeV]
    counts: tuple[int, ...]
    background: tuple[float, ...]
    background_error: tuple[float, ...]


@dataclass(frozen=True)
class Facts:
    """What was compared, on what."""

    suite: str
    version: str  # of jetclr
    data: dict[str, str]  # role -> store names
    jets: dict[str, int]  # role -> jets or events
    seed: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnomalyBenchmark:
    """Everything that was found; lists may be empty."""

    facts: Facts
    heads: list[HeadScore] = field(default_factory=list)
    sculpting: list[HeadSculpting] = field(default_factory=list)
    searches: list[SearchScore] = field(default_factory=list)
    hunts: list[Hunt] = field(default_factory=list)
