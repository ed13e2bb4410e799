from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augmentations import (
    CollinearSplit,
    Jets,
    SoftLoss,
    SoftRadiation,
    SoftSmear,
    batched,
    make_jets,
    radiate,
    split_collinear,
)
from augmentations.jets import centroid
from tests.toys import toy_batch, toy_jet

SEEDS = st.integers(0, 10_000)
SPLITTING, LOSING = jax.jit(CollinearSplit()), jax.jit(SoftLoss(scale=1e6))  # to these, everything is soft
SPLIT = jax.jit(split_collinear)
RADIATE = jax.jit(radiate, static_argnames=("number", "radius"))

# Connected multigraphs by their edges: energy flow polynomials of degree up to 4 (arXiv:1712.07124).
GRAPHS = [
    [(0, 1)],
    [(0, 1), (0, 1)],
    [(0, 1), (1, 2)],
    [(0, 1), (1, 2), (0, 2)],
    [(0, 1), (0, 1), (1, 2)],
    [(0, 1), (1, 2), (2, 3)],
    [(0, 1), (0, 2), (0, 3)],
    [(0, 1), (1, 2), (2, 3), (0, 3)],
]


def efp(jets: Jets, graph: list[tuple[int, int]]) -> float:
    """Brute force sum over all tuples of constituents: prod z_i prod theta_kl, in double precision."""
    real = np.asarray(jets.mask)
    pt, eta, phi = (np.asarray(x, np.float64)[real] for x in (jets.pt, jets.eta, jets.phi))
    d_phi = (phi[:, None] - phi + np.pi) % (2 * np.pi) - np.pi
    theta = np.hypot(eta[:, None] - eta, d_phi)
    letters = "abcd"
    vertices = sorted({v for edge in graph for v in edge})
    operands = [pt / pt.sum()] * len(vertices) + [theta] * len(graph)
    inputs = [letters[v] for v in vertices] + [letters[k] + letters[m] for k, m in graph]
    return float(np.einsum(",".join(inputs) + "->", *operands, optimize=True))


@given(SEEDS, SEEDS)
def test_splitting_keeps_total_pt_and_every_efp(seed: int, key: int) -> None:
    jets = toy_jet(seed, slots=32)
    split = SPLITTING(jax.random.key(key), jets)
    np.testing.assert_allclose(np.sum(split.pt), np.sum(jets.pt), rtol=1e-6)
    for graph in GRAPHS:
        np.testing.assert_allclose(efp(split, graph), efp(jets, graph), rtol=2e-5, atol=1e-12)


def test_an_efp_notices_a_splitting_that_is_not_collinear() -> None:
    """The oracle itself can fail: children moved by 0.1 change every polynomial."""
    jets = toy_jet(3, slots=32)
    split = SPLIT(jax.random.key(1), jets, 32)
    child = np.asarray(split.mask) & ~np.asarray(jets.mask)
    assert child.any()
    moved = split._replace(eta=split.eta + 0.1 * child)
    assert all(abs(efp(moved, g) / efp(jets, g) - 1) > 1e-3 for g in GRAPHS)


@given(SEEDS, SEEDS)
def test_children_fill_the_padding_and_parents_split_once(seed: int, key: int) -> None:
    jets = toy_jet(seed, slots=32)
    split = SPLITTING(jax.random.key(key), jets)
    before, after = np.asarray(jets.mask), np.asarray(split.mask)
    pt = np.asarray(split.pt)
    assert after[before].all()
    assert (pt[after] > 0).all()
    assert (pt[~after] == 0).all()
    assert (np.asarray(split.eta)[~after] == 0).all()
    children = np.flatnonzero(after & ~before)
    shrunk = np.flatnonzero(before & (pt < np.asarray(jets.pt)))
    assert len(children) == len(shrunk) <= min(before.sum(), (~before).sum())
    # Each child sits on one parent and takes what the parent lost.
    lost = sorted((np.asarray(jets.pt) - pt)[shrunk])
    np.testing.assert_allclose(sorted(pt[children]), lost, rtol=1e-4, atol=1e-4)
    places = {(float(split.eta[i]), float(split.phi[i])) for i in shrunk}
    assert {(float(split.eta[i]), float(split.phi[i])) for i in children} == places


