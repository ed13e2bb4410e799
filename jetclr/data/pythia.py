"""Jets from Pythia 8: the physics of `jetclr generate`, one independent unit at a time.

A *unit* is a run of jets from freshly initialised Pythias, so it depends on nothing but its recipe and its seed;
`jetclr.data.generate` hands units to processes and joins them. pythia8mc and fastjet are GPL and an optional
extra: they are imported inside the functions that need them.

Shapes: E events, P particles of all the events of a batch, J jets.

Source: Pythia 8.3, arXiv:2203.11601.
"""

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from jetclr.data.chunk import JetChunk, join_chunks, slice_chunk, sort_by_pt
from jetclr.data.clustering import Clustered, antikt_jets, reorder
from jetclr.data.detector import Seen, detect
from jetclr.data.kinematics import constituent_columns, jet_columns, pt_eta_phi
from jetclr.data.matching import Particles, matched, missing_pt
from jetclr.data.particles import charges, types
from jetclr.data.processes import Recipe
from jetclr.data.veto import early_veto
from jetclr.errors import UserError

MAX_SEED = 900_000_000  # Pythia's Random:seed; 0 would mean the clock
MB_TO_PB = 1e9
MIN_BATCH_EVENTS, MAX_BATCH_EVENTS = 16, 256
SECOND_JET_PT_MIN = 20.0  # GeV
HOPELESS_EVENTS, HOPELESS_YIELD = 10_000, 1 / 5_000


class Counts(NamedTuple):
    """What a unit cost: phase-space points, events of the process, jets found, and Pythia's cross-section [mb].

    Of a mixture, points and cross-section are those of the background; 0 if the unit holds none.
    """

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


@cache
def _blank_pythia() -> Any:
    """A Pythia of which others are copies: reading its settings takes a third of the time that one takes to start."""
    pythia8mc, _ = load_generators()
    return pythia8mc.Pythia("", False)


def make_pythia(recipe: Recipe, seed: int, *, veto: bool = True) -> tuple[Any, Any]:
    """A freshly initialised Pythia and its hook, which must live as long (None without one).

    Raises RuntimeError naming a setting that Pythia refuses.
    """
    pythia8mc, _ = load_generators()
    blank = _blank_pythia()
    pythia = pythia8mc.Pythia(blank.settings, blank.particleData, False)
    hook = early_veto(recipe.veto, pythia) if veto and recipe.veto is not None else None
    if hook is not None and not pythia.setUserHooksPtr(hook):
        raise RuntimeError("Pythia refused the user hook")
    for key, values in {**recipe.settings(), "Random:setSeed": "on", "Random:seed": str(seed)}.items():
        for value in [values] if isinstance(values, str) else values:
            if not pythia.readString(f"{key} = {value}"):
                raise RuntimeError(f"Pythia refused the setting '{key} = {value}'")
    if not pythia.init():
        raise RuntimeError(f"Pythia could not be initialised for {recipe.name!r} with seed {seed}")
    return pythia, hook


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


def observe(particles: Particles, recipe: Recipe, seed: int, first_event: int) -> Seen:
    """What is there to be clustered: the visible final particles, or what the recipe's detector makes of them."""
    index = np.flatnonzero(particles.visible)
    starts = np.searchsorted(index, particles.offsets)
    seen = Seen(starts, particles.pdg[index], particles.momentum[:, index])
    return seen if recipe.detector is None else detect(seen, recipe.detector, seed, first_event)


def jets_of(particles: Particles, recipe: Recipe, seed: int, first_event: int = 0) -> JetChunk:
    """The jets of a recipe in events, of which `first_event` is the number of the first: seen, clustered, chosen."""
    seen = observe(particles, recipe, seed, first_event)
    if recipe.dijets:
        found, columns = _dijets(seen, recipe)
    else:
        found, columns = _single_jets(seen, recipe, particles), {}
    columns = {"missing_pt": missing_pt(particles)[found.event].astype(np.float32)} | columns
    return as_chunk(found, seen, recipe.label, columns)


