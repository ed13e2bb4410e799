"""An evaluation as the table that `jetclr probe` prints."""

from rich.console import Console

from jetclr.evaluate import Evaluation
from probes.report import PROBE_COLUMNS, probe_row, terminal_table


def print_evaluation(evaluation: Evaluation) -> None:
    """Print one row a representation and probe, then how the trained embedding compares with the untrained one."""
    console = Console()
    rows = [probe_row(r.representation, r.probe, r.estimates) for r in evaluation.results]
    title = (
        f"{evaluation.run}, step {evaluation.step:,}: linear probes fitted on {evaluation.jets['train']:,} jets, "
        f"measured on {evaluation.jets['test']:,}; 95 % intervals"
    )
    console.print(terminal_table(rows, PROBE_COLUMNS, title=title))
    for name, c in evaluation.against_untrained.items():
        console.print(
            f"trained - untrained embedding, {name}: AUC {c.auc.value:+.4f} [{c.auc.low:+.4f}, {c.auc.high:+.4f}], "
            f"p = {c.auc_p_value:.2g} (paired bootstrap)",
            markup=False,
            highlight=False,
        )
