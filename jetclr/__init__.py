"""Self-supervised representation learning on particle-physics jets."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from jetclr.errors import UserError

if TYPE_CHECKING:
    from jetclr.loaded import load

try:
    __version__ = version("jetclr")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["UserError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # brings JAX along, which `import jetclr` alone should not
        return import_module("jetclr.loaded").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
