"""The normalising flow: densities against quadrature and known ones, inverses, samples, files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from probes.anomaly.couplings import spline
from probes.anomaly.flow import FittedFlow, Flow, fit_flow
from tests.probes.anomaly.features import refused

QUICK = Flow(layers=3, bins=6, width=32, steps=300, batch=256, peak_lr=5e-3, averaged=0.98, checks=6)


def crescents(count, seed=0):
    """Two half rings, in units that differ by a thousand, about a far point [count, 2]."""
    rng = np.random.default_rng(seed)
    side, angle = rng.integers(2, size=count), rng.uniform(0, np.pi, count)
    sign = np.where(side, 1, -1)
    x = np.column_stack([np.cos(angle) * sign + side - 0.5, np.sin(angle) * sign]) + 0.15 * rng.normal(size=(count, 2))
    return x * [100, 0.1] + [1e3, 0]


def conditional(count, seed=0):
    """A skew feature whose place and width the context sets; the second column of the context tells nothing."""
    rng = np.random.default_rng(seed)
    context = np.column_stack([rng.uniform(1, 3, count), np.full(count, 7.0)])
    return (context[:, :1] ** 2 * rng.gamma(4, 1, (count, 1))), context


@pytest.fixture(scope="module")
def flow():
    return fit_flow(crescents(4000), None, QUICK)


@pytest.fixture(scope="module")
def given_context():
    return fit_flow(*conditional(6000), QUICK)


def grid(x, points=240, margin=1.0):
    """Points of a grid that holds all jets well inside, and the area of a cell."""
    spread = margin * x.std(axis=0)
    axes = [np.linspace(lo, hi, points) for lo, hi in zip(x.min(axis=0) - spread, x.max(axis=0) + spread, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2), np.prod([a[1] - a[0] for a in axes])


def test_the_density_integrates_to_one(flow):
    points, cell = grid(crescents(4000))
    assert np.exp(flow.log_density(points)).sum() * cell == pytest.approx(1, abs=2e-3)


def test_a_fit_finds_the_density(flow):
    """Mean log-density on other jets, against the truth by a fine histogram of very many."""
    x = crescents(4000, seed=1)
    many = crescents(1_000_000, seed=2)
    counts, *edges = np.histogram2d(*many.T, bins=60)
    cell = np.diff(edges[0])[0] * np.diff(edges[1])[0]
    at = [np.clip(np.searchsorted(e, column) - 1, 0, 59) for e, column in zip(edges, x.T, strict=True)]
    truth = np.log(np.maximum(counts[at[0], at[1]], 1) / len(many) / cell).mean()
    gaussian = stats.multivariate_normal(x.mean(axis=0), np.cov(x.T)).logpdf(x).mean()
    reached = flow.log_density(x).mean()
    assert reached > truth - 0.1
    assert reached > gaussian + 0.5


def test_the_density_is_that_of_the_map(flow):
    """log |dz/dx| against finite differences of the map itself."""
    x = crescents(1000, seed=3)
    z, logs = flow.forward(x)
    step = 1e-2 * x.std(axis=0)
    columns = [(flow.forward(x + s)[0] - flow.forward(x - s)[0]) / (2 * s.sum()) for s in np.diag(step)]
    # A bend of a spline between the two points costs more than rounding does: the median is told apart from it.
    wrong = np.abs(np.linalg.slogdet(np.stack(columns, axis=-1))[1] - logs)
    assert np.median(wrong) < 5e-3
    np.testing.assert_allclose(flow.log_density(x), stats.norm.logpdf(z).sum(axis=1) + logs, rtol=1e-6)


def test_it_inverts(flow, given_context):
    x = crescents(3000, seed=1)
    np.testing.assert_allclose(flow.inverse(flow.forward(x)[0]) / x.std(axis=0), x / x.std(axis=0), atol=1e-4)
    x, context = conditional(3000, seed=1)
    z = given_context.forward(x, context)[0]
    np.testing.assert_allclose(given_context.inverse(z, context) / x.std(), x / x.std(), atol=1e-4)


def test_points_are_normal_and_samples_follow_the_density(flow):
    z, _ = flow.forward(crescents(4000, seed=1))
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    drawn = flow.sample(4000, seed=5)
    np.testing.assert_array_equal(drawn, flow.sample(4000, seed=5))
    assert not np.array_equal(drawn, flow.sample(4000, seed=6))
    # Entropy of the flow, by its own samples and by quadrature.
    points, cell = grid(crescents(4000))
    density = np.exp(flow.log_density(points))
    expected = (density * np.log(np.maximum(density, 1e-300))).sum() * cell
    assert flow.log_density(drawn).mean() == pytest.approx(expected, abs=0.05)
    for mine, true in zip(drawn.T, crescents(4000, seed=7).T, strict=True):
        assert stats.ks_2samp(mine, true).pvalue > 1e-4


def test_given_a_context(given_context):
    """The density at two values of the context against the known one, in one dimension."""
    for place in (1.3, 2.7):
        x = np.linspace(-5, 25 * place**2, 4000)[:, None]
        context = np.tile([place, 7.0], (len(x), 1))
        found = np.exp(given_context.log_density(x, context))
        true = stats.gamma(4, scale=place**2).pdf(x[:, 0])
        step = x[1, 0] - x[0, 0]
        assert found.sum() * step == pytest.approx(1, abs=2e-3)
        assert np.abs(found - true).sum() * step / 2 < 0.06
        drawn = given_context.sample(context, seed=1)[:, 0]
        assert stats.kstest(drawn, stats.gamma(4, scale=place**2).cdf).statistic < 0.06


def test_one_feature_alone():
    x = np.random.default_rng(0).exponential(size=(2000, 1))
    flow = fit_flow(x, None, dataclasses.replace(QUICK, layers=1))
    points = np.linspace(-3, 30, 20_000)[:, None]
    assert np.exp(flow.log_density(points)).mean() * 33 == pytest.approx(1, abs=2e-3)
    np.testing.assert_allclose(flow.inverse(flow.forward(x)[0]), x, atol=1e-4)


def test_far_away_it_is_as_a_normal_distribution(flow):
    far = crescents(1000, seed=1) + np.repeat([[1e5, 0], [0, 1e6]], 500, axis=0)
    logs = flow.log_density(far)
    assert np.isfinite(logs).all()
    assert (logs < flow.log_density(crescents(1000, seed=1)).min()).all()
    with pytest.raises(ValueError, match="NaN or infinity for 1 of 2 jets"):
        flow.log_density(np.array([[1e300, 0], [1e3, 0]]))


def test_splines_rise_join_and_invert():
    """Many splines at once, from the identity to very uneven ones."""
    rng = np.random.default_rng(0)
    sizes = np.linspace(0, 2, 64)
    shapes = jnp.asarray(sizes[:, None] * rng.normal(size=(1, 64, 23)), jnp.float32)
    x = jnp.broadcast_to(jnp.linspace(-4, 4.03, 201)[:, None], (201, 64))
    many = jnp.broadcast_to(shapes, (201, 64, 23))
    y, logs = jax.jit(lambda x, shapes: spline(x, shapes, 3.0))(x, many)
    back, minus = jax.jit(lambda y, shapes: spline(y, shapes, 3.0, inverse=True))(y, many)
    own = jax.jit(jax.grad(lambda x, shapes: spline(x, shapes, 3.0)[0].sum()))(x, many)
    x, y, logs, back, minus, own = (np.asarray(a, np.float64) for a in (x, y, logs, back, minus, own))
    assert (np.diff(y, axis=0) > 0).all()
    outside = np.abs(x) >= 3
    np.testing.assert_array_equal(y[outside], x[outside])
    np.testing.assert_array_equal(logs[outside], 0)
    assert np.abs(y[~outside]).max() < 3 + 1e-5
    assert (np.abs(back - x) <= 1e-5 * (1 + np.exp(-logs))).all()
    np.testing.assert_allclose(minus, -logs, atol=5e-3)
    np.testing.assert_allclose(np.log(own), logs, atol=1e-3)
    np.testing.assert_allclose(y[:, 0], x[:, 0], atol=2e-6)
    np.testing.assert_allclose(logs[:, 0], 0, atol=1e-5)


def test_same_seed_same_bits_and_steps_are_told(flow):
    told = []
    short = dataclasses.replace(QUICK, layers=1, steps=20, checks=2)
    a, b = (fit_flow(crescents(400), None, short, seed=3, progress=told.append) for _ in range(2))
    x = crescents(50, seed=1)
    np.testing.assert_array_equal(a.log_density(x), b.log_density(x))
    assert sum(told) == 40
    assert not np.array_equal(a.log_density(x), fit_flow(crescents(400), None, short, seed=4).log_density(x))


def test_a_jet_is_scored_alike_whatever_lies_beside_it(flow):
    x = crescents(3000, seed=1)
    scores = flow.log_density(x)
    np.testing.assert_array_equal(scores[2990:], flow.log_density(x[2990:]))
    assert flow.log_density(x[:0]).shape == (0,)
    assert flow.sample(0).shape == (0, 2)


def test_restored_to_the_bit(flow, given_context):
    x, context = conditional(1000, seed=1)
    again = FittedFlow.restored(given_context.state(), QUICK)
    np.testing.assert_array_equal(again.log_density(x, context), given_context.log_density(x, context))
    state = flow.state()
    with refused("network/layer_0_spline:w"):
        FittedFlow.restored({k: v for k, v in state.items() if k != "network/layer_0_spline:w"}, QUICK)
    with refused("shape"):
        FittedFlow.restored(state, dataclasses.replace(QUICK, width=16))
    with refused("mean is missing"):
        FittedFlow.restored({k: v for k, v in state.items() if k != "mean"}, QUICK)
    with refused("scale"):
        FittedFlow.restored(state | {"scale": np.ones(3)}, QUICK)
    with refused("positive"):
        FittedFlow.restored(state | {"scale": np.zeros(2)}, QUICK)
    with refused("NaN"):
        FittedFlow.restored(state | {"network/layer_0_spline:b": np.full(17, np.nan)}, QUICK)


def test_the_best_moment_on_held_out_jets_is_kept():
    """So few jets are soon known by heart."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 4))
    flow = fit_flow(x, None, dataclasses.replace(QUICK, layers=1, checks=20, patience=2, weight_decay=0.0))
    reached = [held for _, _, held in flow.history]
    assert int(np.argmin(reached)) == len(reached) - 3
    assert len(reached) < 20
    assert flow.log_density(rng.normal(size=(2000, 4))).mean() > stats.norm.entropy() * -4 - 1


def test_what_is_refused(flow, given_context):
    x, context = conditional(200)
    bad = x.copy()
    bad[3] = np.nan
    with refused("1 jets are NaN"):
        fit_flow(bad, context, QUICK)
    with refused("NaN"):
        fit_flow(x, np.where(context > 2.9, np.inf, context), QUICK)
    with refused("do not vary"):
        fit_flow(np.column_stack([x, np.ones(200)]), None, QUICK)
    with refused("at least 50 jets"):
        fit_flow(x[:49], None, QUICK)
    with refused("row of context"):
        fit_flow(x, context[:100], QUICK)
    with refused("needs a context of 2"):
        given_context.log_density(x)
    with refused("without a context"):
        flow.log_density(crescents(3), np.zeros((3, 1)))
    with refused("row of context"):
        given_context.log_density(x, context[:5])
    with refused(r"\[jets, 2\]"):
        flow.log_density(x)
    with pytest.raises(ValueError, match="negative"):
        flow.sample(-1)
    for wrong in ({"bins": 1}, {"bins": 60}, {"layers": 0}, {"peak_lr": 0.0}, {"averaged": 1.0}):
        with pytest.raises(ValueError, match=r"flow|needed"):
            Flow(**wrong)
