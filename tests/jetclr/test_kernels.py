from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jetclr import kernels
from jetclr.kernels import BY_HAND, FORMULAS

RNG = np.random.default_rng(3)


def made(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def keys(jets: int) -> jax.Array:
    return jax.random.split(jax.random.key(5), jets)


BIAS = jnp.where(jnp.arange(9) < jnp.asarray([[9], [4], [1], [0]]), made(4, 9), -1e9)  # full, short, alone, empty
PARTS = {
    "linear": (lambda k, x, w: k.linear(x, w), (made(4, 9, 6), made(6, 5))),
    "linear of rows": (lambda k, x, w: k.linear(x, w), (made(36, 6), made(6, 5))),
    "normalize": (lambda k, x: k.normalize(x), (3 + 2 * made(4, 9, 6),)),
    "gelu": (lambda k, x: k.gelu(x), (3 * made(4, 9, 6),)),
    "attend": (lambda k, qkv: k.attend(0.0, qkv, BIAS, None), (made(4, 9, 3, 2, 5),)),
    "attend, one jet": (lambda k, qkv: k.attend(0.0, qkv, BIAS[1], None), (made(9, 3, 2, 5),)),
    "attend, dropout": (lambda k, qkv: k.attend(0.4, qkv, BIAS, keys(4)), (made(4, 9, 3, 2, 5),)),
    "attend, pairs": (
        lambda k, qkv, pairs: k.attend(0.4, qkv, pairs + BIAS[:, None, None], keys(4)),
        (made(4, 9, 3, 2, 5), made(4, 2, 9, 9)),
    ),
    "attend, pairs of one jet": (lambda k, *x: k.attend(0.0, *x, None), (made(9, 3, 2, 5), made(2, 9, 9))),
}


@pytest.mark.parametrize("name", PARTS)
def test_by_hand_agrees_with_the_formulas_and_their_gradient(name: str) -> None:
    part, arguments = PARTS[name]
    found, expected = (jax.vjp(lambda *a, k=k: part(k, *a), *arguments) for k in (BY_HAND, FORMULAS))
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-5, atol=2e-6)
    g = made(*found[0].shape)
    for ours, theirs in zip(found[1](g), expected[1](g), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize("way", [BY_HAND, FORMULAS], ids=["by hand", "formulas"])
def test_large_scores_and_empty_jets_stay_finite(way: kernels.Kernels) -> None:
    def total(qkv: jax.Array) -> jax.Array:
        return jnp.sum(way.attend(0.2, qkv, BIAS, keys(4)) ** 2)

    value, gradient = jax.value_and_grad(total)(300 * made(4, 9, 3, 2, 5))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_dropout_keeps_the_share_and_the_mean_and_drops_by_the_jet_s_key_alone() -> None:
    x, all_keys = jnp.ones((6, 40, 50)), keys(6)
    dropped = kernels.dropout(0.3, x, all_keys)
    kept = np.asarray(dropped) > 0
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / kept.size)
    np.testing.assert_allclose(np.asarray(dropped)[kept], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(kernels.dropout(0.3, x[4:5], all_keys[4:5])[0], dropped[4])
    rows = kernels.dropout(0.3, x.reshape(-1, 50), all_keys)
    np.testing.assert_array_equal(rows.reshape(x.shape), dropped)
    # No row, column or jet like another: agreements of two are those of chance.
    for a, b in ((kept[0], kept[1]), (kept[:, :-1], kept[:, 1:]), (kept[..., :-1], kept[..., 1:])):
        assert abs((a == b).mean() - 0.58) < 5 * np.sqrt(0.58 * 0.42 / a.size)


def test_no_keys_no_dropout() -> None:
    x = made(2, 3)
    assert kernels.dropout(0.5, x, None) is x
    assert kernels.dropout(0.0, x, keys(2)) is x


def test_accelerators_and_frozen_encoders_take_the_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    choices: dict[tuple[str, bool, bool], kernels.Kernels] = {}
    backends: list[str] = ["cpu", "gpu"]
    for backend in backends:
        told: Callable[[], str] = lambda backend=backend: backend  # noqa: E731
        monkeypatch.setattr(jax, "default_backend", told)
        choices |= {(backend, t, s): kernels.choose(t, s) for t in (False, True) for s in (False, True)}
    assert [which for which, way in choices.items() if way is BY_HAND] == [("cpu", True, False)]
