"""What a benchmark found, as plain values: what tables and pages are made from, and what `--json` writes.

Everything that is measured on test jets says so; "validation" figures are what choices were made by.
"""

from dataclasses import dataclass, field
from typing import Literal

from probes.metrics import Estimate

Kind = Literal["run", "untrained", "embeddings", "baseline", "supervised", "finetuned"]
"""run: embedding of a pretrained encoder; untrained: the same encoder with random weights; embeddings: from a file;
baseline: built by hand; supervised: a network trained on the labels from nothing; finetuned: a run trained on."""


@dataclass(frozen=True)
class Curve:
    """A ROC curve thinned for drawing."""

    eps_s: tuple[float, ...]
    eps_b: tuple[float, ...]


@dataclass(frozen=True)
class Score:
    """One predictor, fitted on all labelled jets, measured on the test jets."""

    representation: str  # "toptag", "toptag untrained", "EFP d<=5", "ParticleNet-lite", ...
    kind: Kind
    layer: str  # "embedding", "layer_1", ...; "" where there are none
    probe: str  # "logistic", "LDA", "kNN", "MLP"; "" for supervised networks
    width: int  # numbers a jet that the probe sees; 0 for networks on constituents
    parameters: int  # fitted on labels
    labels: int  # labelled jets used, validation included where it chose something
    validation_auc: float
    chosen: bool  # the one of this representation with the best validation AUC
    test: dict[str, Estimate]  # two classes: auc, accuracy, r30, r50; more: auc, accuracy, and r50 of each class
    roc: Curve | None  # two classes only
    max_sic: float | None
    settings: dict[str, bool | int | float | str]  # l2, l2_at_edge, neighbours, steps, ...
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Predictor a minus predictor b on the same test jets."""

    a: str
    b: str
    probe: str
    auc: Estimate  # difference with its paired-bootstrap interval
    bootstrap_p: float  # one-sided, "a is not better than b"
    delong_z: float
    delong_p: float  # two-sided
    log_r50: Estimate | None


@dataclass(frozen=True)
class Efficiency:
    """One representation and way of using it at one number of labels; one entry of `auc` and `r50` a draw or seed."""

    representation: str
    kind: Kind
    probe: str  # "logistic", "LDA", ..., "fine-tuned", "from scratch"
    labels: int
    auc: tuple[float, ...]
    r50: tuple[float, ...]
    r50_is_bound: tuple[bool, ...]
    accuracy: tuple[float, ...]
    auc_interval: Estimate  # of the first draw, over test jets: the finite-sample error, apart from the spread


@dataclass(frozen=True)
class SeedSpread:
    """Runs that differ by their seed alone."""

    representation: str
    probe: str
    runs: tuple[str, ...]
    auc: tuple[float, ...]
    r50: tuple[float, ...]
    r50_is_bound: tuple[bool, ...]


@dataclass(frozen=True)
class Regression:
    """Ridge regression of a jet's property from a representation, measured on test jets."""

    representation: str
    kind: Kind
    layer: str
    target: str  # column name: jet_mass, jet_pt, multiplicity
    unit: str  # "GeV" or ""
    r2: Estimate
    resolution: float  # standard deviation of predicted - true, in `unit`


@dataclass(frozen=True)
class Similarity:
    """Cosine between the embeddings of a jet and of its changed copy, against the strength of the change."""

    representation: str
    kind: Kind
    transform: str  # "rotation", "translation", "splitting", "soft radiation", "boost"
    strength_label: str  # axis label with unit: "angle [rad]"
    strength: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]  # central 68 % of jets
    high: tuple[float, ...]


@dataclass(frozen=True)
class Geometry:
    """How the embeddings lie (arXiv:2005.10242; Roy & Vetterli 2007)."""

    representation: str
    kind: Kind
    width: int
    alignment: float
    uniformity: float
    effective_rank: float
    between: float  # mean cosine of different jets


@dataclass(frozen=True)
class Robustness:
    """A predictor fitted on the suite's jets, measured on test jets that something was done to."""

    representation: str
    kind: Kind
    probe: str
    shift: str  # "nominal", "detector smearing", "pile-up", "lost soft constituents", name of a shifted store
    auc: Estimate
    r50: Estimate
    auc_change: Estimate | None  # against nominal, paired; None for nominal and for other jets (another tune)


@dataclass(frozen=True)
class Sculpting:
    """How a score depends on the jet's mass, on background test jets."""

    representation: str
    kind: Kind
    probe: str  # "logistic", "logistic + DisCo", ...
    auc: float
    r50: float
    distance_correlation: float  # arXiv:2001.05310
    jsd: tuple[float, ...]  # Jensen-Shannon divergence of the mass spectrum after a cut at each eps_b [bits]
    eps_b: tuple[float, ...]
    edges: tuple[float, ...]  # of the spectra [GeV]
    before: tuple[float, ...]  # shares of background jets
    after: tuple[float, ...]  # shares of those that pass the last eps_b
    random_distance_correlation: float  # of a score that knows nothing of the mass, by the finite number of jets
    random_jsd: tuple[float, ...]  # the same, at each eps_b
    r50_is_bound: bool


@dataclass(frozen=True)
class Calibration:
    """Reliability of a predictor's probabilities on test jets, before and after temperature scaling."""

    representation: str
    kind: Kind
    probe: str
    temperature: float  # fitted on validation jets
    error: float  # expected calibration error
    scaled_error: float
    predicted: tuple[float, ...]  # mean probability in each bin, after scaling
    observed: tuple[float, ...]
    jets: tuple[int, ...]
    perfect_error: float  # what perfect probabilities would show on so many jets


@dataclass(frozen=True)
class Facts:
    """What was compared, on what."""

    suite: str
    version: str  # of jetclr
    data: dict[str, str]  # split -> store names
    jets: dict[str, int]  # train, validation, test
    classes: tuple[str, ...]  # background first
    label_counts: tuple[int, ...]
    draws: int
    seed: int
    test_looks: int  # predictors measured on these test jets with this folder, this time included
    seconds: float
    notes: tuple[str, ...] = ()  # what a reader must know: overlap of pretraining and test, bounds, what was left out


@dataclass(frozen=True)
class Benchmark:
    """Everything that a benchmark found; lists may be empty."""

    facts: Facts
    scores: list[Score] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    efficiency: list[Efficiency] = field(default_factory=list)
    seeds: list[SeedSpread] = field(default_factory=list)
    regression: list[Regression] = field(default_factory=list)
    similarity: list[Similarity] = field(default_factory=list)
    geometry: list[Geometry] = field(default_factory=list)
    robustness: list[Robustness] = field(default_factory=list)
    sculpting: list[Sculpting] = field(default_factory=list)
    calibration: list[Calibration] = field(default_factory=list)