def _single_jets(seen: Seen, recipe: Recipe, particles: Particles) -> Clustered:
    """The jets in the window that hold what they should; in FastJet's order, which means nothing."""
    window = recipe.window
    found = antikt_jets(seen.momentum, seen.offsets, window.radius, window.pt_min, hardest_first=False)
    pt, eta, _ = pt_eta_phi(found.momentum)
    keep = (pt > window.pt_min) & (pt < window.pt_max) & (np.abs(eta) < window.eta_max)
    found = reorder(found, np.flatnonzero(keep))
    if recipe.match is None:
        return found
    inside = matched(particles, recipe.match, found.event, found.momentum, window.radius)
    return reorder(found, np.flatnonzero(inside))


def _dijets(seen: Seen, recipe: Recipe) -> tuple[Clustered, dict[str, np.ndarray]]:
    """The two hardest jets of the events whose hardest jet lies in the window and whose second one in its |eta|."""
    window = recipe.window
    found = antikt_jets(seen.momentum, seen.offsets, window.radius, min(SECOND_JET_PT_MIN, window.pt_min))
    _, first, count = np.unique(found.event, return_index=True, return_counts=True)
    first = first[count > 1]
    pt, eta, _ = pt_eta_phi(found.momentum)
    keep = (pt[first] > window.pt_min) & (pt[first] < window.pt_max)
    keep &= (np.abs(eta[first]) < window.eta_max) & (np.abs(eta[first + 1]) < window.eta_max)
    first = first[keep]
    total = found.momentum[:, first] + found.momentum[:, first + 1]
    mass = jet_columns(total)["jet_mass"]
    columns = {"jet_index": np.tile(np.array([0, 1], np.int8), len(first)), "dijet_mass": np.repeat(mass, 2)}
    return reorder(found, np.stack([first, first + 1], axis=1).reshape(-1)), columns


def as_chunk(found: Clustered, seen: Seen, label: int, columns: dict[str, np.ndarray]) -> JetChunk:
    """Jets as the store holds them: constituents, hardest first, and jets with their mass, label and `columns`."""
    pdg = seen.pdg[found.index]
    constituents = constituent_columns(seen.momentum[:, found.index])
    constituents |= {"charge": charges(pdg), "type": types(pdg), "pdg": pdg.astype(np.int32)}
    jets = jet_columns(found.momentum) | {"label": np.full(len(found.event), label, np.int32)} | columns
    return sort_by_pt(JetChunk(found.offsets, constituents, jets))


def generate_unit(
    recipe: Recipe, seed: int, jets: int, first_event: int = 0, *, veto: bool = True
) -> tuple[JetChunk, Counts]:
    """The first `jets` jets that a fresh Pythia with this seed gives, and what they cost.

    A pure function of its arguments; fewer jets of the same seed are the first of more. `first_event` is the number of
    the unit's first event, where the recipe keeps both jets of events. `veto=False` showers every event to its end: the
    same physics, slower, for checks. Raises UserError if hardly an event has such jets, RuntimeError if Pythia fails.
    """
    if recipe.dijets:
        return _dijet_unit(recipe, seed, jets, first_event, veto=veto)
    return _one_pythia(recipe, seed, jets, veto=veto)


