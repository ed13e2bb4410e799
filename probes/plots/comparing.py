"""Figures of a benchmark: many representations side by side, with errors.

Shapes: P points of a line, E edges of bins. `looks` says how each name is drawn, so that it looks the same in all of
them; every function raises ValueError for a name without a look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.plots.lines import draw_roc, draw_similarity
from probes.plots.look import INK, Look, finite, grid, legend, plain, something, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line: TypeAlias = tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]
Interval: TypeAlias = tuple[float, float, float]
"""Value, low, high."""

WIDE = 4.7
"""Width of one of two panels [inches]."""


class Band(NamedTuple):
    """A line with a band; where `bound` is true the middle is a lower bound, drawn as a triangle and without a band."""

    x: Float[np.ndarray, " P"]
    middle: Float[np.ndarray, " P"]
    low: Float[np.ndarray, " P"]
    high: Float[np.ndarray, " P"]
    bound: Bool[np.ndarray, " P"]


class Spectrum(NamedTuple):
    """A mass spectrum [GeV] as shares of jets in each bin, before a cut and after, the latter by name of the score."""

    edges: Float[np.ndarray, " E"]
    before: Float[np.ndarray, " bins"]
    after: Mapping[str, Float[np.ndarray, " bins"]]


class Reliability(NamedTuple):
    """Mean probability and observed share in each bin, how many jets are in it, and a line of text."""

    predicted: Float[np.ndarray, " bins"]
    observed: Float[np.ndarray, " bins"]
    jets: Int[np.ndarray, " bins"]
    note: str


def rejections(panels: Mapping[str, Mapping[str, Line]], looks: Mapping[str, Look]) -> Figure:
    """ROC curves as in `lines.roc`, a panel each group of them; `panels[title][name]` is (eps_S, eps_B).

    Raises ValueError as `lines.roc` does.
    """
    something(panels, "ROC curves")
    used = _used(looks, (name for curves in panels.values() for name in curves))
    with style():
        figure, axes = grid(len(panels), ratio=0.82, width=6.4, panel=WIDE)
        for (ax, first), (title, curves) in zip(axes, panels.items(), strict=True):
            something(curves, f"curves of {title}")
            draw_roc(ax, curves, looks)
            ax.set_title(plain(title), loc="left")
            ax.set_ylabel(ax.get_ylabel() if first else "")
        top = max(ax.get_ylim()[1] for ax, _ in axes)
        for ax, _ in axes:
            ax.set_ylim(1, top)
        legend(figure, used)
    return figure


def label_efficiency(panels: Mapping[str, Mapping[str, Band]], looks: Mapping[str, Look]) -> Figure:
    """A figure of merit against the number of labelled jets (logarithmic); `panels[axis label][name]` is a line.

    A panel whose values span more than a factor of three is logarithmic. Raises ValueError if there is nothing to
    draw, or a value is NaN or infinite.
    """
    something(panels, "label efficiencies")
    used = _used(looks, (name for lines in panels.values() for name in lines))
    with style():
        figure, axes = grid(len(panels), ratio=0.82, width=6.4, panel=WIDE)
        for (ax, _), (label, lines) in zip(axes, panels.items(), strict=True):
            _draw_bands(ax, label, lines, looks)
        legend(figure, used, points=True)
    return figure


def overview(curves: Mapping[str, Line], label: str, lines: Mapping[str, Band], looks: Mapping[str, Look]) -> Figure:
    """ROC curves and one panel of `label_efficiency` side by side: a benchmark in one picture.

    Raises ValueError as the two do.
    """
    something(curves, "ROC curves")
    used = _used(looks, [*curves, *lines])
    with style():
        figure, ((left, _), (right, _)) = grid(2, ratio=0.82, panel=WIDE)
        draw_roc(left, curves, looks)
        _draw_bands(right, label, lines, looks)
        legend(figure, used, points=True)
    return figure


def layers(series: Mapping[str, Mapping[str, Interval]], ylabel: str, looks: Mapping[str, Look]) -> Figure:
    """A figure of merit layer by layer: `series[name][layer]` is (value, low, high); layers as they first appear.

    Raises ValueError if there is no series, or a value is NaN or infinite.
    """
    something(series, "layers")
    order = list(dict.fromkeys(layer for line in series.values() for layer in line))
    step = min(0.12, 0.6 / len(series))
    used = _used(looks, series)
    with style():
        figure, ((ax, _),) = grid(1, ratio=0.6, width=6.4)
        for i, (name, line) in enumerate(series.items()):
            values, low, high = finite(list(line.values()), f"the layers of {name}").reshape(-1, 3).T
            x = np.array([order.index(layer) for layer in line]) + step * (i - (len(series) - 1) / 2)
            look = looks[name]
            ax.errorbar(
                x, values, _bars(values, low, high), color=look.colour, ls=look.dash, marker=look.marker, ms=4.5,
                elinewidth=0.9,
            )  # fmt: skip
        ax.set_xticks(range(len(order)), [plain(layer) for layer in order])
        if sum(map(len, order)) > 60:
            ax.tick_params(axis="x", labelrotation=30)
        ax.set_xlabel("where the encoder is read")
        ax.set_ylabel(plain(ylabel))
        legend(figure, used, points=True)
    return figure


def similarities(
    panels: Mapping[str, Mapping[str, tuple[Float[np.ndarray, " P"], ...]]],
    xlabels: Mapping[str, str],
    looks: Mapping[str, Look],
) -> Figure:
    """`lines.similarity` for several transforms: `panels[transform][name]` is (strength, mean, low, high).

    All panels have the same vertical axis. Raises ValueError if there is nothing to draw, or a value is NaN or
    infinite.
    """
    something(panels, "similarities")
    used = _used(looks, (name for curves in panels.values() for name in curves))
    with style():
        figure, axes = grid(len(panels), ratio=0.9, width=6.4)
        for (ax, first), (transform, curves) in zip(axes, panels.items(), strict=True):
            something(curves, f"curves of {transform}")
            draw_similarity(ax, curves, looks)
            ax.set_title(plain(transform), loc="left")
            ax.set_xlabel(plain(xlabels[transform]))
            ax.set_ylabel("cosine with the original" if first else "")
        bottom = min(ax.get_ylim()[0] for ax, _ in axes)
        for ax, _ in axes:
            ax.set_ylim(bottom=bottom)
        legend(figure, used)
    return figure


def dots(panels: Mapping[str, Mapping[str, Mapping[str, Interval]]], looks: Mapping[str, Look]) -> Figure:
    """Points with errors in rows: `panels[axis label][row][name]` is (value, low, high); the panels share their rows.

    A vertical line marks zero where values of both signs are near. Raises ValueError if there is nothing to draw, or a
    value is NaN or infinite.
    """
    something(panels, "points")
    rows = list(dict.fromkeys(row for by_row in panels.values() for row in by_row))
    used = _used(looks, (name for by_row in panels.values() for points in by_row.values() for name in points))
    step = 0.78 / max(len(used), 1)
    with style():
        figure, axes = grid(len(panels), ratio=1, width=6.4, panel=WIDE)
        figure.set_figheight(1.3 + len(rows) * max(0.16 * len(used), 0.3))
        for (ax, first), (label, by_row) in zip(axes, panels.items(), strict=True):
            for i, (name, look) in enumerate(used.items()):
                found = [(y, by_row[row][name]) for y, row in enumerate(rows) if name in by_row.get(row, {})]
                if found:
                    value, low, high = finite([interval for _, interval in found], f"{label} of {name}").T
                    y = np.array([y for y, _ in found]) + step * (i - (len(used) - 1) / 2)
                    ax.errorbar(
                        value, y, xerr=_bars(value, low, high), color=look.colour, ls="", marker=look.marker, ms=5,
                        elinewidth=1.1,
                    )  # fmt: skip
            low, high = ax.get_xlim()
            if low < 0 < high:
                ax.axvline(0, color=INK, lw=0.8, alpha=0.6)
            ax.set_yticks(range(len(rows)), [plain(row) for row in rows] if first else [""] * len(rows))
            ax.set_ylim(len(rows) - 0.5, -0.5)
            ax.grid(visible=False, axis="y")
            ax.tick_params(axis="y", length=0)
            for border in range(1, len(rows)):
                ax.axhline(border - 0.5, color=INK, lw=0.6, alpha=0.2)
            ax.set_xlabel(plain(label))
            ax.locator_params(axis="x", nbins=6)
        legend(figure, used, points=True, lines=False)
    return figure


def mass_spectra(panels: Mapping[str, Spectrum], looks: Mapping[str, Look]) -> Figure:
    """Background mass spectra before a cut (grey) and after, a panel each representation, a line each score.

    Raises ValueError if there is nothing to draw, or a value is NaN or infinite.
    """
    something(panels, "mass spectra")
    used = _used(looks, (name for spectrum in panels.values() for name in spectrum.after))
    with style():
        figure, axes = grid(len(panels), ratio=0.8, width=6.4)
        for (ax, first), (title, spectrum) in zip(axes, panels.items(), strict=True):
            edges = finite(spectrum.edges, f"edges of {title}")
            ax.stairs(finite(spectrum.before, f"spectrum of {title}"), edges, color=INK, fill=True, alpha=0.18, lw=0)
            for name, after in spectrum.after.items():
                look = looks[name]
                ax.stairs(finite(after, f"{name} of {title}"), edges, color=look.colour, ls=look.dash, lw=1.6)
            ax.set_title(plain(title), loc="left")
            ax.set_xlim(edges[0], edges[-1])
            ax.set_ylim(bottom=0)
            ax.set_xlabel("jet mass [GeV]")
            ax.set_ylabel("share of background jets" if first else "")
        legend(figure, {"before the cut": Look("#9c9ca1"), **used})
    return figure


def divergence(series: Mapping[str, Line], looks: Mapping[str, Look]) -> Figure:
    """Jensen-Shannon divergence of the background mass spectrum [bits] after a cut, against eps_B (both logarithmic).

    `series[name]` is (eps_B, divergence). Raises ValueError if there is no series, or a value is NaN or infinite.
    """
    something(series, "divergences")
    used = _used(looks, series)
    with style():
        figure, ((ax, _),) = grid(1, ratio=0.6, width=6.4)
        for name, (eps_b, bits) in series.items():
            look = looks[name]
            x, y = finite(eps_b, f"eps_B of {name}"), finite(bits, f"the divergence of {name}")
            order = np.argsort(x)
            ax.plot(x[order], y[order], color=look.colour, ls=look.dash, marker=look.marker, ms=4.5)
        ax.set_xscale("log")
        ax.set_ylim(bottom=0)
        ax.set_xlabel(r"background efficiency $\epsilon_B$ of the cut")
        ax.set_ylabel("JSD of the mass spectrum [bits]")
        legend(figure, used, points=True)
    return figure


def reliability(panels: Mapping[str, Reliability], looks: Mapping[str, Look]) -> Figure:
    """Observed share against predicted probability, a panel each predictor; bars are binomial standard errors.

    Bins without jets are left out. Raises ValueError if there is nothing to draw, or a value is NaN or infinite.
    """
    something(panels, "reliability curves")
    used = _used(looks, panels)
    with style():
        figure, axes = grid(len(panels), ratio=1.0, width=4.8)
        for (ax, first), (name, curve) in zip(axes, panels.items(), strict=True):
            some = np.asarray(curve.jets) > 0
            x = finite(curve.predicted[some], f"probabilities of {name}")
            y = finite(curve.observed[some], f"shares of {name}")
            error = np.sqrt(y * (1 - y) / curve.jets[some])
            ax.plot((0, 1), (0, 1), color=INK, alpha=0.6, lw=1, ls=":")
            ax.errorbar(x, y, error, color=used[name].colour, marker="o", ms=3.5, lw=1.2, elinewidth=0.9)
            ax.text(0.03, 0.97, plain(curve.note), transform=ax.transAxes, va="top", fontsize=8)
            ax.set_title(plain(name), loc="left")
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="predicted probability")
            ax.set_ylabel("observed share" if first else "")
    return figure


def _used(looks: Mapping[str, Look], names: Iterable[str]) -> dict[str, Look]:
    """The looks of these names, in the order of `looks`."""
    drawn = set(names)
    missing = sorted(drawn - set(looks))
    if missing:
        raise ValueError(f"no look for {missing}; there are looks for {list(looks)}")
    return {name: look for name, look in looks.items() if name in drawn}


def _bars(
    values: Float[np.ndarray, " P"], low: Float[np.ndarray, " P"], high: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "2 P"]:
    """Lengths of error bars; none where an interval of percentiles lies on the other side of its value."""
    return np.maximum([values - low, high - values], 0)


def _draw_bands(ax: Axes, label: str, lines: Mapping[str, Band], looks: Mapping[str, Look]) -> None:
    something(lines, f"lines of {label}")
    counts: set[float] = set()
    heights = []
    for name, band in lines.items():
        look = looks[name]
        x, middle, low, high = (finite(v, f"{label} of {name}") for v in band[:4])
        free = ~band.bound
        ax.fill_between(x, low, high, where=free, color=look.colour, alpha=0.16, lw=0)
        ax.plot(x, middle, color=look.colour, ls=look.dash)
        ax.plot(x[free], middle[free], color=look.colour, ls="", marker=look.marker, ms=5)
        ax.plot(x[~free], middle[~free], color=look.colour, ls="", marker=r"$\uparrow$", ms=10)
        counts |= set(x.tolist())
        heights.append(middle)
    ax.set_xscale("log")
    ax.set_xticks(sorted(counts), [_short(count) for count in sorted(counts)])
    ax.minorticks_off()
    low, high = min(map(np.min, heights)), max(map(np.max, heights))
    if low > 0 and high > 3 * low:
        from matplotlib.ticker import LogLocator

        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
    ax.set_xlabel("labelled jets")
    ax.set_ylabel(plain(label))


def _short(count: float) -> str:
    """100, 1k, 60k, 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:g}"
