"""The rows of configs/sweeps/recipe.py, and the page that shows what they gave."""

from pathlib import Path

import pytest

from jetclr import config as configs
from jetclr.config import Config
from jetclr.encoder import layer_names
from jetclr.sweep.program import load_program
from jetclr.sweep.table import slug

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/recipe.md"
RECIPE = "+ pooled after every block: the recipe"


@pytest.fixture(scope="module")
def toptag() -> Config:
    return configs.load(ROOT / "configs/toptag.py")


@pytest.fixture(scope="module")
def rows(toptag: Config) -> dict[str, Config]:
    return load_program(ROOT / "configs/sweeps/recipe.py").rows(toptag)


def test_the_recipe_is_the_config(rows: dict[str, Config], toptag: Config) -> None:
    assert rows[RECIPE] == toptag
    assert [name for name, row in rows.items() if row == toptag] == [RECIPE]


def test_rows_differ_and_share_the_budget(rows: dict[str, Config], toptag: Config) -> None:
    assert len({configs.to_json(row) for row in rows.values()}) == len(rows) == len({slug(name) for name in rows})
    width = toptag.encoder.pooled_width + toptag.encoder.wide
    for name, row in rows.items():
        for setting in ("steps", "batch", "optim", "head"):
            assert getattr(row, setting) == getattr(toptag, setting), (name, setting)
        # Sums and the wide layer: linear probes see equally many numbers.
        assert row.encoder.pooled_width + row.encoder.wide == width, name
        assert layer_names(row.encoder, row.head) == layer_names(toptag.encoder, toptag.head), name


def test_the_page_has_every_row(rows: dict[str, Config]) -> None:
    table = [line.split(" | ")[0].removeprefix("| ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert table[0] == "row"
    assert [name.replace("**", "") for name in table[2:]] == list(rows)
