"""The table of augmentations: each alone, and all of them.

jetclr sweep CONFIG --space docs/examples/sweep_rows.py --workdir FOLDER --seeds 0 1 2
"""

from dataclasses import replace

from augmentations import Chain, CollinearSplit, Rotate, SoftSmear, Transform, Translate
from jetclr.config import Config


def rows(config: Config) -> dict[str, Config]:
    """Name and config of each row, in the order of the table."""
    views: dict[str, Transform] = {
        "none": Chain(),
        "translations": Translate(),
        "rotations": Rotate(),
        "soft + collinear": Chain(SoftSmear(), CollinearSplit()),
        "all": Chain(Rotate(), Translate(), SoftSmear(), CollinearSplit()),
    }
    return {name: replace(config, views=(view, view)) for name, view in views.items()}
