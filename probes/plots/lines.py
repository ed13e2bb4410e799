"""One curve a name: ROC curves, monitors of a run, similarity under a transformation; and jets as points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from probes.plots.look import (
    COLOURS,
    INK,
    Look,
    finite,
    grid,
    legend,
    looks_of,
    palette,
    plain,
    something,
    style,
    thinned,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def roc(
    curves: Mapping[str, tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]],
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Background rejection 1/eps_B (logarithmic) against signal efficiency eps_S, one curve a name.

    `curves[name]` is (eps_S, eps_B) as from `metrics.roc_curve`. A curve is faint where fewer than ten background
    jets are left. Vertical lines mark eps_S = 0.3 and 0.5; the dotted line is a random choice.

    Raises ValueError if there is no curve, or one is NaN or infinite or has no background left anywhere.
    """
    something(curves, "curves")
    looks = looks_of(list(curves), colours)
    with style():
        figure, ((ax, _),) = grid(1, ratio=0.68, width=6.4)
        draw_roc(ax, curves, looks)
        legend(figure, looks)
    return figure


def draw_roc(
    ax: Axes,
    curves: Mapping[str, tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]],
    looks: Mapping[str, Look],
) -> None:
    """One panel of `roc`, without its legend."""
    for at in (0.3, 0.5):
        ax.axvline(at, color=INK, alpha=0.35, lw=0.8, ls=(0, (2, 2)))
    for name, pair in curves.items():
        eps_s, eps_b = (finite(v, f"the ROC curve of {name}") for v in pair)
        kept = (eps_b > 0) & (eps_s > 0)
        something(eps_b[kept], f"background in the ROC curve of {name}")
        steps = np.diff(eps_b, prepend=0)
        one_jet = steps[steps > 1e-12].min()
        eps_s, eps_b = thinned(eps_s[kept], eps_b[kept])
        sure = eps_b > 9.5 * one_jet
        look: dict[str, Any] = {"color": looks[name].colour, "ls": looks[name].dash}
        ax.plot(eps_s, 1 / eps_b, alpha=0.3, **look)
        ax.plot(eps_s[sure], 1 / eps_b[sure], **look)
    guess = np.linspace(0.01, 1, 100)
    ax.plot(guess, 1 / guess, color=INK, alpha=0.7, lw=1.1, ls=":")
    ax.set(yscale="log", xlim=(0, 1), xlabel=r"signal efficiency $\epsilon_S$")
    ax.set_ylim(bottom=1)
    ax.set_ylabel(r"background rejection $1/\epsilon_B$")


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
    something(series, "series")
    with style():
        figure, axes = grid(len(series), ratio=0.62)
        for (ax, first), (name, (x, y)) in zip(axes, series.items(), strict=True):
            x, y = np.asarray(x, float), np.asarray(y, float)
            if x.shape != y.shape or x.ndim != 1:
                raise ValueError(f"{name}: x and y must be lists of equal length, got {x.shape} and {y.shape}")
            good = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not logy))
            few = np.count_nonzero(good) <= 30
            ax.plot(x[good], y[good], color=COLOURS[0], marker="o" if few else "", ms=3.5)
            missing = np.count_nonzero(~good)
            ax.set_title(plain(name), loc="left")
            if missing:
                note = f"{missing} of {len(x)} points not shown"
                ax.text(0.98, 0.97, note, transform=ax.transAxes, ha="right", va="top", fontsize=8, alpha=0.7)
            ax.set_yscale("log" if logy and good.any() else "linear")
            ax.set_ylabel(plain(ylabel) if first else "")
            ax.set_xlabel(plain(xlabel))
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
    something(curves, "curves")
    looks = looks_of(list(curves), colours)
    with style():
        figure, ((ax, _),) = grid(1, ratio=0.6, width=6.4)
        draw_similarity(ax, curves, looks)
        ax.set_xlabel(plain(xlabel))
        ax.set_ylabel("cosine similarity with the original")
        legend(figure, looks)
    return figure


def draw_similarity(
    ax: Axes, curves: Mapping[str, tuple[Float[np.ndarray, " P"], ...]], looks: Mapping[str, Look]
) -> None:
    """One panel of `similarity`, without its labels and legend."""
    for name, values in curves.items():
        x, mean, low, high = (finite(v, f"the similarity of {name}") for v in values)
        ax.fill_between(x, low, high, color=looks[name].colour, alpha=0.16, lw=0)
        ax.plot(x, mean, color=looks[name].colour, ls=looks[name].dash)
    ax.margins(x=0)
    ax.set_ylim(top=1.02)


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
    xy, labels = finite(xy, "the projection"), np.asarray(labels)
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) != len(labels) or len(xy) == 0:
        raise ValueError(f"projection needs xy [jets, 2] and one label a jet, got {xy.shape} and {labels.shape}")
    unnamed = sorted(set(labels.tolist()) - set(names))
    if unnamed:
        raise ValueError(f"no name for labels {unnamed}; there are names for {sorted(names)}")
    from matplotlib.colors import to_rgba

    chosen = {**palette(list(names.values())), **(colours or {})}
    with style():
        figure, ((ax, _),) = grid(1, ratio=0.8, width=6.0)
        order = np.random.default_rng(0).permutation(len(xy))
        faces = np.array([to_rgba(chosen[names[int(v)]], 0.45) for v in labels[order]])
        size = min(max(30_000 / len(xy), 2.0), 14.0)
        ax.scatter(xy[order, 0], xy[order, 1], s=size, c=faces, lw=0, rasterized=True)
        ax.set(xlabel="component 1", ylabel="component 2")
        legend(figure, looks_of(list(names.values()), chosen), points=True, lines=False)
    return figure
