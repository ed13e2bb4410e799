import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augmentations import CollinearSplit, make_jets
from augmentations.jets import wrap_phi
from jetclr.features import Features
from tests.toys import toy_jet

EVERY = ("pt_600", "z", "log_z", "log_pt", "eta", "phi", "r", "r2")


def test_features_by_hand() -> None:
    jets = make_jets(*(np.array(x, np.float32) for x in ([300, 100, 0], [0.1, -0.3, 0], [0, 0, 0])))
    inputs = Features(("pt_600", "z", "eta", "r2"))(jets)
    np.testing.assert_allclose(inputs.x[:, 0], [0.5, 1 / 6, 0])
    np.testing.assert_allclose(inputs.x[:, 1], [3, 1, 0])
    np.testing.assert_allclose(inputs.x[:, 2], [0.1 / 0.3, -0.3 / 0.3, 0], atol=1e-6)  # centroid at eta = 0
    np.testing.assert_allclose(inputs.x[:, 3], [0.01 / 0.09, 1, 0], atol=1e-6)
    np.testing.assert_allclose(inputs.z, [0.75, 0.25, 0])


def test_features_of_extras_by_hand() -> None:
    """The last slot is padding: whatever is there is not seen."""
    extras = {
        "charge": [1, -1, 5],
        "d0": [0.5, -40, 5],
        "dz": [0, 0.2, 5],
        "d0_error": [0.1, 3, 5],
        "dz_error": [1, 0, 5],
        "puppi": [0.25, 1, 5],
        "type": [2, 5, 1],
    }
    arrays = {name: np.array(x, np.float32) for name, x in extras.items()}
    jets = make_jets(*(np.array(x, np.float32) for x in ([3, 1, 0], [0, 0, 0], [0, 0, 0])), arrays)
    expected = {
        "charge": [1, -1],
        "d0": np.tanh([0.5, -40]),
        "dz": np.tanh([0, 0.2]),
        "d0_error": [0.1, 1],
        "dz_error": [1, 0],
        "puppi": [0.25, 1],
        "charged_hadron": [0, 0],
        "neutral_hadron": [1, 0],
        "photon": [0, 0],
        "electron": [0, 0],
        "muon": [0, 1],
    }
    features = Features(tuple(expected))
    found = np.asarray(features(jets).x)
    np.testing.assert_allclose(found[:2], np.stack(list(expected.values()), axis=1), rtol=1e-6)
    assert (found[2] == 0).all()
    assert set(features.needs.values()) == set(extras)
    assert Features(EVERY).needs == {}


def test_the_children_of_a_splitting_keep_their_parent_s_features() -> None:
    jets = toy_jet(3, 40)
    jets = jets._replace(extras={"d0": jnp.where(jets.mask, jets.pt / 10, 0)})  # of each constituent its own
    split = CollinearSplit()(jax.random.key(0), jets)
    assert split.mask.sum() > jets.mask.sum()
    seen = np.asarray(Features(("eta", "d0"), center=False)(split).x)[np.asarray(split.mask)]
    before = np.asarray(Features(("eta", "d0"), center=False)(jets).x)[np.asarray(jets.mask)]
    assert {tuple(x) for x in seen.tolist()} == {tuple(x) for x in before.tolist()}


def test_the_weighted_mean_of_r2_is_the_mass() -> None:
    """sum z_i r_i^2 = m^2 / pT^2 for small angles: checked against four-vectors of a narrow jet."""
    rng = np.random.default_rng(0)
    pt = rng.uniform(1, 50, 12)
    eta, phi = rng.normal(0, 0.01, (2, 12))
    inputs = Features(("r2",))(make_jets(*(x.astype(np.float32) for x in (pt, eta, phi))))
    p = np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]).sum(1)
    mass2 = p[0] ** 2 - (p[1:] ** 2).sum()
    np.testing.assert_allclose(0.09 * float(inputs.z @ inputs.x[:, 0]), mass2 / pt.sum() ** 2, rtol=1e-3)


def test_centred_features_do_not_see_a_translation() -> None:
    jets = toy_jet(0)
    moved = jets._replace(
        eta=jnp.where(jets.mask, jets.eta + 0.7, 0), phi=jnp.where(jets.mask, wrap_phi(jets.phi + 2), 0)
    )
    np.testing.assert_allclose(Features(EVERY)(moved).x, Features(EVERY)(jets).x, atol=2e-5)
    uncentred = Features(("eta",), center=False)
    assert np.abs(np.asarray(uncentred(moved).x - uncentred(jets).x)).max() > 1


def test_padding_is_zero_and_gets_no_gradient() -> None:
    jets = toy_jet(1)
    padding = ~np.asarray(jets.mask)
    assert (np.asarray(Features(EVERY)(jets).x)[padding] == 0).all()
    for name in ("pt", "eta", "phi"):
        gradient = jax.grad(lambda x, name=name: (Features(EVERY)(jets._replace(**{name: x})).x ** 2).sum())
        found = np.asarray(gradient(getattr(jets, name)))
        assert np.isfinite(found).all()
        if name != "pt":  # pT of a padded slot enters the total; the pipeline keeps it at zero
            assert (found[padding] == 0).all()


def test_an_empty_jet_is_finite() -> None:
    blank = np.zeros(4, np.float32)
    assert np.isfinite(np.asarray(Features(EVERY)(make_jets(blank, blank, blank)).x)).all()


def test_no_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Features\.columns is empty"):
        Features(())
