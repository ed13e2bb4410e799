"""Substructure observables against closed forms, FastJet, and the best axes there are."""

import itertools

import fastjet
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from probes.observables import NAMES, baseline_features, n_subjettiness, observables
from tests.toys import toy_batch


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def jets(seed, n=6, slots=30):
    batch = toy_batch(seed, n, slots)
    return (*(batch[k] for k in ("pt", "eta", "phi")), batch["pt"] > 0)


def named(*fields):
    values, names = observables(*fields)
    assert names == NAMES
    return dict(zip(names, values.T.astype(np.float64), strict=True))


def wrapped(phi):
    return (phi + np.pi) % (2 * np.pi) - np.pi


def distances(eta, phi, axes):
    """[axes, constituents]"""
    return np.array([np.hypot(eta - a, wrapped(phi - b)) for a, b in axes])


def test_by_hand():
    """Two constituents of 30 and 10 GeV at distance 1/2, across the cut in phi."""
    pt, eta = np.array([[30.0, 10.0, 99.0]]), np.array([[0.1, 0.4, 9.0]])
    phi = np.array([[np.pi - 0.1, -np.pi + 0.3, 9.0]])
    found = named(pt, eta, phi, np.array([[True, True, False]]))
    assert found["jet_mass"][0] == pytest.approx(np.sqrt(2 * 300 * (np.cosh(0.3) - np.cos(0.4))), rel=1e-6)
    assert found["jet_pt"][0] == pytest.approx(np.sqrt(30**2 + 10**2 + 2 * 300 * np.cos(0.4)), rel=1e-6)
    assert found["multiplicity"][0] == 2
    # From the centroid the two are 1/8 and 3/8 away.
    assert found["girth"][0] == pytest.approx(0.75 * 0.125 + 0.25 * 0.375, rel=1e-6)
    assert found["lha"][0] == pytest.approx(0.75 * np.sqrt(0.125) + 0.25 * np.sqrt(0.375), rel=1e-6)
    assert found["pt_dispersion"][0] == pytest.approx(np.hypot(0.75, 0.25), rel=1e-6)
    assert found["tau1"][0] == pytest.approx(0.25 * 0.5, rel=1e-6)
    assert found["tau1_beta2"][0] == pytest.approx(0.25 * 0.25, rel=1e-6)
    for name in ("tau2", "tau3", "tau4", "tau21", "tau32", "tau4_beta2"):
        assert found[name][0] == 0


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_n_subjettiness_with_the_axes_of_fastjet(beta):
    pt, eta, phi, mask = (x if x.dtype == bool else x.astype(np.float64) for x in jets(3, 40))
    found = n_subjettiness(pt, eta, phi, mask, beta=beta)
    definition = fastjet.JetDefinition(fastjet.kt_algorithm, 1000.0, fastjet.WTA_pt_scheme)
    for jet in range(40):
        p, e, f = (x[jet][mask[jet]] for x in (pt, eta, phi))
        momenta = zip(p * np.cos(f), p * np.sin(f), p * np.sinh(e), p * np.cosh(e), strict=True)
        cluster = fastjet.ClusterSequence([fastjet.PseudoJet(*map(float, x)) for x in momenta], definition)
        for axes in range(1, min(4, len(p)) + 1):
            places = [(axis.rap(), axis.phi()) for axis in cluster.exclusive_jets(axes)]
            wanted = (p / p.sum() * distances(e, f, places).min(axis=0) ** beta).sum()
            # FastJet's own directions have 1e-8 of rounding from the momenta.
            assert found[jet, axes - 1] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_n_subjettiness_is_near_the_best_that_axes_on_constituents_can_do():
    """Every choice of constituents as axes, for 40 jets of 9: never below the best, and on average within a tenth."""
    pt, eta, phi, _ = jets(4, 40, 9)
    mask = pt > 0
    found = n_subjettiness(pt, eta, phi, mask)
    best = np.zeros((40, 4))
    for jet in range(40):
        p, e, f = (x[jet][mask[jet]].astype(np.float64) for x in (pt, eta, phi))
        apart = distances(e, f, np.c_[e, f])
        for axes in range(1, 5):
            chosen = itertools.combinations(range(len(p)), min(axes, len(p)))
            best[jet, axes - 1] = min((p / p.sum() * apart[list(c)].min(axis=0)).sum() for c in chosen)
    assert (found >= best - 1e-6).all()
    assert (found.mean(axis=0) < 1.1 * best.mean(axis=0) + 1e-6).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_neither_place_nor_order_nor_padding_matters(seed):
    rng = np.random.default_rng(seed)
    pt, eta, phi, mask = (x if x.dtype == bool else x.astype(np.float64) for x in jets(seed, 4))
    wanted, _ = observables(pt, eta, phi, mask)
    order = rng.permutation(30)
    same = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(observables(*(x[:, order] for x in (pt, eta, phi, mask)))[0], wanted, **same)
    moved = wrapped(phi + rng.uniform(-9, 9))
    np.testing.assert_allclose(observables(pt, eta + rng.uniform(-2, 2), moved, mask)[0], wanted, **same)
    junk = [np.where(mask, x, np.nan) for x in (pt, eta, phi)]
    np.testing.assert_array_equal(observables(*junk, mask)[0], wanted)
    wide = [np.pad(x, ((0, 0), (0, 40))) for x in (pt, eta, phi, mask)]
    np.testing.assert_allclose(observables(*wide)[0], wanted, rtol=1e-6)
    assert (np.diff(wanted[:, NAMES.index("tau1") : NAMES.index("tau4") + 1], axis=1) <= 1e-6).all()


