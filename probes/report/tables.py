"""Table 2 of the paper: in domain and out of domain, as a frame, Markdown and LaTeX."""

import math
import re

from probes.means import labelled, means_by, places
from probes.plotting.style import METRIC_NAMES, chosen
from probes.published import PUBLISHED, published

__all__ = ["domain_table", "latex_table", "markdown_table"]

PLACES = ("in domain", "out of domain")
# What Markdown takes for more than a letter, HTML included.
MARKDOWN = re.compile(r"([\\`*_\[\]<>&|~$])")


def domain_table(
    results, *, metric="auroc", experiment="cross_domain", beside="ganz2024-table2", digits=2
):
    """Sum up results by whether they are of the domain of training, beside published numbers.

    Parameters
    ----------
    results : DataFrame or Results
        Of :func:`probes.cross_domain`, of any number of models and datasets.
    metric, experiment : str
        Which rows are summed up.
    beside : str or None
        Name of a table of :func:`probes.published`. It is of AUROC: for another metric there is
        nothing beside.
    digits : int
        Decimals.

    Returns
    -------
    DataFrame
        Texts such as '0.79 ± 0.04': columns dataset (where there are several), model, in domain,
        out of domain, n (values: pairs of domains and repeats), and 'published, in domain' and
        'published, out of domain' where a model has them, empty for one that has none.

    Raises
    ------
    ProbesError
        If there are no such rows.

    Notes
    -----
    Standard deviations are of a sample (n - 1), over all pairs of domains and repeats. A model that
    is fitted in several ways, or stored in several ways, has no published number beside it.
    """
    frame = labelled(chosen(results, metric=metric, experiment=experiment))
    rows = [
        row
        for dataset, of_dataset in frame.groupby("dataset", sort=False)
        for row in _rows(dataset, of_dataset, metric, digits)
    ]
    table = _as_frame(rows)
    if beside and metric == "auroc":
        table = _beside(table, published(beside), digits)
    return table if table["dataset"].nunique() > 1 else table.drop(columns="dataset")


def _rows(dataset, frame, metric, digits):
    means = means_by(frame.assign(tested=places(frame)), ["tested"])
    for model, of_model in means.groupby("model", sort=False):
        of_model = of_model.set_index("tested")
        texts = {
            place: _spread(*of_model.loc[place, [f"{metric}_mean", f"{metric}_sd"]], digits)
            for place in PLACES
            if place in of_model.index
        }
        counts = [f"{of_model.loc[place, f'{metric}_n']:.0f}" for place in texts]
        yield {"dataset": dataset, "model": model} | texts | {"n": " + ".join(counts)}


def _as_frame(rows):
    import pandas as pd

    return pd.DataFrame(rows, columns=["dataset", "model", *PLACES, "n"]).fillna("")


def _spread(mean, sd, digits):
    """Write mean and standard deviation, or what there is of them."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{digits}f}")


def _beside(table, numbers, digits):
    """Add columns of published numbers, where any of the models has some."""
    numbers = numbers.set_index("model")
    if not set(table["model"]) & set(numbers.index):
        return table
    table = table.copy()
    for place in PLACES:
        stem = f"auroc_{place.replace(' ', '_')}"
        table[f"published, {place}"] = [
            _spread(*numbers.loc[model, [f"{stem}_mean", f"{stem}_sd"]], digits)
            if model in numbers.index
            else ""
            for model in table["model"]
        ]
    return table


def _caption(table, metric, beside):
    caption = (
        f"{METRIC_NAMES[metric]} in domain and out of domain, mean ± standard deviation over pairs "
        "of domains and repeats (n: in domain + out of domain)."
    )
    if "published, in domain" in table:
        source = PUBLISHED[beside]
        caption += f" Published: {source.source}; {source.note}."
    return caption


def markdown_table(table, *, metric="auroc", beside="ganz2024-table2"):
    """Write the table of :func:`domain_table` as Markdown, names escaped, a caption below it.

    Examples
    --------
    >>> import pandas as pd
    >>> print(markdown_table(pd.DataFrame({"model": ["a|b"], "in domain": ["0.79 ± 0.04"]})))
    | model   | in domain   |
    |:--------|:------------|
    | a\\|b    | 0.79 ± 0.04 |
    <BLANKLINE>
    AUROC in domain and out of domain, mean ± standard deviation over pairs of domains and repeats
    (n: in domain + out of domain).
    """
    from tabulate import tabulate

    cells = [[MARKDOWN.sub(r"\\\1", _line(cell)) for cell in row] for row in table.to_numpy()]
    text = tabulate(cells, headers=list(table.columns), tablefmt="pipe", disable_numparse=True)
    return f"{text}\n\n{_caption(table, metric, beside)}\n"


def latex_table(table, *, metric="auroc", beside="ganz2024-table2"):
    """Write the table of :func:`domain_table` as LaTeX, which needs the package booktabs.

    Examples
    --------
    >>> import pandas as pd
    >>> print(latex_table(pd.DataFrame({"model": ["a_b"], "in domain": ["0.79 ± 0.04"]})))
    \\begin{table}
    \\centering
    \\caption{AUROC in domain and out of domain, mean $\\pm$ standard deviation over pairs of
    domains and repeats (n: in domain + out of domain).}
    \\begin{tabular}{ll}
    \\toprule
     model & in domain       \\\\
    \\midrule
     a\\_b  & 0.79 $\\pm$ 0.04 \\\\
    \\bottomrule
    \\end{tabular}
    \\end{table}
    """
    from tabulate import tabulate

    cells = [[_line(cell) for cell in row] for row in table.to_numpy()]
    text = tabulate(
        cells, headers=list(table.columns), tablefmt="latex_booktabs", disable_numparse=True
    )
    whole = (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_caption(table, metric, beside)}}}\n{text}\n\\end{{table}}\n"
    )
    return whole.replace("±", r"$\pm$").replace("–", "--")


def _line(cell):
    return " ".join(str(cell).split())
