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
    low, high = np.quantile(values, [0.001, 0.999], method="inverted_cdf")
    if np.all(values == np.round(values)) and high - low >= 1:
        step = max(1, math.ceil((high - low + 1) / 60))
        return np.arange(low, high + step + 0.5, step) - 0.5
    if high <= low:
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
