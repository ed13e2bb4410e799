import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from augmentations import Chain, DarkLoss, Jets, Maybe, OneOf, Rotate
from jetclr import config as configs
from jetclr.config import Config, Data, Foreign
from jetclr.errors import UserError
from jetclr.features import Features
from jetclr.objectives import AnomCLR, NTXent
from tests.conftest import CONFIG
from tests.toys import toy_jet

ANOMALY_CONFIG = CONFIG.with_name("tiny_anomaly_config.py")
EVERY_CONFIG = sorted(Path("configs").glob("*.py"))


@dataclasses.dataclass(frozen=True)
class Mine:
    """A transform of a user's own."""

    strength: float = 0.5

    def __call__(self, key: jax.Array, jets: Jets) -> Jets:
        return jets


@pytest.mark.parametrize("path", [CONFIG, ANOMALY_CONFIG, *EVERY_CONFIG], ids=lambda p: p.name)
def test_a_config_survives_json(path: Path) -> None:
    config = configs.load(path)
    assert configs.from_json(configs.to_json(config), "here") == config


@pytest.mark.parametrize("path", EVERY_CONFIG, ids=lambda p: p.name)
def test_each_config_says_how_to_run_it(path: Path) -> None:
    assert f"jetclr pretrain configs/{path.name}" in path.read_text()


def test_nested_transforms_survive_json() -> None:
    view = Chain(Maybe(Chain(Rotate()), 0.25))
    config = Config(views=(view, view))
    assert configs.from_json(configs.to_json(config), "here").views == (view, view)


def test_objectives_and_anomalies_survive_json() -> None:
    anomalies = (OneOf((DarkLoss(0.1), Chain(Rotate()))), DarkLoss())
    for objective in (NTXent(0.3), AnomCLR(0.3), AnomCLR(0.3, others=True)):
        config = Config(anomalies=anomalies, objective=objective)
        assert configs.from_json(configs.to_json(config), "here") == config
    # As runs were written before there was more than one objective.
    described = configs.to_dict(Config(objective=NTXent(0.3)))
    assert described["objective"] == {"temperature": 0.3}
    del described["anomalies"]
    assert configs.from_json(json.dumps(described), "here") == Config(objective=NTXent(0.3))


def test_another_objective_is_another_trajectory() -> None:
    old, new = (Config(anomalies=(DarkLoss(),), objective=objective(0.3)) for objective in (NTXent, AnomCLR))
    lines = configs.differences(configs.to_dict(old), configs.to_dict(new))
    assert lines == ['objective.type: null -> "AnomCLR"', "objective.others: null -> false"]


def test_an_objective_that_needs_anomalies_is_refused_without() -> None:
    with pytest.raises(ValueError, match=r"AnomCLR, which needs Config\.anomalies"):
        Config(objective=AnomCLR())


def test_a_transform_of_ones_own_comes_back_as_a_record_that_runs_nothing() -> None:
    config = Config(views=(Mine(0.1), Chain(Mine())))
    back = configs.from_json(configs.to_json(config), "here")
    assert back.views[0] == Foreign(f"{__name__}.Mine", {"strength": 0.1})
    assert configs.to_json(back) == configs.to_json(config)
    with pytest.raises(UserError, match="is not part of augmentations"):
        back.views[0](jax.random.key(0), toy_jet(0))