def _one_pythia(recipe: Recipe, seed: int, jets: int, *, veto: bool) -> tuple[JetChunk, Counts]:
    pythia, _hook = make_pythia(recipe, seed, veto=veto)
    chunks: list[JetChunk] = []
    found = events = 0
    while found < jets:
        # Enough events for what is missing, so that little beyond it is generated and thrown away.
        yield_so_far = (found + 1) / (events + 3)
        wanted = int(np.clip((jets - found) / yield_so_far, MIN_BATCH_EVENTS, MAX_BATCH_EVENTS))
        particles = next_events(pythia, wanted)
        chunk = jets_of(particles, recipe, seed, events)
        events += len(particles.offsets) - 1
        if len(chunk.offsets) > 1:
            chunks.append(chunk)
            found += len(chunk.offsets) - 1
        if events > HOPELESS_EVENTS and found < HOPELESS_YIELD * events:
            raise UserError(
                f"only {found} of {events:,} events of {recipe.name} gave a jet as asked; widen the pT window, "
                "or choose a pT and a radius at which the process can give such jets"
            )
    info = pythia.infoPython()
    # Pythia's cross-section leaves out the share of vetoed events, which is ours and not the process's. Its error
    # counts that share's fluctuation, so it is somewhat too large.
    inclusive = info.nSelected() / info.nAccepted()
    counts = Counts(info.nTried(), info.nSelected(), found, info.sigmaGen() * inclusive, info.sigmaErr() * inclusive)
    return slice_chunk(join_chunks(chunks), 0, jets), counts


def _dijet_unit(recipe: Recipe, seed: int, jets: int, first_event: int, *, veto: bool) -> tuple[JetChunk, Counts]:
    """Both jets of events, of which some are signal: a Pythia for each of the two, and their events in turn."""
    events = -(-jets // 2)
    is_signal = signal_events(first_event, events, recipe.signal_fraction)
    chunks: list[JetChunk] = []
    counts = Counts(0, 0, 0, 0.0, 0.0)
    for kind, mine in ((recipe, ~is_signal), (recipe.signal, is_signal)):
        if kind is None or not mine.any():
            continue
        own_seed = seed if kind is recipe else _signal_seed(seed)
        chunk, cost = _one_pythia(kind, own_seed, 2 * int(mine.sum()), veto=veto)
        chunks.append(chunk)
        if kind is recipe:
            counts = cost
        else:
            counts = counts._replace(events=counts.events + cost.events, jets=counts.jets + cost.jets)
    # jets of background and signal, one after the other -> in the order of the events
    event = np.concatenate([np.flatnonzero(~is_signal), np.flatnonzero(is_signal)])
    order = (2 * np.argsort(event)[:, None] + np.arange(2)).reshape(-1)
    chunk = _take(join_chunks(chunks), order)
    chunk.jets["event"] = first_event + np.repeat(np.arange(events), 2)
    return slice_chunk(chunk, 0, jets), counts


def _signal_seed(seed: int) -> int:
    """Another seed, so that signal and background share no random numbers; seeds that differ stay different."""
    return (seed - 1 + MAX_SEED // 2) % MAX_SEED + 1


def signal_events(first_event: int, events: int, fraction: float) -> Bool[np.ndarray, " E"]:
    """Which of the events, numbered from `first_event`, are signal: of the first n events of all, n x fraction.

    Of each run of 1 / fraction events one, drawn by the number of the run, is signal. So the count is right to
    within one event for a unit and for a store alike, and units agree on it without knowing of each other.
    """
    signal = np.zeros(events, bool)
    if fraction > 0:
        # One run more on either side than there should be: products of floats may round past a whole number.
        runs = np.arange(max(int(first_event * fraction) - 1, 0), int((first_event + events) * fraction) + 2)
        with np.errstate(over="ignore"):  # the next signal of a tiny fraction is farther away than can be counted
            first, beyond = (np.ceil(np.minimum(bound / fraction, 2.0**62)) for bound in (runs, runs + 1))
        luck = np.array([np.random.default_rng([run, *b"signal"]).random() for run in runs.tolist()])
        chosen = (first + np.floor(luck * (beyond - first))).astype(np.int64) - first_event
        signal[chosen[(chosen >= 0) & (chosen < events)]] = True
    return signal


def _take(chunk: JetChunk, order: Int64[np.ndarray, " K"]) -> JetChunk:
    """The jets `order` of a chunk, in this order."""
    counts = np.diff(chunk.offsets)[order]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    index = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - chunk.offsets[:-1][order], counts)
    return JetChunk(
        offsets, {n: v[index] for n, v in chunk.constituents.items()}, {n: v[order] for n, v in chunk.jets.items()}
    )