@given(SEEDS, SEEDS, st.integers(0, 40))
def test_as_many_constituents_split_as_asked_if_there_are(seed: int, key: int, splits: int) -> None:
    jets = toy_jet(seed, slots=32)
    split = SPLIT(jax.random.key(key), jets, splits)
    real = int(jets.mask.sum())
    assert int(split.mask.sum()) - real == min(splits, real, 32 - real)
    assert (np.asarray(split.pt) > 0).sum() == split.mask.sum()
    np.testing.assert_allclose(np.sum(split.pt), np.sum(jets.pt), rtol=1e-6)
    np.testing.assert_allclose(efp(split, GRAPHS[3]), efp(jets, GRAPHS[3]), rtol=2e-5, atol=1e-12)


def test_the_transform_is_the_function_with_a_random_number_and_more_splits_go_on_from_fewer() -> None:
    jets, key = toy_jet(3, slots=40), jax.random.key(4)
    made = SPLITTING(key, jets)
    splits = int(made.mask.sum() - jets.mask.sum())
    assert splits > 2
    jax.tree.map(np.testing.assert_array_equal, made, SPLIT(key, jets, splits))
    fewer = SPLIT(key, jets, splits - 1)
    touched = np.asarray(fewer.pt != jets.pt)
    np.testing.assert_array_equal(np.asarray(made.pt)[touched], np.asarray(fewer.pt)[touched])


def test_momentum_is_shared_uniformly() -> None:
    one = make_jets(*(np.array(x, np.float32) for x in ([600, 0], [0.1, 0], [0.2, 0])))
    split = jax.jit(jax.vmap(CollinearSplit(), (0, None)))(jax.random.split(jax.random.key(0), 4000), one)
    happened = np.asarray(split.mask[:, 1])
    assert 0.45 < happened.mean() < 0.55  # 0 or 1 splittings, equally often
    share = np.asarray(split.pt[:, 0])[happened] / 600
    counts = np.histogram(share, 10, (0, 1))[0]
    expected = counts.sum() / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi2 with 9 degrees of freedom, p = 0.001


def test_a_full_jet_cannot_split() -> None:
    full = make_jets(*np.ones((3, 6), np.float32))
    jax.tree.map(np.testing.assert_array_equal, SPLITTING(jax.random.key(0), full), full)


def test_children_carry_their_parents_extras() -> None:
    jets = toy_jet(5, slots=32)
    marks = jnp.where(jets.mask, jnp.arange(32) + 1.0, 0)
    split = CollinearSplit()(jax.random.key(2), jets._replace(extras={"mark": marks}))
    parent = np.asarray(split.extras["mark"]).astype(int)[np.asarray(split.mask)] - 1
    np.testing.assert_array_equal(np.asarray(split.eta)[np.asarray(split.mask)], np.asarray(jets.eta)[parent])


def test_smearing_has_the_width_of_the_study() -> None:
    pt = np.array([0.01, 1, 10, 0], np.float32)
    jets = make_jets(pt, np.zeros(4, np.float32), np.zeros(4, np.float32))
    smeared = jax.jit(jax.vmap(SoftSmear(0.1, 0.1), (0, None)))(jax.random.split(jax.random.key(0), 20_000), jets)
    np.testing.assert_allclose(smeared.eta.std(0)[:3], [1.0, 0.1, 0.01], rtol=0.03)
    np.testing.assert_allclose(smeared.phi.std(0)[1:3], [0.1, 0.01], rtol=0.03)
    assert (np.asarray(smeared.eta)[:, 3] == 0).all()
    np.testing.assert_array_equal(smeared.pt[0], pt)
    correlation = np.corrcoef(np.asarray(smeared.eta)[:, 1], np.asarray(smeared.phi)[:, 1])[0, 1]
    assert abs(correlation) < 0.03


@given(SEEDS, SEEDS)
def test_soft_loss_only_loses_and_never_the_hardest(seed: int, key: int) -> None:
    jets = toy_jet(seed)
    lost = LOSING(jax.random.key(key), jets)
    kept = np.asarray(lost.mask)
    assert kept[np.argmax(jets.pt)]
    assert (kept <= np.asarray(jets.mask)).all()
    for after, before in ((lost.pt, jets.pt), (lost.eta, jets.eta), (lost.phi, jets.phi)):
        np.testing.assert_array_equal(np.asarray(after)[kept], np.asarray(before)[kept])
        assert (np.asarray(after)[~kept] == 0).all()


