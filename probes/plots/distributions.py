"""Distributions: overlaid histograms of samples, and their ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Shaped

from probes.plots.look import INK, dash, finite, grid, legend, looks_of, palette, plain, something, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FARTHEST = 1e300
"""How far an axis reaches at most: there must be room for its margins in a float64."""


def histograms(
    columns: Mapping[str, Mapping[str, Shaped[np.ndarray, " _"]]],
    units: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """One panel a column, one normalised step histogram a label, over the range of 99.8 % of all its values.

    `columns[name][label]` are values; `units[name]` is shown on the axis. Whole numbers get whole bins. Jets outside
    the range count in the normalisation, so a histogram's area may be a little below one.

    Raises ValueError if there is nothing to draw or a value is NaN or infinite.
    """
    something(columns, "columns")
    labels = list(dict.fromkeys(label for by_label in columns.values() for label in by_label))
    chosen = {**palette(labels), **(colours or {})}
    with style():
        figure, axes = grid(len(columns), ratio=0.72)
        for (ax, first), (name, by_label) in zip(axes, columns.items(), strict=True):
            values = {label: finite(v, f"{name} of {label}") for label, v in by_label.items() if len(v)}
            something(values, f"values of {name}")
            edges = _edges(np.concatenate(list(values.values())))
            for label, v in values.items():
                density = np.histogram(v, edges)[0] / (len(v) * np.diff(edges))
                order = labels.index(label)
                ax.stairs(density, edges, color=chosen[label], lw=1.6, ls=dash(order))
                ax.stairs(density, edges, color=chosen[label], fill=True, alpha=0.13, lw=0)
            unit = (units or {}).get(name, "")
            ax.set_xlabel(plain(f"{name} [{unit}]" if unit else name))
            ax.set_ylabel("share of jets per bin width" if first else "")
            ax.set_ylim(bottom=0)
            ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        legend(figure, looks_of(labels, chosen))
    return figure


def ratios(
    columns: Mapping[str, Mapping[str, Shaped[np.ndarray, " _"]]],
    units: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    groups: Mapping[str, Mapping[str, Int[np.ndarray, " _"]]] | None = None,
) -> Figure:
    """One panel a column: overlaid histograms, and below them what each sample has for one in the first sample.

    `columns[name][sample]` are values; `units[name]` is shown on the axis. The range holds 99.8 % of all values; all
    values count in the normalisation. Axes are logarithmic where the values or the heights span much. Bands and bars
    are standard errors of the counts; below, the band is that of the first sample and the bars are those of the others.
    `groups[name][sample]` numbers what each value belongs to (constituents: their jet): values of one group are not
    independent, and the errors allow for it.

    Raises ValueError if there is nothing to draw, a sample is missing or empty, or a value is NaN or infinite.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    something(columns, "columns")
    samples = list(next(iter(columns.values())))
    something(samples[1:], "samples beside the first")
    chosen = {**palette(samples), **(colours or {})}
    with style():
        figure, axes = _ratio_grid(len(columns))
        for (ax, below, first), (name, by_sample) in zip(axes, columns.items(), strict=True):
            if list(by_sample) != samples or not all(len(v) for v in by_sample.values()):
                raise ValueError(
                    f"{name}: needs values of {samples}, got {[k for k, v in by_sample.items() if len(v)]}"
                )
            values = {sample: finite(v, f"{name} of {sample}") for sample, v in by_sample.items()}
            edges, logarithmic = _spanning_edges(np.concatenate(list(values.values())))
            of = (groups or {}).get(name, {})
            shares = {sample: _shares(v, edges, of.get(sample)) for sample, v in values.items()}
            for i, (sample, (share, error)) in enumerate(shares.items()):
                low, high = np.maximum(share - error, 0), share + error
                ax.stairs(high, edges, baseline=low, color=chosen[sample], fill=True, alpha=0.3, lw=0)
                ax.stairs(share, edges, color=chosen[sample], lw=1.6, ls=dash(i), baseline=None)
            _ratio_panel(below, edges, shares, chosen)
            heights = np.concatenate([share[share > 0] for share, _ in shares.values()])
            if len(heights) and heights.max() > 30 * np.median(heights):
                ax.set(yscale="log", ylim=(heights.min() / 2, heights.max() * 3))
            else:
                ax.set_ylim(bottom=0)
                ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
            if logarithmic:
                ax.set_xscale("log")
            ax.set_xlim(edges[0], edges[-1])
            ax.tick_params(labelbottom=False)
            unit = (units or {}).get(name, "")
            below.set_xlabel(plain(f"{name} [{unit}]" if unit else name))
            ax.set_ylabel("share per bin" if first else "")
            below.set_ylabel("ratio" if first else "")
        legend(figure, looks_of(samples, chosen))
        for _ in range(3):  # a lower panel shrinks with its upper one, so room for its labels is found step by step
            ConstrainedLayoutEngine().execute(figure)
    return figure


