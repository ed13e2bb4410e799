"""Several objectives at once, added up by weight.

Every term has its own networks, rows and memory, under names with the term's number before them; the projection is that
of all.
"""

from dataclasses import dataclass

from jaxtyping import Array, Bool

from jetclr.objectives.protocol import (
    Loss,
    Memory,
    Metrics,
    Objective,
    Outputs,
    Own,
    Rows,
    Seen,
    Sizes,
    Views,
    Whole,
    alone,
)

PROJECTION = "projection"


@dataclass(frozen=True)
class Term:
    """An objective, and by what its loss is multiplied."""

    weight: float
    objective: Objective

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"Term.weight is {self.weight}; it must be positive")


@dataclass(frozen=True)
class Combined(Objective):
    """The sum of the losses of several objectives, each times its weight.

    Beside it each loss is logged alone, as loss_NTXent and the like, and what the terms log; of what several log, that
    of the first. All see the same views and outputs: if one hides constituents, the student shows none of them to any.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if len(self.terms) < 2:
            raise ValueError(f"Combined.terms has {len(self.terms)}; a sum takes two or more")
        if any(isinstance(term.objective, Combined) for term in self.terms):
            raise ValueError("Combined.terms holds another Combined; give the terms of that instead")
        shares = sorted({objective.hides for objective in self._objectives} - {0.0})
        if len(shares) > 1:
            raise ValueError(
                f"Combined.terms hide the shares {', '.join(map(str, shares))} of the constituents; the network is "
                "shown each view once, so give all the same share"
            )

    @property
    def _objectives(self) -> list[Objective]:
        return [term.objective for term in self.terms]

    @property
    def teacher(self) -> bool:
        return any(objective.teacher for objective in self._objectives)

    @property
    def labels(self) -> bool:
        return any(objective.labels for objective in self._objectives)

    @property
    def anomalies(self) -> bool:
        return any(objective.anomalies for objective in self._objectives)

    @property
    def takes_anomalies(self) -> bool:
        return any(objective.takes_anomalies for objective in self._objectives)

    @property
    def hides(self) -> float:
        return max(objective.hides for objective in self._objectives)

    def networks(self, sizes: Sizes) -> dict[str, Own]:
        found: dict[str, Own] = {}
        for i, objective in enumerate(self._objectives):
            found |= {_name(i, name): network for name, network in objective.networks(sizes).items()}
        return found

    def begin(self, sizes: Sizes) -> Memory:
        return tuple(objective.begin(sizes) for objective in self._objectives)

    def rows(self, student: Outputs, teacher: Outputs | None, views: Views, memory: Memory) -> Rows:
        rows: Rows = {}
        for i, (objective, own) in enumerate(zip(self._objectives, memory, strict=True)):
            of_term = objective.rows(_of_term(i, student), teacher and _of_term(i, teacher), views, own)
            rows |= {name if name == PROJECTION else _name(i, name): x for name, x in of_term.items()}
        return rows

    def compared(self, views: int) -> int:
        return max(objective.compared(views) for objective in self._objectives)

    def __call__(
        self, seen: Seen, whole: Whole = alone, logged: Bool[Array, ""] | bool = True, memory: Memory = ()
    ) -> Loss:
        names = self._names()
        found = [
            term.objective(_seen_by_term(i, seen), whole, logged, own)
            for i, (term, own) in enumerate(zip(self.terms, memory, strict=True))
        ]
        metrics: Metrics = {}
        for loss in reversed(found):
            metrics |= loss.metrics
        metrics |= {name: loss.value for name, loss in zip(names, found, strict=True)}
        weighted = [term.weight * loss.value for term, loss in zip(self.terms, found, strict=True)]
        return Loss(sum(weighted[1:], weighted[0]), metrics, tuple(loss.memory for loss in found))

    def _names(self) -> list[str]:
        """Of each term, under which its loss is logged; the second of a kind has a 2 behind it."""
        kinds = [type(objective).__name__ for objective in self._objectives]
        before = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
        return [f"loss_{kind}{f'_{n + 1}' if n else ''}" for kind, n in zip(kinds, before, strict=True)]


def _name(term: int, name: str) -> str:
    return f"term_{term + 1}_{name}"


def _of_term(term: int, outputs: Outputs) -> Outputs:
    def apply(name: str, x: Array) -> Array:
        return outputs.apply(_name(term, name), x)

    return outputs._replace(apply=apply)


def _seen_by_term(term: int, seen: Seen) -> Seen:
    """The rows of a term, under the names that it gave them."""
    prefix = _name(term, "")

    def own(rows: dict[str, Array]) -> dict[str, Array]:
        mine = {name.removeprefix(prefix): x for name, x in rows.items() if name.startswith(prefix)}
        return mine | {PROJECTION: rows[PROJECTION]}

    return Seen(own(seen.rows), None if seen.anomalous is None else own(seen.anomalous), seen.label)
