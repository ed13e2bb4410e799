"""Where arrays live: the batch is split over all devices, everything else is on each of them."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jetclr.errors import UserError

DATA = "data"


def make_mesh(batch: int) -> Mesh:
    """A one-axis mesh of all devices; raises UserError, with sizes that would do, if they do not divide `batch`."""
    devices = jax.device_count()
    if batch % devices:
        nearest = [size for size in (batch - batch % devices, batch + devices - batch % devices) if size > 0]
        raise UserError(f"batch {batch} does not divide over {devices} devices; {' or '.join(map(str, nearest))} would")
    # Explicit axes are the default of these versions; the objective wants XLA to place the global batch by itself.
    return jax.make_mesh((devices,), (DATA,), axis_types=(AxisType.Auto,))


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())
