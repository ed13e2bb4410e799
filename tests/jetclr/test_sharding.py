import jax
import numpy as np
import pytest

from jetclr import sharding
from jetclr.errors import UserError
from jetclr.sharding import Devices


@pytest.mark.parametrize(
    ("shape", "batch", "chunks", "said"),
    [
        (Devices(), 7, 1, "batch 7 does not divide over 8 devices; 8 would"),
        (Devices(), 30, 1, "batch 30 does not divide over 8 devices; 24 or 32 would"),
        (Devices(2), 36, 4, "batch 36 does not divide over 2 devices in 4 chunks; 32 or 40 would"),
        (Devices(4, 4), 32, 1, r"mesh 4 x 4 \(data x fsdp\) needs 16 devices; there are 8"),
        (Devices(fsdp=3), 32, 1, "mesh.fsdp 3 does not divide the 8 devices there are"),
    ],
)
def test_what_does_not_divide_is_said_with_what_would(shape: Devices, batch: int, chunks: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        sharding.make_mesh(shape, batch, chunks)


def test_no_flag_uses_all_devices() -> None:
    assert sharding.make_mesh(Devices(), 32).shape == {"data": 8, "fsdp": 1}
    assert sharding.make_mesh(Devices(fsdp=4), 32).shape == {"data": 2, "fsdp": 4}
    assert sharding.make_mesh(Devices(data=2), 32).size == 2


def test_negative_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Devices\.data is -1"):
        Devices(-1)


def test_a_batch_is_placed_row_by_row() -> None:
    mesh = sharding.make_mesh(Devices(4, 2), 16)
    rows = sharding.local_rows(mesh, 16)
    np.testing.assert_array_equal(rows, np.arange(16))  # one process has them all
    x = np.arange(48, dtype=np.float32).reshape(16, 3)
    placed = sharding.place(mesh, 16, {"pt": x})["pt"]
    np.testing.assert_array_equal(placed, x)
    assert [shard.data.shape for shard in placed.addressable_shards] == [(2, 3)] * 8


def test_state_is_split_along_its_longest_axis_that_divides() -> None:
    mesh = sharding.make_mesh(Devices(2, 4), 8)
    tree = {"long": np.zeros((8, 12)), "odd": np.zeros((5, 8)), "none": np.zeros((3, 5)), "number": np.zeros(())}
    spec = {name: at.spec for name, at in sharding.of_state(mesh, tree).items()}
    assert spec == {
        "long": jax.sharding.PartitionSpec(None, "fsdp"),
        "odd": jax.sharding.PartitionSpec(None, "fsdp"),
        "none": jax.sharding.PartitionSpec(),
        "number": jax.sharding.PartitionSpec(),
    }
    copied = sharding.of_state(sharding.make_mesh(Devices(8), 8), tree)
    assert all(at.is_fully_replicated for at in copied.values())
