"""A converted ONNX graph without its detours: fixed shapes for computed ones, no copies where sizes stretch anyway.

A converter that knows nothing of what B and N stand for computes each shape anew from another tensor, and spreads every
number over its whole array before it is used. With the symbolic shapes that it notes at each tensor most of that can
go: of the encoder's nodes about two thirds. Nothing here changes a number; an export is compared with JAX afterwards.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int | str, ...]

# Those that stretch sizes of 1 by themselves, as NumPy does.
STRETCHING = frozenset(
    "Add,Sub,Mul,Div,Pow,Mod,Max,Min,And,Or,Where,Equal,Greater,GreaterOrEqual,Less,LessOrEqual".split(",")  # noqa: SIM905
)

FOLDED = 64
"""Constants of up to so many numbers are cast once and for all; larger ones are weights, kept in their type."""


def tidy(model: Any) -> None:
    """Simplify the graph of an ONNX model in place; its inputs, outputs and numbers stay what they were."""
    graph = _Graph(model.graph)
    before = -1
    while len(graph.nodes) != before:  # what is taken out may leave its neighbours simpler
        before = len(graph.nodes)
        for node in list(graph.nodes):
            graph.simplify(node)
    graph.without_repeats()
    graph.finish()


class _Graph:
    """A graph with what is known of its tensors, and names that stand for others."""

    def __init__(self, proto: Any) -> None:
        self.proto, self.nodes = proto, list(proto.node)
        self.constants = {one.name: one for one in proto.initializer}
        self.outputs = {value.name for value in proto.output}
        self.shapes: dict[str, Shape] = {name: tuple(one.dims) for name, one in self.constants.items()}
        self.types: dict[str, int] = {name: one.data_type for name, one in self.constants.items()}
        for value in (*proto.input, *proto.output, *proto.value_info):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            if all(size.dim_param or size.HasField("dim_value") for size in tensor.shape.dim):
                self.shapes[value.name] = tuple(size.dim_param or size.dim_value for size in tensor.shape.dim)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def simplify(self, node: Any) -> None:
        """Take this node out, or make it simpler, where that is certain."""
        if node.op_type == "Cast":
            self._cast(node)
        elif node.op_type == "Expand":
            self._expand(node)
        elif node.op_type == "Reshape":
            self._reshape(node)
        elif node.op_type == "Einsum":
            self._einsum(node)

    def _cast(self, node: Any) -> None:
        from onnx import helper, numpy_helper

        (source,), (made,) = node.input, node.output
        to = node.attribute[0].i
        if self.types.get(source) == to:
            self._bypass(node, source)
        elif source in self.constants and made not in self.outputs:
            value = numpy_helper.to_array(self.constants[source])
            if value.size <= FOLDED:
                self._constant(made, value.astype(helper.tensor_dtype_to_np_dtype(to)))
                self._drop(node)

    def _expand(self, node: Any) -> None:
        source, made = node.input[0], node.output[0]
        before, after = self.shapes.get(source), self.shapes.get(made)
        if before is None or after is None or made in self.outputs:
            return
        if before == after or all(self._stretches(reader, made, before) for reader in self._reading(node)):
            self._bypass(node, source)

    def _stretches(self, reader: Any, name: str, shape: Shape) -> bool:
        """Whether a node gives the same for `name` as it was before it was spread, of this shape."""
        known = [shape if one == name else self.shapes.get(one) for one in reader.input]
        result = self.shapes.get(reader.output[0])
        if reader.op_type not in STRETCHING or result is None or any(one is None for one in known):
            return False
        return _stretched([one for one in known if one is not None]) == result

    def _reshape(self, node: Any) -> None:
        source, made = node.input[0], node.output[0]
        before, after = self.shapes.get(source), self.shapes.get(made)
        if before is None or after is None or 0 in after:
            return
        if node.input[1] in self.constants:
            self._reshape_before_expanding(node)
            return
        sizes: list[int] = []
        for place, size in enumerate(after):
            same = place < len(before) and before[place] == size
            sizes.append(size if isinstance(size, int) else 0 if same else -1)  # 0: as it was at this place
        if sizes.count(-1) <= 1:
            self._replace_input(node, 1, self._constant(f"{made}_sizes", np.array(sizes, np.int64)))

    def _reshape_before_expanding(self, node: Any) -> None:
        """Where a reshape only puts sizes of 1 into what was spread, spread nothing and put them in beforehand."""
        spread = self.makers.get(node.input[0])
        if spread is None or spread.op_type != "Expand" or node.output[0] in self.outputs:
            return
        before, middle, after = (self.shapes.get(one) for one in (spread.input[0], node.input[0], node.output[0]))
        if before is None or middle is None or after is None or not all(isinstance(size, int) for size in before):
            return
        sizes = _with_ones(before, middle, after)
        if sizes is None or not all(self._stretches(one, node.output[0], sizes) for one in self._reading(node)):
            return
        self._replace_input(node, 0, spread.input[0])
        self._replace_input(node, 1, self._constant(f"{node.output[0]}_unspread", np.array(sizes, np.int64)))
        self.shapes[node.output[0]] = sizes

    def _reading(self, node: Any) -> list[Any]:
        return self.readers.get(node.output[0], [])

    def _einsum(self, node: Any) -> None:
        """A linear layer as the matrix product it is, for which there are faster kernels."""
        equation = node.attribute[0].s.decode().replace(" ", "")
        terms, result = equation.split("->")
        left, _, right = terms.partition(",")
        if len(right) == 2 and left[-1] == right[0] and result == left[:-1] + right[1] and right[1] not in left:
            node.op_type = "MatMul"
            del node.attribute[:]

    def without_repeats(self) -> None:
        """Compute what is the same once."""
        seen: dict[tuple[Any, ...], Any] = {}
        for node in list(self.nodes):
            kept = tuple(one.SerializeToString(deterministic=True) for one in node.attribute)
            key = (node.op_type, node.domain, tuple(node.input), kept)
            if key not in seen or len(node.output) > 1 or node.output[0] in self.outputs:
                seen.setdefault(key, node)
                continue
            self._bypass(node, seen[key].output[0])

    def finish(self) -> None:
        """Drop what nothing reads, and write everything back."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(node.input)
        proto = self.proto
        shown = {name for node in kept for name in node.output} - self.outputs
        described = [value for value in proto.value_info if value.name in shown]
        for field, values in (
            (proto.node, kept[::-1]),
            (proto.initializer, [one for name, one in self.constants.items() if name in needed]),
            (proto.value_info, described),
        ):
            copies = [type(one).FromString(one.SerializeToString()) for one in values]
            del field[:]
            field.extend(copies)

    def _bypass(self, node: Any, source: str) -> None:
        """Whoever reads what this node makes reads `source` instead."""
        made = node.output[0]
        if made in self.outputs:
            return
        for reader in list(self.readers.get(made, [])):
            for place, name in enumerate(reader.input):
                if name == made:
                    self._replace_input(reader, place, source)
        self._drop(node)

    def _replace_input(self, node: Any, place: int, name: str) -> None:
        before, node.input[place] = node.input[place], name
        if before not in node.input:
            self.readers[before] = [one for one in self.readers[before] if one is not node]
        self.readers.setdefault(name, []).append(node)

    def _constant(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self.constants[name] = numpy_helper.from_array(value, name)
        self.shapes[name], self.types[name] = value.shape, self.constants[name].data_type
        return name

    def _drop(self, node: Any) -> None:
        self.nodes = [one for one in self.nodes if one is not node]
        for name in node.input:
            self.readers[name] = [one for one in self.readers[name] if one is not node]


def _stretched(shapes: Sequence[Shape]) -> Shape | None:
    """The shape of arrays combined element by element, as NumPy stretches sizes of 1; None where it is not certain."""

    def sizes() -> Iterator[int | str | None]:
        for place in range(-max(map(len, shapes)), 0):
            there = {shape[place] for shape in shapes if -place <= len(shape)} - {1}
            yield None if len(there) > 1 else there.pop() if there else 1

    found = tuple(sizes())
    return None if None in found else tuple(size for size in found if size is not None)


def _with_ones(before: Shape, middle: Shape, after: Shape) -> Shape | None:
    """`before`, which is spread to `middle`, with the sizes of 1 that make `middle` into `after`; None for others."""
    waiting = [*(1,) * (len(middle) - len(before)), *before]
    left, sizes = list(middle), list[int | str]()
    for place, size in enumerate(after):
        if left and size == left[0] and (size != 1 or len(left) == len(after) - place):
            left.pop(0)
            sizes.append(waiting.pop(0))
        elif size == 1:
            sizes.append(1)
        else:
            return None
    return None if left else tuple(sizes)
