"""Jets from Pythia 8 and FastJet: the physics of `jetclr generate`, one independent unit at a time.

A *unit* is a run of jets from one freshly initialised Pythia, so it depends on nothing but its recipe and its seed;
`jetclr.data.generate` hands units to processes and joins them. pythia8mc and fastjet are GPL and an optional
extra: they are imported inside the functions that need them.

Shapes: E events, P particles of all the events of a batch, J jets, M constituents of all the jets, T top quarks.

Sources: the recipe is that of the top-tagging landscape study, arXiv:1902.09914; Pythia 8.3 arXiv:2203.11601;
FastJet arXiv:1111.6097; anti-kT arXiv:0802.1189.
"""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from jetclr.data.chunk import JetChunk, join_chunks, slice_chunk, sort_by_pt
from jetclr.data.kinematics import constituent_columns, jet_columns, pt_eta_phi
from jetclr.errors import UserError

MAX_SEED = 900_000_000  # Pythia's Random:seed; 0 would mean the clock
MB_TO_PB = 1e9
MIN_BATCH_EVENTS, MAX_BATCH_EVENTS = 16, 256
NEUTRINOS = (12, 14, 16)


@dataclass(frozen=True)
class Window:
    """Which jets are kept: anti-kT radius, pT range [GeV], largest |pseudorapidity|."""

    radius: float = 0.8
    pt_min: float = 550.0
    pt_max: float = 650.0
    eta_max: float = 2.0


@dataclass(frozen=True)
class Recipe:
    """One kind of jets: hard process, label, and what a jet must hold.

    `pythia` are the process's own settings; `pt_hat_min` [GeV] is the least pT of the hard scattering. `match_top`
    asks for a hadronic top quark that has itself and its three decay quarks within the radius of the jet axis.
    """

    name: str
    label: int
    pythia: dict[str, str]
    pt_hat_min: float
    match_top: bool = False
    window: Window = field(default_factory=Window)
    beam_energy: float = 14_000.0

    def settings(self) -> dict[str, str]:
        """Every Pythia setting but the seed."""
        return {
            "Beams:eCM": f"{self.beam_energy:g}",
            "PartonLevel:MPI": "off",
            "PhaseSpace:pTHatMin": f"{self.pt_hat_min:g}",
            "Print:quiet": "on",
            **self.pythia,
        }


# pTHat must start far below the window, because initial-state radiation lifts softer scatterings into it. Measured:
# of 4,004 QCD jets with pTHat > 150, 0.07 % have pTHat < 250, 0.6 % < 300 and 18 % < 450, and a cut at 450 lowers
# their mean multiplicity from 61.5 to 60.4. Top pairs radiate up to the kinematic limit, so their tail is long: of
# 409 top jets without any cut (7.6 +- 1.3) % have pTHat < 200 and (26 +- 2) % < 450; of 4,036 above 150, 3.2 % have
# less than 200 and 22 % less than 450, and a cut at 450 lowers the mean mass from 178.1 to 176.7 GeV, at 200 to 177.7.
RECIPES = {
    "qcd": Recipe("qcd", 0, {"HardQCD:all": "on"}, pt_hat_min=250.0),
    "top": Recipe(
        "top",
        1,
        {"Top:gg2ttbar": "on", "Top:qqbar2ttbar": "on", "24:onMode": "off", "24:onIfAny": "1 2 3 4 5"},
        pt_hat_min=200.0,
        match_top=True,
    ),
}

LABELS = {0: "QCD", 1: "top"}


class Veto(NamedTuple):
    """When a shower is dropped half way: see `early_veto`. Scale and margin in GeV."""

    scale: float = 50.0
    pt_margin: float = 75.0
    eta_margin: float = 0.5
    radius: float = 1.6


# Counted without acting on it: of 1,199 QCD jets (pTHat > 350) and 544 top jets (pTHat > 250) none came from a dropped
# event, while 66 % and 88 % of the events were dropped. With a margin of 25 GeV it would be 1 and 0 jets.
VETO = Veto()


