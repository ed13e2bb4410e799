"""One self-contained HTML page about a benchmark: what it comes to, its figures, and all its tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from jetclr.benchmark.figures import Drawing, figures, write_figures
from jetclr.benchmark.results import Benchmark
from jetclr.benchmark.rows import tables
from jetclr.benchmark.summary import sentences
from jetclr.benchmark.table import Table
from jetclr.data.store import make_parent
from jetclr.errors import UserError
from probes.report import Page

__all__ = ["add_sections", "build_page", "save_page", "write_figures", "write_page"]

Sections: TypeAlias = tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
"""Title, figures, tables. What has no results leaves nothing behind."""

SECTIONS: Sections = (
    ("Representations and taggers", ("roc",), ("headline", "by_class")),
    ("Differences on the same test jets", (), ("comparisons",)),
    ("Label efficiency", ("label_efficiency",), ("label_efficiency_auc", "label_efficiency_r50")),
    ("Training seeds", (), ("seeds",)),
    ("What is encoded, and where", ("layers",), ("regression",)),
    ("What is ignored, and how the embeddings lie", ("invariance",), ("geometry",)),
    ("Robustness", ("robustness",), ("robustness",)),
    ("Dependence on the jet mass", ("mass_spectra", "mass_divergence"), ("sculpting",)),
    ("Calibration", ("calibration",), ("calibration",)),
    ("Every layer and probe", (), ("every_score",)),
)


def write_page(benchmark: Benchmark, path: Path) -> None:
    """Write the page to `path`, whole or not at all; raises UserError if it cannot be written."""
    save_page(build_page(benchmark), path)


def save_page(page: Page, path: Path) -> None:
    """Write a page to `path`, whole or not at all; raises UserError if it cannot be written."""
    make_parent(path)
    try:
        page.write(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def build_page(benchmark: Benchmark) -> Page:
    """The page: a summary in words, then a section for each study, then what was done on which jets."""
    facts = benchmark.facts
    classes = " against ".join(reversed(facts.classes)) if len(facts.classes) == 2 else f"{len(facts.classes)} classes"
    page = Page(f"Benchmark {facts.suite}", f"{classes}, on {facts.jets.get('test', 0):,} test jets")
    page.section("What it comes to", "\n\n".join(sentences(benchmark)))
    add_sections(page, SECTIONS, figures(benchmark), tables(benchmark))
    page.section("What was done")
    page.facts(
        {
            "suite": facts.suite,
            **{f"{split} jets": f"{facts.jets.get(split, 0):,} of {name}" for split, name in facts.data.items()},
            "classes, background first": ", ".join(facts.classes),
            "numbers of labels": ", ".join(f"{count:,}" for count in facts.label_counts),
            "draws of labels": facts.draws,
            "seed": facts.seed,
            "predictors measured on the test jets": f"{facts.test_looks:,}",
            "time": f"{facts.seconds / 60:.1f} minutes",
            "jetclr": facts.version,
        }
    )
    return page


def add_sections(page: Page, sections: Sections, drawings: Sequence[Drawing], made: Mapping[str, Table]) -> None:
    """Each section with the figures and tables that there are; one without any is left out."""
    drawn = {drawing.name: drawing for drawing in drawings}
    for title, names_of_figures, names_of_tables in sections:
        shown = [made[name] for name in names_of_tables if name in made]
        pictures = [drawn[name] for name in names_of_figures if name in drawn]
        if not shown and not pictures:
            continue
        page.section(title)
        for drawing in pictures:
            page.figure(drawing.figure, drawing.caption, drawing.alt)
        for table in shown:
            page.table(table.rows, table.columns, table.caption, table.strong, table.groups)
