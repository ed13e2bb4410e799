import json
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import awkward as ak
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import export

import jetclr
from jetclr import constituents, loaded
from jetclr.config import Config, Data
from jetclr.data.store import Store, write_json
from jetclr.embed import embed_jets
from jetclr.encoder import Encoder, Head
from jetclr.export import models
from jetclr.export.card import make_card
from jetclr.export.flavors import FLAVORS
from jetclr.export.folder import CARD_JSON
from jetclr.export.graph import Frozen, Tail
from jetclr.export.onnx_file import to_onnx
from jetclr.export.stablehlo import to_stablehlo
from jetclr.export.tensors import save_tensors
from jetclr.features import Features
from jetclr.run import Run, open_run
from jetclr.step import init_params

NETWORK = {"encoder": Encoder(8, 1, 2, 8, wide=4), "head": Head((4,), 4)}
KINDS = ("onnx-batch", "onnx-cms", "onnx-atlas", "stablehlo-batch", "safetensors-batch")
JETS = 40


def write_export(folder: Path, run: Run, frozen: Frozen, kind: str) -> Path:
    """An exported folder with the card that belongs to it, without the checks of `jetclr export`."""
    to, flavor = kind.split("-")
    folder.mkdir()
    made = FLAVORS[flavor]  # type: ignore[index]
    if to == "onnx":
        (folder / "m.onnx").write_bytes(to_onnx(frozen, made, "m", {}))
    elif to == "stablehlo":
        (folder / "m.stablehlo").write_bytes(to_stablehlo(frozen, made))
    else:
        save_tensors(folder / "m.safetensors", frozen, {})
    facts: dict[str, Any] = {"to": to, "name": "m", "dtype": "f32", "files": {"model": f"m.{to}"}}
    write_json(folder / CARD_JSON, make_card(run, frozen, made, **facts, jets=None, verification={}))
    return folder


@pytest.fixture(scope="module")
def opened(run: Path) -> Run:
    return open_run(run)


class WithGradient:
    """As a tensor of PyTorch that requires one."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("Can't call numpy()")


@pytest.fixture(scope="module")
def exports(opened: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of KINDS; those with a graph also give a score, the sum of the embedding."""
    tail = Tail("total", "embedding", lambda x: x.sum(axis=1), lambda x: x.sum(axis=1), "sum of the embedding", 1e-4)
    found = {}
    for kind in KINDS:
        tails = () if kind.startswith("safetensors") else (tail,)
        frozen = Frozen(opened.config, opened.params, ("embedding", "layer_1"), tails)
        found[kind] = write_export(tmp_path_factory.mktemp("export") / kind, opened, frozen, kind)
    return found


@pytest.fixture(scope="module")
def encoder(run: Path) -> loaded.FrozenEncoder:
    return jetclr.load(run, layers=("embedding", "layer_1"))


@pytest.fixture(scope="module")
def jets(stores: dict[str, Path]) -> dict[str, np.ndarray]:
    """All constituents of JETS jets, up to 30: more than the 16 that the encoder sees."""
    return Store(stores["test"]).gather(np.arange(JETS), 30)


@pytest.fixture(scope="module")
def expected(opened: Run, stores: dict[str, Path]) -> Mapping[str, np.ndarray]:
    return embed_jets(opened.config, opened.params, Store(stores["test"]), np.arange(JETS), ("embedding", "layer_1"))


def as_awkward(jets: dict[str, np.ndarray]) -> ak.Array:
    return ak.zip({name: ak.drop_none(ak.mask(ak.Array(x), jets["pt"] > 0)) for name, x in jets.items()})


