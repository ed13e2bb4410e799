"""The processes of `jetclr generate`, and the recipe that a user's options make of one. Plain Python only.

Sources: the top-tagging landscape study, arXiv:1902.09914 (window and matching of tops); semivisible jets,
arXiv:1503.00009 and 1712.05326; Hidden Valley showers in Pythia, arXiv:1102.3795; dark showers, arXiv:2203.09503; the
resonance search follows the LHC Olympics 2020, arXiv:2101.08320.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from jetclr.data.options import Detector, Options, Window, check_detector, check_range
from jetclr.data.veto import Veto, veto_for
from jetclr.errors import UserError

__all__ = ["LABELS", "PROCESSES", "Detector", "Match", "Options", "Process", "Recipe", "Window", "recipe"]

DEFAULT_TUNE = 14
TUNES = range(1, 34)
"""Pythia 8.3's tunes to proton collisions by their numbers."""
NOT_SHIPPED_TUNES = {11: "CT10", 16: "HERAPDF1.5LO", 17: "CT10", 22: "HERAPDF1.5LO"}
"""Those of them whose parton distributions do not come with Pythia."""

Settings = dict[str, str | list[str]]
"""Pythia's settings by name; a list where one is given several times."""

LABELS = {
    0: "QCD",
    1: "top",
    2: "W",
    3: "Z",
    4: "H to bb",
    5: "semivisible",
    6: "resonance",
    7: "gluon",
    8: "quark",
}
"""One table for all processes, so that their stores can be joined."""


@dataclass(frozen=True)
class Match:
    """What must lie within the radius of a jet's axis.

    One of the particles `pdg` (either sign), and the `quarks` that it decays to: 3 for a top quark, 2 for a boson, 0
    for a parton, which must then leave the hard process.
    """

    pdg: tuple[int, ...]
    quarks: int


@dataclass(frozen=True)
class Recipe:
    """One kind of jets: hard process, label, and what a jet must hold.

    `pythia` are the process's own settings; `pt_hat_min` [GeV] is the least pT of the hard scattering, 0 where it is
    not cut. `visible_early` says whether a half-made shower shows what the jets will be. With `dijets` the two hardest
    jets of an event are kept, and `signal` takes the place of `signal_fraction` of the events. `own` are the values of
    the options that only this process has.
    """

    name: str
    label: int
    pythia: Settings
    pt_hat_min: float
    match: Match | None = None
    window: Window = field(default_factory=Window)
    mpi: bool = False
    tune: int = DEFAULT_TUNE
    detector: Detector | None = None
    visible_early: bool = True
    dijets: bool = False
    signal: "Recipe | None" = None
    own: dict[str, float] = field(default_factory=dict)
    beam_energy: float = 14_000.0

    @property
    def signal_fraction(self) -> float:
        """Share of the events that hold a resonance."""
        return self.own.get("signal_fraction", 0.0)

    def settings(self) -> Settings:
        """Every Pythia setting but the seed."""
        cut = {"PhaseSpace:pTHatMin": f"{self.pt_hat_min:g}"} if self.pt_hat_min else {}
        # Before all others, as a tune sets many of them. Pythia starts with the default one.
        tune = {"Tune:pp": str(self.tune)} if self.tune != DEFAULT_TUNE else {}
        return {
            **tune,
            "Beams:eCM": f"{self.beam_energy:g}",
            "PartonLevel:MPI": "on" if self.mpi else "off",
            **cut,
            "Print:quiet": "on",
            **self.pythia,
        }

    @property
    def veto(self) -> Veto | None:
        """Which events are dropped half way; None if no verdict is possible."""
        if not self.visible_early:
            return None
        decaying = self.match.pdg if self.match is not None and self.match.quarks > 0 else ()
        return veto_for(self.window, decaying, mpi=self.mpi, detector=self.detector)

    def describe(self) -> dict[str, Any]:
        """Everything that decides which jets come out, but for seed and versions, as JSON can hold it."""
        # What users ask for comes first, so that a sentence about the first difference speaks of it.
        return {
            "mpi": self.mpi,
            "tune": self.tune,
            **self.own,
            "window": asdict(self.window),
            "detector": asdict(self.detector) if self.detector is not None else None,
            "algorithm": "anti-kT",
            "match": {**asdict(self.match), "pdg": list(self.match.pdg)} if self.match is not None else None,
            "dijets": self.dijets,
            "pythia": self.settings(),
            **({"signal": self.signal.describe()} if self.signal is not None else {}),
            "early_veto": {**asdict(self.veto), "pdg": list(self.veto.pdg)} if self.veto is not None else None,
        }


