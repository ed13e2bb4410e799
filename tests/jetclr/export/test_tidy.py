"""Simpler graphs give the same bits, and what only looks superfluous stays."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from jetclr.export.tidy import _stretched, _with_ones, tidy

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def graph(nodes: list[onnx.NodeProto], output: tuple[str, list[str | int]], known: dict[str, list[str | int]],
          constants: dict[str, np.ndarray], made: int = FLOAT) -> onnx.ModelProto:  # fmt: skip
    """A model with inputs x [B, N] and y [B, 1]."""
    inputs = [helper.make_tensor_value_info(n, FLOAT, s) for n, s in (("x", ["B", "N"]), ("y", ["B", 1]))]
    proto = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info(output[0], made, output[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
        value_info=[helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in known.items()],
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def same_after(model: onnx.ModelProto) -> list[str]:
    """Operators of the tidied graph, which gives the same bits."""
    rng = np.random.default_rng(0)
    feeds = [
        {"x": rng.normal(size=(b, n)).astype(np.float32), "y": rng.normal(size=(b, 1)).astype(np.float32)}
        for b, n in ((1, 1), (3, 5), (4, 1))
    ]

    def run() -> list[np.ndarray]:
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return [session.run(None, feed)[0] for feed in feeds]

    before = run()
    tidy(model)
    onnx.checker.check_model(model, full_check=True)
    for a, b in zip(before, run(), strict=True):
        np.testing.assert_array_equal(a, b)
    return [node.op_type for node in model.graph.node]


SPREAD = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Expand", ["y", "s"], ["wide"])]


def test_a_spread_that_the_next_node_does_by_itself_goes_with_its_shape() -> None:
    add = helper.make_node("Add", ["x", "wide"], ["z"])
    assert same_after(graph([*SPREAD, add], ("z", ["B", "N"]), {"wide": ["B", "N"]}, {})) == ["Add"]


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Concat", ["x", "wide"], ["z"], axis=0),  # does not stretch
        helper.make_node("Mul", ["wide", "wide"], ["z"]),  # nothing else gives the size
        helper.make_node("Identity", ["wide"], ["z"]),
    ],
    ids=["concat", "alone", "output"],
)
def test_a_spread_that_is_needed_stays(node: onnx.NodeProto) -> None:
    shape: list[str | int] = ["C", "N"] if node.op_type == "Concat" else ["B", "N"]
    assert "Expand" in same_after(graph([*SPREAD, node], ("z", shape), {"wide": ["B", "N"]}, {}))


def test_a_computed_shape_becomes_a_constant() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Concat", ["s", "one"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["z"]),
    ]
    constants = {"one": np.array([1], np.int64)}
    assert same_after(graph(nodes, ("z", ["B", "N", 1]), {}, constants)) == ["Reshape"]


def test_sizes_of_one_are_put_in_before_a_bias_is_spread() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "axis"], ["n"]),
        helper.make_node("Concat", ["n", "two"], ["t"], axis=0),
        helper.make_node("Expand", ["bias", "t"], ["rows"]),  # [1, 2] -> [N, 2]
        helper.make_node("Reshape", ["rows", "sizes"], ["table"]),  # -> [1, N, 2]
        helper.make_node("Unsqueeze", ["x", "last"], ["columns"]),
        helper.make_node("Add", ["columns", "table"], ["z"]),
    ]
    constants = {
        "axis": np.array([1], np.int64), "two": np.array([2], np.int64), "last": np.array([2], np.int64),
        "bias": np.array([[0.5, -1]], np.float32), "sizes": np.array([1, -1, 2], np.int64),
    }  # fmt: skip
    known: dict[str, list[str | int]] = {"rows": ["N", 2], "table": [1, "N", 2], "columns": ["B", "N", 1]}
    assert same_after(graph(nodes, ("z", ["B", "N", 2]), known, constants)) == ["Reshape", "Unsqueeze", "Add"]


def test_casts_that_change_nothing_go_and_what_is_the_same_is_computed_once() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=FLOAT),
        helper.make_node("Sqrt", ["a"], ["r"]),
        helper.make_node("Sqrt", ["x"], ["q"]),
        helper.make_node("Add", ["r", "q"], ["z"]),
        helper.make_node("Exp", ["y"], ["unused"]),
    ]
    known: dict[str, list[str | int]] = {"a": ["B", "N"], "r": ["B", "N"], "q": ["B", "N"]}
    assert same_after(graph(nodes, ("z", ["B", "N"]), known, {})) == ["Sqrt", "Add"]


def test_large_half_precision_constants_stay_as_they_are_and_small_ones_are_cast() -> None:
    nodes = [
        helper.make_node("Cast", ["large"], ["w"], to=FLOAT),
        helper.make_node("Cast", ["small"], ["c"], to=FLOAT),
        helper.make_node("ReduceSum", ["w"], ["total"], keepdims=0),
        helper.make_node("Mul", ["x", "c"], ["scaled"]),
        helper.make_node("Add", ["scaled", "total"], ["z"]),
    ]
    constants = {"large": np.arange(100).astype(np.float16), "small": np.float16(0.1)}
    model = graph(nodes, ("z", ["B", "N"]), {"scaled": ["B", "N"]}, {k: np.asarray(v) for k, v in constants.items()})
    assert same_after(model).count("Cast") == 1


def test_a_linear_layer_is_a_matrix_product_and_another_einsum_is_left() -> None:
    weights = {"w": np.arange(6, dtype=np.float32).reshape(1, 6)}
    linear = helper.make_node("Einsum", ["y", "w"], ["z"], equation="bd,de->be")
    assert same_after(graph([linear], ("z", ["B", 6]), {}, weights)) == ["MatMul"]
    other = helper.make_node("Einsum", ["x", "x"], ["z"], equation="bn,bn->b")
    assert same_after(graph([other], ("z", ["B"]), {}, {})) == ["Einsum"]


def test_shapes_are_stretched_as_numpy_does_and_doubt_is_none() -> None:
    assert _stretched([("B", 1, "N"), (4, "N")]) == ("B", 4, "N")
    assert _stretched([("B",), ("N",)]) is None
    assert _with_ones((64,), ("N", 64), (1, "N", 64)) == (1, 1, 64)
    assert _with_ones((1, 1), ("N", 1), ("N", 1)) == (1, 1)
    assert _with_ones((64,), ("N", 64), (64, "N")) is None
