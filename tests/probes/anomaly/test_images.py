"""Jet images and points as the networks of anomaly heads see them."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.ndimage import gaussian_filter

from probes.anomaly.images import jet_images
from probes.anomaly.inputs import FeatureInputs, ImageInputs, PointInputs, Prepared
from probes.taggers import Constituents, constituents
from tests.toys import toy_batch


def refused(message):
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def toy_jets(count=20, seed=0):
    batch = toy_batch(seed, count)
    return constituents(batch["pt"], batch["eta"], batch["phi"], batch["pt"] > 0)


def square(images):
    side = round(images.shape[1] ** 0.5)
    return images.reshape(-1, side, side)


def test_an_image_is_the_flow_of_pt():
    """Without alignment to undo: two constituents on an axis, the harder half at positive values."""
    jets = constituents(np.array([[300.0, 100.0]]), np.array([[0.1, -0.3]]), np.zeros((1, 2)), np.ones((1, 2), bool))
    image = square(jet_images(jets, 8, 0.8))[0]
    # Pixels of 0.2 with centres at +-0.1, +-0.3: both constituents are half way between two across the axis.
    expected = np.zeros((8, 8))
    expected[4, 3:5], expected[2, 3:5] = 0.75 / 2, 0.25 / 2
    np.testing.assert_allclose(image, expected, atol=1e-5)


def test_images_sum_to_one_and_do_not_turn_with_the_jet():
    jets = toy_jets()
    images = jet_images(jets, 16, 1.0, 0.5, 0.8)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images.sum(axis=1), 1, rtol=1e-5)
    cos, sin = np.float32(np.cos(1.1)), np.float32(np.sin(1.1))
    turned = jets._replace(eta=cos * jets.eta - sin * jets.phi, phi=sin * jets.eta + cos * jets.phi)
    np.testing.assert_allclose(jet_images(turned, 16, 1.0, 0.5, 0.8), images, atol=2e-4)
    order = np.random.default_rng(0).permutation(jets.pt.shape[1])
    shuffled = Constituents(*(np.asarray(field)[:, order] for field in jets))
    np.testing.assert_allclose(jet_images(shuffled, 16, 1.0), jet_images(jets, 16, 1.0), atol=2e-4)


def test_power_is_taken_of_pixels():
    jets = toy_jets()
    plain = jet_images(jets, 16, 1.0)
    expected = plain**0.25
    np.testing.assert_allclose(
        jet_images(jets, 16, 1.0, 0.25), expected / expected.sum(axis=1, keepdims=True), atol=1e-5
    )


def test_smoothing_is_a_gaussian():
    """That of scipy where nothing reaches the edge."""
    jets = constituents(np.ones((1, 2)), np.array([[0.1, -0.1]]), np.zeros((1, 2)), np.ones((1, 2), bool))
    plain, smooth = (square(jet_images(jets, 32, 0.8, 1.0, width))[0] for width in (0.0, 1.5))
    np.testing.assert_allclose(smooth, gaussian_filter(plain, 1.5, truncate=8), atol=1e-6)


@pytest.mark.parametrize("settings", [(0, 0.8, 1.0, 0.0), (8, 0.0, 1.0, 0.0), (8, 0.8, 0.0, 0.0), (8, 0.8, 1.0, -1.0)])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="an image needs"):
        jet_images(toy_jets(2), *settings)
    with pytest.raises(ValueError, match="an image needs"):
        ImageInputs(*settings)


def test_other_settings_out_of_range():
    with pytest.raises(ValueError, match="components"):
        FeatureInputs(-1)
    for make in (lambda: PointInputs(0), lambda: PointInputs(4, 0.0)):
        with pytest.raises(ValueError, match="at least one constituent"):
            make()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["pt", "eta", "phi"])
@pytest.mark.parametrize("settings", [ImageInputs(8), PointInputs(6), PointInputs(40)], ids=str)
def test_what_is_not_a_number_is_refused(settings, name, bad):
    """Even where it would not be seen: outside the image, or softer than the hardest constituents."""
    jets = toy_jets(5)
    prepared = settings.prepare(jets)
    for slot in (0, np.flatnonzero(jets.mask[3])[-1]):
        field = getattr(jets, name).copy()
        field[3, slot] = bad
        with pytest.raises(ValueError, match=f"{name} of a constituent is NaN or infinite in 1 jets"):
            prepared(jets._replace(**{name: field}))
    field = np.where(jets.mask, getattr(jets, name), bad)
    np.testing.assert_array_equal(prepared(jets._replace(**{name: field})), prepared(jets))


def test_negative_pt_and_jets_without_any():
    jets = toy_jets(5)
    with pytest.raises(ValueError, match="negative in 5 jets"):
        jet_images(jets._replace(pt=-jets.pt), 8, 0.8)
    nothing = jets._replace(pt=0 * jets.pt)
    assert not jet_images(nothing, 8, 0.8, 0.5).any()
    with pytest.raises(ValueError, match="5 of 5 jets have no constituent of positive pT"):
        PointInputs(6).prepare(jets)(nothing)


def test_no_jets_no_images():
    assert jet_images(Constituents(*(field[:0] for field in toy_jets(2))), 8, 0.8).shape == (0, 64)


@pytest.mark.parametrize(
    "settings", [FeatureInputs(3), FeatureInputs(0), ImageInputs(8, 0.5, 0.5, 1.0), PointInputs(6)]
)
def test_prepared_numbers_come_back_from_their_arrays(settings):
    jets, others = toy_jets(60), toy_jets(7, seed=1)
    if settings.sees == "features":
        jets, others = (np.cumsum(x.pt[:, :5], axis=1) for x in (jets, others))
    prepared = settings.prepare(jets)
    again = settings.prepared(prepared.state())
    numbers = prepared(others)
    assert isinstance(prepared, Prepared)
    assert numbers.dtype == np.float32
    assert numbers.shape == (7, prepared.width)
    np.testing.assert_array_equal(again(others), numbers)


def test_units_are_the_backgrounds():
    x = np.random.default_rng(0).normal(size=(500, 4)) @ np.diag([1, 10, 100, 1000])
    np.testing.assert_allclose(np.cov(FeatureInputs().prepare(x)(x).T, bias=True), np.eye(4), atol=1e-3)
    jets = toy_jets(100)
    images = ImageInputs(8).prepare(jets)(jets)
    assert images.var(axis=0).mean() == pytest.approx(1, rel=1e-4)


def test_jets_that_are_all_the_same_have_no_units():
    jets = Constituents(*(np.repeat(field[:1], 30, axis=0) for field in toy_jets(1)))
    with pytest.raises(ValueError, match="no pixel varies"):
        ImageInputs(8).prepare(jets)


@pytest.mark.parametrize(
    ("settings", "state", "message"),
    [
        (ImageInputs(8), {}, "scale is missing"),
        (ImageInputs(8), {"scale": np.float32(-1)}, "must be positive"),
        (ImageInputs(8), {"scale": np.ones(2)}, "must have the shape"),
        (FeatureInputs(), {"mean": np.zeros(3)}, "axes is missing"),
        (FeatureInputs(), {"mean": np.zeros(3), "axes": np.ones((2, 2))}, "must have the shape"),
    ],
)
def test_arrays_that_do_not_fit(settings, state, message):
    with refused(message):
        settings.prepared(state)


def test_points_are_the_hardest_constituents():
    jets = toy_jets()
    points = PointInputs(6, unit=0.5).prepare(jets)(jets).reshape(20, 6, 3)
    hardest = np.sort(jets.pt, axis=1)[:, ::-1][:, :6]
    np.testing.assert_allclose(points[..., 0], hardest / hardest.sum(axis=1, keepdims=True), atol=1e-6)
    radius = np.take_along_axis(np.hypot(jets.eta, jets.phi), np.argsort(-jets.pt, axis=1)[:, :6], axis=1)
    real = points[..., 0] > 0
    np.testing.assert_allclose(np.hypot(points[..., 1], points[..., 2])[real], (radius / 0.5)[real], atol=1e-5)
    assert not points[~real].any()
    more = PointInputs(40).prepare(jets)(jets).reshape(20, 40, 3)
    assert not more[:, jets.pt.shape[1] :].any()
