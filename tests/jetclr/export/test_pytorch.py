import ast
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jetclr.export import pytorch
from jetclr.export.graph import Frozen
from jetclr.export.pytorch import JetEncoder
from jetclr.export.tensors import open_tensors, save_tensors
from tests.jetclr.export.encoders import CONFIGS, EXTRAS, frozen, jets

LIMIT = 1e-5
SOURCE = Path(pytorch.__file__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of every config, all layers exported."""
    folder = tmp_path_factory.mktemp("torch")
    for name, config in CONFIGS.items():
        save_tensors(folder / name, frozen(config), {})
    return folder


def columns(frozen: Frozen, seed: int = 0) -> dict[str, torch.Tensor]:
    found = jets(frozen.config, seed)
    return {name: torch.from_numpy(found[name]) for name in (*frozen.columns, "mask")}


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(found - expected) / (1 + np.abs(expected))))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_and_the_gradient_by_every_parameter_are_those_of_jax(name: str, folder: Path) -> None:
    theirs, encoder = frozen(CONFIGS[name]), JetEncoder.from_file(folder / name)
    inputs = columns(theirs)
    arrays = {key: jnp.asarray(x.numpy()) for key, x in inputs.items()}
    rng = np.random.default_rng(1)
    found = encoder.all_layers(**inputs)
    weights = {key: rng.normal(0, 1, x.shape).astype(np.float32) for key, x in found.items()}

    def total(params):  # type: ignore[no-untyped-def]
        layers = Frozen(theirs.config, params, theirs.layers)(arrays, arrays["mask"])
        return sum(jnp.sum(jnp.tanh(x) * weights[key]) for key, x in layers.items()), layers

    (_, expected), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(theirs.params)
    assert tuple(found) == theirs.layers
    for key, x in found.items():
        assert distance(x.detach().numpy(), np.asarray(expected[key])) < LIMIT, key
    sum((x.tanh() * torch.from_numpy(weights[key])).sum() for key, x in found.items()).backward()  # type: ignore[union-attr]
    seen = 0
    for key, own in gradient.items():
        for kind, x in own.items():
            one = encoder.parts[key].weight if kind in ("w", "scale") else encoder.parts[key].bias
            mine = one.grad.numpy().T if one.ndim == 2 else one.grad.numpy()
            limit = 10 * LIMIT if key == "pairs" else LIMIT  # sums over all pairs, of which much cancels
            assert np.abs(mine - x).max() < limit * (np.abs(x).max() + 1e-3), (key, kind)
            seen += 1
    assert seen == len(list(encoder.parameters()))


@pytest.mark.parametrize("name", ["all-features", "plain"])
@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_padding_and_order_change_nothing(name: str, seed: int, folder: Path) -> None:
    encoder, inputs = JetEncoder.from_file(folder / name, "projection"), columns(frozen(CONFIGS[name]), seed % 7)
    rng = np.random.default_rng(seed)
    order = torch.from_numpy(rng.permutation(inputs["pt"].shape[1]))
    other = {key: torch.nn.functional.pad(x[:, order], (0, seed % 4)) for key, x in inputs.items()}
    junk = torch.tensor([np.nan, np.inf, -5.0, 1e30])[torch.from_numpy(rng.integers(0, 4, other["pt"].shape))]
    other = {key: x if key == "mask" else torch.where(other["mask"] > 0, x, junk) for key, x in other.items()}
    with torch.no_grad():
        assert distance(encoder(**other).numpy(), encoder(**inputs).numpy()) < LIMIT


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_by_parameters_and_inputs_are_finite(name: str, folder: Path) -> None:
    """With an empty jet, a lone constituent at its own centroid and padding, where the distance is 0."""
    encoder, inputs = JetEncoder.from_file(folder / name), columns(frozen(CONFIGS[name]))
    numbers = {key: x.requires_grad_() for key, x in inputs.items() if key not in ("mask", "type")}
    sum(x.square().sum() for x in encoder.all_layers(**inputs).values()).backward()  # type: ignore[union-attr]
    for key, x in [*encoder.named_parameters(), *numbers.items()]:
        assert x.grad is not None, key
        assert x.grad.isfinite().all(), key
    for key, x in numbers.items():
        assert not x.grad[inputs["mask"] == 0].any(), key  # type: ignore[index]


def test_jets_without_slots_are_empty_jets(folder: Path) -> None:
    encoder, nothing = JetEncoder.from_file(folder / "defaults", "embedding"), torch.zeros(2, 0)
    with torch.no_grad():
        found = encoder(nothing, nothing, nothing)
        torch.testing.assert_close(found, encoder(*torch.zeros(3, 2, 5)))
        assert encoder(*torch.zeros(3, 0, 5)).shape == (0, found.shape[1])


def blocks(encoder: JetEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    """What the first block adds to 4,000 times one constituent: frozen and in training."""
    jet = [torch.tensor([[x]]).expand(4000, 1) for x in (50.0, 0.3, -0.2)]
    with torch.no_grad():
        still, moved = encoder.all_layers(*jet), encoder.train().all_layers(*jet)
        torch.testing.assert_close(encoder.eval()(*jet), still["layer_0"])
    return still["layer_1"] - still["layer_0"], moved["layer_1"] - moved["layer_0"]


@pytest.mark.parametrize("half", ["out", "down"])
def test_dropout_falls_on_what_each_half_of_a_block_adds(folder: Path, half: str) -> None:
    """Where a half gives its bias and the other nothing, numbers are kept and scaled, or 0."""
    encoder = JetEncoder.from_file(folder / "defaults")
    for name in ("out", "down"):
        part = encoder.parts[f"block_0_{name}"]
        part.weight.data.zero_()
        part.bias.data.fill_(1.5 if name == half else 0.0)
    added, kept = blocks(encoder)
    dropped = kept.abs() < 1e-6
    assert dropped[:, :8].double().mean() == pytest.approx(0.25, abs=0.02)  # 6 standard deviations
    torch.testing.assert_close(kept[~dropped], added[~dropped] / 0.75, atol=1e-5, rtol=1e-4)
    assert not torch.equal(dropped[0, :8], dropped[1, :8]) or not torch.equal(dropped[0, :8], dropped[2, :8])


@pytest.mark.parametrize("other", ["out", "down"])
def test_dropout_falls_on_shares_of_attention_and_on_hidden_units_too(folder: Path, other: str) -> None:
    """Without the other half: more values than kept and dropped, and the mean is that of the frozen encoder."""
    encoder = JetEncoder.from_file(folder / "defaults")
    for parameter in encoder.parts[f"block_0_{other}"].parameters():
        parameter.data.zero_()
    added, kept = blocks(encoder)
    assert len(kept[:, 0].unique()) > 3
    error = kept.std(0) / len(kept) ** 0.5
    assert ((kept.mean(0) - added[0]).abs() < 6 * error + 1e-6).all()


def test_what_was_fine_tuned_is_written_and_read_again(folder: Path, tmp_path: Path) -> None:
    encoder, inputs = JetEncoder.from_file(folder / "defaults", "layer_1"), columns(frozen(CONFIGS["defaults"]))
    before = encoder(**inputs)
    before.sum().backward()
    assert encoder.parts["projection"].weight.grad is None  # above the layer
    torch.optim.SGD(encoder.parameters(), lr=0.1).step()
    encoder.to_file(tmp_path / "tuned")
    with torch.no_grad():
        again = JetEncoder.from_file(tmp_path / "tuned")
        torch.testing.assert_close(again(**inputs), encoder(**inputs), atol=0, rtol=0)
        assert not torch.allclose(again(**inputs), before)
    config, params, _ = open_tensors(tmp_path / "tuned")
    assert config == CONFIGS["defaults"]
    np.testing.assert_array_equal(params["block_0_up"]["w"], encoder.parts["block_0_up"].weight.detach().numpy().T)


def test_half_precision_files_and_autocast(folder: Path, tmp_path: Path) -> None:
    whole = frozen(CONFIGS["defaults"], ("embedding",))
    half = jax.tree.map(lambda x: np.asarray(x, np.float16), whole.params)
    save_tensors(tmp_path / "half", Frozen(whole.config, half, whole.layers), {})
    encoder, inputs = JetEncoder.from_file(tmp_path / "half"), columns(whole)
    assert {x.dtype for x in encoder.parameters()} == {torch.float32}
    with torch.no_grad():
        exact = encoder(**inputs)
        theirs = jax.jit(lambda one, mask: Frozen(whole.config, half)(one, mask)["embedding"])
        arrays = {key: x.numpy() for key, x in inputs.items()}
        assert distance(exact.numpy(), np.asarray(theirs(arrays, arrays["mask"]))) < LIMIT
        with torch.autocast("cpu", torch.bfloat16):
            assert distance(encoder(**inputs).float().numpy(), exact.numpy()) < 0.1


def test_wrong_use_is_told(folder: Path, tmp_path: Path) -> None:
    encoder = JetEncoder.from_file(folder / "all-features")
    assert encoder.extras == sorted(EXTRAS)
    assert "d0_error" in repr(encoder)
    jet = torch.ones(2, 3)
    with pytest.raises(ValueError, match="needs charge, d0"):
        encoder(jet, jet, jet)
    with pytest.raises(ValueError, match=r"eta is \[3\]"):
        JetEncoder.from_file(folder / "defaults")(jet, jet[0], jet)
    with pytest.raises(ValueError, match="'layer_9' is not known; known are layer_0"):
        JetEncoder.from_file(folder / "defaults", "layer_9")
    pytorch.save_file({"x": jet}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="is not 'jetclr encoder 1'"):
        JetEncoder.from_file(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("encoder", "width", 2**30), ("encoder", "layers", 10**9), ("features", "columns", ["x"]), ("head", "width", "a")],
)
def test_a_config_that_lies_is_told_without_building_it(
    folder: Path, tmp_path: Path, section: str, key: str, value: object
) -> None:
    encoder = JetEncoder.from_file(folder / "defaults")
    encoder.config[section][key] = value
    encoder.to_file(tmp_path / "lies")
    with pytest.raises(ValueError, match="does not hold the encoder that was asked for"):
        JetEncoder.from_file(tmp_path / "lies")


def test_it_imports_torch_safetensors_and_the_standard_library_alone() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"torch", "safetensors"}


ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "haiku", "optax", "jetclr", "augmentations", "probes"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import torch
from jetclr_encoder import JetEncoder
print(JetEncoder.from_file(sys.argv[2], "embedding")(*torch.ones(3, 2, 5)).tolist())
"""


def test_it_runs_where_there_is_no_jax_and_no_jetclr(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "jetclr_encoder.py").write_bytes(SOURCE.read_bytes())
    command = [sys.executable, "-c", ALONE, str(tmp_path), str(folder / "defaults")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    expected = JetEncoder.from_file(folder / "defaults", "embedding")(*torch.ones(3, 2, 5))
    torch.testing.assert_close(torch.tensor(ast.literal_eval(printed)), expected.detach())
