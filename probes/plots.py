"""Figures that compare representations: histograms, ROC curves, monitors, similarity and projections.

Every function returns a matplotlib `Figure` that belongs to no global state: pyplot is never imported and rcParams
are left as they were. Names and labels are shown as they are, never read as mathematics. The same colours serve all
figures of a page if they are given the same `colours` (see `palette`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Shaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#23272e"
"""Text and axes; a page replaces it by the colour of its own text, so that figures follow light and dark mode."""

# M. Petroff, "Accessible color sequences for data visualization", arXiv:2107.02270: told apart by colour-blind readers,
# and of middle lightness, so they hold on white and on black.
COLOURS = ("#5790fc", "#f89c20", "#e42536", "#964a8b", "#9c9ca1", "#7a21dd")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))

MOST_POINTS = 500
"""Points a curve is thinned to: more cannot be seen, and every one costs bytes in the page."""

FARTHEST = 1e300
"""How far an axis reaches at most: there must be room for its margins in a float64."""


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, for as long as the block lasts."""
    from matplotlib import rc_context

    with rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.8,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": INK,
            "grid.alpha": 0.15,
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.6,
            "legend.frameon": False,
            "text.usetex": False,
            "svg.fonttype": "path",
            "svg.hashsalt": "jets",
        }
    ):
        yield


def palette(names: Sequence[str]) -> dict[str, str]:
    """One colour for each name, in the order given; it begins again after six names."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


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
    _something(columns, "columns")
    labels = list(dict.fromkeys(label for by_label in columns.values() for label in by_label))
    chosen = {**palette(labels), **(colours or {})}
    with style():
        figure, axes = _grid(len(columns), ratio=0.72)
        for (ax, first), (name, by_label) in zip(axes, columns.items(), strict=True):
            values = {label: _finite(v, f"{name} of {label}") for label, v in by_label.items() if len(v)}
            _something(values, f"values of {name}")
            edges = _edges(np.concatenate(list(values.values())))
            for label, v in values.items():
                density = np.histogram(v, edges)[0] / (len(v) * np.diff(edges))
                order = labels.index(label)
                ax.stairs(density, edges, color=chosen[label], lw=1.6, ls=_dash(order))
                ax.stairs(density, edges, color=chosen[label], fill=True, alpha=0.13, lw=0)
            unit = (units or {}).get(name, "")
            ax.set_xlabel(_plain(f"{name} [{unit}]" if unit else name))
            ax.set_ylabel("share of jets per bin width" if first else "")
            ax.set_ylim(bottom=0)
            ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        _legend(figure, labels, chosen)
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

    _something(columns, "columns")
    samples = list(next(iter(columns.values())))
    _something(samples[1:], "samples beside the first")
    chosen = {**palette(samples), **(colours or {})}
    with style():
        figure, axes = _ratio_grid(len(columns))
        for (ax, below, first), (name, by_sample) in zip(axes, columns.items(), strict=True):
            if list(by_sample) != samples or not all(len(v) for v in by_sample.values()):
                raise ValueError(
                    f"{name}: needs values of {samples}, got {[k for k, v in by_sample.items() if len(v)]}"
                )
            values = {sample: _finite(v, f"{name} of {sample}") for sample, v in by_sample.items()}
            edges, logarithmic = _spanning_edges(np.concatenate(list(values.values())))
            of = (groups or {}).get(name, {})
            shares = {sample: _shares(v, edges, of.get(sample)) for sample, v in values.items()}
            for i, (sample, (share, error)) in enumerate(shares.items()):
                low, high = np.maximum(share - error, 0), share + error
                ax.stairs(high, edges, baseline=low, color=chosen[sample], fill=True, alpha=0.3, lw=0)
                ax.stairs(share, edges, color=chosen[sample], lw=1.6, ls=_dash(i), baseline=None)
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
            below.set_xlabel(_plain(f"{name} [{unit}]" if unit else name))
            ax.set_ylabel("share per bin" if first else "")
            below.set_ylabel("ratio" if first else "")
        _legend(figure, samples, chosen)
        for _ in range(3):  # a lower panel shrinks with its upper one, so room for its labels is found step by step
            ConstrainedLayoutEngine().execute(figure)
    return figure


def roc(
    curves: Mapping[str, tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]],
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Background rejection 1/eps_B (logarithmic) against signal efficiency eps_S, one curve a name.

    `curves[name]` is (eps_S, eps_B) as from `metrics.roc_curve`. A curve is faint where fewer than ten background
    jets are left. Vertical lines mark eps_S = 0.3 and 0.5; the dotted line is a random choice.

    Raises ValueError if there is no curve, or one is NaN or infinite or has no background left anywhere.
    """
    _something(curves, "curves")
    chosen = {**palette(list(curves)), **(colours or {})}
    with style():
        figure, ((ax, _),) = _grid(1, ratio=0.68, width=6.4)
        for at in (0.3, 0.5):
            ax.axvline(at, color=INK, alpha=0.35, lw=0.8, ls=(0, (2, 2)))
        for i, (name, pair) in enumerate(curves.items()):
            eps_s, eps_b = (_finite(v, f"the ROC curve of {name}") for v in pair)
            kept = (eps_b > 0) & (eps_s > 0)
            _something(eps_b[kept], f"background in the ROC curve of {name}")
            steps = np.diff(eps_b, prepend=0)
            one_jet = steps[steps > 1e-12].min()
            eps_s, eps_b = _thinned(eps_s[kept], eps_b[kept])
            sure = eps_b > 9.5 * one_jet
            look: dict[str, Any] = {"color": chosen[name], "ls": _dash(i)}
            ax.plot(eps_s, 1 / eps_b, alpha=0.3, **look)
            ax.plot(eps_s[sure], 1 / eps_b[sure], **look)
        guess = np.linspace(0.01, 1, 100)
        ax.plot(guess, 1 / guess, color=INK, alpha=0.7, lw=1.1, ls=":")
        ax.set(yscale="log", xlim=(0, 1), xlabel=r"signal efficiency $\epsilon_S$")
        ax.set_ylim(bottom=1)
        ax.set_ylabel(r"background rejection $1/\epsilon_B$")
        _legend(figure, list(curves), chosen)
    return figure


