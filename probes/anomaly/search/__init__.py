"""Searches for a resonance without labels: the signal region of its mass is compared with the sidebands.

`Cwola` compares events, `Anode` densities, `Cathode` events with what a density predicts. `Idealised` and `Supervised`
are what to compare them with. All give each event a score by models that have not seen it. `Readout` makes the few
features that they need of the many of an embedding.
"""

from probes.anomaly.search.anode import Anode
from probes.anomaly.search.cathode import Cathode
from probes.anomaly.search.cwola import Cwola
from probes.anomaly.search.readout import Readout
from probes.anomaly.search.references import Idealised, Supervised
from probes.anomaly.search.regions import Regions
from probes.anomaly.search.search import FittedSearch, Search

SEARCHES: dict[str, type[Search]] = {kind.name: kind for kind in (Cwola, Anode, Cathode)}
"""The searches by name."""

__all__ = [
    "SEARCHES",
    "Anode",
    "Cathode",
    "Cwola",
    "FittedSearch",
    "Idealised",
    "Readout",
    "Regions",
    "Search",
    "Supervised",
]
