import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augmentations import (
    AngularScale,
    Chain,
    DarkLoss,
    Jets,
    OneOf,
    Prongs,
    PtPower,
    Rotate,
    Transform,
    WideSplit,
    batched,
    make_jets,
)
from augmentations.jets import centroid, padded, trimmed, wrap_phi
from tests.toys import toy_batch, toy_jet

SEEDS = st.integers(0, 10_000)
SLOTS = 40  # room for the 30 constituents of a toy jet and ten more
ALL = [DarkLoss(), DarkLoss(rescale=False), Prongs(), WideSplit(), PtPower(), AngularScale()]
JITTED = {transform: jax.jit(transform) for transform in ALL}
EACH = pytest.mark.parametrize("transform", ALL, ids=str)


def mass(jets: Jets) -> float:
    """Of massless constituents [GeV], in double precision."""
    pt, eta, phi = (np.asarray(x, np.float64) for x in (jets.pt, jets.eta, jets.phi))
    energy, p = (pt * np.cosh(eta)).sum(), np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]).sum(1)
    return float(np.sqrt(max(energy**2 - p @ p, 0)))


def distances(jets: Jets) -> np.ndarray:
    """From the pT-weighted centroid, of the real constituents."""
    eta, phi = centroid(jets)
    return np.asarray(jnp.hypot(jets.eta - eta, wrap_phi(jets.phi - phi)))[np.asarray(jets.mask)]


def of_many(transform: Transform, jets: Jets, number: int = 2000) -> Jets:
    """What becomes of one jet, so many times."""
    return jax.jit(jax.vmap(transform, (0, None)))(jax.random.split(jax.random.key(0), number), jets)


@EACH
@given(seed=SEEDS, key=SEEDS)
def test_total_pt_stays_and_the_centroid_where_momentum_is_not_dealt_out_anew(
    transform: Transform, seed: int, key: int
) -> None:
    """A loss without a scale is the one that leaves energy missing."""
    jets = toy_jet(seed, SLOTS)
    out = JITTED[transform](jax.random.key(key), jets)
    lost = float(jets.pt.sum() - out.pt.sum()) / float(jets.pt.sum())
    if transform == DarkLoss(rescale=False):
        assert 0 <= lost < 1
        assert (lost > 0) == (int(out.mask.sum()) < int(jets.mask.sum()))
        return
    assert abs(lost) < 1e-5
    if not isinstance(transform, DarkLoss | PtPower):
        for now, before in zip(centroid(out), centroid(jets), strict=True):
            assert abs(float(wrap_phi(now - before))) < 1e-5


@EACH
@given(seed=SEEDS, key=SEEDS)
def test_padding_stays_zero_and_what_is_real_has_momentum(transform: Transform, seed: int, key: int) -> None:
    out = JITTED[transform](jax.random.key(key), toy_jet(seed, SLOTS))
    real = np.asarray(out.mask)
    np.testing.assert_array_equal(real, np.asarray(out.pt) > 0)
    assert real.any()
    for x in (out.pt, out.eta, out.phi):
        assert np.isfinite(x).all()
        assert (np.asarray(x)[~real] == 0).all()
    assert (np.abs(np.asarray(out.phi)) <= np.pi + 1e-6).all()


@EACH
def test_one_constituent_stays_one_or_splits(transform: Transform) -> None:
    one = make_jets(*(np.array(x, np.float32) for x in ([600, 0, 0], [0.1, 0, 0], [3.1, 0, 0])))
    for seed in range(4):
        out = JITTED[transform](jax.random.key(seed), one)
        assert int(out.mask.sum()) == (2 if isinstance(transform, WideSplit) else 1)
        np.testing.assert_allclose(out.pt.sum(), 600, rtol=1e-6)
        np.testing.assert_allclose([float(x) for x in centroid(out)], [0.1, 3.1], atol=1e-5)
        if not isinstance(transform, WideSplit):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-6), out, one)