def curves(
    series: Mapping[str, tuple[Shaped[np.ndarray, " P"], Shaped[np.ndarray, " P"]]],
    xlabel: str,
    ylabel: str = "",
    logy: bool = False,
) -> Figure:
    """Small multiples: one panel a series (x, y), all with the same x axis; for a loss and its monitors.

    Points that are NaN or infinite are left out and counted in the panel: a monitor may be undefined for a
    while, and a run that diverged must still get its report.

    Raises ValueError if there is no series, or x and y differ in length.
    """
    _something(series, "series")
    with style():
        figure, axes = _grid(len(series), ratio=0.62)
        for (ax, first), (name, (x, y)) in zip(axes, series.items(), strict=True):
            x, y = np.asarray(x, float), np.asarray(y, float)
            if x.shape != y.shape or x.ndim != 1:
                raise ValueError(f"{name}: x and y must be lists of equal length, got {x.shape} and {y.shape}")
            good = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not logy))
            few = np.count_nonzero(good) <= 30
            ax.plot(x[good], y[good], color=COLOURS[0], marker="o" if few else "", ms=3.5)
            missing = np.count_nonzero(~good)
            ax.set_title(_plain(name), loc="left")
            if missing:
                note = f"{missing} of {len(x)} points not shown"
                ax.text(0.98, 0.97, note, transform=ax.transAxes, ha="right", va="top", fontsize=8, alpha=0.7)
            ax.set_yscale("log" if logy and good.any() else "linear")
            ax.set_ylabel(_plain(ylabel) if first else "")
            ax.set_xlabel(_plain(xlabel))
    return figure


