"""Dijet events of stores as what searches take: numbers of both jets, the dijet mass, and a signal that is mixed in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from jetclr.anomaly.suite import Events
from jetclr.benchmark.cache import Cache, Entry
from jetclr.benchmark.jets import Part
from jetclr.benchmark.representations import Encoded, HandBuilt, Table
from jetclr.data.store import Store
from jetclr.errors import UserError
from jetclr.progress import jet_progress
from probes.anomaly.search import Regions
from probes.anomaly.search.readout import Readout, larger_first

OBSERVABLES = "mass, tau21"
FLOOR = 1e-4
"""Of masses [GeV] and tau21 before their logarithm is taken."""

PIECE = 8192
"""Events read at once."""

Rows = Int64[np.ndarray, " _"]


@dataclass(frozen=True)
class Sample:
    """Events of one kind: the rows of their two jets in a store, the heavier first, and their dijet mass [GeV]."""

    store: Store
    first: Rows
    second: Rows
    mass: Float[np.ndarray, " E"]

    def pairs(self, table: Callable[[Part], Any], rows: Rows) -> Float[np.ndarray, "E 2 D"]:
        """The numbers that `table` gives of the jets of the events `rows`."""
        jets = np.unique(np.concatenate([self.first[rows], self.second[rows]]))
        values = table(Part("events", self.store, jets))
        at = [np.searchsorted(jets, side[rows]) for side in (self.first, self.second)]
        return np.stack([values[at[0]], values[at[1]]], axis=1)


def open_sample(paths: Sequence[str], regions: Regions) -> Sample:
    """The events of stores within the regions.

    Raises UserError for stores without the columns of dijets, and where jets are not two an event side by side.
    """
    store = Store(*map(Path, paths))
    missing = {"dijet_mass", "jet_index", "jet_mass"} - set(store.columns)
    if missing:
        raise UserError(f"{store} lacks {', '.join(sorted(missing))}; a search needs the two jets of each event")
    index, mass = store.column("jet_index"), store.column("dijet_mass").astype(np.float64)
    pairs = len(store) // 2
    if len(store) != 2 * pairs or not ((index[0::2] == 0) & (index[1::2] == 1) & (mass[0::2] == mass[1::2])).all():
        raise UserError(f"{store} does not hold the two jets of each event next to each other")
    kept = np.flatnonzero(regions.signal(mass[0::2]) | regions.sidebands(mass[0::2]))
    jet_mass = store.column("jet_mass")
    swapped = jet_mass[2 * kept] < jet_mass[2 * kept + 1]
    return Sample(store, 2 * kept + swapped, 2 * kept + 1 - swapped, mass[2 * kept])


class Mixed(NamedTuple):
    """Rows of the events that are searched, of each kind, and of those held out, all of the signal region.

    Of the held-out background a third is for references that know background, the rest and the signal to measure on.
    """

    background: Rows
    signal: Rows
    other_background: Rows
    test_background: Rows
    test_signal: Rows

    def truth(self) -> Bool[np.ndarray, " E"]:
        """Which of the searched events, background first, are signal."""
        return np.repeat([False, True], [len(self.background), len(self.signal)])


def mix(
    events: Events, regions: Regions, background: Float[np.ndarray, " B"], signal: Float[np.ndarray, " S"],
    fraction: float, seed: int,
) -> Mixed:  # fmt: skip
    """Background events that are searched, always the same, and so much signal, drawn by the seed.

    `background` and `signal` are dijet masses [GeV]; `fraction` is signal over background in the signal region. Raises
    UserError if there is too little signal.
    """
    dealt = np.random.default_rng(0).permutation(len(background))
    cut = round(events.held_out * len(background))
    held, searched = np.sort(dealt[:cut]), np.sort(dealt[cut:])
    wanted = round(fraction * np.count_nonzero(regions.signal(background[searched])))
    drawn = np.random.default_rng([seed, 1]).permutation(len(signal))
    inside = np.cumsum(regions.signal(signal[drawn]))
    # Half of the signal stays to measure on.
    if wanted > inside[-1] // 2:
        raise UserError(f"{wanted:,} signal events are to be mixed in, and there are {inside[-1]:,}: generate more")
    count = int(np.searchsorted(inside, wanted)) + 1 if wanted else 0
    rest = drawn[count:]
    held = held[regions.signal(background[held])]
    other = np.arange(len(held)) % 3 == 0
    return Mixed(
        searched, np.sort(drawn[:count]), held[other], held[~other], np.sort(rest[regions.signal(signal[rest])])
    )


@dataclass(frozen=True)
class View:
    """What searches see of an event: the same numbers of all background and signal events within the regions."""

    name: str
    key: Mapping[str, Any]  # JSON values that the numbers depend on
    background: Float[np.ndarray, "B D"]
    signal: Float[np.ndarray, "S D"]


def event_views(
    runs: Sequence[Encoded],
    constituents: int,
    background: Sample,
    signal: Sample,
    regions: Regions,
    data: str,
    cache: Cache,
) -> list[View]:
    """Mass and N-subjettiness of both jets, as the LHC Olympics have them, and what is read of them off each embedding.

    The readout is fitted to background events of the sidebands, without labels (`probes.anomaly.search.readout`): all
    that differs from the observables is what the embedding has kept. `data` tells these events from any others.
    """
    built = HandBuilt(OBSERVABLES, _mass_and_tau21, {}, constituents)
    jets = 2 * (len(background.mass) + len(signal.mass)) * (1 + len(runs))
    where = {"what": "event features", "events": data, "regions": asdict(regions)}
    with jet_progress("reading dijets", jets) as advance:

        def pairs(representation: Encoded | HandBuilt) -> dict[str, Any]:
            samples = {"background": background, "signal": signal}
            return {name: _pairs(sample, representation, advance) for name, sample in samples.items()}

        key = {**where, **built.identity}
        seen = cache.once(key, lambda: Entry({}, pairs(built))).arrays
        out = [View(OBSERVABLES, key, *(_olympics(seen[name]) for name in ("background", "signal")))]
        measured = np.log(np.maximum(seen["background"], FLOOR))

        def read_off(run: Encoded) -> Entry:
            both = pairs(run)
            readout = Readout.of(both["background"], measured, background.mass, regions)
            return Entry({}, {name: readout(jets) for name, jets in both.items()})

        for run in runs:
            key = {**where, "readout": dict(built.identity), **run.identity}
            found = cache.once(key, lambda run=run: read_off(run)).arrays  # type: ignore[misc]
            out.append(View(f"{run.name} embedding", key, found["background"], found["signal"]))
    return out


def _pairs(
    sample: Sample, representation: Encoded | HandBuilt, advance: Callable[[int], None]
) -> Float[np.ndarray, "E 2 D"]:
    layer, pieces = representation.main, []
    for start in range(0, len(sample.mass), PIECE):
        rows = np.arange(start, min(start + PIECE, len(sample.mass)))
        pieces.append(sample.pairs(lambda part: representation.tables(part, (layer,))[layer], rows))
        advance(2 * len(rows))
    return np.concatenate(pieces)


def _mass_and_tau21(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray, mask: np.ndarray) -> Table:
    from probes.observables import observables

    values, names = observables(pt, eta, phi, mask)
    return np.stack([values[:, names.index(name)] for name in ("jet_mass", "tau21")], axis=1)


def _olympics(pairs: Float[np.ndarray, "E 2 2"]) -> Float[np.ndarray, "E 4"]:
    """The smaller mass, what the other is larger by, and tau21 of both, the heavier jet's first (arXiv:2101.08320)."""
    mass_1, tau_1, mass_2, tau_2 = larger_first(pairs).T
    return np.stack([mass_2, mass_1 - mass_2, tau_1, tau_2], axis=1)
