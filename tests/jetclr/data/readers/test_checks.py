"""What readers check, at the edges."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data.readers.checks import whole_numbers
from jetclr.errors import UserError

PATH = Path("jets.h5")
KINDS = [np.int8, np.int32, np.int64]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", [np.float16, np.float32, np.float64, np.uint64])
def test_what_does_not_fit_is_refused(kind: type[np.signedinteger], source: type[np.number]) -> None:
    """The largest integer rounds up in floating point, and would come back as the smallest."""
    beyond = np.full(1, 2.0 ** (8 * np.dtype(kind).itemsize - 1))
    with np.errstate(over="ignore"):  # infinite in half precision
        values = np.concatenate([np.ones(1), beyond]).astype(source)
    with pytest.raises(UserError, match=r"jet 8 of jets.h5 has event = .*; it must be a whole number from -"):
        whole_numbers(values, kind, "event", PATH, 7)


@given(st.lists(st.floats(width=16), min_size=1, max_size=5), st.sampled_from(KINDS))
def test_every_float_is_itself_or_refused(values: list[float], kind: type[np.signedinteger]) -> None:
    limits = np.iinfo(kind)
    sound = all(v.is_integer() and limits.min <= v <= limits.max for v in values)
    for source in (np.float16, np.float32, np.float64):
        if sound:
            found = whole_numbers(np.array(values, source), kind, "x", PATH, 0)
            assert found.dtype == kind
            assert found.tolist() == values
        else:
            with pytest.raises(UserError, match="whole number"):
                whole_numbers(np.array(values, source), kind, "x", PATH, 0)