@pytest.mark.parametrize("name", ["os.system", "Jets", "batched", "make_jets", "__init__", "jetclr.cli.main"])
def test_json_cannot_make_anything_but_transforms(name: str) -> None:
    described = configs.to_dict(Config()) | {"views": [{"type": name}, {"type": name}]}
    assert isinstance(configs.from_json(json.dumps(described), "here").views[0], Foreign)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stepps": 3}, "Config has no field 'stepps'; did you mean 'steps'"),
        ({"optim": {"peak_rl": 1}}, "Optim has no field 'peak_rl'; did you mean 'peak_lr'"),
        ({"steps": "ten"}, "steps is 'ten'; it must be of type int"),
        ({"steps": True}, "steps is True"),
        ({"steps": -1}, "Config.steps is -1"),
        ({"steps": 2**31}, "Config.steps is 2147483648; it must be below 2^31"),
        ({"encoder": {"attention": "flash"}}, "encoder.attention is 'flash'; known are pt, plain"),
        ({"objective": {"type": "NTXnet"}}, "objective.type is 'NTXnet'; known are NTXent, AnomCLR"),
        ({"objective": {"type": []}}, "objective.type is []; known are"),
        ({"objective": {"type": "AnomCLR", "other": True}}, "AnomCLR has no field 'other'; did you mean 'others'"),
        ({"objective": {"type": "AnomCLR"}}, "Config.objective is AnomCLR, which needs Config.anomalies"),
        ({"objective": 0.1}, "objective is 0.1; it must hold the fields of one of NTXent, AnomCLR"),
        ({"anomalies": {"type": "DarkLoss"}}, "it must be a list"),
        ({"views": [{"type": "Rotate"}]}, "Config.views has 1; an objective compares two or more"),
        ({"views": [{"type": "Rotate", "angle": 1}, {"type": "Rotate"}]}, "Rotate has no field 'angle'"),
        ({"data": {"train": "a"}}, "data.train is 'a'; it must be a list"),
        ({"data": [1]}, "it must hold the fields of Data"),
    ],
)
def test_json_that_does_not_fit_is_named(change: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match="is not a config") as caught:
        configs.from_json(json.dumps(change), "here")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from jetclr.config import *\nconfig = Config(steps=0)", "Config.steps is 0; it must be positive"),
        ("config = 3", "must set `config = Config(...)`; it sets int"),
        ("config = (", "SyntaxError"),
        ("a = {}\n\nconfig = a['b']", "bad.py, line 3: KeyError: 'b'"),
        ("1 / 0", "bad.py, line 1: ZeroDivisionError"),
        ("import nothing_of_this_name", "No module named"),
    ],
)
def test_a_faulty_config_file_gets_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(UserError) as caught:
        configs.load(tmp_path / "bad.py")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("config = Config(data=Data(trian=()))", "bad.py: Data has no field 'trian'; did you mean 'train'?"),
        ("Config(objective=AnomCLR(other=True))", "bad.py: AnomCLR has no field 'other'; did you mean 'others'"),
        ("Rotate(angle=2)", "bad.py: Rotate has no field 'angle'; it has "),
    ],
)
def test_an_unknown_field_in_a_config_file_gets_the_nearest_known(tmp_path: Path, text: str, says: str) -> None:
    """In a process of its own: the type checker of this session words Python's error in its own way."""
    bad = tmp_path / "bad.py"
    bad.write_text(
        f"from augmentations import *\nfrom jetclr.config import *\nfrom jetclr.objectives import *\n{text}\n"
    )
    command = [sys.executable, "-m", "jetclr.cli", "pretrain", str(bad), "--workdir", str(tmp_path / "r")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no config file"):
        configs.load(tmp_path / "none.py")
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UserError, match=r"neither a \.py config file nor a config\.json"):
        configs.load(tmp_path / "config.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 100_000, b'{"optim": {"peak_lr": 1' + b"0" * 400 + b"}}"])
def test_json_from_a_stranger_gets_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="is not a config"):
        configs.load(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fraction": 0.0}, r"Data\.fraction is 0\.0; it must lie in \(0, 1\]"),
        ({"shares": (1.0, -1.0)}, r"Data\.shares is .*; they may not be negative"),
        ({"shares": (0.0, 0.0)}, "nor all be zero"),
        ({"extras": ("d0", "pt")}, r"Data\.extras is .* pt, eta and phi always are"),
        ({"extras": ("d0", "d0")}, "they are read once each"),
        ({"buckets": (16, 8)}, r"Data\.buckets is \(16, 8\); they must rise, between 0 and Data\.constituents 50"),
        ({"buckets": (0, 8)}, "they must rise"),
        ({"buckets": (8, 50)}, "they must rise"),
        ({"constituents": 2**16 + 1}, r"Data\.constituents is 65537 and Data\.slots 0; 65536 are the most"),
        ({"slots": 10**12}, "65536 are the most"),
    ],
)
def test_data_that_cannot_be_read_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Data(**settings)


def test_settings_that_need_each_other_are_checked_together() -> None:
    with pytest.raises(ValueError, match=r"Config\.batch is 36; with Data\.buckets it must be a multiple of 8"):
        Config(data=Data(buckets=(16,)), batch=36)
    features = Features(("z", "d0", "muon"))
    with pytest.raises(ValueError, match=r"the feature 'muon' needs 'type' in Data\.extras, which is \('d0',\)"):
        Config(data=Data(extras=("d0",)), features=features)
    config = Config(data=Data(extras=("d0", "type"), shares=(1.0, 2.0), buckets=(16, 32)), features=features)
    assert configs.from_json(configs.to_json(config), "here") == config


def test_differences_name_the_settings_that_change_the_trajectory() -> None:
    old = Config(data=Data(train=("a",)))
    new = dataclasses.replace(old, seed=2, data=Data(train=("b",)), log=configs.Log(every=3))
    lines = configs.differences(configs.to_dict(old), configs.to_dict(new))
    assert lines == ['data.train: ["a"] -> ["b"]', "seed: 0 -> 2"]
