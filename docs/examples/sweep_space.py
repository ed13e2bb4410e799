"""A search over the strength of two augmentations, the temperature and the learning rate.

jetclr sweep CONFIG --space docs/examples/sweep_space.py --workdir FOLDER
"""

from dataclasses import replace
from typing import Any

from augmentations import Chain, CollinearSplit, PtSmear, Rotate, SoftSmear
from jetclr.config import Config
from jetclr.objectives import NTXent


def space(trial: Any, config: Config) -> Config:
    """The settings of one trial: `trial` is Optuna's."""
    view = Chain(
        Rotate(),
        SoftSmear(scale=trial.suggest_float("soft_scale", 0.1, 3.0, log=True)),
        PtSmear(width=trial.suggest_float("pt_width", 0.0, 0.4)),
        CollinearSplit(),
    )
    return replace(
        config,
        views=(view, view),
        objective=NTXent(temperature=trial.suggest_float("temperature", 0.05, 0.5, log=True)),
        optim=replace(config.optim, peak_lr=trial.suggest_float("peak_lr", 2e-4, 5e-3, log=True)),
    )