class Counts(NamedTuple):
    """What a unit cost: phase-space points, events of the process, jets found, and Pythia's cross-section [mb]."""

    tried: int
    events: int
    jets: int
    sigma_mb: float
    sigma_error_mb: float


def load_generators() -> tuple[ModuleType, ModuleType]:
    """The modules (pythia8mc, fastjet); raises UserError where they are not installed."""
    try:
        import fastjet
        import pythia8mc
    except ImportError as error:
        raise UserError(f"generating needs Pythia 8 and FastJet: pip install 'jetclr[generate]' ({error})") from None
    return pythia8mc, fastjet


def early_veto(recipe: Recipe) -> Any:
    """A Pythia user hook that drops events which cannot give a jet of the recipe, before they cost anything.

    Showers run from hard to soft. When they reach `VETO.scale` an event has a handful of partons (a top quark is not
    decayed yet), and what follows moves a jet's pT by little. So the event is dropped unless the partons within
    `VETO.radius` of one of them, which lies in |eta| < eta_max + eta_margin (and is a top quark where one is to be
    matched), have a summed pT above pt_min - pt_margin.
    """
    pythia8mc, _ = load_generators()
    pt_min = recipe.window.pt_min - VETO.pt_margin
    eta_max = recipe.window.eta_max + VETO.eta_margin + (recipe.window.radius if recipe.match_top else 0.0)
    match_top = recipe.match_top

    class EarlyVeto(pythia8mc.UserHooks):  # type: ignore[name-defined]
        def canVetoPT(self) -> bool:
            return True

        def scaleVetoPT(self) -> float:
            return VETO.scale

        def doVetoPT(self, position: int, event: Any) -> bool:
            if position > 3:  # a shower of a resonance's decay, later on: the event has been looked at
                return False
            return not _hopeful(event, pt_min, eta_max, match_top)

    return EarlyVeto()


def _hopeful(event: Any, pt_min: float, eta_max: float, match_top: bool) -> bool:
    record = (event[i] for i in range(3, event.size()))  # behind the beams; iterating over `event` is slower
    final = [(p.eta(), p.phi(), p.px(), p.py(), p.idAbs() == 6) for p in record if p.isFinal()]
    for eta, phi, _, _, is_top in final:
        if abs(eta) > eta_max or (match_top and not is_top):
            continue
        sum_x = sum_y = 0.0
        for eta2, phi2, px, py, _ in final:
            dphi = abs(phi - phi2)
            if (eta - eta2) ** 2 + min(dphi, 2 * np.pi - dphi) ** 2 < VETO.radius**2:
                sum_x += px
                sum_y += py
        if sum_x**2 + sum_y**2 > pt_min**2:
            return True
    return False


def make_pythia(recipe: Recipe, seed: int, *, veto: bool = True) -> tuple[Any, Any]:
    """A freshly initialised Pythia and its hook, which must live as long (None without `veto`).

    Raises RuntimeError naming a setting that Pythia refuses.
    """
    pythia8mc, _ = load_generators()
    pythia = pythia8mc.Pythia("", False)
    hook = early_veto(recipe) if veto else None
    if hook is not None and not pythia.setUserHooksPtr(hook):
        raise RuntimeError("Pythia refused the user hook")
    for key, value in {**recipe.settings(), "Random:setSeed": "on", "Random:seed": str(seed)}.items():
        if not pythia.readString(f"{key} = {value}"):
            raise RuntimeError(f"Pythia refused the setting '{key} = {value}'")
    if not pythia.init():
        raise RuntimeError(f"Pythia could not be initialised for {recipe.name!r} with seed {seed}")
    return pythia, hook


