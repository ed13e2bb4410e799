import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from augmentations import Chain, Maybe, Rotate, SoftLoss
from jetclr import config as configs
from jetclr.config import Config, Foreign
from jetclr.data.store import Store, StoreWriter, write_json
from jetclr.errors import UserError
from jetclr.export import calling, facts, models
from jetclr.export.card import make_card, published
from jetclr.export.flavors import FLAVORS, FlavorName
from jetclr.export.folder import CARD_JSON, read_card
from jetclr.export.graph import Frozen, Tail
from jetclr.export.onnx_file import to_onnx
from jetclr.export.page import to_markdown
from jetclr.features import Features
from jetclr.run import Run, open_run, parameters_sha256
from tests.toys import toy_chunk

DIFFERENCES = {
    "limits": {"embedding": 1e-5, "score_mahalanobis": 1e-4},
    "jets": {"random": 64, "real": 256},
    "differences": {"onnxruntime": {"random": {"embedding": 2e-6}, "real": {"embedding": 3e-6}}},
    "versions": {"onnxruntime": "1.31.1"},
    "real_jets_of": ["test|2"],
    "rounding": {"random": 1e-3},
    "not_run": "PyTorch is not installed here",
}
ESTIMATE = {"value": 0.97, "low": 0.96, "high": 0.98, "is_lower_bound": False}
BOUND = {"value": 318.4, "low": 318.4, "high": None, "is_lower_bound": True}


def card_of(
    run: Run, frozen: Frozen | None = None, *, to: str = "onnx", flavor: FlavorName = "batch", **more: Any
) -> dict[str, Any]:
    kinds: dict[str, Any] = {"name": "m", "dtype": "f32", "files": {"model": f"m.{to}"}, "jets": None}
    frozen = frozen or Frozen(run.config, run.params)
    return make_card(run, frozen, FLAVORS[flavor], to=to, **(kinds | {"verification": DIFFERENCES} | more))


@pytest.fixture(scope="module")
def opened(run: Path) -> Run:
    return open_run(run)


@pytest.fixture(scope="module")
def card(opened: Run, stores: dict[str, Path]) -> dict[str, Any]:
    read = Store(stores["test"]).gather(np.arange(64), opened.config.data.constituents)
    with pytest.MonkeyPatch.context() as patch:  # all of them are compiled where a run is exported
        patch.setattr(facts, "CHANGES", facts.CHANGES[:2])
        return card_of(opened, jets=read | {"mask": (read["pt"] > 0).astype(np.float32)})


def test_the_card_is_json_and_says_what_the_model_is(card: dict[str, Any], opened: Run) -> None:
    again = json.loads(json.dumps(card, allow_nan=False))
    assert again == card
    assert (card["format"], card["format_version"], card["to"], card["flavor"]) == ("jetclr export", 1, "onnx", "batch")
    assert [one["name"] for one in card["inputs"]] == ["pt", "eta", "phi", "mask"]
    assert card["outputs"] == [{"name": "embedding", "shape": ["B", 56], "meaning": card["outputs"][0]["meaning"]}]
    assert (card["constituents"], card["step"], card["license"]) == (16, 8, "not stated")
    assert card["parameters_sha256"] == parameters_sha256(opened.params)
    assert card["parameters"] == sum(x.size for x in jax.tree.leaves(opened.params))


def test_the_settings_rebuild_the_encoder_and_name_no_folder(card: dict[str, Any], opened: Run) -> None:
    rebuilt = configs.from_json(json.dumps(card["config"]), "the card")
    assert rebuilt.data.train == ("train",)
    assert published(rebuilt) == rebuilt == published(opened.config)
    assert dataclasses.replace(rebuilt, data=opened.config.data) == opened.config
    for text in (json.dumps(card), to_markdown(card)):
        assert str(opened.path.parent) not in text
        assert not re.search(r"/(tmp|home|work|root)/", text)


