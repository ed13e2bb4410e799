import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, poisson

from augmentations import Jets, PileUp, make_jets
from augmentations.jets import centroid
from augmentations.pileup import LEAST_PT, POWER, SCALE, _poisson, _soft_pt
from tests.toys import toy_jet

SEEDS = st.integers(0, 10_000)
FEW = jax.jit(PileUp(vertices=5, radius=0.4))


def added(jets: Jets, out: Jets) -> np.ndarray:
    """Which constituents are new: those of the jet carry a mark."""
    return np.asarray(out.mask) & (np.asarray(out.extras["mark"]) == 0)


def marked(jets: Jets) -> Jets:
    return jets._replace(extras={"mark": jnp.where(jets.mask, 1.0, 0)})


@given(SEEDS, SEEDS)
def test_a_jet_with_room_keeps_all_it_has_and_gets_soft_ones_in_its_disc(seed: int, key: int) -> None:
    jets = marked(toy_jet(seed, slots=80))
    out = FEW(jax.random.key(key), jets)
    new = added(jets, out)
    old = np.asarray(out.mask) & ~new
    for after, before in ((out.pt, jets.pt), (out.eta, jets.eta), (out.phi, jets.phi)):
        assert sorted(np.asarray(after)[old]) == sorted(np.asarray(before)[np.asarray(jets.mask)])
    assert (np.asarray(out.pt)[new] >= LEAST_PT).all()
    eta0, phi0 = (float(x) for x in centroid(jets))
    d_phi = (np.asarray(out.phi)[new] - phi0 + np.pi) % (2 * np.pi) - np.pi
    assert (np.hypot(np.asarray(out.eta)[new] - eta0, d_phi) <= 0.4 + 1e-4).all()


def test_in_a_full_jet_the_softest_give_way() -> None:
    jets = marked(make_jets(*(np.linspace(a, b, 12, dtype=np.float32) for a, b in ((0.01, 30), (-0.1, 0.1), (0, 0.1)))))
    out = jax.jit(PileUp(vertices=20))(jax.random.key(0), jets)
    new = added(jets, out)
    assert out.mask.all()
    assert 1 <= new.sum() <= 11
    np.testing.assert_array_equal(np.sort(np.asarray(out.pt)[~new]), np.asarray(jets.pt)[new.sum() :])
    assert np.asarray(out.pt)[new].min() > 0.01


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 40.0, 1900.0])
def test_numbers_are_poisson(mean: float) -> None:
    drawn = np.asarray(jax.jit(jax.vmap(lambda k: _poisson(k, mean)))(jax.random.split(jax.random.key(0), 4000)))
    if mean == 0:
        assert (drawn == 0).all()
        return
    # chi2 in bins of equal expectation; its quantile at p = 0.001 for at most 9 degrees of freedom.
    edges = np.unique(poisson.ppf(np.linspace(0, 1, 11)[1:-1], mean))
    bins = np.concatenate([[-1], edges, [np.inf]])
    expected = 4000 * np.diff(poisson.cdf(bins, mean))
    counts = np.histogram(drawn, bins + 0.5)[0]
    kept = expected > 5
    assert (((counts - expected) ** 2 / expected)[kept]).sum() < 27.9


def test_the_number_follows_vertices_density_and_area() -> None:
    made = PileUp(vertices=3, radius=0.5, density=2)
    assert made.mean == pytest.approx(3 * 2 * np.pi * 0.25)
    jets = marked(toy_jet(0, slots=64))
    out = jax.jit(jax.vmap(made, (0, None)))(jax.random.split(jax.random.key(1), 2000), jets)
    number = np.asarray(out.mask).sum(1) - int(jets.mask.sum())
    np.testing.assert_allclose(number.mean(), made.mean, rtol=0.03)
    np.testing.assert_allclose(number.var(), made.mean, rtol=0.1)
    none = jax.jit(PileUp(vertices=0))(jax.random.key(0), jets)
    np.testing.assert_array_equal(none.pt, np.sort(jets.pt)[::-1])


def test_momenta_follow_the_power_law() -> None:
    pt = np.asarray(_soft_pt(jax.random.uniform(jax.random.key(0), (20_000,))))
    assert kstest(pt, "lomax", (POWER, LEAST_PT, SCALE)).pvalue > 0.001
    assert pt.mean() == pytest.approx(0.635, abs=0.01)
    np.testing.assert_allclose(
        _soft_pt(jnp.array([0.0, 1 - 2.0**-24])), [0.2, 0.2 + 2 * (2 ** (24 / 5.6) - 1)], rtol=1e-5
    )


def test_an_empty_jet_stays_empty() -> None:
    blank = np.zeros(6, np.float32)
    out = jax.jit(PileUp(vertices=50))(jax.random.key(0), make_jets(blank, blank, blank))
    assert not out.mask.any()
    assert not np.asarray(out.pt).any()


@pytest.mark.parametrize("setting", [{"vertices": -1.0}, {"radius": 3.5}, {"density": -0.1}])
def test_settings_that_make_no_sense_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"PileUp\.{next(iter(setting))} is"):
        PileUp(**setting)


def test_more_particles_than_a_jet_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=r"PileUp would add [0-9]+ particles to a jet; it is made for up to 2000"):
        PileUp(vertices=1000)