class Particles(NamedTuple):
    """The event records of a batch, end to end: numbers of each particle [P] and where each event starts [E+1].

    Momenta are in GeV; `mother` is an index into these arrays.
    """

    offsets: Int64[np.ndarray, " E+1"]
    pdg: Int64[np.ndarray, " P"]
    status: Int64[np.ndarray, " P"]
    mother: Int64[np.ndarray, " P"]
    momentum: Float64[np.ndarray, "4 P"]  # px, py, pz, E

    @property
    def event(self) -> Int64[np.ndarray, " P"]:
        """Which event each particle belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def next_events(pythia: Any, events: int) -> Particles:
    """The next events as flat arrays; raises RuntimeError if Pythia gives up on every one of them."""
    record = pythia.nextBatch(events).prt.layout
    offsets = np.asarray(record.offsets.data, np.int64)
    if len(offsets) < 2:
        raise RuntimeError(f"Pythia failed on {events} events in a row")
    flat = record.content[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    p = flat.content("p")
    return Particles(
        offsets,
        np.asarray(flat.content("id").data, np.int64),
        np.asarray(flat.content("status").data, np.int64),
        np.asarray(flat.content("mother1").data, np.int64) + np.repeat(offsets[:-1], np.diff(offsets)),
        np.stack([np.asarray(p.content(name).data) for name in ("px", "py", "pz", "e")]),
    )


def delta_r(eta1: np.ndarray, phi1: np.ndarray, eta2: np.ndarray, phi2: np.ndarray) -> np.ndarray:
    """Distance in (pseudorapidity, azimuth), the azimuth wrapped."""
    return np.hypot(eta1 - eta2, (phi1 - phi2 + np.pi) % (2 * np.pi) - np.pi)


def hadronic_tops(particles: Particles) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, "T 4"]]:
    """The event of each top quark, and the particles (top, its b or lighter quark, two quarks of its W).

    The top is the last of its copies, just before it decays; quarks are as they leave the decay, before their
    shower. Raises RuntimeError if a top decays in any other way than to three quarks.
    """
    pdg, mother, event = particles.pdg, particles.mother, particles.event
    kind, parent = np.abs(pdg), np.abs(pdg[mother])
    is_quark = (kind >= 1) & (kind <= 5)

    def sorted_by_top(select: Bool[np.ndarray, " P"], sign: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = np.flatnonzero(select)
        key = event[index] * 2 + (sign[index] < 0)  # t and tbar of an event; W and quarks share their sign
        order = np.argsort(key, kind="stable")
        return key[order], index[order]

    w_key, w = sorted_by_top((kind == 24) & (parent == 6), pdg)
    b_key, b = sorted_by_top(is_quark & (parent == 6), pdg)
    q_key, q = sorted_by_top(is_quark & (parent == 24), pdg[mother])
    if not (np.array_equal(w_key, b_key) and np.array_equal(np.repeat(w_key, 2), q_key)):
        raise RuntimeError("an event has a top quark that does not decay to three quarks")
    return w_key // 2, np.stack([mother[w], b, q[0::2], q[1::2]], axis=1)


def top_inside(
    particles: Particles, jet_event: Int64[np.ndarray, " J"], axis: Float64[np.ndarray, "4 J"], radius: float
) -> Bool[np.ndarray, " J"]:
    """Whether one top quark and its three decay quarks are all within `radius` of the jet axis."""
    top_event, members = hadronic_tops(particles)
    _, eta, phi = pt_eta_phi(particles.momentum[:, members])
    _, jet_eta, jet_phi = pt_eta_phi(axis)
    inside = np.zeros(len(jet_event), bool)
    for event_sign in range(2):  # at most two tops an event, next to each other in top_event
        slot = np.searchsorted(top_event, jet_event) + event_sign
        there = (slot < len(top_event)) & (top_event[np.minimum(slot, len(top_event) - 1)] == jet_event)
        at = np.where(there, slot, 0)
        near = delta_r(eta[at], phi[at], jet_eta[:, None], jet_phi[:, None]) < radius
        inside |= there & near.all(axis=1)
    return inside


def cluster(particles: Particles, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Anti-kT jets of the window, over the visible final particles of each event, all events in one call.

    Returns the jets' events [J], four-momenta [4, J], offsets [J+1], and constituents [M] as indices into
    `particles`.
    """
    _, fastjet = load_generators()
    import awkward as ak  # comes with fastjet

    visible = np.flatnonzero((particles.status > 0) & ~np.isin(np.abs(particles.pdg), NEUTRINOS))
    starts = np.searchsorted(visible, particles.offsets)
    momentum = dict(zip(("px", "py", "pz", "E"), particles.momentum[:, visible], strict=True))
    events = ak.unflatten(ak.zip(momentum, with_name="Momentum4D"), np.diff(starts))
    sequence = fastjet.ClusterSequence(events, fastjet.JetDefinition(fastjet.antikt_algorithm, window.radius))
    jets = sequence.inclusive_jets(window.pt_min)
    index = sequence.constituent_index(window.pt_min)
    event = np.repeat(np.arange(len(starts) - 1), ak.num(jets).to_numpy())
    flat = ak.flatten(jets)
    axis = np.stack([flat[name].to_numpy() for name in momentum])
    counts = ak.num(ak.flatten(index)).to_numpy()
    index = visible[ak.flatten(index, axis=None).to_numpy() + np.repeat(starts[event], counts)]
    pt, eta, _ = pt_eta_phi(axis)
    keep = (pt > window.pt_min) & (pt < window.pt_max) & (np.abs(eta) < window.eta_max)
    return (
        event[keep],
        axis[:, keep],
        np.concatenate([[0], np.cumsum(counts[keep])]),
        index[np.repeat(keep, counts)],
    )


