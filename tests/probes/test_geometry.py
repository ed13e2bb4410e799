"""Geometry of a representation against loops, closed forms and the training monitors in jax."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from sklearn.metrics.pairwise import cosine_similarity

from jetclr.objectives import monitors as objectives
from probes import geometry


def refused(message):
    """A ValueError that says so; where shapes are checked at run time, that check may come first."""
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def views(jets=40, width=6, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(jets, width)) + 0.5
    return z, z + 0.3 * rng.normal(size=z.shape)


def test_equals_the_monitors_of_the_training():
    a, b = views()
    unit_a, unit_b = (objectives.normalize(jnp.asarray(z, jnp.float32)) for z in (a, b))
    assert geometry.alignment(a, b) == pytest.approx(float(objectives.alignment(unit_a, unit_b)), rel=1e-5)
    assert geometry.uniformity(a) == pytest.approx(float(objectives.uniformity(unit_a)), rel=1e-5)
    assert geometry.effective_rank(a) == pytest.approx(float(objectives.effective_rank(jnp.float32(a))), rel=1e-3)


@given(st.integers(0, 10_000), st.integers(2, 12), st.sampled_from([0.5, 2.0, 7.0]))
def test_equals_loops_over_pairs(seed, jets, t):
    z, other = views(jets, 3, seed)
    unit, unit_other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (z, other))
    pairs = [(i, j) for i in range(jets) for j in range(jets) if i != j]
    potential = np.mean([np.exp(-t * np.sum((unit[i] - unit[j]) ** 2)) for i, j in pairs])
    assert geometry.uniformity(z, t=t) == pytest.approx(np.log(potential), rel=1e-9)
    assert geometry.between(z) == pytest.approx(np.mean([unit[i] @ unit[j] for i, j in pairs]), abs=1e-12)
    assert geometry.alignment(z, other) == pytest.approx(np.mean(np.sum((unit - unit_other) ** 2, axis=1)))


def test_between_equals_scikit_learn():
    z, _ = views(300, 20)
    cosines = cosine_similarity(z)[~np.eye(300, dtype=bool)]
    assert geometry.between(z) == pytest.approx(cosines.mean(), rel=1e-10)


def test_limits():
    z, _ = views()
    assert geometry.alignment(z, z) == 0
    assert geometry.alignment(z, -3 * z) == pytest.approx(4)
    alike = np.tile(z[:1], (30, 1)) * np.arange(1, 31)[:, None]
    assert geometry.uniformity(alike) == pytest.approx(0, abs=1e-12)
    assert geometry.between(alike) == pytest.approx(1)
    # Two opposite jets: one pair, at the distance of a diameter.
    assert geometry.uniformity(np.array([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-8)
    wide = np.random.default_rng(0).normal(size=(2000, 2000))
    assert geometry.uniformity(wide) == pytest.approx(-4, abs=0.01)
    assert geometry.between(wide) == pytest.approx(0, abs=1e-3)


def test_length_is_no_matter_even_if_extreme():
    a, b = views()
    for scale in (1e-200, 1e200):
        assert geometry.alignment(a * scale, b) == pytest.approx(geometry.alignment(a, b))
        assert geometry.uniformity(a * scale) == pytest.approx(geometry.uniformity(a))
        assert geometry.between(a * scale) == pytest.approx(geometry.between(a))


def test_chunks_and_a_sharp_kernel(monkeypatch):
    z, _ = views(50)
    whole, sharp = geometry.uniformity(z), geometry.uniformity(z, t=1e4)
    assert np.isfinite(sharp)
    monkeypatch.setattr(geometry, "CHUNK_PAIRS", 150)
    assert geometry.uniformity(z) == pytest.approx(whole, rel=1e-12)
    assert geometry.uniformity(z, t=1e4) == pytest.approx(sharp, rel=1e-12)


def test_a_sample_stands_for_many_jets():
    z, _ = views(3000)
    whole = geometry.uniformity(z)
    drawn = geometry.uniformity(z, most_jets=1000, seed=1)
    assert drawn == geometry.uniformity(z, most_jets=1000, seed=1)
    assert drawn != geometry.uniformity(z, most_jets=1000, seed=2)
    assert drawn == pytest.approx(whole, abs=0.02)
    assert drawn != whole


def test_effective_rank():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(50, 50)))[0]
    left = np.linalg.qr(rng.normal(size=(300, 6)))[0]
    left = np.linalg.qr(left - left.mean(axis=0))[0]
    for spectrum in ([1, 1, 1, 1, 1], [4, 2, 1, 1, 0.5]):
        share = np.array(spectrum) / np.sum(spectrum)
        table = left[:, :5] * spectrum @ basis[:5] + 17.0
        assert geometry.effective_rank(table) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)
    assert geometry.effective_rank(np.outer(np.arange(9.0), np.ones(4))) == pytest.approx(1, rel=1e-6)


def test_effective_rank_sees_a_collapse_through_rounding():
    rng = np.random.default_rng(0)
    assert geometry.effective_rank(np.full((100, 7), 0.1, np.float32)) == 0.0
    assert geometry.effective_rank(np.full((101, 7), 0.1)) == 0.0
    tiny = rng.normal(size=(200, 3)) * 1e-30
    jitter = (5 + 1e-8 * rng.normal(size=(100, 7))).astype(np.float32) + np.float32(4e-7) * (rng.random((100, 7)) < 0.5)
    assert geometry.effective_rank(jitter.astype(np.float32)) == 0.0
    assert geometry.effective_rank(tiny) == pytest.approx(geometry.effective_rank(tiny * 1e40), rel=1e-6)


def test_bad_input_is_refused_in_plain_english():
    z, _ = views()
    hole = z.copy()
    hole[3, 1] = np.nan
    zero = z.copy()
    zero[5] = 0
    for call in (geometry.uniformity, geometry.between, lambda v: geometry.alignment(v, v)):
        with refused("1 features are NaN"):
            call(hole)
        with refused("1 jets have only zeros"):
            call(zero)
        with refused("table"):
            call(z[0])
    for call in (geometry.uniformity, geometry.between, geometry.effective_rank):
        with refused("jets >= 2"):
            call(z[:1])
    with refused("1 features are NaN"):
        geometry.effective_rank(hole)
    with refused("one shape"):
        geometry.alignment(z, z[:-1])
    for settings in ({"t": 0.0}, {"t": np.nan}, {"most_jets": 1}):
        with pytest.raises(ValueError, match="t > 0"):
            geometry.uniformity(z, **settings)
