"""Weights that make classes equally frequent and spectra flat: found from some jets, given to any. Numpy only.

Shape glossary: J jets, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from jetclr.errors import UserError

FLAT_BINS = 50
FLAT_RANGE = (0.001, 0.999)
"""Quantiles between which a spectrum is made flat."""
MOST_DRAWS = 20.0
"""A flat spectrum gives no jet more than so many times the average."""
MOST_CLASSES = 1000
"""A column with more values is none of classes."""


@dataclass(frozen=True)
class FlatSpectrum:
    """Weights, mean one over the jets it was found from, with which the spectrum of a column is flat.

    In equal bins between the 0.1 % and 99.9 % quantiles; integers in bins of whole numbers. A jet outside gets the
    weight of the edge bin, and none more than `most`, which must be above 1: bins with so few jets that they would
    need it stay below the others.
    """

    low: float
    width: float
    weights: Float64[np.ndarray, " bins"]

    @classmethod
    def fit(cls, values: Shaped[np.ndarray, " J"], bins: int = FLAT_BINS, most: float = MOST_DRAWS) -> "FlatSpectrum":
        """The weights that flatten `values`, at least one."""
        whole = values.dtype.kind in "iub"
        low, high = (float(x) for x in np.quantile(values.astype(np.float64), FLAT_RANGE, method="inverted_cdf"))
        if low == high:
            return cls(low, 1.0, np.ones(1))
        width = float(np.ceil((high - low + 1) / bins) if whole else (high - low) / bins)
        number = int(np.ceil((high - low + 1) / width)) if whole else bins
        at = _bin(values, low, width, number)
        inside = np.bincount(at[(values >= low) & (values <= high)], minlength=number)
        extent = np.full(number, width)
        if whole:
            extent[-1] = high - low + 1 - (number - 1) * width
        wanted = np.divide(extent, inside, out=np.zeros(number), where=inside > 0)
        return cls(low, width, _capped(wanted, np.bincount(at, minlength=number), most))

    def __call__(self, values: Shaped[np.ndarray, " J"]) -> Float64[np.ndarray, " J"]:
        """The weight of each jet."""
        return self.weights[_bin(values, self.low, self.width, len(self.weights))]


def _bin(values: Shaped[np.ndarray, " J"], low: float, width: float, bins: int) -> Int64[np.ndarray, " J"]:
    return np.clip((values - low) / width, 0, bins - 1).astype(np.int64)


def _capped(
    wanted: Float64[np.ndarray, " bins"], jets: Int64[np.ndarray, " bins"], most: float
) -> Float64[np.ndarray, " bins"]:
    """Weights of bins in the proportions `wanted`, but at most `most`, with mean one over all `jets`."""
    full = np.zeros(len(wanted), bool)
    while True:
        left = jets.sum() - most * jets[full].sum()
        weights = np.where(full, most, wanted * left / (jets * wanted)[~full].sum())
        if not (weights > most).any():
            return weights
        full |= weights > most


@dataclass(frozen=True)
class Weighting:
    """Weights by the columns `balance` (equally frequent values) and `flat` (a flat spectrum within each of them).

    "" leaves either out. Mean one over the jets that it was found from.
    """

    balance: str
    flat: str
    classes: Shaped[np.ndarray, " K"]
    spectra: tuple[FlatSpectrum, ...]  # one a class; none without `flat`
    scales: Float64[np.ndarray, " K"]

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, np.ndarray],
        *,
        balance: str = "",
        flat: str = "",
        weight: Float64[np.ndarray, " J"] | None = None,
    ) -> "Weighting":
        """The weighting for jets of jet-level columns [J] that have the weights `weight` besides (all positive; or 1).

        Raises UserError for a column that is not there or not finite, and for one of too many values to balance.
        """
        for name in filter(None, (balance, flat)):
            if name not in columns:
                raise UserError(f"there is no column {name!r} to weight jets by; there is {', '.join(columns)}")
            if columns[name].dtype.kind not in "biuf":
                raise UserError(f"the column {name!r} holds no numbers, so jets cannot be weighted by it")
            if not np.isfinite(columns[name]).all():
                raise UserError(f"the column {name!r} is not finite for every jet, so jets cannot be weighted by it")
        jets = len(next(iter(columns.values()))) if weight is None else len(weight)
        weights = np.ones(jets) if weight is None else weight
        classes, of = (np.zeros(1), np.zeros(jets, np.int64)) if not balance else classes_of(columns[balance], balance)
        spectra, scales = [], np.zeros(len(classes))
        for number in range(len(classes)):
            rows = of == number
            found = weights[rows]
            if flat:
                spectra.append(FlatSpectrum.fit(columns[flat][rows]))
                found = found * spectra[-1](columns[flat][rows])
            scales[number] = jets / len(classes) / found.sum()
        return cls(balance, flat, classes, tuple(spectra), scales)

    def __call__(self, columns: Mapping[str, np.ndarray]) -> Float64[np.ndarray, " J"]:
        """The weight of each jet; a class that was not among those it was found from is refused as a ValueError."""
        jets = len(next(iter(columns.values())))
        of = np.searchsorted(self.classes, columns[self.balance]) if self.balance else np.zeros(jets, np.int64)
        if self.balance and not np.array_equal(
            self.classes[np.minimum(of, len(self.classes) - 1)], columns[self.balance]
        ):
            raise ValueError(f"column {self.balance!r} has values that are not known")
        weights = self.scales[of]
        for number, spectrum in enumerate(self.spectra):
            rows = of == number
            weights[rows] *= spectrum(columns[self.flat][rows])
        return weights


def classes_of(values: Shaped[np.ndarray, " J"], name: str) -> tuple[Shaped[np.ndarray, " K"], Int64[np.ndarray, " J"]]:
    """The values there are in column `name`, ascending, and which each jet has; raises UserError for too many."""
    classes, of = np.unique(values, return_inverse=True)
    if len(classes) > MOST_CLASSES:
        raise UserError(
            f"the column {name!r} has {len(classes):,} values, too many to be equally frequent; to flatten a "
            "spectrum use `flat`"
        )
    return classes, of
