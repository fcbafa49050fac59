"""Tables and plots for people, and CSV or JSON for programs."""

import math

import click

__all__ = ["counts_of", "emit", "save_plot"]


def emit(frame, form=None, *, rows=None):
    """Print a table on stdout.

    Parameters
    ----------
    frame : DataFrame
        What a person should see.
    form : {None, 'csv', 'json'}
        How to print.
    rows : DataFrame, optional
        What a program should get instead, in full.
    """
    full = frame if rows is None else rows
    if form == "csv":
        click.echo(full.to_csv(index=False), nl=False)
    elif form == "json":
        click.echo(full.to_json(orient="records", indent=1))
    else:
        click.echo(_as_text(frame))


def counts_of(table, *, by="domain", images=False):
    """Count annotations by a column and their label, with the number of slides.

    Parameters
    ----------
    table : AnnotationTable
        Of a dataset.
    by : str
        A column; without it, all annotations count together.
    images : bool
        Count images as well, where the table names them.
    """
    import pandas as pd

    frame = table.to_frame()
    if by not in frame:
        frame[by] = "all"
    counts = pd.crosstab(frame[by], frame["label"])
    for column in ["slide", *(["image"] if images else [])]:
        if column in frame and column != by:
            counts[f"{column}s"] = frame.groupby(by)[column].nunique()
    return counts.reset_index()


def _as_text(frame):
    from tabulate import tabulate

    columns = list(frame.columns)
    cells = [
        [_cell(value, column) for value, column in zip(row, columns, strict=True)]
        for row in frame.itertuples(index=False)
    ]
    right = [frame[column].dtype.kind in "iuf" for column in frame.columns]
    headers = [str(column).replace("_", " ") for column in frame.columns]
    return tabulate(
        cells,
        headers=headers,
        tablefmt="simple",
        disable_numparse=True,
        maxheadercolwidths=16,
        colalign=["right" if numeric else "left" for numeric in right],
    )


def _cell(value, column):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if math.isnan(value):
            return "-"
        if "auroc" in str(column) or str(column).endswith(("_mean", "_sd")):
            return f"{value:.3f}"
        if str(column).startswith("n_"):
            return f"{value:.1f}".removesuffix(".0")
        return f"{value:.0f}" if value.is_integer() and abs(value) > 1 else f"{value:.10g}"
    return str(value)


def save_plot(plot, path):
    """Draw on a new figure, which the plot sizes, and write it.

    Parameters
    ----------
    plot : callable
        Gets an empty matplotlib Figure.
    path : path-like
        Where to write; its ending says in which format.
    """
    from featstore.errors import require

    figure = require("matplotlib.figure", extra="plot", purpose="plotting").Figure()
    plot(figure)
    figure.savefig(path, dpi=150)
    click.echo(f"plot: {path}", err=True)
