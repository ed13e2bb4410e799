"""Benchmarks with made-up but plausible numbers, for tests of what is printed and drawn."""

import dataclasses

import numpy as np

from jetclr.benchmark.results import (
    Benchmark,
    Calibration,
    Comparison,
    Curve,
    Efficiency,
    Facts,
    Geometry,
    Kind,
    Regression,
    Robustness,
    Score,
    Sculpting,
    SeedSpread,
    Similarity,
)
from probes import metrics
from probes.metrics import Estimate

COUNTS = (100, 1_000, 10_000, 60_000)
JETCLASS = ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")

# representation, kind, width, AUC, R50
NAMES: list[tuple[str, Kind, int, float, float]] = [
    ("toptag", "run", 1280, 0.9819, 178),
    ("toptag untrained", "untrained", 1280, 0.9762, 98),
    ("toptag seed 1", "run", 1280, 0.9815, 169),
    ("toptag seed 1 untrained", "untrained", 1280, 0.9759, 94.3),
    ("OmniLearned embeddings", "embeddings", 512, 0.9832, 231),
    ("raw constituents", "baseline", 150, 0.7391, 4.4),
    ("mass, multiplicity, N-subjettiness", "baseline", 12, 0.9683, 66.1),
    ("EFP d<=5", "baseline", 102, 0.9805, 152),
    ("PFN", "supervised", 0, 0.9812, 171),
    ("EFN", "supervised", 0, 0.9784, 128),
    ("ParticleNet-lite", "supervised", 0, 0.9841, 263),
    ("transformer", "supervised", 0, 0.9847, 281),
    ("jet-image CNN", "supervised", 0, 0.9769, 103),
    ("toptag from scratch", "supervised", 0, 0.9838, 249),
    ("toptag fine-tuned", "finetuned", 0, 0.9852, 302),
]
LAYERS = ("layer_1", "layer_2", "layer_3", "embedding")


def example() -> Benchmark:
    """Two runs with their controls and everything to compare them with, top against QCD."""
    rng = np.random.default_rng(0)
    return Benchmark(
        facts=Facts(
            suite="toptag",
            version="0.1.0",
            data={"train": "stores/toptag/train", "validation": "stores/toptag/val", "test": "stores/toptag/test"},
            jets={"train": 60_000, "validation": 10_000, "test": 10_000},
            classes=("QCD", "top"),
            label_counts=COUNTS,
            draws=5,
            seed=0,
            test_looks=71,
            seconds=2412.7,
            notes=("R30 and R50 of the raw constituents are known best.", "OmniLearned embeddings: 3 jets left out."),
        ),
        scores=[score for name in NAMES for score in _scores(rng, *name)],
        comparisons=[
            _comparison("toptag", "toptag untrained", "logistic", 0.0057, 7.4),
            _comparison("toptag", "toptag untrained", "LDA", 0.0039, 5.1),
            _comparison("toptag", "EFP d<=5", "logistic", 0.0006, 0.8),
            _comparison("toptag logistic", "transformer", "", -0.0028, -4.4),
            _comparison("toptag seed 1", "toptag seed 1 untrained", "logistic", 0.0056, 7.2),
        ],
        efficiency=_efficiency(rng),
        seeds=[
            SeedSpread(
                "toptag", "logistic", ("toptag", "toptag seed 1"), (0.9819, 0.9815), (178.0, 169.0), (False, False)
            )
        ],
        regression=[
            Regression(name, kind, "embedding", target, unit, around(r2, 0.004), resolution)
            for name, kind, *_ in NAMES[:4]
            for target, unit, r2, resolution in (("jet_mass", "GeV", 0.94, 11.3), ("jet_pt", "GeV", 0.71, 15.2))
        ],
        similarity=_similarity(),
        geometry=[
            Geometry(name, kind, width, 0.21 + 0.1 * i, -3.11 + 0.2 * i, 74.3 - 9 * i, 0.12 + 0.2 * i)
            for i, (name, kind, width, *_) in enumerate(NAMES[:5])
        ],
        robustness=_robustness(),
        sculpting=_sculpting(),
        calibration=_calibration(rng),
    )