@dataclass(frozen=True)
class Process:
    """What a process is made of; `pt_hat_min` [GeV] is for jets above 550 GeV, and `own` its particular options."""

    label: int
    text: str
    pythia: Mapping[str, str | list[str]]
    pt_hat_min: float = 0.0
    match: Match | None = None
    window: Window = field(default_factory=Window)
    visible_early: bool = True
    own: Mapping[str, float] = field(default_factory=dict)


_HADRONIC_W: Settings = {"24:onMode": "off", "24:onIfAny": "1 2 3 4 5"}
_HADRONIC_Z: Settings = {"WeakZ0:gmZmode": "2", "23:onMode": "off", "23:onIfAny": "1 2 3 4 5"}

# pTHat must start far below the window, because initial-state radiation lifts softer scatterings into it. Measured:
# of 4,004 QCD jets with pTHat > 150, 0.07 % have pTHat < 250, 0.6 % < 300 and 18 % < 450, and a cut at 450 lowers
# their mean multiplicity from 61.5 to 60.4. Top pairs radiate up to the kinematic limit, so their tail is long: of
# 409 top jets without any cut (7.6 +- 1.3) % have pTHat < 200 and (26 +- 2) % < 450; of 4,036 above 150, 3.2 % have
# less than 200 and 22 % less than 450, and a cut at 450 lowers the mean mass from 178.1 to 176.7 GeV, at 200 to 177.7.
# Of 2,091 quark and 2,046 gluon jets with pTHat > 150 none and 0.2 % have less than 250; of 1,107 dijets above
# 1,200 GeV with pTHat > 330 none has less than 545, which is where they start, and 0.6 % have less than 700.
# Pairs of bosons have such a tail too, of pairs that recoil together: of 2,025 W, 2,075 Z and 2,030 Higgs jets with
# pTHat > 100, (15, 14, 3) % have less than 200 and (30, 26, 14) % less than 450. It hardly changes the jets: a cut at
# 200 leaves mean mass and multiplicity of W, Z and H at 90.4, 98.2, 123.4 GeV and 44, 47, 59 (within 0.6 %).
#
# Higgs bosons are made with a Z to quarks. In 300 jets each, HZ with Z to neutrinos, HZ with Z to quarks, HW with W to
# leptons and H + jet give 105, 116, 143 and 109 jets/s a core, the same jets (median mass 123.5 to 124.2 GeV,
# multiplicity 59 to 60), and a median missing_pt of 573, 10, 242 and 10 GeV. So leptons would give the class away, and
# H + jet is computed in the limit of a heavy top quark, which does not hold at this pT.
PROCESSES = {
    "top": Process(
        1,
        "hadronic top quarks",
        {"Top:gg2ttbar": "on", "Top:qqbar2ttbar": "on", **_HADRONIC_W},
        pt_hat_min=200.0,
        match=Match((6,), quarks=3),
    ),
    "qcd": Process(0, "quark and gluon jets as QCD mixes them", {"HardQCD:all": "on"}, pt_hat_min=250.0),
    # Charm and bottom are left out among the made, as their jets look different; incoming ones may scatter.
    "quark": Process(
        8,
        "light quarks",
        {"HardQCD:qq2qq": "on", "HardQCD:gg2qqbar": "on", "HardQCD:qqbar2qqbarNew": "on"},
        pt_hat_min=250.0,
        match=Match((1, 2, 3, 4, 5), quarks=0),
    ),
    "gluon": Process(
        7,
        "gluons",
        {"HardQCD:gg2gg": "on", "HardQCD:qqbar2gg": "on"},
        pt_hat_min=250.0,
        match=Match((21,), quarks=0),
    ),
    "w": Process(
        2,
        "hadronic W bosons",
        {"WeakDoubleBoson:ffbar2WW": "on", **_HADRONIC_W},
        pt_hat_min=200.0,
        match=Match((24,), quarks=2),
    ),
    "z": Process(
        3,
        "hadronic Z bosons",
        {"WeakDoubleBoson:ffbar2gmZgmZ": "on", **_HADRONIC_Z},
        pt_hat_min=200.0,
        match=Match((23,), quarks=2),
    ),
    "higgs": Process(
        4,
        "Higgs bosons to b quarks",
        {"HiggsSM:ffbar2HZ": "on", "25:onMode": "off", "25:onIfMatch": "5 -5", **_HADRONIC_Z},
        pt_hat_min=200.0,
        match=Match((25,), quarks=2),
    ),
    "semivisible": Process(
        5,
        "semivisible jets of a dark shower",
        {"HiddenValley:ffbar2Zv": "on"},
        match=Match((4900101,), quarks=0),
        visible_early=False,  # only the mediator is there while the initial state radiates
        own={"invisible_fraction": 0.3, "mediator_mass": math.nan},
    ),
    "dijet": Process(
        0,
        "the two hardest jets of QCD events, and of a resonance decaying to W and Z",
        {"HardQCD:all": "on"},
        pt_hat_min=250.0,
        window=Window(radius=1.0, pt_min=1200.0, pt_max=7000.0, eta_max=2.5),
        own={"resonance_mass": 3500.0, "signal_fraction": 0.01},
    ),
}