def test_a_run_gives_the_numbers_of_jetclr_embed(
    encoder: loaded.FrozenEncoder, jets: dict[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> None:
    for found in (encoder.outputs(**jets), encoder.embed_outputs(as_awkward(jets))):
        assert list(found) == ["embedding", "layer_1"]
        for name, x in found.items():
            np.testing.assert_allclose(x, expected[name], atol=1e-5)
    np.testing.assert_array_equal(encoder(**jets), encoder.outputs(**jets)["embedding"])
    assert encoder.width == expected["embedding"].shape[1] == 56
    assert (encoder.layers, encoder.scores, encoder.columns) == (("embedding", "layer_1"), (), ("pt", "eta", "phi"))
    assert (encoder.constituents, encoder.step, encoder.card) == (16, 8, None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_export_gives_the_numbers_of_its_run(
    exports: dict[str, Path], kind: str, jets: dict[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> None:
    found = jetclr.load(exports[kind])
    outputs = found.outputs(**jets)
    for name in ("embedding", "layer_1"):
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)
    np.testing.assert_allclose(found.embed(as_awkward(jets)), expected["embedding"], atol=1e-5)
    if found.scores:
        assert found.scores == ("total",)
        np.testing.assert_allclose(outputs["total"], expected["embedding"].sum(axis=1), atol=1e-4)
        assert jetclr.load(exports[kind], layers="total")(**jets).shape == (JETS,)
        assert found.embed_outputs(as_awkward(jets)[:0])["total"].shape == (0,)
    assert found.card is not None
    assert found.card["step"] == found.step == 8
    assert (found.layers, found.width) == (("embedding", "layer_1"), 56)
    assert np.isfinite(found([], [], [])).all()
    assert "56" in repr(found)


def test_one_jet_lists_masks_and_padding(encoder: loaded.FrozenEncoder, jets: dict[str, np.ndarray]) -> None:
    want = encoder(**jets)
    n = int((jets["pt"][3] > 0).sum())
    one = {name: x[3, :n] for name, x in jets.items()}
    for same in (one, {name: x.tolist() for name, x in one.items()}, {n: x.astype(float) for n, x in one.items()}):
        np.testing.assert_allclose(encoder(**same), want[3], atol=1e-5)
    np.testing.assert_allclose(encoder.embed(ak.zip(one)), want[3], atol=1e-5)
    rng = np.random.default_rng(0)
    mask, order = jets["pt"] > 0, rng.permutation(30)
    rubbish = {name: np.where(mask, x, np.nan)[:, order] for name, x in jets.items()}
    for told in (mask[:, order], mask[:, order].astype(np.int8).tolist()):
        np.testing.assert_allclose(encoder(**rubbish, mask=told), want, atol=1e-5)
    masked = {name: np.ma.masked_array(x, ~mask) for name, x in jets.items()}
    np.testing.assert_allclose(encoder(**masked), want, atol=1e-5)
    np.testing.assert_allclose(encoder(**jets, mask=mask & (jets["pt"] > 1)), encoder(**_above(jets, 1)), atol=1e-5)


def _above(jets: dict[str, np.ndarray], least: float) -> dict[str, np.ndarray]:
    return {name: np.where(jets["pt"] > least, x, 0) for name, x in jets.items()}


def test_empty_jets_and_no_jets(encoder: loaded.FrozenEncoder) -> None:
    assert encoder(*np.zeros((3, 0, 5))).shape == (0, 56)
    assert np.isfinite(encoder(*np.zeros((3, 2, 0)))).all()
    assert encoder(*np.zeros((3, 2, 5))).shape == (2, 56)
    assert encoder.embed(ak.zip({name: ak.Array([[1.0], []]) for name in ("pt", "eta", "phi")})).shape == (2, 56)


def test_few_shapes_are_compiled(encoder: loaded.FrozenEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def call(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(columns["pt"].shape)
        return {name: np.zeros((len(columns["pt"]), 1), np.float32) for name in encoder.layers}

    monkeypatch.setattr(encoder, "_model", models.Model(call, "a test", True))
    for rows, slots in ((1, 1), (2, 40), (30, 7), (33, 13), (600, 17), (1100, 300)):
        assert encoder(*np.ones((3, rows, slots))).shape[0] == rows
    assert len(seen) == 9
    assert set(seen) <= {(rows, 16) for rows in loaded.ROWS}


def test_threads_may_share_an_encoder(encoder: loaded.FrozenEncoder, jets: dict[str, np.ndarray]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: encoder(**jets), range(8)))
    for x in found:
        np.testing.assert_array_equal(x, found[0])


@given(st.lists(st.lists(st.floats(0.125, 100, width=32), max_size=9), max_size=7), st.integers(1, 10))
def test_jagged_jets_are_padded_and_cut_to_the_hardest(pts: list[list[float]], most: int) -> None:
    records = ak.Array([[{"pt": x, "eta": -x, "phi": x / 100} for x in jet] for jet in [*pts, [1.0]]])
    jagged, single = constituents.from_awkward(records, ())
    assert not single
    pieces = [constituents.hardest(piece, most) for piece in constituents.batches(jagged, 3)]
    assert [len(piece["pt"]) for piece in pieces] == [min(3, len(pts) + 1 - i) for i in range(0, len(pts) + 1, 3)]
    found = [row for piece in pieces for row in piece["pt"]]
    for row, jet in zip(found, pts, strict=False):
        kept = sorted(jet, reverse=True)[:most]
        assert sorted(row[row > 0], reverse=True) == kept
    for piece in pieces:
        np.testing.assert_array_equal(piece["eta"], -piece["pt"])
        assert piece["pt"].shape[1] <= max(most, 1)


def test_stores_vectors_and_extras_are_understood(stores: dict[str, Path], encoder: loaded.FrozenEncoder) -> None:
    import pyarrow as pa
    import vector

    file = next(stores["test"].glob("*.arrow"))
    table = ak.from_arrow(pa.ipc.open_file(file).read_all())
    want = encoder.embed(table["constituents"][:5])
    np.testing.assert_array_equal(encoder.embed(table[:5]), want)
    one = ak.Array(ak.to_list(table["constituents"][:5]))
    vector.register_awkward()
    momenta = {"px": one.pt * np.cos(one.phi), "py": one.pt * np.sin(one.phi), "pz": one.pt * np.sinh(one.eta)}
    cartesian = ak.zip(momenta | {"mass": one.pt * 0}, with_name="Momentum4D")
    np.testing.assert_allclose(encoder.embed(cartesian), want, atol=1e-4)
    np.testing.assert_allclose(encoder.embed(ak.to_list(one)), want, atol=1e-5)


def test_extras_go_in_by_name(tmp_path: Path) -> None:
    config = Config(data=Data(constituents=4, extras=("charge", "d0")), features=Features(("z", "charge")), **NETWORK)
    params = jax.jit(lambda: init_params(config))()
    frozen = Frozen(config, params)
    found = jetclr.load(write_export(tmp_path / "e", Run(tmp_path, config, params, 1), frozen, "safetensors-batch"))
    assert found.columns == ("pt", "eta", "phi", "charge")
    jet = {"pt": [3.0, 1.0], "eta": [0.0, 0.1], "phi": [0.0, 0.1]}
    plus, minus = found(**jet, charge=[1, 1]), found(**jet, charge=[-1, 1])
    assert np.abs(plus - minus).max() > 1e-3
    np.testing.assert_allclose(
        found.embed([[{**{k: v[i] for k, v in jet.items()}, "charge": 1} for i in (0, 1)]])[0], plus
    )
    for extras, says in (
        ({}, "the column 'charge' is missing; the encoder takes pt, eta, phi, charge, mask"),
        ({"charge": [1, 1], "d0": [0, 0]}, "takes no column 'd0'; it takes pt, eta, phi, charge, mask"),
        ({"charge": [1, np.nan]}, "charge = nan"),
    ):
        with pytest.raises(jetclr.UserError, match=re.escape(says)):
            found(**jet, **extras)
    with pytest.raises(jetclr.UserError, match="no field 'charge'; its fields are pt, eta, phi"):
        found.embed(ak.Array([[{"pt": 1.0, "eta": 0.0, "phi": 0.0}]]))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pt": [[1.0, 2.0], [1.0]]}, "pt has rows of different lengths"),
        ({"eta": [[0.0, 0.0]]}, "eta has the shape [1, 2] and pt [2, 2]"),
        ({"pt": [["a", "b"]] * 2}, "pt is of type <U1; it must hold real numbers"),
        ({"pt": [[1j, 0]] * 2}, "must hold real numbers"),
        ({"pt": [[[1.0]]]}, "pt has the shape [1, 1, 1]; it must be"),
        ({"pt": 1.0}, "pt has the shape []"),
        ({"pt": [[1.0, 2.0], [1.0, -3.0]]}, "jet 1 has a constituent with pt = -3.0"),
        ({"pt": [[1.0, np.nan], [1.0, 3.0]]}, "jet 0 has a constituent with pt = nan; every number must be finite"),
        ({"pt": [[1.0, 1e39], [1.0, 3.0]]}, "pt = inf"),
        ({"phi": [[0.0, np.inf], [1.0, 3.0]]}, "phi = inf"),
        ({"mask": [[1, 0, 1]] * 2}, "mask has the shape [2, 3] and pt [2, 2]"),
        ({"mask": [[1, 0.5]] * 2}, "mask must be 1 or True for a constituent"),
        ({"charge": [[1, 0.5]] * 2}, "takes no column 'charge'; it takes pt, eta, phi, mask"),
        ({"phi": WithGradient()}, "phi cannot be read as an array: Can't call numpy()"),
    ],
)
def test_bad_arrays_get_one_sentence(encoder: loaded.FrozenEncoder, given: dict[str, Any], says: str) -> None:
    jets = {name: [[1.0, 2.0], [1.0, 3.0]] for name in ("pt", "eta", "phi")}
    with pytest.raises(jetclr.UserError, match=re.escape(says)):
        encoder(**(jets | given))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        ([[{"pt": 1.0, "eta": 0.0}]], "the array has no field 'phi'; its fields are pt, eta"),
        ([[1.0, 2.0]], "no field 'pt'; its fields are none"),
        ([[[{"pt": 1.0, "eta": 0.0, "phi": 0.0}]]], "pt has 3 axes; jets are [jets, constituents]: ak.flatten"),
        ([[{"pt": None, "eta": 0.0, "phi": 0.0}]], "pt cannot be read: some values are missing"),
        ([[{"pt": 1.0, "eta": 0.0, "phi": 0.0}], None], "pt cannot be read: some values are missing"),
        ([[{"pt": 1.0, "eta": 0.0, "phi": 0.0}], [{"pt": -1.0, "eta": 0.0, "phi": 0.0}]], "jet 1 has a constituent"),
        (object(), "embed takes an awkward array of jets, not object"),
    ],
)
def test_bad_awkward_arrays_get_one_sentence(encoder: loaded.FrozenEncoder, array: Any, says: str) -> None:
    with pytest.raises(jetclr.UserError, match=re.escape(says)):
        encoder.embed(array)


def test_without_awkward_it_says_so(encoder: loaded.FrozenEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "awkward", None)
    with pytest.raises(jetclr.UserError, match="pip install awkward"):
        encoder.embed([[{"pt": 1.0, "eta": 0.0, "phi": 0.0}]])


def test_what_is_no_encoder_is_refused(
    run: Path, exports: dict[str, Path], stores: dict[str, Path], tmp_path: Path
) -> None:
    for path, options, says in (
        (tmp_path, {}, r"is neither a run \(with config.json\) nor an exported folder \(with model_card.json\)"),
        (tmp_path / "none", {}, "is neither a run"),
        (stores["test"], {}, "is neither a run"),
        (run, {"layers": "layer_9"}, "no layer 'layer_9'; it has layer_0"),
        (run, {"layers": ()}, "layers is empty"),
        (run, {"checkpoint": 5}, "none of step 5 is kept"),
        (exports["onnx-batch"], {"layers": "layer_0"}, "no output 'layer_0'; it has embedding, layer_1, total"),
        (exports["onnx-batch"], {"checkpoint": 4}, "is exported and has no checkpoints"),
    ):
        with pytest.raises(jetclr.UserError, match=says):
            jetclr.load(path, **options)  # type: ignore[arg-type]
    assert jetclr.load(str(run), checkpoint=4).step == 4
    assert jetclr.load(exports["safetensors-batch"], layers="projection").width == 8


@pytest.mark.parametrize("kind", ["onnx-batch", "stablehlo-batch", "safetensors-batch"])
def test_damaged_and_foreign_models_are_refused(exports: dict[str, Path], kind: str, tmp_path: Path) -> None:
    folder = shutil.copytree(exports[kind], tmp_path / "e")
    model = next(folder.glob("m.*"))
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(jetclr.UserError, match=re.escape(str(model))):
        jetclr.load(folder)
    model.unlink()
    with pytest.raises(jetclr.UserError, match="is missing from its folder"):
        jetclr.load(folder)


@pytest.mark.parametrize("kind", ["onnx-batch", "stablehlo-batch"])
def test_a_model_of_another_card_is_refused(exports: dict[str, Path], kind: str, tmp_path: Path) -> None:
    folder = shutil.copytree(exports[kind], tmp_path / "e")
    card = json.loads((folder / CARD_JSON).read_text())
    wider = [card["outputs"][0] | {"shape": ["B", 57]}, *card["outputs"][1:]]
    # Whose names alone would take all memory.
    deeper = card["config"] | {"encoder": card["config"]["encoder"] | {"layers": 10**10}}
    for other in ({"flavor": "cms"}, {"outputs": wider}, {"config": deeper}):
        write_json(folder / CARD_JSON, card | other)
        with pytest.raises(jetclr.UserError, match="is not the model of its card"):
            jetclr.load(folder)


def test_a_graph_that_calls_other_programs_is_refused(exports: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(exports["stablehlo-batch"], tmp_path / "e")
    some = jax.ShapeDtypeStruct((1, 16), np.float32)

    def model(pt: jax.Array, eta: jax.Array, phi: jax.Array, mask: jax.Array) -> Any:
        return (jax.ffi.ffi_call("system", some)(pt), eta, phi)

    allowed = [export.DisabledSafetyCheck.custom_call("system")]
    made = export.export(jax.jit(model), disabled_checks=allowed)(some, some, some, some)
    (folder / "m.stablehlo").write_bytes(bytes(made.serialize()))
    with pytest.raises(jetclr.UserError, match="calls system, which is no part of an encoder; it is not opened"):
        jetclr.load(folder)
    back = jax.jit(lambda x: jax.pure_callback(lambda x: x, some, x)).lower(some).as_text()
    assert "callback" in models.foreign_calls(back)[0]
    generic = '"stablehlo.custom_call"(%0) <{call_target_name = "mine"}> : ()'
    assert models.foreign_calls(generic) == ["mine"]
    assert models.foreign_calls("custom_call(%0)") == ["something without a name"]
    assert models.foreign_calls("stablehlo.custom_call @shape_assertion(%1)") == []


def test_load_is_there_and_shows_itself(run: Path, encoder: loaded.FrozenEncoder) -> None:
    assert jetclr.load is loaded.load
    assert set(jetclr.__all__) <= {*dir(jetclr), "load"}
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = jetclr.lod  # type: ignore[attr-defined]
    text, page = repr(encoder), encoder._repr_html_()
    assert len(text.splitlines()) < 10
    for told in ("step 8 of 8", "embedding [B, 56]", "16 hardest", "pt [GeV]", "NTXent on train"):
        assert told in text
        assert told in page
    assert str(run.parent) not in text