def test_the_mass_of_a_forward_light_jet_keeps_its_digits():
    """At eta = 6 the energy is 200 times pT; the mass of two collimated constituents is a millionth of it."""
    pt, eta, phi = np.array([[300.0, 300.0]]), np.array([[6.0, 6.0 + 1e-4]]), np.zeros((1, 2))
    found = named(pt, eta, phi, np.ones((1, 2), bool))
    assert found["jet_mass"][0] == pytest.approx(np.sqrt(2 * 300**2 * (np.cosh(1e-4) - 1)), rel=1e-4)


def test_baseline_features_are_observables_and_their_logarithms():
    values, names = observables(*jets(5))
    found, labels = baseline_features(*jets(5))
    assert found.shape == (6, 24)
    for name, column in zip(labels, found.T, strict=True):
        wanted = values[:, names.index(name.removeprefix("log_"))]
        wanted = np.log(np.maximum(wanted, 1e-4)) if name.startswith("log_") else wanted
        np.testing.assert_allclose(column, wanted, rtol=1e-6)
    single, _ = baseline_features(*(np.full((1, 1), x) for x in (5.0, 1.0, 1.0)), np.ones((1, 1), bool))
    assert np.isfinite(single).all()


def test_one_constituent_and_no_jets():
    values, _ = observables(*(np.full((1, 1), x) for x in (5.0, 1.0, 1.0)), np.ones((1, 1), bool))
    wanted = dict.fromkeys(NAMES, 0.0) | {"jet_pt": 5.0, "multiplicity": 1.0, "pt_dispersion": 1.0}
    np.testing.assert_allclose(values[0], list(wanted.values()), atol=1e-6)
    empty = np.zeros((0, 5))
    assert observables(empty, empty, empty, empty > 0)[0].shape == (0, len(NAMES))


def test_bad_input_is_refused():
    pt, eta, phi, mask = jets(0, 2)
    with refused("one shape"):
        observables(pt, eta[:, :3], phi, mask)
    with refused("eta of a constituent is NaN or infinite in 2 jets"):
        observables(pt, eta * np.float32(np.nan), phi, mask)
    with refused("1 of 2 jets have no constituent"):
        observables(pt, eta, phi, mask & np.array([[True], [False]]))
    with refused("observables of 1 jets are beyond float32"), np.errstate(all="ignore"):
        far = np.array([[0.0, 0.1], [0.0, 900.0]])
        observables(np.ones((2, 2)), far, np.zeros((2, 2)), np.ones((2, 2), bool))
    with refused("beta must be positive"):
        n_subjettiness(pt, eta, phi, mask, beta=0.0)