DARK_MESONS = (4900111, 4900113, 4900211, 4900213)
DARK_MATTER = 51


def dark_sector(mass: float, invisible_fraction: float) -> Settings:
    """Pythia settings of a mediator of `mass` [GeV] and the dark quarks, mesons and stable particles it makes.

    SU(2) with two light flavours, as in arXiv:1712.05326; dark mesons of 20 GeV, all kinds with the same chance to be
    invisible, else to the five quarks alike.
    """
    settings: Settings = {
        "4900023:m0": f"{mass:g}",
        "4900023:mMin": f"{mass / 2:g}",
        "4900023:mWidth": f"{mass / 100:g}",
        "4900023:doForceWidth": "on",
        "4900023:onMode": "off",
        "4900023:onIfAny": "4900101",
        "4900101:m0": "10",
        "HiddenValley:Ngauge": "2",
        "HiddenValley:nFlav": "2",
        "HiddenValley:spinFv": "0",
        "HiddenValley:alphaOrder": "1",
        "HiddenValley:Lambda": "10",
        "HiddenValley:pTminFSR": "11",
        "HiddenValley:FSR": "on",
        "HiddenValley:fragment": "on",
        "HiddenValley:probVector": "0.75",
        f"{DARK_MATTER}:m0": "1",
        f"{DARK_MATTER}:mayDecay": "off",
    }
    for meson in DARK_MESONS:
        settings[f"{meson}:m0"] = "20"
        settings[f"{meson}:oneChannel"] = f"1 {invisible_fraction:g} 0 {DARK_MATTER} -{DARK_MATTER}"
        share = (1 - invisible_fraction) / 5
        settings[f"{meson}:addChannel"] = [f"1 {share:g} 91 {quark} -{quark}" for quark in range(1, 6)]
    return settings


def recipe(process: str, options: Options | None = None) -> Recipe:
    """The recipe of a process with a user's options.

    Raises UserError for an unknown process, options that it does not have, and values that make no sense.
    """
    options = options or Options()
    if process not in PROCESSES:
        raise UserError(f"unknown process {process!r}; known: {', '.join(PROCESSES)}")
    kind = PROCESSES[process]
    window = _window(process, kind.window, options)
    own = _own_options(process, kind, options)
    check_detector(options.detector)
    made = Recipe(
        name=process,
        label=kind.label,
        pythia=dict(kind.pythia),
        pt_hat_min=window.pt_min * kind.pt_hat_min / 550,
        match=kind.match,
        window=window,
        mpi=options.mpi,
        tune=_tune(options.tune),
        detector=options.detector,
        visible_early=kind.visible_early,
    )
    if process == "semivisible":
        return _semivisible(made, **own)
    return _dijet(made, **own) if process == "dijet" else made


