"""Which events are dropped half way: none that hold a jet, and those that a picture of a few partons says."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from jetclr.data import pythia, veto
from jetclr.data.matching import delta_r
from jetclr.data.processes import recipe

pytest.importorskip("pythia8mc", reason="generating is an optional extra")
pytest.importorskip("fastjet", reason="generating is an optional extra")


@pytest.mark.parametrize("process", ["qcd", "top", "w", "gluon"])
def test_dropped_events_hold_no_jets(process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdicts of both looks, noted but not obeyed, against what the events turn out to hold."""
    first, second = [], []
    look, look_again = veto.showers_hopeful, veto.partons_hopeful

    def note(*args: Any) -> bool:
        first.append(look(*args))
        return True

    def note_again(*args: Any) -> bool:
        second.append(look_again(*args))
        return True

    monkeypatch.setattr(veto, "showers_hopeful", note)
    monkeypatch.setattr(veto, "partons_hopeful", note_again)
    made = replace(recipe(process), pt_hat_min=400.0)
    instance, _hook = pythia.make_pythia(made, 6)
    particles = pythia.next_events(instance, 300)
    assert len(first) == len(second) == len(particles.offsets) - 1 == 300
    jets = np.bincount(pythia._single_jets(pythia.observe(particles, made, 6, 0), made, particles).event, minlength=300)
    assert jets.sum() > 30
    assert not jets[~np.array(first)].any()
    assert not jets[~np.array(second)].any()
    assert np.sum(~np.array(first)) > 60
    assert np.sum(np.array(first) & ~np.array(second)) > 10


@dataclass
class Parton:
    """What the first look asks of an entry of Pythia's record."""

    transverse: float
    pseudorapidity: float
    azimuth: float
    final: bool = True

    def isFinal(self) -> bool:
        return self.final

    def idAbs(self) -> int:
        return 21

    def eta(self) -> float:
        return self.pseudorapidity

    def phi(self) -> float:
        return self.azimuth

    def px(self) -> float:
        return self.transverse * np.cos(self.azimuth)

    def py(self) -> float:
        return self.transverse * np.sin(self.azimuth)

    def mT(self) -> float:
        return self.transverse


class Record(list[Any]):
    """An event record of partons behind the beams and what they send into the scattering."""

    def __init__(self, *partons: Parton) -> None:
        super().__init__([None] * 5 + list(partons))

    def size(self) -> int:
        return len(self)


@pytest.mark.parametrize(
    ("partons", "hopeful"),
    [
        ([(500, 0.0, 0.0), (500, 1.0, np.pi)], True),
        ([(485, 0.0, 0.0), (485, 1.0, np.pi)], False),
        ([(500, 2.6, 0.0), (500, -2.6, np.pi)], False),
        ([(500, 2.6, 0.0), (500, 2.4, np.pi)], True),
        ([(500, 3.0, 0.0), (300, 0.4, np.pi), (200, -0.4, -np.pi)], True),  # two side by side, across the seam
        ([(500, 3.0, 0.0), (300, 0.7, np.pi), (200, -0.7, -np.pi)], False),  # too far apart
    ],
)
def test_which_showers_are_hopeful(partons: list[tuple[float, float, float]], hopeful: bool) -> None:
    """490 GeV within 1.2 of a parton with |eta| < 2.5 are needed."""
    rules = recipe("qcd").veto
    assert rules is not None
    event = Record(*(Parton(*p) for p in partons), Parton(900, 0.0, 0.0, final=False))
    assert veto.showers_hopeful(event, lambda: None, rules) == hopeful


def test_quarks_go_where_the_first_look_expects_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at when hardly any radiation is left, the quarks of a top are where they leave its decay in the end."""
    expected: list[list[tuple[float, float]]] = []
    found: list[list[tuple[float, float]]] = []

    def predict(event: Any, owner: Callable[[], Any], _: veto.Veto) -> bool:
        tops = [p for p in (event[i] for i in range(event.size())) if p.isFinal() and p.idAbs() == 6]
        tops.sort(key=lambda p: p.iTopCopyId())
        expected.append([quark[:2] for quarks in veto._decayed(tops, owner().process) for quark in quarks])
        return True

    def see(event: Any, *_: Any) -> bool:
        quarks = [i for hard in (5, 6) for i in veto._quarks(event, event[hard].iBotCopyId())]
        found.append([(event[i].eta(), event[i].phi()) for i in quarks])
        return len(found) > 40

    monkeypatch.setattr(veto, "showers_hopeful", predict)
    monkeypatch.setattr(veto, "partons_hopeful", see)
    make, rules = veto.early_veto, recipe("top").veto
    assert rules is not None
    monkeypatch.setattr(pythia, "early_veto", lambda _, owner: make(replace(rules, scale=1.5), owner))
    made = replace(recipe("top"), pt_hat_min=500.0)
    made = replace(made, pythia=made.pythia | {"BeamRemnants:primordialKT": "off"})
    instance, _hook = pythia.make_pythia(made, 4)
    pythia.next_events(instance, 1)
    one, other = np.array(expected), np.array(found)
    assert one.shape == other.shape == (len(found), 6, 2)
    apart = delta_r(one[..., 0], one[..., 1], other[..., 0], other[..., 1])
    assert np.median(apart) < 0.005
    assert np.mean(apart < 0.05) > 0.95