def similarity(
    curves: Mapping[str, tuple[Float[np.ndarray, " P"], ...]],
    xlabel: str = "angle [rad]",
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Mean cosine between the embeddings of a jet and its transformed copy against the strength, with a band.

    `curves[name]` is (strength, mean, low, high). A flat line at one means invariance.

    Raises ValueError if there is no curve, or a value is NaN or infinite.
    """
    _something(curves, "curves")
    chosen = {**palette(list(curves)), **(colours or {})}
    with style():
        figure, ((ax, _),) = _grid(1, ratio=0.6, width=6.4)
        for i, (name, values) in enumerate(curves.items()):
            x, mean, low, high = (_finite(v, f"the similarity of {name}") for v in values)
            ax.fill_between(x, low, high, color=chosen[name], alpha=0.16, lw=0)
            ax.plot(x, mean, color=chosen[name], ls=_dash(i))
        ax.set_xlabel(_plain(xlabel))
        ax.set_ylabel("cosine similarity with the original")
        ax.margins(x=0)
        ax.set_ylim(top=1.02)
        _legend(figure, list(curves), chosen)
    return figure


def projection(
    xy: Float[np.ndarray, "B 2"],
    labels: Int[np.ndarray, " B"],
    names: Mapping[int, str],
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Scatter of jets in two dimensions, coloured by label; the points are one picture inside the figure.

    Jets are drawn in random order, so that no label hides another.

    Raises ValueError if shapes differ, a label has no name, or a value is NaN or infinite.
    """
    xy, labels = _finite(xy, "the projection"), np.asarray(labels)
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) != len(labels) or len(xy) == 0:
        raise ValueError(f"projection needs xy [jets, 2] and one label a jet, got {xy.shape} and {labels.shape}")
    unnamed = sorted(set(labels.tolist()) - set(names))
    if unnamed:
        raise ValueError(f"no name for labels {unnamed}; there are names for {sorted(names)}")
    from matplotlib.colors import to_rgba

    chosen = {**palette(list(names.values())), **(colours or {})}
    with style():
        figure, ((ax, _),) = _grid(1, ratio=0.8, width=6.0)
        order = np.random.default_rng(0).permutation(len(xy))
        faces = np.array([to_rgba(chosen[names[int(v)]], 0.45) for v in labels[order]])
        size = min(max(30_000 / len(xy), 2.0), 14.0)
        ax.scatter(xy[order, 0], xy[order, 1], s=size, c=faces, lw=0, rasterized=True)
        ax.set(xlabel="component 1", ylabel="component 2")
        _legend(figure, list(names.values()), chosen, dashes=False)
    return figure


def _grid(panels: int, ratio: float, width: float = 9.6) -> tuple[Figure, list[tuple[Axes, bool]]]:
    """A figure of up to three panels in a row, and its axes in reading order: each with whether it begins a row."""
    from matplotlib.figure import Figure

    across = min(panels, 3) if panels != 4 else 2
    down = math.ceil(panels / across)
    # The same panel width and letters however many there are: a page scales figures by their width.
    size = width if panels == 1 and width < 9.6 else 3.2 * max(across, 2)
    figure = Figure(figsize=(size, size / across * ratio * down + 0.35), layout="constrained", dpi=100)
    return figure, [(figure.add_subplot(down, across, i + 1), i % across == 0) for i in range(panels)]


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


def _legend(figure: Figure, names: Sequence[str], colours: Mapping[str, str], dashes: bool = True) -> None:
    """One legend above all panels, drawn from names rather than from artists."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colours[n], ls=_dash(i), lw=2)
        if dashes
        else Line2D([], [], color=colours[n], ls="", marker="o", ms=6)
        for i, n in enumerate(names)
    ]
    longest = max(len(n) for n in names)
    fits = max(1, int(figure.get_figwidth() * 13 / (longest + 7)))
    figure.legend(handles, [_plain(n) for n in names], loc="outside upper left", ncols=min(fits, len(names)))


def _dash(index: int) -> Any:
    return DASHES[index // len(COLOURS) % len(DASHES)]


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is: no mathematics, no control characters, nothing a legend would drop."""
    text = "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
    text = text if len(text) <= 60 else text[:59] + "…"
    return "\u200a" + text if text.startswith("_") else text


def _finite(values: Any, what: str) -> np.ndarray:
    out = np.asarray(values, np.float64)
    if not np.isfinite(out).all():
        raise ValueError(f"{what}: {np.count_nonzero(~np.isfinite(out))} values are NaN or infinite")
    return out


def _something(values: Any, what: str) -> None:
    if len(values) == 0:
        raise ValueError(f"nothing to draw: there are no {what}")


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


def _thinned(
    x: Float[np.ndarray, " P"], y: Float[np.ndarray, " P"]
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """The first point of each of `MOST_POINTS` equal steps in x, and the last point: all of them real points."""
    first = np.unique(np.floor(x * MOST_POINTS), return_index=True)[1]
    kept = np.unique(np.append(first, len(x) - 1))
    return x[kept], y[kept]