def _tune(asked: int | None) -> int:
    """The number of a tune that this Pythia has."""
    if asked is None:
        return DEFAULT_TUNE
    check_range("tune", asked, TUNES[0], TUNES[-1])
    if asked in NOT_SHIPPED_TUNES:
        raise UserError(
            f"tune {asked} needs the parton distributions {NOT_SHIPPED_TUNES[asked]}, which do not come with Pythia; "
            "ask for another, such as 14 (Monash 2013) or 21 (ATLAS A14)"
        )
    return asked


def _window(process: str, default: Window, options: Options) -> Window:
    asked = {f.name: getattr(options, f.name) for f in fields(Window)}
    window = replace(default, **{name: value for name, value in asked.items() if value is not None})
    check_range("radius", window.radius, 0.1, 2.0)
    # Above, one event in a million passes the veto: it would take for ever.
    check_range("pt_min", window.pt_min, 50.0, 2500.0, "GeV")
    check_range("eta_max", window.eta_max, 0.1, 5.0)
    if not (math.isfinite(window.pt_max) and window.pt_max > window.pt_min):
        raise UserError(
            f"pt_min is {window.pt_min:g} and pt_max {window.pt_max:g} GeV, so that no jet fits in; give both "
            f"(those of {process} are {default.pt_min:g} and {default.pt_max:g})"
        )
    return window


def _own_options(process: str, kind: Process, options: Options) -> dict[str, float]:
    """The particular options of a process, with its defaults."""
    special = {name for other in PROCESSES.values() for name in other.own}
    for name in sorted(special - kind.own.keys()):
        if getattr(options, name) is not None:
            owners = " and ".join(p for p, other in PROCESSES.items() if name in other.own)
            raise UserError(f"process {process} has no {name}; leave it out, or ask for {owners}")
    asked = {name: getattr(options, name) for name in kind.own}
    return {name: kind.own[name] if value is None else value for name, value in asked.items()}


def _semivisible(made: Recipe, *, invisible_fraction: float, mediator_mass: float) -> Recipe:
    # Nothing would be left to cluster at 1, and at more than 0.9 hardly a jet reaches the window.
    check_range("invisible_fraction", invisible_fraction, 0.0, 0.9)
    window = made.window
    if math.isnan(mediator_mass):
        mediator_mass = 1.2 * (window.pt_min + window.pt_max) / (1 - invisible_fraction)
        mediator_mass = min(max(mediator_mass, 2 * window.pt_min), 0.8 * made.beam_energy)
    _check_mass("mediator_mass", mediator_mass, made)
    return replace(
        made,
        pythia=made.pythia | dark_sector(mediator_mass, invisible_fraction),
        own={"invisible_fraction": invisible_fraction, "mediator_mass": mediator_mass},
    )


def _dijet(made: Recipe, *, resonance_mass: float, signal_fraction: float) -> Recipe:
    check_range("signal_fraction", signal_fraction, 0.0, 1.0)
    _check_mass("resonance_mass", resonance_mass, made)
    w_prime: Settings = {
        "NewGaugeBoson:ffbar2Wprime": "on",
        "Wprime:coup2WZ": "1",
        "34:m0": f"{resonance_mass:g}",
        "34:mMin": f"{resonance_mass / 2:g}",
        "34:mWidth": f"{resonance_mass / 100:g}",
        "34:doForceWidth": "on",
        "34:onMode": "off",
        "34:onIfAll": "23 24",
    }
    signal = replace(
        made,
        label=6,
        pythia=w_prime | _HADRONIC_W | _HADRONIC_Z,
        pt_hat_min=0.0,
        visible_early=False,  # only the resonance is there while the initial state radiates
        dijets=True,
    )
    own = {"resonance_mass": resonance_mass, "signal_fraction": signal_fraction}
    return replace(made, dijets=True, signal=signal, own=own)


def _check_mass(name: str, mass: float, made: Recipe) -> None:
    """A resonance of this mass must give jets of the window."""
    check_range(
        name, mass, 2 * made.window.pt_min, 0.8 * made.beam_energy, f"GeV for jets above {made.window.pt_min:g}"
    )
