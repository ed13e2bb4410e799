"""The files of an anomaly benchmark: JSON, Markdown, LaTeX, figures and one page, each whole or not there."""

from pathlib import Path

from jetclr.anomaly.figures import figures
from jetclr.anomaly.results import AnomalyBenchmark
from jetclr.anomaly.tables import sentences, tables
from jetclr.benchmark.figures import write_drawings
from jetclr.benchmark.files import write_json
from jetclr.benchmark.page import Sections, add_sections, save_page
from jetclr.benchmark.tables import latex_tables, markdown_tables, print_tables
from jetclr.data.store import write_whole
from probes.report import Page

SECTIONS: Sections = (
    ("Heads in every direction", ("heads", "sic_0", "sic_1"), ("heads_auc", "heads_max_sic", "heads_r50")),
    ("Signal among the fitted jets", ("contamination",), ("contamination",)),
    ("Searches for a resonance", ("injection",), ("searches", "injection")),
    ("Bump hunt", ("hunts",), ("hunts",)),
    ("Dependence on the jet mass", (), ("sculpting",)),
)


def write_anomaly_results(benchmark: AnomalyBenchmark, folder: Path) -> None:
    """Print the tables, and write results.json, results.md, results.tex, figures/ and report.html into `folder`."""
    made, told, name = tables(benchmark), sentences(benchmark), benchmark.facts.suite
    print_tables(made, told)
    write_json(benchmark, folder / "results.json")
    write_whole(folder / "results.md", markdown_tables(name, made, told))
    write_whole(folder / "results.tex", latex_tables(name, made))
    write_drawings(figures(benchmark), folder / "figures")
    save_page(build_page(benchmark), folder / "report.html")
    print(folder / "report.html")


def build_page(benchmark: AnomalyBenchmark) -> Page:
    """The page: what it comes to in words, each study, and what was done on which jets."""
    facts = benchmark.facts
    page = Page(f"Benchmark {facts.suite}", "anomaly heads and searches")
    page.section("What it comes to", "\n\n".join(sentences(benchmark)))
    add_sections(page, SECTIONS, figures(benchmark), tables(benchmark))
    page.section("What was done")
    page.facts(
        {
            "suite": facts.suite,
            **{role: f"{facts.jets[role]:,} of {name}" for role, name in facts.data.items()},
            "seed": facts.seed,
            "time": f"{facts.seconds / 60:.1f} minutes",
            "jetclr": facts.version,
        }
    )
    return page
