"""Objectives in configs: kept as JSON, changed by flags, and refused where something is missing."""

import json
from pathlib import Path

import pytest
import tyro

from augmentations import DarkLoss
from jetclr import config as configs
from jetclr.config import Config
from jetclr.errors import UserError
from jetclr.objectives import BYOL, IBOT, Combined, MaskedParticles, MoCo, NTXent, SupCon, Term, VICReg
from tests.jetclr.objectives.test_training import EVERY

BOTH = Combined((Term(1.0, NTXent(0.3)), Term(0.5, MaskedParticles(target="values"))))


def test_each_survives_json() -> None:
    for objective in (*EVERY, BOTH, Combined((Term(1.0, BOTH.terms[1].objective), Term(2.0, IBOT())))):
        config = Config(objective=objective, average=0.9)
        assert configs.from_json(configs.to_json(config), "here") == config
    first, second = configs.to_dict(Config(objective=BOTH))["objective"]["terms"]
    assert first == {"weight": 1.0, "objective": {"temperature": 0.3}}
    assert second["objective"]["type"] == "MaskedParticles"


def test_another_weight_is_another_trajectory() -> None:
    other = Combined((BOTH.terms[0], Term(0.7, BOTH.terms[1].objective)))
    lines = configs.differences(*(configs.to_dict(Config(objective=objective)) for objective in (BOTH, other)))
    assert len(lines) == 1
    assert lines[0].startswith("objective.terms: ")


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({"type": "Combined"}, "terms"),
        ({"type": "Combined", "terms": []}, "Combined.terms has 0; a sum takes two or more"),
        ({"type": "Combined", "terms": [{"weight": 1.0, "objective": {"type": "os.system"}}]}, "known are NTXent"),
        ({"type": "Combined", "terms": [{"wieght": 1.0}]}, "Term has no field 'wieght'; did you mean 'weight'"),
        ({"type": "MaskedParticles", "target": "colours"}, "objective.target is 'colours'; known are codes, values"),
        ({"type": "IBOT", "share": 2.0}, "IBOT.share is 2.0; it must lie in [0, 1)"),
        ({"type": "MoCo"}, "Config.objective is MoCo, which has a running mean for a teacher; set Config.average"),
    ],
)
def test_json_that_does_not_fit_is_named(described: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match="is not a config") as caught:
        configs.from_json(json.dumps({"objective": described}), "here")
    assert says in str(caught.value)


@pytest.mark.parametrize("objective", [BYOL(), IBOT(), MoCo(), Combined((Term(1.0, VICReg()), Term(1.0, BYOL())))])
def test_a_teacher_needs_a_running_mean(objective: configs.Objective) -> None:
    with pytest.raises(ValueError, match=r"has a running mean for a teacher; set Config\.average"):
        Config(objective=objective)


@pytest.mark.parametrize("objective", [VICReg(), SupCon(), Combined((Term(1.0, VICReg()), Term(1.0, SupCon())))])
def test_anomalies_that_nothing_is_made_of_are_refused(objective: configs.Objective) -> None:
    with pytest.raises(ValueError, match=r"which makes nothing of Config\.anomalies; leave them out"):
        Config(objective=objective, anomalies=(DarkLoss(),))


def test_weights_and_settings_of_terms_are_flags(tmp_path: Path) -> None:

    path = tmp_path / "both.json"
    path.write_text(configs.to_json(Config(objective=BOTH)))
    flags = ["--objective.terms.1.weight", "0.1", "--objective.terms.0.objective.temperature", "0.2"]
    chosen = tyro.cli(Config, default=configs.load(path), args=flags)
    assert chosen.objective == Combined((Term(1.0, NTXent(0.2)), Term(0.1, BOTH.terms[1].objective)))
