"""The ONNX graph against the JAX encoder: every flavour, any number of jets and constituents, every feature."""

from dataclasses import replace
from typing import get_args

import jax
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from jetclr import config as configs
from jetclr import step
from jetclr.config import Config
from jetclr.encoder import Encoder
from jetclr.errors import UserError
from jetclr.export import onnx_file, verify
from jetclr.export.flavors import FLAVORS, FlavorName
from jetclr.export.graph import Frozen
from jetclr.export.onnx_file import IR_VERSION, OPSET, to_onnx
from jetclr.export.preprocess import preprocess
from jetclr.features import FeatureName, Features
from tests.conftest import CONFIG
from tests.jetclr.export.encoders import CONFIGS

EVERY = Features(
    tuple(get_args(FeatureName)),
    center=False,
)
EXTRAS = ("charge", "type", "d0", "d0_error", "dz", "dz_error", "puppi")


def tiny() -> Config:
    return configs.load(CONFIG)


def frozen(config: Config, layers: tuple[str, ...] = ("embedding",)) -> Frozen:
    return Frozen(config, jax.tree.map(np.asarray, step.init_params(config)), layers)


def session(model: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def models() -> dict[FlavorName, bytes]:
    return {name: to_onnx(frozen(tiny()), flavor, "jetclr", {"step": "8"}) for name, flavor in FLAVORS.items()}


@pytest.mark.parametrize("name", ["batch", "cms", "atlas"])
def test_every_flavor_agrees_for_any_number_of_jets_and_constituents(
    models: dict[FlavorName, bytes], name: FlavorName
) -> None:
    encoder, run = frozen(tiny()), session(models[name])
    whole = verify.random_jets(encoder)
    for jets, slots in ((64, 16), (1, 16), (5, 3), (2, 1)):
        some = {column: x[:jets, :slots] for column, x in whole.items()}
        found = np.concatenate([run.run(None, feed)[0] for feed in FLAVORS[name].feeds(encoder, some)])
        assert verify.difference(found, verify.expected(encoder, some)["embedding"]) < verify.LIMIT


def test_names_shapes_and_versions_are_those_promised(models: dict[FlavorName, bytes]) -> None:
    shapes = {
        "batch": {name: ["B", "N"] for name in ("pt", "eta", "phi", "mask")},
        "cms": {"pf_features": ["B", 3, "N"], "pf_mask": ["B", 1, "N"]},
        "atlas": {"track_features": ["N", 3]},
    }
    for name, model in models.items():
        run = session(model)
        assert {one.name: one.shape for one in run.get_inputs()} == shapes[name]
        assert {one.type for one in run.get_inputs()} == {"tensor(float)"}
        assert [one.name for one in run.get_outputs()] == ["embedding"]
        assert run.get_modelmeta().custom_metadata_map == {"step": "8"}
        proto = onnx.load_from_string(model)
        assert (proto.ir_version, [(one.domain, one.version) for one in proto.opset_import]) == (
            IR_VERSION, [("", OPSET)],
        )  # fmt: skip


def test_order_and_padding_do_not_matter_and_an_empty_jet_is_finite(models: dict[FlavorName, bytes]) -> None:
    encoder, run = frozen(tiny()), session(models["batch"])
    jets = verify.random_jets(encoder)
    reference = run.run(None, jets)[0]
    order = np.random.default_rng(1).permutation(16)
    turned = run.run(None, {name: x[:, order] for name, x in jets.items()})[0]
    assert verify.difference(turned, reference) < verify.LIMIT
    wider = {
        name: np.pad(x, ((0, 0), (0, 7)), constant_values=0 if name == "mask" else np.nan) for name, x in jets.items()
    }
    assert verify.difference(run.run(None, wider)[0], reference) < verify.LIMIT
    assert np.isfinite(reference).all()
    tracks = session(models["atlas"]).run(None, {"track_features": np.zeros((0, 3), np.float32)})[0]
    assert verify.difference(tracks, reference[:1]) < verify.LIMIT  # the first of the random jets is empty


@pytest.mark.parametrize(
    "config",
    [
        replace(
            tiny(),
            features=EVERY,
            data=replace(tiny().data, extras=EXTRAS),
            encoder=Encoder(8, 2, 2, 8, attention="plain", pooling=("mean",), wide=0),
        ),
        replace(tiny(), encoder=Encoder(8, 0, 1, 8, pooling=("mean", "pt"), wide=4)),
        CONFIGS["pairwise"],
        CONFIGS["irc-safe"],
    ],
    ids=["every feature, plain", "no blocks", "pairwise, attention", "irc safe"],
)
def test_every_option_of_the_encoder_and_every_layer(config: Config) -> None:
    layers = ("layer_0", "embedding", "projection")
    encoder, flavor = frozen(config, layers), FLAVORS["batch"]
    run = session(to_onnx(encoder, flavor, "all", {}))
    jets = verify.random_jets(encoder)
    want = verify.expected(encoder, jets)
    found = run.run(list(layers), flavor.feeds(encoder, jets)[0])
    for name, got in zip(layers, found, strict=True):
        assert verify.difference(got, want[name]) < verify.LIMIT, name


def test_half_precision_weights_halve_the_file_and_are_computed_with_in_single() -> None:
    config = replace(tiny(), encoder=Encoder(64, 1, 2, 64, wide=64))
    full = frozen(config)
    half = replace(full, params=jax.tree.map(lambda p: p.astype(np.float16), full.params))
    sizes = []
    for one in (full, half):
        model = to_onnx(one, FLAVORS["batch"], "jetclr", {})
        sizes.append(sum(x.ByteSize() for x in onnx.load_from_string(model).graph.initializer))
        jets = verify.random_jets(one)
        assert (
            verify.difference(session(model).run(None, jets)[0], verify.expected(one, jets)["embedding"]) < verify.LIMIT
        )
    assert sizes[1] < 0.6 * sizes[0]


def test_preprocess_json_lets_everything_through() -> None:
    told = preprocess(frozen(tiny()), FLAVORS["cms"])
    assert told["input_names"] == ["pf_features", "pf_mask"]
    assert told["output_names"] == ["embedding"]
    assert told["pf_features"]["var_names"] == ["pfcand_pt", "pfcand_eta", "pfcand_phi"]
    assert (told["pf_features"]["min_length"], told["pf_features"]["max_length"]) == (1, 16)
    for variables in (told["pf_features"], told["pf_mask"]):
        for name in variables["var_names"]:
            info = variables["var_infos"][name]
            x = np.float32([-3.2, 0, 1e6])
            assert np.array_equal(
                np.clip((x - info["median"]) * info["norm_factor"], info["lower_bound"], info["upper_bound"]), x
            )


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"ONNX needs no_such_package.*jetclr\[onnx\]"):
        to_onnx(frozen(tiny()), FLAVORS["batch"], "jetclr", {})


def test_a_graph_that_cannot_be_converted_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise NotImplementedError("no such operator")

    import jax2onnx

    monkeypatch.setattr(jax2onnx, "to_onnx", failing)
    with pytest.raises(UserError, match=r"cannot write this encoder as ONNX.*no such operator"):
        to_onnx(frozen(tiny()), FLAVORS["batch"], "jetclr", {})
