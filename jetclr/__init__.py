"""Self-supervised representation learning on particle-physics jets."""

from importlib.metadata import PackageNotFoundError, version

from jetclr.errors import UserError

try:
    __version__ = version("jetclr")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["UserError", "__version__"]
