"""Figures of anomaly detection: significance improvement, signal shares, and the bump on a mass spectrum.

AUCs of many heads in both directions are `comparing.dots`: a panel a direction, a row a head, a colour a signal.

Shapes: P points of a line, E bins. `looks` says how each name is drawn, so that it looks the same in all figures; every
function that takes them raises ValueError for a name without a look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Float

from probes.anomaly.bumphunt import BumpHunt, Window
from probes.metrics import SignificanceImprovement
from probes.plots.comparing import WIDE
from probes.plots.look import COLOURS, INK, Look, finite, grid, legend, plain, something, style, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line: TypeAlias = tuple[Float[np.ndarray, " P"], ...]
"""Share of signal, middle, low, high."""


def significance_improvements(
    panels: Mapping[str, Mapping[str, SignificanceImprovement]], looks: Mapping[str, Look]
) -> Figure:
    """SIC = eps_S / sqrt(eps_B) against eps_S, a panel each group of scores; dots mark the maxima.

    Curves are faint where eps_B is not known well enough (`metrics.significance_improvement`). All panels have the same
    vertical axis, which ends above the largest value that is known. The dotted line is a random choice.

    Raises ValueError if there is nothing to draw, or a value is NaN or infinite.
    """
    something(panels, "significance improvements")
    used = _used(looks, panels)
    with style():
        figure, axes = grid(len(panels), ratio=0.82, width=6.4, panel=WIDE)
        top = 1.0
        for (ax, first), (title, curves) in zip(axes, panels.items(), strict=True):
            something(curves, f"curves of {title}")
            for name, curve in curves.items():
                _draw_sic(ax, name, curve, looks[name])
                top = max(top, float(curve.sic[curve.known].max()))
            guess = np.linspace(0, 1, 100)
            ax.plot(guess, np.sqrt(guess), color=INK, alpha=0.7, lw=1.1, ls=":")
            ax.set_title(plain(title), loc="left")
            ax.set(xlim=(0, 1), xlabel=r"signal efficiency $\epsilon_S$")
            ax.set_ylabel(r"SIC $=\epsilon_S/\sqrt{\epsilon_B}$" if first else "")
        for ax, _ in axes:
            ax.set_ylim(0, 1.12 * top)
        legend(figure, used)
    return figure


def signal_shares(panels: Mapping[str, Mapping[str, Line]], xlabel: str, looks: Mapping[str, Look]) -> Figure:
    """A figure of merit against a share of signal (0.01 is 1 %), with bands: injected signal, or contamination.

    `panels[axis label][name]` is (share, middle, low, high). The horizontal axis is logarithmic down to the smallest
    share above 0, and holds 0 beside it if it is among the shares.

    Raises ValueError if there is nothing to draw, a share is negative, or a value is NaN or infinite.
    """
    something(panels, "shares of signal")
    used = _used(looks, panels)
    with style():
        figure, axes = grid(len(panels), ratio=0.82, width=6.4, panel=WIDE)
        for (ax, _), (label, lines) in zip(axes, panels.items(), strict=True):
            something(lines, f"lines of {label}")
            shares: set[float] = set()
            for name, line in lines.items():
                x, middle, low, high = (finite(v, f"{label} of {name}") for v in line)
                look = looks[name]
                ax.fill_between(x, low, high, color=look.colour, alpha=0.16, lw=0)
                ax.plot(x, middle, color=look.colour, ls=look.dash, marker=look.marker, ms=5)
                shares |= set(x.tolist())
            _share_axis(ax, sorted(shares))
            ax.set_xlabel(plain(xlabel))
            ax.set_ylabel(plain(label))
        legend(figure, used, points=True)
    return figure


def bump(hunt: BumpHunt) -> Figure:
    """A mass spectrum, the background fitted outside the best window, and the pulls of the bins below.

    The window is shaded; a region named beforehand lies between dotted lines. Pulls are (events - background) over
    the root of background + its variance.
    """
    background, error = hunt.background, hunt.background_error
    edges, counts = hunt.edges, hunt.counts.astype(np.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    with style():
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator

        figure = Figure(figsize=(6.4, 5.0), layout="constrained", dpi=100)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.stairs(background, edges, color=COLOURS[0], lw=1.6, baseline=None)
        above.stairs(
            background + error, edges, baseline=background - error, fill=True, color=COLOURS[0], alpha=0.3, lw=0
        )
        seen = counts > 0
        # Poisson bars of the usual root, which would reach zero for one event: not on a logarithmic axis.
        bars = np.sqrt(counts[seen])
        above.errorbar(
            middle[seen], counts[seen], (np.minimum(bars, 0.9 * counts[seen]), bars), color=INK, ls="", marker="o",
            ms=3.5, elinewidth=0.9,
        )  # fmt: skip
        below.stairs((counts - background) / np.sqrt(background + error**2), edges, color=INK, fill=True, alpha=0.55)
        below.axhline(0, color=INK, lw=0.8)
        for ax in (above, below):
            ax.axvspan(hunt.best.low, hunt.best.high, color=COLOURS[2], alpha=0.13, lw=0)
            for end in (hunt.region.low, hunt.region.high) if hunt.region else ():
                ax.axvline(end, color=INK, lw=1, ls=":")
        above.set(yscale="log", ylabel="events in the bin")
        above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        above.yaxis.set_major_formatter("{x:g}")
        above.yaxis.set_minor_formatter("")
        above.set_ylim(bottom=0.7 * max(min(counts[seen].min(), background.min()), 0.5))
        above.set_title("\n".join(_told(hunt)), loc="left", fontsize=9)
        below.set(xlabel="mass [GeV]", ylabel="pull", xlim=(edges[0], edges[-1]))
        figure.align_ylabels([above, below])
        legend(figure, {"background": Look(COLOURS[0]), "best window": Look(COLOURS[2])})
    return figure


def _told(hunt: BumpHunt) -> list[str]:
    lines = [
        f"best window {_window(hunt.best)}",
        f"global p {hunt.global_p_value}, local p {hunt.best.local_p_value:.2g}, fit p {hunt.fit_p_value}",
    ]
    if hunt.region is not None:
        lines.append(f"beforehand {_window(hunt.region)}: p {hunt.region_p_value}")
    return [line.replace("+-", "±") for line in lines]


def _window(window: Window) -> str:
    expected = f"{window.background:.1f} +- {window.error:.1f}"
    return f"{window.low:g} to {window.high:g} GeV, {window.counted} events for {expected}"


def _draw_sic(ax: Axes, name: str, curve: SignificanceImprovement, look: Look) -> None:
    eps_s, sic = (finite(v, f"the SIC of {name}") for v in (curve.eps_s, curve.sic))
    x, y = thinned(eps_s, sic)
    known = np.interp(x, eps_s, curve.known.astype(float)) == 1
    ax.plot(x, y, color=look.colour, ls=look.dash, alpha=0.25, lw=1.1)
    ax.plot(np.where(known, x, np.nan), y, color=look.colour, ls=look.dash)
    ax.plot([curve.eps_s_at_maximum], [curve.maximum], color=look.colour, marker=look.marker, ms=5)


def _share_axis(ax: Axes, shares: list[float]) -> None:
    if shares[0] < 0:
        raise ValueError(f"a share of signal cannot be negative, got {shares[0]:g}")
    positive = [share for share in shares if share > 0]
    if shares[0] == 0 and positive:
        ax.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
    elif positive:
        ax.set_xscale("log")
    ax.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
    ax.minorticks_off()


def _used(looks: Mapping[str, Look], panels: Mapping[str, Mapping[str, object]]) -> dict[str, Look]:
    """The looks of the names in all panels, in the order of `looks`."""
    drawn = {name for lines in panels.values() for name in lines}
    missing = sorted(drawn - set(looks))
    if missing:
        raise ValueError(f"no look for {missing}; there are looks for {list(looks)}")
    return {name: look for name, look in looks.items() if name in drawn}