def _measured(jets: Jets) -> list[np.ndarray]:
    """Multiplicity, hardest pT and mass of each of a batch."""
    each = zip(*(np.asarray(x) for x in jets[:4]), strict=True)
    masses = [mass(Jets(*columns, {})) for columns in each]
    return [np.asarray(jets.mask.sum(1), float), np.asarray(jets.pt.max(1), float), np.array(masses)]


@EACH
def test_order_carries_no_meaning(transform: Transform) -> None:
    """Over many draws the same jet in another order has the same multiplicities, masses and hardest constituents."""
    jets = toy_jet(4, SLOTS)
    order = np.random.default_rng(0).permutation(SLOTS)
    shuffled = jax.tree.map(lambda x: x[order], jets)
    a, b = of_many(transform, jets, 400), of_many(transform, shuffled, 400)
    for x, y in zip(_measured(a), _measured(b), strict=True):
        error = np.hypot(x.std(), y.std()) / np.sqrt(len(x))
        assert abs(x.mean() - y.mean()) <= 4 * error + 1e-4 * abs(x.mean())


@EACH
def test_every_jet_of_a_batch_has_its_own_draw_and_is_changed(transform: Transform) -> None:
    jet = toy_jet(2, SLOTS)
    six = jax.tree.map(lambda x: jnp.stack([x] * 6), jet)
    out = jax.jit(batched(transform))(jax.random.key(0), six)
    sorted_out = trimmed(out, SLOTS)
    for i in range(6):
        changed = [np.abs(np.asarray(x)[i] - np.asarray(y)).max() for x, y in zip(out[:3], jet[:3], strict=True)]
        assert max(changed) > 1e-2
        for j in range(i):
            assert any((np.asarray(x)[i] != np.asarray(x)[j]).any() for x in sorted_out[:3])


def test_lost_shares_are_uniform_and_losses_do_not_ask_for_momentum() -> None:
    jets = make_jets(*np.stack([np.geomspace(1, 300, 200), np.zeros(200), np.zeros(200)]).astype(np.float32))
    kept = np.asarray(of_many(DarkLoss(0.2, 0.6), jets).mask)
    shares = 1 - kept.mean(1)
    np.testing.assert_allclose([shares.mean(), shares.std()], [0.4, np.hypot(0.4 / 12**0.5, 0.035)], atol=0.01)
    each = 1 - kept.mean(0)
    assert np.abs(each - 0.4).max() < 4.5 * np.sqrt(0.24 / 2000)
    assert abs(np.corrcoef(np.arange(200), each)[0, 1]) < 0.3


@pytest.mark.parametrize("rescale", [True, False])
def test_what_is_kept_is_as_it_was_up_to_one_scale(rescale: bool) -> None:
    jets = toy_jet(3)
    out = DarkLoss(rescale=rescale)(jax.random.key(5), jets)
    kept = np.asarray(out.mask)
    assert 0 < kept.sum() < np.asarray(jets.mask).sum()
    np.testing.assert_array_equal(np.asarray(out.eta)[kept], np.asarray(jets.eta)[kept])
    np.testing.assert_array_equal(np.asarray(out.phi)[kept], np.asarray(jets.phi)[kept])
    scale = float(jets.pt.sum() / jets.pt[kept].sum()) if rescale else 1.0
    np.testing.assert_allclose(np.asarray(out.pt)[kept], scale * np.asarray(jets.pt)[kept], rtol=1e-5)


def test_a_jet_is_never_all_dark() -> None:
    kept = np.asarray(of_many(DarkLoss(1.0, 1.0), toy_jet(1)).mask)
    assert (kept.sum(1) == 1).all()
    real = np.asarray(toy_jet(1).mask)
    assert (kept.sum(0)[real] > 0).all()  # any of them, not the hardest