def as_chunk(
    particles: Particles,
    axis: Float64[np.ndarray, "4 J"],
    offsets: Int64[np.ndarray, " J+1"],
    index: Int64[np.ndarray, " M"],
    label: int,
) -> JetChunk:
    """Jets as the store holds them: constituents (pt [GeV], eta, phi), hardest first; jets with their mass."""
    columns = jet_columns(axis) | {"label": np.full(axis.shape[1], label, np.int32)}
    return sort_by_pt(JetChunk(offsets.astype(np.int64), constituent_columns(particles.momentum[:, index]), columns))


def generate_unit(recipe: Recipe, seed: int, jets: int, *, veto: bool = True) -> tuple[JetChunk, Counts]:
    """The first `jets` jets that a fresh Pythia with this seed gives, and what they cost.

    A pure function of its arguments; fewer jets of the same seed are the first of more. `veto=False` showers every
    event to its end: the same physics, slower, for checks. Raises RuntimeError if Pythia fails.
    """
    pythia, _hook = make_pythia(recipe, seed, veto=veto)
    chunks: list[JetChunk] = []
    found = events = 0
    while found < jets:
        # Enough events for what is missing, so that little beyond it is generated and thrown away.
        yield_so_far = (found + 1) / (events + 3)
        wanted = int(np.clip((jets - found) / yield_so_far, MIN_BATCH_EVENTS, MAX_BATCH_EVENTS))
        particles = next_events(pythia, wanted)
        events += len(particles.offsets) - 1
        event, axis, offsets, index = cluster(particles, recipe.window)
        chunk = as_chunk(particles, axis, offsets, index, recipe.label)
        if recipe.match_top:
            chunk = select(chunk, top_inside(particles, event, axis, recipe.window.radius))
        if len(chunk.offsets) > 1:
            chunks.append(chunk)
            found += len(chunk.offsets) - 1
    info = pythia.infoPython()
    # Pythia's cross-section leaves out the share of vetoed events, which is ours and not the process's. Its error
    # counts that share's fluctuation, so it is somewhat too large.
    inclusive = info.nSelected() / info.nAccepted()
    counts = Counts(info.nTried(), info.nSelected(), found, info.sigmaGen() * inclusive, info.sigmaErr() * inclusive)
    return slice_chunk(join_chunks(chunks), 0, jets), counts


def select(chunk: JetChunk, keep: Bool[np.ndarray, " J"]) -> JetChunk:
    """The jets of a chunk where `keep` is true."""
    counts = np.diff(chunk.offsets)
    each = np.repeat(keep, counts)
    return JetChunk(
        np.concatenate([[0], np.cumsum(counts[keep])]).astype(np.int64),
        {name: v[each] for name, v in chunk.constituents.items()},
        {name: v[keep] for name, v in chunk.jets.items()},
    )
