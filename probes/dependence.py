"""Does a score know the mass? Distance correlation, and what a cut does to the background's mass spectrum.

Shapes: B jets, E bins of mass, T cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

Values: TypeAlias = Float[np.ndarray, " B"]


@dataclass(frozen=True)
class MassSculpting:
    """What cuts on a score do to the mass spectrum of background jets.

    `jsd` is the Jensen-Shannon divergence between the spectra before and after the cut that keeps `eps_b` of the jets
    [bits]. A cut on noise that keeps as many has `random_jsd` on average, and less than `random_jsd_high` in 95 % of
    cases; shuffled scores have `random_distance_correlation`.
    """

    eps_b: Float[np.ndarray, " T"]
    jsd: Float[np.ndarray, " T"]
    random_jsd: Float[np.ndarray, " T"]
    random_jsd_high: Float[np.ndarray, " T"]
    edges: Float[np.ndarray, " edges"]
    before: Float[np.ndarray, " E"]
    after: Float[np.ndarray, "T E"]
    distance_correlation: float
    random_distance_correlation: float


def distance_correlation(x: Values, y: Values, weights: Values | None = None) -> float:
    """dCorr between 0 and 1, of which 0 means independent and 1 means one is a linear function of the other.

    Of the whole (weighted) sample, so above 0 for finite independent jets (see `random_distance_correlation`); 0 where
    x or y does not vary. DisCo's penalty (arXiv:2001.05310) is the square of this number. Exact in O(B log^2 B) and
    O(B) memory, with the sums over pairs found by merging, after Huo & Szekely (arXiv:1410.1503).

    Raises ValueError for values or weights that differ in number, are not finite, or weights that are negative.
    """
    x, y = (_checked(v, name) for v, name in ((x, "x"), (y, "y")))
    w = np.ones(len(x)) if weights is None else _checked(weights, "weights")
    if not len(x) == len(y) == len(w):
        raise ValueError(f"{len(x)} x, {len(y)} y and {len(w)} weights: there must be one of each for each jet")
    if (w < 0).any() or w.sum() == 0:
        raise ValueError("weights must not be negative, and not all be zero")
    x, y, w = (v[w > 0] for v in (x, y, w / w.sum()))
    if not (_varies(x) and _varies(y)):
        return 0.0
    x, y = (_standardised(v, w) for v in (x, y))
    of_x, of_y = _Distances.of(x, w), _Distances.of(y, w)
    # A jet of hardly any weight may be all that varies: then the variance is lost in rounding.
    if min(of_x.variance, of_y.variance) <= 0:
        return 0.0
    covariance = 2 * _paired_distances(x, y, w) - 2 * (w * of_x.of_jet) @ of_y.of_jet + of_x.mean * of_y.mean
    return _root(covariance / np.sqrt(of_x.variance * of_y.variance))


def random_distance_correlation(x: Values, y: Values) -> float:
    """Root of the mean of dCorr^2 over all ways to shuffle x among the jets: what independence looks like here.

    Closed: the mean of dCov^2 is the product of the mean distances over B - 1. About sqrt(3.2/B) for normal x and y.

    Raises ValueError for values that differ in number, are not finite, or do not belong to two jets at least.
    """
    x, y = (_checked(v, name) for v, name in ((x, "x"), (y, "y")))
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"{len(x)} x and {len(y)} y: there must be one of each for each jet, and two jets")
    w = np.full(len(x), 1 / len(x))
    if not (_varies(x) and _varies(y)):
        return 0.0
    of_x, of_y = (_Distances.of(_standardised(v, w), w) for v in (x, y))
    return _root(of_x.mean * of_y.mean / (len(x) - 1) / np.sqrt(of_x.variance * of_y.variance))


def jensen_shannon(p: Float[np.ndarray, " E"], q: Float[np.ndarray, " E"]) -> float:
    """Jensen-Shannon divergence of two spectra [bits]: 0 for the same shape, 1 for spectra that never overlap.

    Counts or shares: both are brought to sum 1. Raises ValueError for spectra of different length, that are empty,
    negative or not finite.
    """
    p, q = (_checked(v, name) for v, name in ((p, "p"), (q, "q")))
    if len(p) != len(q):
        raise ValueError(f"spectra must have the same bins, got {len(p)} and {len(q)}")
    if min(p.min(), q.min()) < 0 or min(p.sum(), q.sum()) == 0:
        raise ValueError("spectra must not be negative and must hold jets")
    return float(_divergence(p[None] / p.sum(), q / q.sum())[0])


def mass_sculpting(
    scores: Values,
    mass: Values,
    *,
    eps_b: Sequence[float] = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01),
    edges: Float[np.ndarray, " edges"] | None = None,
    bins: int = 40,
    draws: int = 1000,
    seed: int = 0,
) -> MassSculpting:
    """Mass spectra of BACKGROUND jets before and after cuts that keep the `eps_b` highest scores, and how they differ.

    Mass in any unit, that of `edges`. Without `edges` there are `bins` of equal width up to the mass that 99.5 % of
    jets stay below. Jets beyond the edges are counted in the outermost bins. Of jets that tie at the cut each counts
    with the share that passes.

    Raises ValueError for values that differ in number or are not finite, edges that do not rise, or a cut that keeps
    less than one jet.
    """
    scores, mass = _checked(scores, "scores"), _checked(mass, "mass")
    if len(scores) != len(mass):
        raise ValueError(f"{len(scores)} scores but {len(mass)} masses")
    cuts = np.array(eps_b, np.float64)
    if cuts.size == 0 or not ((cuts > 0) & (cuts <= 1)).all() or cuts.min() * len(scores) < 1:
        raise ValueError(f"each eps_b must lie in (0, 1] and keep one of the {len(scores)} jets, got {list(eps_b)}")
    if draws < 1:
        raise ValueError(f"at least one draw is needed, got {draws}")
    edges = _edges(mass, bins) if edges is None else _checked(edges, "edges")
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError("the edges of the mass spectrum must rise, with one bin at least")
    where = np.clip(np.searchsorted(edges, mass, "right") - 1, 0, len(edges) - 2)
    counts = np.bincount(where, minlength=len(edges) - 1)
    before = counts / len(mass)
    after = np.stack([np.bincount(where, _passing(scores, cut), len(counts)) for cut in cuts])
    after = after / after.sum(axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    random = np.stack([_random_cuts(counts, cut, draws, rng) for cut in cuts])
    return MassSculpting(
        eps_b=cuts,
        jsd=_divergence(after, before),
        random_jsd=random.mean(axis=1),
        random_jsd_high=np.quantile(random, 0.95, axis=1),
        edges=edges,
        before=before,
        after=after,
        distance_correlation=distance_correlation(scores, mass),
        random_distance_correlation=random_distance_correlation(scores, mass),
    )


def _varies(x: Values) -> bool:
    return bool(x.max() > x.min())


def _standardised(x: Values, w: Values) -> Values:
    # Scaled first: the square of a tiny or huge value would be 0 or infinite.
    x = x - x[0]
    x = x / np.abs(x).max()
    x = x - w @ x
    return np.asarray(x / np.sqrt(w @ x**2))


@dataclass(frozen=True)
class _Distances:
    """Weighted means of |x_i - x_j|: over j for each jet, and over all pairs; and the distance variance."""

    of_jet: Values
    mean: float
    variance: float

    @classmethod
    def of(cls, x: Values, w: Values) -> _Distances:
        """For x of weighted mean 0 and variance 1, and weights that sum to 1."""
        order = np.argsort(x, kind="stable")
        ordered, weight = x[order], w[order]
        up_to, moment = np.cumsum(weight), np.cumsum(weight * ordered)
        of_jet = np.empty_like(x)
        of_jet[order] = ordered * (2 * up_to - up_to[-1]) + moment[-1] - 2 * moment
        mean = float(w @ of_jet)
        # The mean squared distance is twice the variance of x.
        return cls(of_jet, mean, float(2 - 2 * w @ of_jet**2 + mean**2))


def _root(square: float) -> float:
    return float(np.sqrt(min(max(square, 0.0), 1.0)))


def _paired_distances(x: Values, y: Values, w: Values) -> float:
    """Sum of w_i w_j |x_i - x_j| |y_i - y_j| over pairs i < j.

    With the jets in order of x, |x_i - x_j| |y_i - y_j| is +-(x_i - x_j)(y_i - y_j), + where y also rises. So the sum
    is twice that over rising pairs, less that over all, which is closed. Blocks of jets are merged two and two: for
    each jet of the upper block, sums over the jets of the lower block with smaller y follow from one sort by y.
    """
    jets = len(x)
    slots = 1 << max(jets - 1, 1).bit_length()
    order = np.argsort(x, kind="stable")
    terms = np.zeros((4, slots))
    terms[:, :jets] = np.stack([w, w * x, w * y, w * x * y])[:, order]
    # Padding has weight 0; its rank only has to exist.
    rank = np.arange(slots)
    rank[np.argsort(y[order], kind="stable")] = np.arange(jets)
    rising = 0.0
    size = 2
    while size <= slots:
        by_y = np.argsort(rank.reshape(-1, size), axis=1)
        block = [np.take_along_axis(term.reshape(-1, size), by_y, axis=1) for term in terms]
        lower = by_y < size // 2
        n, sx, sy, sxy = (np.cumsum(np.where(lower, term, 0.0), axis=1) for term in block)
        w_i, wx_i, wy_i, wxy_i = (np.where(lower, 0.0, term) for term in block)
        rising += float(np.sum(wxy_i * n - wx_i * sy - wy_i * sx + w_i * sxy))
        size *= 2
    total, sum_x, sum_y, sum_xy = terms.sum(axis=1)
    return 2 * rising - float(total * sum_xy - sum_x * sum_y)


def _divergence(p: Float[np.ndarray, "T E"], q: Float[np.ndarray, " E"]) -> Float[np.ndarray, " T"]:
    """Jensen-Shannon divergence of each row of shares `p` from the shares `q`."""
    middle = (p + q) / 2
    out = np.zeros(len(p))
    for share in (p, np.broadcast_to(q, p.shape)):
        ratio = np.divide(share, middle, out=np.ones_like(p), where=share > 0)
        out += np.sum(share * np.log2(ratio), axis=1) / 2
    return np.clip(out, 0.0, 1.0)


def _passing(scores: Values, eps_b: float) -> Values:
    """Weight of each jet after the cut that keeps `eps_b` of them: 1, 0, or a share for those that tie at the cut."""
    wanted = eps_b * len(scores)
    threshold = np.sort(scores)[::-1][min(int(np.ceil(wanted * (1 - 1e-12))), len(scores)) - 1]
    above, tied = scores > threshold, scores == threshold
    return above + tied * (wanted - np.count_nonzero(above)) / np.count_nonzero(tied)


def _random_cuts(
    counts: Int[np.ndarray, " E"], eps_b: float, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Divergences from the whole spectrum of spectra of jets drawn from it, without putting any back."""
    kept = max(1, round(eps_b * int(counts.sum())))
    drawn = rng.multivariate_hypergeometric(counts, kept, size=draws, method="marginals")
    return _divergence(drawn / kept, counts / counts.sum())


def _edges(mass: Values, bins: int) -> Float[np.ndarray, " edges"]:
    if bins < 1:
        raise ValueError(f"at least one bin is needed, got {bins}")
    low, high = float(mass.min()), float(np.quantile(mass, 0.995))
    if not low < high:
        raise ValueError("all jets have the same mass: there is no spectrum")
    return np.linspace(low, high, bins + 1)


def _checked(values: Values, name: str) -> Values:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} must be a list of numbers, one or more, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} {name} are NaN or infinite")
    return values