def test_prongs_are_as_many_as_asked_and_make_the_mass_of_a_decay() -> None:
    """Of collinear constituents each prong is a point; two of them have m^2 = 2 pT1 pT2 (cosh d_eta - cos d_phi)."""
    angles = np.zeros(60, np.float32)
    jets = make_jets(np.full(60, 10, np.float32), angles + 0.3, angles - 3.1)
    out = of_many(Prongs(most=4, radius=0.4), jets, 600)
    counts, masses = [], []
    for eta, phi in zip(np.asarray(out.eta), np.asarray(out.phi), strict=True):
        places, sizes = np.unique(np.stack([eta, phi]).round(4), axis=1, return_counts=True)
        counts.append(len(sizes))
        if len(sizes) == 2:
            d_eta, d_phi = places[:, 0] - places[:, 1]
            want = np.sqrt(200 * sizes[0] * sizes[1] * (np.cosh(d_eta) - np.cos(d_phi)))
            masses.append((mass(make_jets(np.full(60, 10, np.float32), eta, phi)), want))
    numbers, found = np.unique(counts, return_counts=True)
    np.testing.assert_array_equal(numbers, [2, 3, 4])
    assert np.abs(found - 200).max() < 60
    got, want = np.array(masses).T
    np.testing.assert_allclose(got, want, rtol=5e-3, atol=0.5)
    assert np.ptp(want) > 50


@pytest.mark.parametrize("width", [0.0, 0.5, 1.0])
def test_a_prong_is_the_jet_s_own_pattern_shrunk(width: float) -> None:
    jets = toy_jet(8)
    out = Prongs(most=2, radius=0.5, width=width)(jax.random.key(1), jets)
    np.testing.assert_array_equal(out.pt, jets.pt)
    real = np.asarray(jets.mask)
    shift = np.stack([out.eta - width * jets.eta, wrap_phi(out.phi - width * jets.phi)])[:, real].round(4)
    assert len(np.unique(shift, axis=1).T) == 2


SPLIT = {number: jax.jit(WideSplit(number, 0.4)) for number in (1, 12)}


@given(SEEDS, SEEDS, st.sampled_from(sorted(SPLIT)))
def test_only_the_hardest_split_and_the_softest_make_room(seed: int, key: int, number: int) -> None:
    jets = toy_jet(seed, 24)
    out = SPLIT[number](jax.random.key(key), jets)
    before = np.sort(np.asarray(jets.pt)[np.asarray(jets.mask)])[::-1]
    after = np.asarray(out.pt)[np.asarray(out.mask)]
    assert (np.diff(after) <= 0).all()
    split = min(number, len(before))
    assert len(after) == min(len(before) + split, 24)
    room = SPLIT[number](jax.random.key(key), padded(jets, 16))
    lost = np.sort(np.asarray(room.pt)[np.asarray(room.mask)])[: len(before) + split - len(after)]
    np.testing.assert_allclose(after.sum(), before.sum() - lost.sum(), rtol=1e-5)
    untouched = np.isin(np.asarray(room.pt), before[split:])
    assert untouched.sum() >= len(before) - split


def test_two_halves_are_apart_as_drawn_with_their_mean_where_the_parent_was() -> None:
    one = make_jets(*(np.array(x, np.float32) for x in ([100, 0], [0.5, 0], [-3.0, 0])))
    out = of_many(WideSplit(1, 0.6), one)
    pt, eta, phi = (np.asarray(x, np.float64) for x in (out.pt, out.eta, out.phi))
    d_phi = (phi[:, 0] - phi[:, 1] + np.pi) % (2 * np.pi) - np.pi
    apart = np.hypot(eta[:, 0] - eta[:, 1], d_phi)
    assert apart.max() < 0.6 + 1e-4
    np.testing.assert_allclose((apart**2 / 0.36).mean(), 0.5, atol=0.03)  # uniform in the disc
    np.testing.assert_allclose((pt * eta).sum(1) / 100, 0.5, atol=1e-5)
    harder = pt.max(1) / 100  # of two uniform shares
    np.testing.assert_allclose([harder.mean(), harder.min()], [0.75, 0.5], atol=0.01)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0, 10.0])
