import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetclr.data.shard import Shard, jets_to_do
from jetclr.errors import UserError


@given(st.integers(0, 200), st.integers(1, 40))
def test_parts_are_in_order_and_cover_everything_once(total: int, count: int) -> None:
    parts = [Shard(index, count).part(total) for index in range(count)]
    assert [unit for part in parts for unit in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(1, 500), st.integers(1, 40), st.integers(1, 40))
def test_jets_are_whole_units_and_cover_everything_once(jets: int, unit_jets: int, count: int) -> None:
    parts = [Shard(index, count).jets(jets, unit_jets) for index in range(count)]
    assert [jet for part in parts for jet in part] == list(range(jets))
    for part in parts:
        assert part.start % unit_jets == 0 or not part
        assert part.stop % unit_jets == 0 or part.stop == jets


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_written_and_parsed_is_the_same(index: int, more: int) -> None:
    shard = Shard(index, index + more)
    assert Shard.parse(str(shard)) == shard


@pytest.mark.parametrize(
    "text",
    ["", "/", "1", "1/", "/2", "2/2", "3/2", "0/0", "-1/2", "1/-2", "+0/2", "0.5/2", "0 / 2", " 0/2", "0/2\n", "0/2/3",
     "a/b", "None", "$SLURM_PROCID/4", "٠/٢", "0/99999999999"],
)  # fmt: skip
def test_anything_else_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UserError) as refused:
        Shard.parse(text)
    assert str(refused.value) == f"shard is {text!r}; it must be I/N with I from 0 to N - 1, such as 0/4"


def test_a_shard_that_is_none_cannot_be_made() -> None:
    with pytest.raises(UserError, match="shard is '4/4'"):
        Shard(4, 4)


def test_a_shard_without_jets_says_how_many_there_can_be() -> None:
    assert jets_to_do(None, 1001, 500) == range(1001)
    assert jets_to_do(Shard(2, 3), 1001, 500) == range(1000, 1001)
    with pytest.raises(UserError, match=r"shard 0/4 holds no jets: 1,001 jets .* units of 500, .* may be 3 at most"):
        jets_to_do(Shard(0, 4), 1001, 500)
