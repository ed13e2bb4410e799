"""The same predictor on test jets that something was done to: standard shifts, and what they cost.

A predictor is fitted on the jets as they are and frozen; labels never change, and no jet is selected again after its
shift. Shapes: B jets, N slots.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from augmentations import AngularSmear, Chain, Jets, PileUp, PtShift, Resolution, Threshold, Transform
from jetclr import step
from jetclr.benchmark.results import Kind, Robustness
from jetclr.data.pipeline import Batch
from probes.metrics import Labels, Scores, evaluate_scores, paired_bootstrap

NOMINAL = "nominal"

OtherScores: TypeAlias = Float[np.ndarray, " _"]
OtherLabels: TypeAlias = Int[np.ndarray, " _"] | Bool[np.ndarray, " _"]
"""Of other jets than the B test jets."""

SHIFTS: Mapping[str, Transform] = MappingProxyType(
    {
        # The calorimeter of `jetclr generate --detector`, for charged constituents too, and angles to 10 mrad.
        "detector smearing": Chain(Resolution(stochastic=0.5, constant=0.05), AngularSmear(0.01)),
        # The 50 collisions of a crossing in the LHC's third run without the charged particles, which are half of all:
        # 50 GeV in a jet of radius 0.8.
        "pile-up": PileUp(vertices=25),
        # Between the threshold of tracks (0.5 GeV) and those of calorimeter cells in a busy event.
        "lost soft constituents": Threshold(pt_min=2.0),
        # Some times the few per cent to which jets are calibrated.
        "energy scale +5 %": PtShift(1.05),
    }
)
"""The standard shifts by name."""


def shifted(batch: Batch, shift: Transform, first: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """A padded batch with `shift` done to every jet: name -> [B, N] as it came, its constituents in no special order.

    A jet's randomness depends on `seed` and its number, which is `first` for the first jet, and on nothing else: not on
    how jets are batched. Slots to spare are filled by shifts that add constituents; the caller keeps the hardest.
    """
    numbers = first + np.arange(len(batch["pt"]), dtype=np.uint32)
    jets = _shifted(shift, jax.random.key(seed), numbers, step.to_jets(batch))
    return {name: np.asarray(x) for name, x in {"pt": jets.pt, "eta": jets.eta, "phi": jets.phi, **jets.extras}.items()}


@partial(jax.jit, static_argnums=0)
def _shifted(shift: Transform, key: Key[Array, ""], numbers: Array, jets: Jets) -> Jets:
    return jax.vmap(lambda number, one: shift(jax.random.fold_in(key, number), one))(jnp.asarray(numbers), jets)


def robustness_rows(
    representation: str,
    kind: Kind,
    probe: str,
    labels: Labels,
    nominal: Scores,
    shifts: Mapping[str, Scores],
    elsewhere: Mapping[str, tuple[OtherScores, OtherLabels]] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Robustness]:
    """AUC and R50 of one predictor on test jets as they are, after each shift, and on other jets, in this order.

    `shifts` are scores of the same jets, so the change in AUC is that over the same resampled jets (shifted minus
    nominal); `elsewhere` are scores and labels of other jets, such as another tune's, of which there is none. Intervals
    are 95 % and cover the finite number of jets. Raises ValueError for scores or labels that cannot be scored.
    """

    def row(shift: str, scores: OtherScores, truth: OtherLabels, *, paired: bool) -> Robustness:
        # The threshold is for the accuracy, which is not kept.
        found = evaluate_scores(scores, truth, threshold=0.0, resamples=resamples, seed=seed)
        change = paired_bootstrap(scores, nominal, truth, resamples=resamples, seed=seed).auc if paired else None
        return Robustness(representation, kind, probe, shift, found["auc"], found["r50"], change)

    return [
        row(NOMINAL, nominal, labels, paired=False),
        *(row(shift, scores, labels, paired=True) for shift, scores in shifts.items()),
        *(row(name, scores, truth, paired=False) for name, (scores, truth) in (elsewhere or {}).items()),
    ]
