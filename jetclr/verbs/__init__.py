"""The verbs of the command line: what each takes, and what of the package does it.

Each verb imports what it needs when it runs, so that help is quick and light.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from jetclr.data.shard import Shard
from jetclr.errors import UserError

app = tyro.extras.SubcommandApp()
Stores = tuple[Path, ...]
Process = Literal["top", "qcd", "quark", "gluon", "w", "z", "higgs", "semivisible", "dijet"]
Format = Literal["auto", "toptag", "jetclass", "jetnet", "lhco", "qg", "aspen", "arrays"]
Which = Annotated[Literal["latest", "best"] | int, tyro.conf.arg(metavar="latest|best|STEP")]
# Of one word, so that "None" is a mistake too, and not no shard at all.
Part = Annotated[
    Shard | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="I/N",
        instance_from_str=lambda words: Shard.parse(words[0]),
        is_instance=lambda value: value is None or isinstance(value, Shard),
        str_from_instance=lambda value: [str(value)],
    ),
]


def _shares(words: list[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, words))
    except ValueError:
        raise UserError(f"--split is {' '.join(words)}; it must be three numbers") from None


# Of three words, so that the paths may follow them.
Shares = Annotated[
    tuple[float, float, float] | None,
    PrimitiveConstructorSpec(
        nargs=3,
        metavar="FLOAT FLOAT FLOAT",
        instance_from_str=_shares,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [str(value)] if value is None else [str(share) for share in value],
    ),
]
