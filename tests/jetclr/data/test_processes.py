"""What may be asked of the processes, and what a recipe says of itself."""

import json
import math
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from jetclr.data.processes import LABELS, PROCESSES, Detector, Options, Window, recipe
from jetclr.errors import UserError


def test_top_and_qcd_are_the_reference() -> None:
    """Any change here is a change of the jets that a seed gives."""
    common = {"Beams:eCM": "14000", "PartonLevel:MPI": "off", "Print:quiet": "on"}
    qcd, top = recipe("qcd"), recipe("top")
    assert qcd.settings() == common | {"PhaseSpace:pTHatMin": "250", "HardQCD:all": "on"}
    assert top.settings() == common | {
        "PhaseSpace:pTHatMin": "200",
        "Top:gg2ttbar": "on",
        "Top:qqbar2ttbar": "on",
        "24:onMode": "off",
        "24:onIfAny": "1 2 3 4 5",
    }
    assert qcd.window == top.window == Window(0.8, 550.0, 650.0, 2.0)
    assert qcd.veto is not None
    assert (qcd.veto.scale, qcd.veto.pt_min, qcd.veto.eta_max) == (50, 490, 2.5)
    assert qcd.veto.radius == pytest.approx(1.2)
    assert (qcd.veto.parton_pt_min, qcd.veto.parton_eta_max, qcd.veto.parton_radius) == (525, 2.4, 1.0)
    assert top.veto is not None
    assert (top.veto.pt_min, top.veto.eta_max, top.veto.radius, top.veto.pdg) == (490, 3.3, 1.6, (6,))
    assert (qcd.label, top.label) == (0, 1)


def test_labels_are_one_table() -> None:
    labels = {name: LABELS[process.label] for name, process in PROCESSES.items()}
    assert labels == {
        "top": "top", "qcd": "QCD", "quark": "quark", "gluon": "gluon", "w": "W", "z": "Z", "higgs": "H to bb",
        "semivisible": "semivisible", "dijet": "QCD",
    }  # fmt: skip
    signal = recipe("dijet").signal
    assert signal is not None
    assert LABELS[signal.label] == "resonance"


def test_the_hard_scattering_starts_as_far_below_any_window() -> None:
    assert recipe("top", Options(pt_min=1100.0, pt_max=1300.0)).settings()["PhaseSpace:pTHatMin"] == "400"
    assert recipe("dijet", Options(pt_min=550.0)).pt_hat_min == 250.0
    assert "PhaseSpace:pTHatMin" not in recipe("semivisible").settings()


def test_multiple_interactions_are_switched() -> None:
    assert recipe("w", Options(mpi=True)).settings()["PartonLevel:MPI"] == "on"
    signal = recipe("dijet", Options(mpi=True)).signal
    assert signal is not None
    assert signal.settings()["PartonLevel:MPI"] == "on"


def test_a_tune_comes_before_what_it_would_undo_and_the_default_one_is_not_named() -> None:
    assert recipe("top", Options(tune=14)) == recipe("top")
    assert recipe("top").describe()["tune"] == 14
    settings = recipe("top", Options(tune=21)).settings()
    assert next(iter(settings.items())) == ("Tune:pp", "21")
    assert {name: v for name, v in settings.items() if name != "Tune:pp"} == recipe("top").settings()
    signal = recipe("dijet", Options(tune=5)).signal
    assert signal is not None
    assert signal.settings()["Tune:pp"] == "5"


def test_what_cannot_be_seen_half_way_is_not_dropped() -> None:
    dijet = recipe("dijet")
    assert dijet.veto is not None
    assert dijet.signal is not None
    assert dijet.signal.veto is None
    assert recipe("semivisible").veto is None
    assert {p for p in PROCESSES if recipe(p).veto is None} == {"semivisible"}


