"""StableHLO: the compiled-for-nothing form of the encoder, which JAX alone runs again on any of its devices."""

import jax
from jax import export

from jetclr.export.flavors import Flavor
from jetclr.export.graph import Frozen
from jetclr.export.tracing import model_of, symbolic_inputs

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def to_stablehlo(frozen: Frozen, flavor: Flavor) -> bytes:
    """What `jax.export.deserialize` reads: its `.call` takes the flavor's inputs in order, gives a tuple of outputs.

    For one device of any kind in PLATFORMS. JAX promises to read such a file for six months; the run is the archive.
    """
    exported = export.export(jax.jit(model_of(frozen, flavor)), platforms=PLATFORMS)(*symbolic_inputs(frozen, flavor))
    return bytes(exported.serialize())