def test_stores_are_told_of_as_far_as_they_are_known(card: dict[str, Any], stores: dict[str, Path]) -> None:
    (one,) = card["data"]["stores"]
    assert (one["name"], one["jets"], one["labels"]) == ("train", 600, {"0": "QCD", "1": "top"})
    pt = np.sort(Store(stores["train"]).column("jet_pt"))
    assert pt[0] <= one["columns"]["jet_pt"]["low"] < one["columns"]["jet_pt"]["high"] <= pt[-1]
    text = to_markdown(card)
    assert "| train | 600 | QCD, top |" in text
    assert "licence: not stated in the store" in text
    assert "of a radius that is not recorded" in text


def test_a_recorded_origin_is_told_and_a_missing_store_is_not_invented(opened: Run, tmp_path: Path) -> None:
    source = {
        "recipe": "hadronic top quarks",
        "window": {"radius": 0.8, "pt_min": 550.0},
        "algorithm": "anti-kT",
        "mpi": False,
        "versions": {"pythia8mc": "8.3"},
        "license": "CC-BY-4.0",
        "command": f"jetclr generate {tmp_path}",
        "sources": [{"file": "/private/a.h5"}],
    }
    with StoreWriter(tmp_path / "a|b", source) as writer:
        writer.append(toy_chunk(np.random.default_rng(0), 50))
    train = (str(tmp_path / "a|b"), str(tmp_path / "gone"))
    config = dataclasses.replace(opened.config, data=dataclasses.replace(opened.config.data, train=train))
    found = card_of(opened._replace(config=config), Frozen(config, opened.params))
    assert [one["jets"] for one in found["data"]["stores"]] == [50, None]
    assert found["data"]["jets"] is None
    text = to_markdown(found)
    for told in (
        "simulated: hadronic top quarks; anti-kT; radius = 0.8; pt\\_min = 550.0; without multiple interactions",
        "licence: CC-BY-4.0",
        "a\\|b",
        "gone: not found when the card was written; where its jets come from is not known",
        "The pT of the jets that it learnt from is not known",
    ):
        assert told in text
    assert str(tmp_path) not in json.dumps(found) + text
    assert "/private" not in json.dumps(found)
    known = card_of(
        opened._replace(config=dataclasses.replace(config, data=dataclasses.replace(config.data, train=train[:1])))
    )
    assert "of R = 0.8;" in known["limits"][0]


def test_changes_that_the_encoder_is_blind_to_are_seen_to_be_none(card: dict[str, Any]) -> None:
    found = card["invariances"]
    assert found["layer"] == "embedding"
    assert found["jets"] == 64
    assert list(found["changes"]) == [change.name for change in facts.CHANGES[:2]]
    for one in (*found["changes"].values(), found["between"]):
        assert -1 - 1e-9 <= one["low"] <= one["high"] <= 1 + 1e-9
    # With Features.center a moved jet is the same to the network, apart from rounding.
    assert found["changes"]["moved by 0.5 in (eta, phi)"]["mean"] > 0.999
    # Centred embeddings of B jets have a mean cosine of about -1 / (B - 1).
    assert abs(found["between"]["mean"]) < 0.3
    assert found["changes"]["turned about its axis by any angle"]["mean"] > found["between"]["mean"]


def test_without_jets_or_layers_nothing_is_measured(opened: Run) -> None:
    frozen = Frozen(opened.config, opened.params)
    assert "no real jets" in facts.invariances_of(frozen, None)["note"]
    score = Tail("score", "embedding", lambda x: x[:, 0], lambda x: x[:, 0], "one of 56 numbers", 1e-4)
    alone = Frozen(opened.config, opened.params, (), (score,))
    blank = dict.fromkeys(("pt", "eta", "phi", "mask"), np.ones((3, 16), np.float32))
    assert "no layer" in facts.invariances_of(alone, blank)["note"]
    assert "fewer than two" in facts.invariances_of(frozen, {k: x[:1] for k, x in blank.items()})["note"]
    found = card_of(opened, alone)
    assert found["outputs"] == [{"name": "score", "shape": ["B"], "meaning": "one of 56 numbers"}]
    assert "`score` (a score)" in to_markdown(found)