def many_classes() -> Benchmark:
    """Ten classes: no ROC curve, a rejection for each class but the first."""
    two = example()
    jets = {f"r50 {name}": around(40.0 * (i + 1), 6.0) for i, name in enumerate(JETCLASS[1:])}
    jets["r50 Tbl"] = Estimate(1820.4, 1820.4, None, is_lower_bound=True)

    def wider(score: Score) -> Score:
        test = {"auc": score.test["auc"], "accuracy": around(0.71, 0.003), **jets}
        return dataclasses.replace(score, test=test, roc=None, max_sic=None)

    return Benchmark(
        facts=dataclasses.replace(two.facts, suite="jetclass", classes=JETCLASS),
        scores=[wider(score) for score in two.scores],
        efficiency=[dataclasses.replace(e, r50=(), r50_is_bound=()) for e in two.efficiency],
    )


def empty() -> Benchmark:
    """Nothing measured yet."""
    return Benchmark(facts=dataclasses.replace(example().facts, notes=(), label_counts=(), draws=0, test_looks=0))


def around(value: float, error: float) -> Estimate:
    return Estimate(value, value - error, value + error)


def _roc(rng: np.random.Generator, auc: float) -> Curve:
    from scipy.stats import norm

    labels = np.arange(10_000) % 2
    scores = rng.normal(size=10_000) + labels * np.sqrt(2) * norm.ppf(auc)
    eps_s, eps_b = metrics.roc_curve(scores, labels)
    kept = np.unique(np.searchsorted(eps_s, np.linspace(0, 1, 300)).clip(max=len(eps_s) - 1))
    return Curve(tuple(eps_s[kept].tolist()), tuple(eps_b[kept].tolist()))


def _scores(
    rng: np.random.Generator, name: str, kind: Kind, width: int, auc: float, r50: float
) -> list[Score]:  # fmt: skip
    if width == 0:
        probe = next((p for p in ("fine-tuned", "from scratch") if name.endswith(p)), name)
        ways = [("", probe, 0.0)]
    else:
        layers = LAYERS if kind in ("run", "untrained") else ("features",)
        ways = [
            (layer, probe, 0.004 * (len(layers) - 1 - i) + loss)
            for i, layer in enumerate(layers)
            for probe, loss in (("logistic", 0.0), ("LDA", 0.0019), ("kNN", 0.0061), ("MLP", 0.0003))
        ]
    curve = _roc(rng, auc)
    bound = r50 > 220
    return [
        Score(
            representation=name,
            kind=kind,
            layer=layer,
            probe=probe,
            width=width,
            parameters=width + 1 if width else 181_250,
            labels=70_000,
            validation_auc=auc - lost + 0.0008,
            chosen=lost == 0,
            test={
                "auc": around(auc - lost, 0.0022),
                "accuracy": around(auc - 0.047, 0.0048),
                "r30": Estimate(318.9, 318.9, None, True) if r50 > 150 else Estimate(2.6 * r50, 1.8 * r50, None),
                "r50": Estimate(r50, r50, None, True) if bound else Estimate(r50, 0.7 * r50, 1.56 * r50),
            },
            roc=curve,
            max_sic=7.2 if r50 > 100 else None,
            settings={"l2": 30.0, "l2_at_edge": False} if probe == "logistic" else {"steps": 600.0},
            seconds=12.5,
        )
        for layer, probe, lost in ways
    ]


def _comparison(a: str, b: str, probe: str, difference: float, z: float) -> Comparison:
    p = float(np.exp(-0.5 * z * z))
    log_r50 = around(0.597, 0.21) if z > 5 else None
    return Comparison(a, b, probe, around(difference, 0.0015), max(p, 0.001), z, p, log_r50)


def _efficiency(rng: np.random.Generator) -> list[Efficiency]:
    ways: list[tuple[str, Kind, str, float, float]] = [
        ("toptag", "run", "logistic", 0.958, 0.9819),
        ("toptag", "run", "LDA", 0.949, 0.9790),
        ("toptag untrained", "untrained", "logistic", 0.931, 0.9762),
        ("EFP d<=5", "baseline", "logistic", 0.951, 0.9805),
        ("toptag fine-tuned", "finetuned", "fine-tuned", 0.944, 0.9852),
        ("toptag from scratch", "supervised", "from scratch", 0.882, 0.9838),
    ]
    out = []
    for name, kind, probe, low, high in ways:
        for i, count in enumerate(COUNTS):
            spread = 0.008 / 2**i
            draws = low + (high - low) * i / 3 + spread * rng.normal(size=1 if count == COUNTS[-1] else 5)
            r50 = 2.6 / (1 - draws) * (1 + 0.05 * rng.normal(size=len(draws)))
            first = around(float(draws[0]), 0.002)
            bounds = tuple((r50 > 160).tolist())
            accuracy = tuple((draws - 0.047).tolist())
            row = tuple(draws.tolist()), tuple(r50.tolist()), bounds, accuracy, first
            out.append(Efficiency(name, kind, probe, count, *row))
    return out


