"""The files of a benchmark: JSON, Markdown, LaTeX, figures and one page, each whole or not there."""

from pathlib import Path

from jetclr.benchmark.page import write_figures, write_page
from jetclr.benchmark.results import Benchmark
from jetclr.benchmark.tables import latex, markdown, print_benchmark, write_json
from jetclr.data.store import write_whole


def write_results(benchmark: Benchmark, folder: Path) -> None:
    """Print the tables, and write results.json, results.md, results.tex, figures/ and report.html into `folder`."""
    print_benchmark(benchmark)
    write_json(benchmark, folder / "results.json")
    write_whole(folder / "results.md", markdown(benchmark))
    write_whole(folder / "results.tex", latex(benchmark))
    write_figures(benchmark, folder / "figures")
    write_page(benchmark, folder / "report.html")
    print(folder / "report.html")
