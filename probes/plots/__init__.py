"""Figures that compare representations: histograms, ROC curves, monitors, similarity, projections and benchmarks.

Every function returns a matplotlib `Figure` that belongs to no global state: pyplot is never imported and rcParams
are left as they were. Names and labels are shown as they are, never read as mathematics. The same colours serve all
figures of a page if they are given the same `colours` (see `palette`), or the same `looks`.
"""

from probes.plots.anomaly import bump, signal_shares, significance_improvements
from probes.plots.comparing import (
    Band,
    Reliability,
    Spectrum,
    divergence,
    dots,
    label_efficiency,
    layers,
    mass_spectra,
    overview,
    rejections,
    reliability,
    similarities,
)
from probes.plots.distributions import histograms, ratios
from probes.plots.lines import curves, projection, roc, similarity
from probes.plots.look import COLOURS, DASHES, INK, MOST_POINTS, Look, palette, style

__all__ = [
    "COLOURS",
    "DASHES",
    "INK",
    "MOST_POINTS",
    "Band",
    "Look",
    "Reliability",
    "Spectrum",
    "bump",
    "curves",
    "divergence",
    "dots",
    "histograms",
    "label_efficiency",
    "layers",
    "mass_spectra",
    "overview",
    "palette",
    "projection",
    "ratios",
    "rejections",
    "reliability",
    "roc",
    "signal_shares",
    "significance_improvements",
    "similarities",
    "similarity",
    "style",
]