def probe_file(run: Run, /, **more: Any) -> Run:
    """The run with a file of probes, measured at step 8."""
    one = dict.fromkeys(("auc", "accuracy"), ESTIMATE) | {
        "r30": BOUND,
        "r50": ESTIMATE,
        "roc": {"eps_s": [], "eps_b": []},
    }
    names = ("trained embedding", "untrained embedding", "trained layer_1", "raw constituents")
    against = {"logistic": {"auc": ESTIMATE, "auc_p_value": 0.001}}
    found = {"run": "runs/run", "step": 8, "train": ["/stores/val"], "test": ["/stores/test"]}
    found |= {"jets": {"train": 10, "test": 20}, "results": {name: {"logistic": one} for name in names}}
    write_json(run.path / "probe.json", found | {"trained_minus_untrained": against} | more)
    return run


def test_results_are_those_of_the_exported_layers_and_warn(opened: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = opened._replace(path=tmp_path / "run")
    assert "has no probe.json" in card_of(run)["results"]["note"]
    found = card_of(probe_file(run))
    assert list(found["results"]["measured"]) == ["trained embedding", "untrained embedding", "raw constituents"]
    assert found["results"]["warnings"] == []
    text = to_markdown(found)
    assert "| trained embedding | logistic | 0.9700 [0.9600, 0.9800] | 0.9700 [0.9600, 0.9800] | >318 |" in text
    assert "fitted on 10 labelled jets of val and measured on 20 of test, at step 8" in text
    assert "AUC +0.9700 [+0.9600, +0.9800], p = 0.001" in text
    for more, says in (
        ({"step": 4}, "measured at step 4 and not at step 8, which was exported"),
        ({"train": ["/stores/test"]}, "some test jets were fitted or pretrained on"),
        ({"test": list(run.config.data.train)}, "some test jets were fitted or pretrained on"),
        ({"run": "runs/other"}, "measured on a run that was called other then"),
    ):
        assert f"**Mind: {says}.**" in to_markdown(card_of(probe_file(run, **more)))
    jetless = (probe_file(run, jets={"train": "many", "test": 20}).path / "probe.json").read_text()
    for broken in ("[]", "{", '{"results": {}}', jetless):
        (run.path / "probe.json").write_text(broken)
        assert "cannot be read" in card_of(run)["results"]["note"]


def test_limits_are_those_of_the_encoder(opened: Run) -> None:
    def limits(**features: Any) -> str:
        config = dataclasses.replace(opened.config, features=Features(**features))
        return " ".join(card_of(opened, Frozen(config, opened.params))["limits"])

    assert "may be absolute or relative" in limits()
    assert "own pT and direction are not in it" in limits()
    assert "own pT" not in limits(columns=("z", "log_z", "eta", "phi", "log_pt"))
    assert "eta and phi are used as they are" in limits(center=False)
    assert "Rotate, Translate, SoftSmear, SoftLoss, CollinearSplit, PtScale" in limits()
    assert "six months" in " ".join(card_of(opened, to="stablehlo")["limits"])
    assert "half precision" in " ".join(card_of(opened, dtype="f16")["limits"])
    view = Chain(Rotate(), Maybe(Chain(SoftLoss(), Foreign("mine.Turn", {}))))
    assert facts.transforms(view) == ["Rotate", "SoftLoss", "mine.Turn"]


@pytest.mark.parametrize("to", ["onnx", "stablehlo", "safetensors", "torch"])
@pytest.mark.parametrize("flavor", ["batch", "cms", "atlas"])
def test_the_page_holds_whole_programs_and_tables(opened: Run, to: str, flavor: FlavorName) -> None:
    if flavor != "batch" and to != "onnx":
        return
    found = card_of(opened, to=to, flavor=flavor)
    text = to_markdown(found)
    for program in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(program, "card", "exec")
    rows = [line for line in text.split("\n") if line.startswith("|")]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert sum(table.count("\n") for table in tables) == len(rows) > 20
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().split("\n")}) == 1
    assert "\n\n\n" not in text
    assert "onnxruntime 1.31.1 | 256 real jets of test\\|2 | embedding | 3.0e-06" in text
    assert found["outputs"][0]["shape"][0] == (1 if flavor == "atlas" else "B")