def _ratio_grid(panels: int) -> tuple[Figure, list[tuple[Axes, Axes, bool]]]:
    """As `_grid`, each panel with a lower one below it that has the same x axis."""
    from matplotlib.figure import Figure

    across = min(panels, 3) if panels != 4 else 2
    down = math.ceil(panels / across)
    figure = Figure(figsize=(3.4 * max(across, 2), 3.1 * down + 0.35), layout="constrained", dpi=100)
    found = []
    for i in range(panels):
        upper = figure.add_subplot(down, across, i + 1)
        found.append((upper, upper.inset_axes((0, -0.46, 1, 0.42), sharex=upper), i % across == 0))
    return figure, found


def _ratio_panel(
    ax: Axes,
    edges: Float[np.ndarray, " E"],
    shares: Mapping[str, tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]],
    colours: Mapping[str, str],
) -> None:
    """Shares over those of the first sample, where it has any; points out of the range are triangles at its edge."""
    (reference, its_error), *_ = shares.values()
    some = reference > 0
    safe = np.where(some, reference, 1)
    width = np.where(some, its_error / safe, 0)
    ax.stairs(1 + width, edges, baseline=1 - width, color=next(iter(colours.values())), fill=True, alpha=0.3, lw=0)
    ax.axhline(1, color=INK, lw=0.8, alpha=0.6)
    ratio = {sample: (share / safe, error / safe) for sample, (share, error) in list(shares.items())[1:]}
    sure = some & (its_error < 0.3 * safe)
    far = max((float(np.abs(r[sure] - 1).max(initial=0)) for r, _ in ratio.values()), default=0.0)
    reach = min(max(1.3 * far, 0.12), 1.0)
    low, high = 1 - reach, 1 + (reach if far <= 1 else min(1.2 * far, 3.0))
    ax.set_ylim(low, high)
    # The middle of a bin as it is drawn: that of the logarithms where the edges are equal in these.
    equal = np.allclose(np.diff(edges), edges[1] - edges[0])
    centre = 0.5 * (edges[1:] + edges[:-1]) if equal else np.sqrt(edges[1:] * edges[:-1])
    for sample, (r, error) in ratio.items():
        inside = some & (r >= low) & (r <= high)
        ax.errorbar(centre[inside], r[inside], error[inside], color=colours[sample], fmt="o", ms=2.2, elinewidth=0.9)
        edge = 0.06 * (high - low)  # inside: the layout makes room for all that is not clipped
        for marker, at, out in (("^", high - edge, some & (r > high)), ("v", low + edge, some & (r < low))):
            ax.plot(centre[out], np.full(np.count_nonzero(out), at), ls="", marker=marker, ms=4, color=colours[sample])


def _shares(
    values: Float[np.ndarray, " V"], edges: Float[np.ndarray, " E"], groups: Int[np.ndarray, " V"] | None
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Share of the values in each bin, and its standard error when groups of values are what is independent."""
    counts = np.histogram(values, edges)[0]
    if groups is None:
        return counts / len(values), np.sqrt(counts) / len(values)
    bins = len(counts)
    # As np.histogram counts: the last bin has both its edges.
    at = np.where(values == edges[-1], bins - 1, np.searchsorted(edges, values, side="right") - 1)
    inside = (at >= 0) & (at < bins)
    pairs, together = np.unique(groups[inside].astype(np.int64) * bins + at[inside], return_counts=True)
    squares = np.bincount(pairs % bins, together.astype(np.float64) ** 2, bins)
    return counts / len(values), np.sqrt(squares) / len(values)


def _spanning_edges(values: Float[np.ndarray, " V"]) -> tuple[Float[np.ndarray, " E"], bool]:
    """As `_edges`, but equal in the logarithm for positive values that span a factor of 100; and whether they are."""
    low, high = np.quantile(values, [0.001, 0.999], method="inverted_cdf")
    if low > 0 and high > 100 * low and not np.all(values == np.round(values)):
        return np.geomspace(low, high, 46), True
    return _edges(values), False


def _edges(values: Float[np.ndarray, " V"]) -> Float[np.ndarray, " E"]:
    low, high = np.clip(np.quantile(values, [0.001, 0.999], method="inverted_cdf"), -FARTHEST, FARTHEST)
    largest = max(abs(low), abs(high))
    if high - low >= 1 and largest < 2**52 and np.all(values == np.round(values)):  # beyond, halves are lost
        step = max(1, math.ceil((high - low + 1) / 60))
        return np.arange(low, high + step + 0.5, step) - 0.5
    if high - low <= 100 * np.spacing(largest):  # too few numbers between them for so many different edges
        half = 0.5 * max(abs(low), 1.0) * 0.1
        low, high = low - half, high + half
    return np.linspace(low, high, 46)
