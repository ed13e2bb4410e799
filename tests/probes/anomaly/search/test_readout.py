"""Few features of an event from many of its jets."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from probes.anomaly.search import Readout
from probes.anomaly.search.readout import larger_first
from tests.probes.anomaly.search.toys import REGIONS


def refused(message):
    return pytest.raises((ValueError, TypeCheckError), match=f"{message}|Type-check error")


def jets(events=600, seed=0):
    """Twelve features, of which two quantities are linear functions; a third of the events outside of the regions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(events, 2, 12))
    quantities = np.stack([x[..., 0] + 2 * x[..., 1], x[..., 2] - x[..., 3] + 5], axis=-1)
    return x, quantities, rng.uniform(2700, 4600, events)


def test_reads_the_quantities_of_both_jets():
    x, quantities, mass = jets()
    other, expected, _ = jets(100, seed=1)
    found = Readout.of(x, quantities, mass, REGIONS)(other)
    assert (found[:, 0] >= found[:, 2]).all()
    first = expected[..., 0].argmax(axis=1)
    rows = np.arange(100)
    np.testing.assert_allclose(found, np.hstack([expected[rows, first], expected[rows, 1 - first]]), atol=1e-2)
    np.testing.assert_array_equal(Readout.of(x, quantities, mass, REGIONS)(other[:, ::-1].copy()), found)


def test_only_sidebands_are_read():
    x, quantities, mass = jets()
    changed = np.where(REGIONS.sidebands(mass)[:, None, None], quantities, 1e6)
    one, other = (Readout.of(x, q, mass, REGIONS)(x) for q in (quantities, changed))
    np.testing.assert_array_equal(one, other)


def test_order_of_the_jets():
    pair = np.array([[[1.0, 5.0], [2.0, 3.0]], [[4.0, 0.0], [4.0, 1.0]]])
    np.testing.assert_array_equal(larger_first(pair), [[2, 3, 1, 5], [4, 0, 4, 1]])


def test_bad_input_is_refused():
    x, quantities, mass = jets()
    with refused("not the same"):
        Readout.of(x, quantities[1:], mass, REGIONS)
    with pytest.raises(ValueError, match="no event lies in the sidebands"):
        Readout.of(x, quantities, np.full(600, 3500.0), REGIONS)
    broken = x.copy()
    broken[:, 0, 3] = np.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        Readout.of(broken, quantities, mass, REGIONS)
