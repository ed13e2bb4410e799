"""The look that all figures share: colours, dashes, axes and legends.

Nothing here is global: settings of matplotlib hold inside `style` alone, and figures belong to nobody else.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

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


class Look(NamedTuple):
    """How one name is drawn, in every figure of a page."""

    colour: str
    dash: Any = "-"
    marker: str = "o"


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, for as long as the block lasts."""
    from matplotlib import rc_context

    with (
        warnings.catch_warnings(),
        rc_context(
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
                "pdf.fonttype": 42,  # journals refuse the default, type 3
            }
        ),
    ):
        # A name may use letters the font lacks; a box in the figure is better than no report.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def palette(names: Sequence[str]) -> dict[str, str]:
    """One colour for each name, in the order given; it begins again after six names."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


def grid(panels: int, ratio: float, width: float = 9.6, panel: float = 3.2) -> tuple[Figure, list[tuple[Axes, bool]]]:
    """A figure of up to three panels in a row, and its axes in reading order: each with whether it begins a row.

    Panels are `panel` inches wide, a single one `width`; heights are `ratio` of that.
    """
    from matplotlib.figure import Figure

    across = min(panels, 3) if panels != 4 else 2
    down = math.ceil(panels / across)
    # The same panel width and letters however many there are: a page scales figures by their width.
    size = width if panels == 1 and width < 9.6 else panel * max(across, 2)
    figure = Figure(figsize=(size, size / across * ratio * down + 0.35), layout="constrained", dpi=100)
    return figure, [(figure.add_subplot(down, across, i + 1), i % across == 0) for i in range(panels)]


def looks_of(names: Sequence[str], colours: Mapping[str, str] | None = None) -> dict[str, Look]:
    """A look for each name: its colour, and after six names another dash."""
    chosen = {**palette(names), **(colours or {})}
    return {name: Look(chosen[name], dash(i)) for i, name in enumerate(dict.fromkeys(names))}


def legend(figure: Figure, looks: Mapping[str, Look], points: bool = False, lines: bool = True) -> None:
    """One legend above all panels, drawn from names rather than from artists."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=look.colour, ls=look.dash if lines else "", marker=look.marker if points else "", lw=2, ms=6
        )
        for look in looks.values()
    ]
    longest = max(len(name) for name in looks)
    fits = max(1, int(figure.get_figwidth() * 13 / (longest + 7)))
    figure.legend(
        handles, [plain(name) for name in looks], loc="outside upper left", ncols=min(fits, len(looks)), markerscale=0.9
    )


def dash(index: int) -> Any:
    return DASHES[index // len(COLOURS) % len(DASHES)]


def plain(text: str) -> str:
    """Text that matplotlib shows as it is: no mathematics, no control characters, nothing a legend would drop."""
    text = "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
    text = text if len(text) <= 60 else text[:59] + "…"
    return "\u200a" + text if text.startswith("_") else text


def finite(values: Any, what: str) -> np.ndarray:
    out = np.asarray(values, np.float64)
    if not np.isfinite(out).all():
        raise ValueError(f"{what}: {np.count_nonzero(~np.isfinite(out))} values are NaN or infinite")
    return out


def something(values: Any, what: str) -> None:
    if len(values) == 0:
        raise ValueError(f"nothing to draw: there are no {what}")


def thinned(
    x: Float[np.ndarray, " P"], y: Float[np.ndarray, " P"]
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """The first point of each of `MOST_POINTS` equal steps in x, and the last point: all of them real points."""
    first = np.unique(np.floor(x * MOST_POINTS), return_index=True)[1]
    kept = np.unique(np.append(first, len(x) - 1))
    return x[kept], y[kept]
