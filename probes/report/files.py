"""Figures and tables of the paper as files, for a manuscript."""

from pathlib import Path

from probes.errors import require
from probes.plotting import plot_domain_matrix, plot_learning_curves
from probes.report.folder import write_text
from probes.report.tables import domain_table, latex_table, markdown_table

__all__ = ["write_paper"]

DPI = 150
FIGURES = {
    "figure-1": ("learning_curve", plot_learning_curves),
    "figure-2": ("cross_domain", plot_domain_matrix),
}


def write_paper(results, folder):
    """Write Figure 1 and Figure 2 as PNG and PDF, and Table 2 as Markdown and LaTeX.

    Parameters
    ----------
    results : Results
        Of one of the paper's experiments or both; of one that is missing nothing is written.
    folder : path-like
        Where to write; it must be there.

    Returns
    -------
    list of Path
        What was written.
    """
    folder, written = Path(folder), []
    for name, (experiment, plot) in FIGURES.items():
        rows = results.where(experiment=experiment)
        if len(rows):
            written += _write_figure(plot, rows, folder / name)
    rows = results.where(experiment="cross_domain")
    if len(rows):
        table = domain_table(rows)
        for ending, text in (("md", markdown_table(table)), ("tex", latex_table(table))):
            written.append(folder / f"table-2.{ending}")
            write_text(text, written[-1])
    return written


def _write_figure(plot, rows, stem):
    figure = require("matplotlib.figure", extra="plot", purpose="plotting").Figure()
    plot(rows, figure)
    paths = [stem.with_suffix(ending) for ending in (".png", ".pdf")]
    for path in paths:
        figure.savefig(path, dpi=DPI)
    return paths