@pytest.mark.parametrize("flavor", ["batch", "atlas"])
def test_the_program_on_the_page_runs(
    opened: Run, flavor: FlavorName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = Frozen(opened.config, opened.params)
    (tmp_path / "m.onnx").write_bytes(to_onnx(frozen, FLAVORS[flavor], "m", {}))
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(calling.snippet(card_of(opened, flavor=flavor)), found)
    jet = [np.array([v], np.float32) for v in ([210.0, 90.5, 3.2], [0.1, -0.25, 0.31], [3.02, 3.14, -3.05])]
    want = models.in_jax(frozen).call(dict(zip(("pt", "eta", "phi"), jet, strict=True)))
    np.testing.assert_allclose(found["embedding"], want["embedding"], atol=1e-5)


def test_views_are_written_as_one_writes_them(opened: Run) -> None:
    views = configs.to_dict(opened.config)["views"]
    assert calling.call(views[0]) == (
        "Chain(Rotate(), Translate(extents=1.0), SoftSmear(scale=0.1, floor=0.1), "
        "Maybe(transform=SoftLoss(scale=2.0, most=1.0), probability=0.5))"
    )


def bad(card: dict[str, Any], **changes: Any) -> str:
    return json.dumps({name: x for name, x in (card | changes).items() if x is not ...})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other"}, "is not the card of an export by jetclr"),
        ({"format_version": 2}, "has format version 2; this program reads 1"),
        ({"to": "pickle"}, "'to' is 'pickle'; known are onnx"),
        ({"flavor": ...}, "'flavor' is missing"),
        ({"step": "8"}, "'step' is '8'"),
        ({"files": {"model": "../m.onnx"}}, "a file outside the folder: '../m.onnx'"),
        ({"files": {"model": "/etc/passwd"}}, "a file outside the folder"),
        ({"files": {"model": "m.onnx", "module": "..\\a"}}, "a file outside the folder"),
        ({"files": {"model": ".."}}, "a file outside the folder"),
        ({"files": {"model": 3}}, "a file outside the folder"),
        ({"files": {"model": "m" * 256}}, "a file outside the folder"),
        ({"files": {"weights": "m.onnx"}}, "it names no model"),
        ({"outputs": []}, "the outputs are none"),
        ({"outputs": [{"name": "e", "shape": ["B", -1]}]}, "an output is"),
        ({"outputs": [{"name": "e", "shape": ["B", 4]}] * 2}, "the outputs are e, e"),
    ],
)
def test_a_card_that_cannot_be_used_gets_one_sentence(
    card: dict[str, Any], changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    (tmp_path / CARD_JSON).write_text(bad(card, **changes))
    with pytest.raises(UserError, match=re.escape(says)):
        read_card(tmp_path)


def test_a_card_is_read_as_it_was_written(card: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not an exported folder: it has no model_card"):
        read_card(tmp_path)
    write_json(tmp_path / CARD_JSON, card)
    assert read_card(tmp_path) == card
    for text in ("{", "[]", "\x00", "[" * 100_000):
        (tmp_path / CARD_JSON).write_text(text)
        with pytest.raises(UserError, match=r"is damaged|is not the card"):
            read_card(tmp_path)


def test_an_empty_config_has_a_card_too(tmp_path: Path, opened: Run) -> None:
    config = dataclasses.replace(opened.config, data=dataclasses.replace(Config().data, constituents=16))
    found = card_of(Run(tmp_path, config, opened.params, 8), Frozen(config, opened.params), verification={})
    text = to_markdown(found)
    assert "Not known." in text
    assert "Not measured." in text
