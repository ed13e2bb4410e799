"""Where arrays live: the batch is split over all devices; parameters are copied, or split over the fsdp axis.

The mesh has two axes, "data" and "fsdp". Jets are split over both. Without fsdp every device holds all parameters;
with it each holds a share of every large one, and XLA gathers a layer when it is needed and scatters its gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int64

from jetclr.errors import UserError

DATA, FSDP = "data", "fsdp"
JETS = PartitionSpec((DATA, FSDP))
"""Rows of a batch over all devices."""


@dataclass(frozen=True)
class Devices:
    """How the devices share the work; the result is the same, to rounding, for every choice."""

    data: int = 0
    """Devices (or groups of `fsdp`) over which the batch is split; 0: all there are."""
    fsdp: int = 1
    """Devices over which each parameter and its optimizer state are split as well."""

    def __post_init__(self) -> None:
        if self.data < 0 or self.fsdp < 1:
            raise ValueError(f"Devices.data is {self.data} and Devices.fsdp {self.fsdp}; give 0 or more, and 1 or more")


def make_mesh(shape: Devices, batch: int, chunks: int = 1, groups: int = 1) -> Mesh:
    """The mesh of `shape` over the devices of all processes.

    Raises UserError if there are too few devices, if several processes would leave some of theirs idle, or, with sizes
    that would do, if devices times `chunks` do not divide each of `groups` equal parts of `batch`.
    """
    there = jax.device_count()
    if shape.data == 0 and there % shape.fsdp:
        raise UserError(f"mesh.fsdp {shape.fsdp} does not divide the {there} devices there are")
    data = shape.data or there // shape.fsdp
    used = data * shape.fsdp
    if used > there:
        raise UserError(f"mesh {data} x {shape.fsdp} (data x fsdp) needs {used} devices; there are {there}")
    if used < there and jax.process_count() > 1:
        raise UserError(
            f"mesh {data} x {shape.fsdp} uses {used} of {there} devices; with several processes it must use all"
        )
    check_batch(batch, used, chunks, groups)
    return _mesh(data, shape.fsdp, jax.devices()[:used])


def check_batch(batch: int, devices: int, chunks: int, groups: int = 1) -> None:
    """Raise UserError, with sizes that would do, if devices times chunks do not divide each group of the batch."""
    unit = devices * chunks * groups
    if batch % unit:
        nearest = [size for size in (batch - batch % unit, batch + unit - batch % unit) if size > 0]
        split = f"{devices} device{'s' if devices > 1 else ''}" + (f" in {chunks} chunks" if chunks > 1 else "")
        whole = f"batch {batch}" + (f", cut into {groups} groups by data.buckets," if groups > 1 else "")
        raise UserError(f"{whole} does not divide over {split}; {' or '.join(map(str, nearest))} would")


def local_mesh() -> Mesh:
    """All devices of this process, for work that processes do apart."""
    return _mesh(jax.local_device_count(), 1, jax.local_devices())


def _mesh(data: int, fsdp: int, devices: list[jax.Device]) -> Mesh:
    # Explicit axes are the default of these versions; the objective wants XLA to place the global batch by itself.
    return jax.make_mesh((data, fsdp), (DATA, FSDP), axis_types=(AxisType.Auto,) * 2, devices=devices)


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis over all devices."""
    return NamedSharding(mesh, JETS)


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def on_each_device(
    mesh: Mesh, function: Callable[..., Any], split_in: tuple[bool, ...], split_out: bool
) -> Callable[..., Any]:
    """`function` run on every device of the data axis apart: on its own rows of arguments that are split, others whole.

    What it returns is put together row by row, or must be the same everywhere (`sum_over_devices`). Going back, the
    gradient by whole arguments is summed over devices.
    """
    if mesh.shape[DATA] == 1:
        return function
    spec = {True: PartitionSpec(DATA), False: PartitionSpec()}
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=tuple(spec[rows] for rows in split_in),
        out_specs=spec[split_out],
        axis_names={DATA} if mesh.shape[FSDP] > 1 else {DATA, FSDP},  # XLA splits further over fsdp by itself
        check_vma=False,
    )


def sum_over_devices(mesh: Mesh, tree: Any) -> Any:
    """Inside `on_each_device`: the sum of a tree over the devices, on each of them."""
    return jax.lax.psum(tree, DATA) if mesh.shape[DATA] > 1 else tree


def of_state(mesh: Mesh, tree: Any) -> Any:
    """The sharding of each array of a tree of parameters or optimizer state.

    The longest axis that the fsdp devices divide is split over them; arrays without one are copied.
    """

    def place(x: Any) -> NamedSharding:
        shares = mesh.shape[FSDP]
        axes = [axis for axis, size in enumerate(x.shape) if shares > 1 and size % shares == 0]
        if not axes:
            return everywhere(mesh)
        longest = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * longest, FSDP))

    return jax.tree.map(place, tree)


def abstract(mesh: Mesh, tree: Any) -> Any:
    """Shapes, dtypes and shardings of a tree of state, without its values."""
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), tree, of_state(mesh, tree))


def local_rows(mesh: Mesh, batch: int) -> Int64[np.ndarray, " rows"]:
    """Rows of a batch of `batch` jets that live on this process's devices, in order: all it has to read."""
    slices = split(mesh).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[index] for index in slices]))


def place(mesh: Mesh, batch: int, local: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """The global arrays [batch, ...] whose rows `local_rows` are given: every process calls it with its own."""
    rows = local_rows(mesh, batch)

    def put(x: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            start, stop, _ = index[0].indices(batch) if index else (0, batch, 1)
            first = int(np.searchsorted(rows, start))
            return x[first : first + stop - start]

        return jax.make_array_from_callback((batch, *x.shape[1:]), split(mesh), part)

    return {name: put(x) for name, x in local.items()}


def join_pieces(mesh: Mesh, pieces: Sequence[Array]) -> Array:
    """Arrays [M_k, ...] split over all devices as one [sum of M_k, ...], in an order that leaves each row where it is.

    Device by device: its rows of the first array, then of the second, and so on.
    """
    if len(pieces) == 1:
        return pieces[0]

    def by_device(x: Array) -> Array:
        return jax.lax.with_sharding_constraint(x.reshape(mesh.size, -1, *x.shape[1:]), split(mesh))

    whole = jnp.concatenate([by_device(x) for x in pieces], axis=1)
    return jax.lax.with_sharding_constraint(whole, split(mesh)).reshape(-1, *pieces[0].shape[1:])


def on_host(mesh: Mesh, tree: Any) -> Any:
    """A tree of arrays of the mesh as numpy arrays; every process calls it, since each may hold but a share."""
    whole = _gather(mesh)(tree) if mesh.shape[FSDP] > 1 else tree
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), whole)


@lru_cache(maxsize=2)  # compiled once for all probes of a run
def _gather(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=everywhere(mesh))
