"""What a user may ask of a generator process. Plain Python only, so that a command line loads nothing heavy."""

from dataclasses import dataclass

from jetclr.errors import UserError


@dataclass(frozen=True)
class Window:
    """Which jets are kept: anti-kT radius, pT range [GeV], largest |pseudorapidity|."""

    radius: float = 0.8
    pt_min: float = 550.0
    pt_max: float = 650.0
    eta_max: float = 2.0


@dataclass(frozen=True)
class Detector:
    """A simple detector: a tracker and one calorimeter, without magnetic field. See `jetclr.data.detector`."""

    tracking_efficiency: float = 0.95
    """Probability to find a charged particle; muons are always found."""
    track_pt_min: float = 0.5
    """Least pT of a track [GeV]."""
    track_eta_max: float = 2.5
    """Where the tracker ends in |pseudorapidity|."""
    track_resolution: float = 0.01
    """Relative width of a track's pT."""
    track_resolution_slope: float = 1e-4
    """What is added to it in quadrature, times the pT [1/GeV]."""
    granularity: float = 0.1
    """Size of calorimeter cells in pseudorapidity and azimuth."""
    calorimeter_eta_max: float = 5.0
    """Where the calorimeter ends in |pseudorapidity|."""
    stochastic: float = 0.5
    """Relative width of a cell's energy at 1 GeV; it falls with the square root of the energy."""
    constant: float = 0.05
    """What is added to it in quadrature at all energies."""
    cell_pt_min: float = 0.5
    """Least transverse energy of a cell [GeV]."""


@dataclass(frozen=True)
class Options:
    """What a user may ask of a process; None is the process's own value."""

    radius: float | None = None
    """Radius of the anti-kT jets."""
    pt_min: float | None = None
    """Least pT of a jet (dijet: of the harder one) [GeV]."""
    pt_max: float | None = None
    """Largest pT of a jet (dijet: of the harder one) [GeV]."""
    eta_max: float | None = None
    """Largest |pseudorapidity| of a jet."""
    mpi: bool = False
    """Whether protons interact several times: more soft particles, and slower."""
    tune: int | None = None
    """Number of Pythia's tune to proton collisions (14, Monash 2013); 21 is ATLAS A14, 5 the older 4C."""
    detector: Detector | None = None
    """None keeps the particles as they are."""
    invisible_fraction: float | None = None
    """semivisible: share of dark mesons that decay invisibly (0.3)."""
    mediator_mass: float | None = None
    """semivisible: mass of the mediator [GeV] (2.4 x centre of the pT window / (1 - invisible_fraction))."""
    resonance_mass: float | None = None
    """dijet: mass of the resonance [GeV] (3500)."""
    signal_fraction: float | None = None
    """dijet: share of the events that hold a resonance (0.01)."""


def check_detector(detector: Detector | None) -> None:
    """Raise UserError for a number that no detector has."""
    if detector is None:
        return
    limits = {
        "tracking_efficiency": (0.0, 1.0),
        "track_pt_min": (0.0, 100.0),
        "track_eta_max": (0.0, 10.0),
        "track_resolution": (0.0, 0.2),
        "track_resolution_slope": (0.0, 0.001),
        "granularity": (0.001, 1.0),
        "calorimeter_eta_max": (0.1, 10.0),
        "stochastic": (0.0, 2.0),
        "constant": (0.0, 0.2),
        "cell_pt_min": (0.0, 100.0),
    }
    for name, (low, high) in limits.items():
        check_range(f"detector {name}", getattr(detector, name), low, high)


def check_range(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raise UserError unless low <= value <= high."""
    if not low <= value <= high:  # NaN is no value either
        raise UserError(f"{name} is {value:g}; it must be from {low:g} to {high:g} {unit}".rstrip())