CHANGES = {
    "radius": 1.0, "pt_min": 560.0, "pt_max": 660.0, "eta_max": 1.0, "mpi": True, "tune": 21,
    "detector": Detector(),
    "invisible_fraction": 0.4, "mediator_mass": 3000.0, "resonance_mass": 3000.0, "signal_fraction": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", [f.name for f in fields(Options)])
def test_every_option_is_told_by_the_description(name: str) -> None:
    """Work folders and shards are compared by it, after it has been JSON."""
    process = next((p for p, made in PROCESSES.items() if name in made.own), "w")
    plain, changed = recipe(process).describe(), recipe(process, Options(**{name: CHANGES[name]})).describe()
    assert plain == recipe(process).describe() == json.loads(json.dumps(plain, allow_nan=False))
    assert changed == json.loads(json.dumps(changed, allow_nan=False))
    assert plain != changed


@pytest.mark.parametrize("name", [f.name for f in fields(Detector)])
def test_every_number_of_the_detector_is_told(name: str) -> None:
    one = Detector()
    other = replace(one, **{name: getattr(one, name) / 2})
    assert recipe("qcd", Options(detector=one)).describe() != recipe("qcd", Options(detector=other)).describe()


@pytest.mark.parametrize(
    ("process", "options", "sentence"),
    [
        ("tau", {}, "unknown process 'tau'; known: top, qcd, quark, gluon, w, z, higgs, semivisible, dijet"),
        ("qcd", {"pt_min": 700.0}, "pt_min is 700 and pt_max 650 GeV, .* give both .those of qcd are 550 and 650"),
        ("qcd", {"pt_max": 550.0}, "so that no jet fits in"),
        ("qcd", {"pt_max": math.inf}, "pt_max inf"),
        ("qcd", {"pt_max": math.nan}, "pt_max nan"),
        ("qcd", {"pt_min": math.nan}, "pt_min is nan; it must be from 50 to 2500 GeV"),
        ("qcd", {"pt_min": 0.0}, "pt_min is 0; it must be from 50"),
        ("qcd", {"radius": 0.0}, "radius is 0; it must be from 0.1 to 2"),
        ("qcd", {"radius": -1.0}, "radius is -1"),
        ("qcd", {"eta_max": 0.0}, "eta_max is 0"),
        ("top", {"invisible_fraction": 0.3}, "process top has no invisible_fraction; leave it out, or .* semivisible"),
        ("qcd", {"signal_fraction": 0.0}, "process qcd has no signal_fraction; .* ask for dijet"),
        ("semivisible", {"resonance_mass": 3000.0}, "process semivisible has no resonance_mass"),
        ("semivisible", {"invisible_fraction": 1.0}, "invisible_fraction is 1; it must be from 0 to 0.9"),
        ("semivisible", {"mediator_mass": 500.0}, "mediator_mass is 500; it must be from 1100 to .* above 550"),
        ("dijet", {"signal_fraction": 1.1}, "signal_fraction is 1.1; it must be from 0 to 1"),
        ("dijet", {"signal_fraction": -0.1}, "signal_fraction is -0.1"),
        ("dijet", {"resonance_mass": 2000.0}, "resonance_mass is 2000; it must be from 2400 to 11200 GeV"),
        ("w", {"tune": 0}, "tune is 0; it must be from 1 to 33"),
        ("dijet", {"tune": 34}, "tune is 34; it must be from 1 to 33"),
        ("qcd", {"tune": 11}, "tune 11 needs the parton distributions CT10, .* ask for another, such as 14"),
        ("w", {"detector": Detector(tracking_efficiency=1.5)}, "detector tracking_efficiency is 1.5"),
        ("w", {"detector": Detector(granularity=0.0)}, "detector granularity is 0; it must be from 0.001 to 1"),
        ("w", {"detector": Detector(stochastic=math.nan)}, "detector stochastic is nan"),
    ],
)
def test_what_makes_no_sense_gets_one_sentence(process: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        recipe(process, Options(**options))  # type: ignore[arg-type]


def test_the_mediator_follows_the_window() -> None:
    """Half its mass is what a dark quark starts with, of which a share is seen."""
    assert recipe("semivisible").pythia["4900023:m0"] == "2057.14"
    wide = recipe("semivisible", Options(pt_min=1000.0, pt_max=1200.0, invisible_fraction=0.5))
    assert wide.pythia["4900023:m0"] == "5280"


def test_options_are_light_enough_for_a_command_line() -> None:
    code = "import sys, jetclr.data.processes; print('numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
