"""An excess in one window: events counted there against a background known with an error.

The likelihood is HistFactory's of an uncorrelated background (CERN-OPEN-2012-016; pyhf, J. Open Source Softw. 6 (2021)
2823): a Poisson count of signal and background, and one of (background / error)^2 events that stands for how the
background was measured. Its profile has a closed form (Li & Ma, Astrophys. J. 272 (1983) 317; Cousins, Linnemann &
Tucker, arXiv:physics/0702156): thousands of pseudo-experiments need no minimiser, and there is a p-value where pyhf's
end, below 1e-300. Tests hold it against pyhf.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import xlogy
from scipy.stats import norm

MOST_CERTAIN = 1e50
"""Backgrounds over their errors beyond which these are as good as none; squares of larger ones overflow."""


def discovery_statistic(
    counted: Float[np.ndarray, "*shape"], background: Float[np.ndarray, "*shape"], error: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """q0 of arXiv:1007.1727: twice the log-likelihood ratio of the best signal to none, and 0 where there is no excess.

    Events counted, expected from background, and the standard error of the latter, all of one shape.

    Raises ValueError for counts that are negative, or backgrounds and errors that are not positive.
    """
    counted, background, error = (np.asarray(v, np.float64) for v in (counted, background, error))
    if not (np.isfinite(counted).all() and np.all(counted >= 0)):
        raise ValueError("counted events must be finite and not negative")
    if not all(np.isfinite(v).all() and np.all(v > 0) for v in (background, error)):
        raise ValueError("an expected background and its error must be finite and positive")
    counted = np.maximum(counted, background)
    measured = np.minimum(background / error, MOST_CERTAIN) ** 2
    # Written around the excess: differences of large logarithms would lose all digits where the error is small.
    pull = np.log1p((counted - background) / (background + measured))
    q0 = 2 * (xlogy(counted, counted / background) - (counted + measured) * pull)
    return np.asarray(np.maximum(q0, 0))


def local_p_value(statistic: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Chance of so large a q0 without signal where many events are counted (arXiv:1007.1727): 0.5 for no excess."""
    return np.asarray(norm.sf(np.sqrt(statistic)))