def test_pt_follows_its_power(power: float) -> None:
    jets = toy_jet(1)
    out = PtPower(power, power)(jax.random.key(0), jets)
    real = np.asarray(jets.mask)
    pt = np.asarray(jets.pt, np.float64)[real]
    np.testing.assert_allclose(np.asarray(out.pt)[real], pt.sum() * pt**power / (pt**power).sum(), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(out.eta, jets.eta)
    np.testing.assert_array_equal(out.mask, jets.mask)


@given(SEEDS, SEEDS)
def test_all_distances_grow_by_one_factor_and_the_mass_about_as_much(seed: int, key: int) -> None:
    jets = toy_jet(seed)
    out = JITTED[AngularScale()](jax.random.key(key), jets)
    before, after = distances(jets), distances(out)
    far = before > 1e-3
    if not far.any():
        return
    factor = after[far] / before[far]
    np.testing.assert_allclose(factor, np.median(factor), rtol=2e-2)
    assert 1.5 - 1e-2 < np.median(factor) < 3 + 3e-2
    if before.max() * np.median(factor) < 0.2:  # small angles
        np.testing.assert_allclose(mass(out) / mass(jets), np.median(factor), rtol=0.05)


def test_the_factors_are_log_uniform() -> None:
    pair = make_jets(*(np.array(x, np.float32) for x in ([50, 50], [-0.1, 0.1], [0, 0])))
    factors = np.asarray(of_many(AngularScale(0.5, 2.0), pair).eta)[:, 1] / 0.1
    counts = np.histogram(np.log2(factors), 8, (-1, 1))[0]
    assert counts.sum() == 2000
    assert ((counts - 250) ** 2 / 250).sum() < 24.3  # chi2 with 7 degrees of freedom, p = 0.001


def test_each_of_several_is_drawn_equally_often_and_as_it_is_alone() -> None:
    jets = toy_jet(1, SLOTS)
    mixed = of_many(OneOf((PtPower(2.0, 2.0), AngularScale(2.0, 2.0), Chain())), jets, 900)
    harder = np.asarray(mixed.pt.max(1)) > float(jets.pt.max()) * 1.001
    wider = np.abs(np.asarray(mixed.eta) - np.asarray(jets.eta)).max(1) > 1e-3
    assert not (harder & wider).any()
    counts = np.array([harder.sum(), wider.sum(), (~harder & ~wider).sum()])
    assert ((counts - 300) ** 2 / 300).sum() < 13.8  # chi2 with 2 degrees of freedom, p = 0.001
    first = np.flatnonzero(harder)[0]
    np.testing.assert_allclose(mixed.pt[first], PtPower(2.0, 2.0)(jax.random.key(0), jets).pt, rtol=1e-5)


def test_a_mixture_works_on_a_batch_with_its_extras() -> None:
    batch = toy_batch(0, 16)
    jets = make_jets(batch["pt"], batch["eta"], batch["phi"], {"mark": (batch["pt"] > 0).astype(np.float32)})
    out = jax.jit(batched(OneOf((DarkLoss(), Chain(Rotate(), WideSplit())))))(jax.random.key(0), jets)
    np.testing.assert_array_equal(np.asarray(out.extras["mark"]) > 0, out.mask)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: OneOf(()), r"OneOf\.transforms is empty"),
        (lambda: DarkLoss(0.5, 0.4), r"DarkLoss\.least is 0\.5; it must lie between 0 and 0\.4"),
        (lambda: DarkLoss(0.5, 1.4), r"DarkLoss\.most is 1\.4"),
        (lambda: Prongs(1), r"Prongs\.most is 1; it must lie between 2 and"),
        (lambda: Prongs(radius=-1), r"Prongs\.radius is -1"),
        (lambda: Prongs(width=-1), r"Prongs\.width is -1"),
        (lambda: WideSplit(0), r"WideSplit\.number is 0"),
        (lambda: WideSplit(radius=4), r"WideSplit\.radius is 4"),
        (lambda: PtPower(0.5, 0.4), r"PtPower\.low is 0\.5"),
        (lambda: PtPower(0.5, 11), r"PtPower\.high is 11"),
        (lambda: AngularScale(0, 1), r"AngularScale\.low is 0"),
        (lambda: AngularScale(1, 101), r"AngularScale\.high is 101"),
    ],
)
def test_impossible_settings_are_refused(made: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        made()  # type: ignore[operator]
