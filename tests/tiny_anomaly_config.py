"""The smallest run with anomalous views; used by the tests only."""

from dataclasses import replace

from augmentations import AngularScale, Chain, DarkLoss, Rotate
from jetclr.objectives import AnomCLR
from tests import tiny_config

config = replace(
    tiny_config.config,
    anomalies=(Chain(DarkLoss(), Rotate()), AngularScale()),
    objective=AnomCLR(temperature=0.2, others=True),
)