def test_soft_loss_follows_its_law() -> None:
    pt = np.array([100, 2, 4], np.float32)
    jets = make_jets(pt, pt, np.zeros(3, np.float32))
    lost = jax.jit(jax.vmap(SoftLoss(2.0, 1.0), (0, None)))(jax.random.split(jax.random.key(0), 20_000), jets)
    # The chance is uniform in [0, 1] for each jet, so its mean is exp(-pT / scale) / 2.
    np.testing.assert_allclose(1 - np.asarray(lost.mask).mean(0), [0, np.exp(-1) / 2, np.exp(-2) / 2], atol=0.01)


@given(SEEDS, SEEDS, st.sampled_from([0.0, 1e-4, 0.02, 0.5]), st.sampled_from([3, 20]))
def test_radiation_carries_its_share_and_total_pt_stays(seed: int, key: int, fraction: float, number: int) -> None:
    jets = toy_jet(seed, slots=32)
    jets = jets._replace(extras={"mark": jnp.where(jets.mask, 1.0, 0)})
    out = RADIATE(jax.random.key(key), jets, fraction, number=number, radius=0.6)
    before, after = np.asarray(jets.mask), np.asarray(out.mask)
    new = after & ~before
    room = int((~before).sum())
    assert after[before].all()
    assert new.sum() == (min(number, room) if fraction else 0)
    share = fraction if new.any() else 0.0
    np.testing.assert_allclose(np.sum(out.pt), np.sum(jets.pt), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(out.pt)[new].sum(), share * np.sum(jets.pt), rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(np.asarray(out.pt)[before], (1 - share) * np.asarray(jets.pt)[before], rtol=1e-5)
    eta0, phi0 = (float(x) for x in centroid(jets))
    eta, phi = (np.asarray(x)[new] for x in (out.eta, out.phi))
    d_phi = (phi - phi0 + np.pi) % (2 * np.pi) - np.pi
    assert (np.hypot(eta - eta0, d_phi) <= 0.6 + 1e-4).all()
    for x in (out.pt, out.eta, out.phi, out.extras["mark"]):
        assert (np.asarray(x)[~after] == 0).all()
    assert (np.asarray(out.extras["mark"])[new] == 0).all()


def test_infrared_safe_polynomials_hardly_see_soft_radiation_and_multiplicity_does() -> None:
    jets = toy_jet(5, slots=48)
    radiated = [RADIATE(jax.random.key(1), jets, fraction) for fraction in (1e-5, 1e-3)]
    for graph in GRAPHS:
        change = [abs(efp(r, graph) / efp(jets, graph) - 1) for r in radiated]
        assert change[0] < 0.02 * change[1] < 0.02  # in proportion
    assert radiated[0].mask.sum() == jets.mask.sum() + 10


def test_the_shares_of_radiation_are_uniform() -> None:
    jets = toy_jet(2, slots=48)
    keys = jax.random.split(jax.random.key(0), 4000)
    out = jax.jit(jax.vmap(SoftRadiation(5, 0.1), (0, None)))(keys, jets)
    new = np.asarray(out.mask) & ~np.asarray(jets.mask)
    assert (new.sum(1) == 5).all()
    shares = (np.asarray(out.pt) * new).sum(1) / np.sum(jets.pt)
    counts = np.histogram(shares, 8, (0, 0.1))[0]
    assert counts.sum() == 4000
    assert ((counts - 500) ** 2 / 500).sum() < 24.3  # chi2 with 7 degrees of freedom, p = 0.001


def test_a_full_jet_cannot_radiate() -> None:
    full = make_jets(*np.ones((3, 6), np.float32))
    jax.tree.map(np.testing.assert_array_equal, radiate(jax.random.key(0), full, 0.1), full)


@pytest.mark.parametrize("setting", [{"number": 0}, {"fraction": 0.6}, {"radius": -1.0}])
def test_impossible_radiation_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"SoftRadiation\.{next(iter(setting))} is"):
        SoftRadiation(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [{"fraction": -0.1}, {"fraction": 1.5}])
def test_impossible_fractions_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"CollinearSplit\.fraction is"):
        CollinearSplit(**setting)


def test_each_jet_of_a_batch_has_its_own_randomness() -> None:
    batch = toy_batch(0, 4)
    same = make_jets(*(np.repeat(batch[name][:1], 6, axis=0) for name in ("pt", "eta", "phi")))
    smeared = jax.jit(batched(SoftSmear()))(jax.random.key(0), same)
    for i, j in combinations(range(6), 2):
        assert (np.asarray(smeared.eta)[i] != np.asarray(smeared.eta)[j]).any()
