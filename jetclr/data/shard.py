"""Work shared out among processes that know nothing of each other: `--shard I/N`, as in an array of batch jobs."""

import re
from dataclasses import dataclass

from jetclr.errors import UserError

WRITTEN = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0, like a process id) of `count` parts; written "0/4". Raises UserError if there is none."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UserError(_refusal(str(self)))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """What `str` wrote, or a user; raises UserError for anything but I/N with 0 <= I < N."""
        found = WRITTEN.fullmatch(text)
        if found is None:
            raise UserError(_refusal(text))
        return cls(int(found[1]), int(found[2]))

    def part(self, total: int) -> range:
        """Its share of `total` units: contiguous, as all shards' shares, which differ by one unit at most."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)

    def jets(self, jets: int, unit_jets: int) -> range:
        """Its share of `jets` jets that come in units of `unit_jets`; empty where there are more shards than units."""
        units = self.part(-(-jets // unit_jets))
        return range(min(units.start * unit_jets, jets), min(units.stop * unit_jets, jets))


def jets_to_do(shard: Shard | None, jets: int, unit_jets: int) -> range:
    """The jets of a shard, all of them without one; raises UserError for a shard that is left without any."""
    if shard is None:
        return range(jets)
    mine = shard.jets(jets, unit_jets)
    if not mine:
        raise UserError(
            f"shard {shard} holds no jets: {jets:,} jets come in units of {unit_jets:,}, so N of --shard I/N may be "
            f"{-(-jets // unit_jets):,} at most"
        )
    return mine


def _refusal(text: str) -> str:
    return f"shard is {text!r}; it must be I/N with I from 0 to N - 1, such as 0/4"