def _similarity() -> list[Similarity]:
    out = []
    for name, kind, slope in (
        ("toptag", "run", 0.004),
        ("toptag untrained", "untrained", 0.03),
        ("OmniLearned embeddings", "embeddings", 0.01),
    ):
        for transform, label, top in (
            ("rotation", "angle [rad]", 6.28),
            ("translation", "distance in eta and phi", 1.0),
            ("splitting", "splittings a jet", 10.0),
            ("soft radiation", "total pT [GeV]", 20.0),
            ("boost", "rapidity", 0.5),
        ):
            x = np.linspace(0, top, 9)
            fall = slope * 20 * np.sin(np.pi * x / top) if transform == "rotation" else slope * 20 * x / top
            lines = (tuple((1 - k * fall).tolist()) for k in (1.0, 1.6, 0.5))
            out.append(Similarity(name, kind, transform, label, tuple(x.tolist()), *lines))
    return out


def _robustness() -> list[Robustness]:
    out = []
    for name, kind, _, auc, r50 in (NAMES[0], NAMES[1], NAMES[7], NAMES[11]):
        for shift, loss in (
            ("nominal", 0.0), ("detector smearing", 0.0031), ("pile-up", 0.0142), ("lost soft constituents", 0.0011),
            ("Herwig", 0.0085),
        ):  # fmt: skip
            loss *= 2 - (auc > 0.98)
            change = None if shift in ("nominal", "Herwig") else around(-loss, 0.0007)
            value = Estimate(r50, r50, None, True) if r50 > 220 else around(r50 * (1 - 20 * loss), 20.0)
            probe = name if kind == "supervised" else "logistic"
            out.append(Robustness(name, kind, probe, shift, around(auc - loss, 0.0022), value, change))
    return out


def _sculpting() -> list[Sculpting]:
    edges = np.linspace(0, 300, 31)
    centre = 0.5 * (edges[1:] + edges[:-1])
    before = np.exp(-centre / 60) * centre
    before /= before.sum()
    eps_b = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    out = []
    for name, kind, probe, peak in (
        ("toptag", "run", "logistic", 1.0),
        ("toptag", "run", "logistic + DisCo", 0.2),
        ("toptag untrained", "untrained", "logistic", 0.9),
        ("EFP d<=5", "baseline", "logistic", 1.2),
    ):
        after = before * (1 - 0.7 * peak / 1.2) + 0.06 * peak * np.exp(-(((centre - 173) / 22) ** 2))
        after /= after.sum()
        jsd = tuple(0.5 * peak * (1 - e**0.3) for e in eps_b)
        spectra = tuple(edges.tolist()), tuple(before.tolist()), tuple(after.tolist())
        out.append(
            Sculpting(
                name,
                kind,
                probe,
                0.982 - 0.02 / (1 + 4 * peak),
                170.0,
                0.31 * peak,
                jsd,
                eps_b,
                *spectra,
                0.012,
                (0.002,) * 6,
                False,
            )
        )
    return out


def _calibration(rng: np.random.Generator) -> list[Calibration]:
    out = []
    for name, kind, *_ in (NAMES[0], NAMES[1], NAMES[7], NAMES[11]):
        predicted = np.linspace(0.03, 0.97, 15)
        jets = np.array([3900, 420, 210, 130, 100, 90, 80, 0, 90, 100, 120, 180, 240, 480, 3860])
        observed = rng.binomial(np.maximum(jets, 1), predicted) / np.maximum(jets, 1)
        points = tuple(predicted.tolist()), tuple(observed.tolist()), tuple(jets.tolist())
        out.append(
            Calibration(name, kind, name if kind == "supervised" else "logistic", 1.17, 0.013, 0.006, *points, 0.004)
        )
    return out
