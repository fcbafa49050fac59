"""Sections of a report, each from one kind of result, or from its absence."""

from probes.errors import ProbesError
from probes.means import labelled, means_by
from probes.plotting import (
    plot_calibration,
    plot_domain_matrix,
    plot_leakage_cost,
    plot_learning_curves,
    plot_roc,
)
from probes.plotting.style import METRIC_NAMES
from probes.published import PUBLISHED
from probes.report.page import Figure, Note, Section, Table, Text
from probes.report.tables import domain_table

__all__ = [
    "audit_section",
    "comparison_section",
    "domain_probe_section",
    "domains_section",
    "leakage_section",
    "sizes_section",
    "warnings_section",
]

MOST_ROWS = 60  # of a table on the page; longer ones are in a file


def _missing(what, how, remarks=()):
    """Say what is not there, and what is known of why."""
    return (Note(f"{what} is not among these results; {how} makes it."), *map(Note, remarks))


def sizes_section(results, *, metric="auroc"):
    """Show Figure 1, with ROC and calibration curves where scores are kept.

    Parameters
    ----------
    results : Results
        Of any experiments.
    metric : str
        What is drawn.
    """
    rows = results.where(experiment="learning_curve", metric=metric)
    title = "By size of the training set"
    if not len(rows):
        return Section("sizes", title, _missing("A learning curve", "'featstore curve'"))
    table = _by_dataset(rows.to_frame(), ["size"])
    caption = f"{METRIC_NAMES[metric]} over the number of training annotations (the paper's Fig. 1)"
    parts = [
        Figure.drawn(plot_learning_curves, rows, metric=metric, caption=f"{caption}."),
        Table(table, f"{caption}: means and standard deviations (n - 1) over repeats."),
    ]
    return Section("sizes", title, (*parts, *_curves_of_scores(rows)))


def _by_dataset(frame, by):
    """Means, one dataset below the other, without columns that say nothing."""
    import pandas as pd

    frame = labelled(frame)
    tables = [
        means_by(of_dataset, by).assign(dataset=dataset)
        for dataset, of_dataset in frame.groupby("dataset", sort=False)
    ]
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "dataset", table.pop("dataset"))
    counts = [name for name in table if name.endswith("_n")]
    full = [name for name in counts if (table[name] == table["repeats"]).all()]
    return table.drop(columns=full if table["dataset"].nunique() > 1 else [*full, "dataset"])


def _curves_of_scores(rows):
    """ROC and calibration curves, or why there are none."""
    try:
        return [
            Figure.drawn(
                plot_roc, rows, caption="ROC curves at the largest size, the mean over repeats."
            ),
            Figure.drawn(
                plot_calibration,
                rows,
                caption="Calibration at the largest size: bins with fewer than ten annotations "
                "are not drawn.",
            ),
        ]
    except ProbesError as error:
        return [Note(f"No ROC and calibration curves: {error}.")]


def domains_section(results, *, metric="auroc", beside="ganz2024-table2"):
    """Show Figure 2 and Table 2, beside published numbers.

    Parameters
    ----------
    results : Results
        Of any experiments.
    metric : str
        What is drawn.
    beside : str
        A table of :func:`probes.published`.
    """
    rows = results.where(experiment="cross_domain", metric=metric)
    title = "By domain"
    if not len(rows):
        why = "'featstore domains', for a dataset with two domains or more,"
        return Section("domains", title, _missing("A comparison of domains", why))
    table = domain_table(rows, metric=metric, beside=beside)
    known = any("published" in name for name in table)
    figure = Figure.drawn(
        plot_domain_matrix,
        rows,
        metric=metric,
        caption=f"{METRIC_NAMES[metric]} by domain of training and testing (the paper's Fig. 2).",
    )
    caption = (
        "In domain and out of domain (the paper's Table 2): mean ± standard deviation (n - 1) over "
        "pairs of domains and repeats; n counts values in domain + out of domain."
    )
    return Section("domains", title, (figure, Table(table, caption), _about(beside, known)))


def _about(beside, known):
    source = PUBLISHED[beside]
    if not known:
        return Text(f"None of these models has a number in {source.source}.")
    return Note(
        f"The columns 'published' are from {source.source}: {source.note}. They are to be held "
        "against the others only where this dataset is the paper's."
    )


def comparison_section(comparison, remarks=()):
    """Compare pairs of models: differences over repeats, with corrected tests.

    Parameters
    ----------
    comparison : DataFrame or None
        The repeats of :class:`probes.Comparison`, of any number of datasets.
    remarks : sequence of str
        What the tests can and cannot say, or why there are none.
    """
    title = "Comparisons"
    if comparison is None or comparison.empty:
        missing = _missing("A comparison", "'featstore reproduce'", remarks)
        return Section("comparisons", title, missing)
    parts = [*map(Text, remarks)]
    sizes = comparison[comparison["experiment"] == "learning_curve"]
    if len(sizes):
        largest = sizes[sizes["size"] == sizes.groupby("dataset")["size"].transform("max")]
        parts.append(_pairs(largest, "Pairs of models at the largest size of the training set"))
    others = comparison[comparison["experiment"] != "learning_curve"]
    if len(others):
        n_sure = int((others["p_adjusted"] < 0.05).sum())
        parts.append(
            Text(
                f"Of {len(others):,} comparisons on single pairs of domains, {n_sure:,} have an "
                "adjusted p below 0.05; all are in comparison.csv."
            )
        )
    return Section("comparisons", title, tuple(parts))


def _pairs(frame, caption):
    """Show pairs of models, the surest differences first."""
    names = ["dataset", "first", "second", "first_mean", "second_mean", "difference", "sd"]
    names += ["repeats", "p", "p_adjusted", "reason"]
    table = frame.sort_values("p_adjusted", kind="stable")[names]
    table = _without_constant(table, "dataset")
    if (table["reason"] == "").all():
        table = table.drop(columns="reason")
    caption += ": corrected resampled t-test over repeats, adjusted for the number of pairs"
    return Table(table.head(MOST_ROWS), caption + _how_many(table))


def _how_many(table):
    return "." if len(table) <= MOST_ROWS else f"; the first {MOST_ROWS} of {len(table):,}."


def _without_constant(table, column):
    return table if table[column].nunique() > 1 else table.drop(columns=column)


def audit_section(by_size, by_domain=None, remarks=()):
    """Show what test patches share with training patches.

    Parameters
    ----------
    by_size, by_domain : DataFrame or None
        :meth:`probes.Audit.summary` by either, with a column ``dataset``.
    remarks : sequence of str
        Settings of the audit, and what was not audited.
    """
    title = "Audit of the splits"
    if by_size is None:
        return Section("audit", title, _missing("An audit", "'featstore reproduce'", remarks))
    parts = [Table(_shares(by_size, "size"), "Share of test patches, mean over splits, by size.")]
    if by_domain is not None and by_domain["domain"].fillna("").nunique() > 1:
        title_of_domains = "The same by domain of the test patch, at the largest size."
        parts.append(Table(_shares(by_domain, "domain"), title_of_domains))
    return Section("audit", title, (*parts, *map(Text, remarks)))


def _shares(summary, by):
    """Mean shares in per cent: findings down, sizes or domains across."""
    summary = summary[summary["against"].fillna("").isin(("", "train+val"))]
    cells = summary.assign(
        share=[f"{100 * share:.1f} %" if share == share else "–" for share in summary["share"]],
        **{by: [_heading(value) for value in summary[by]]},
    )
    wide = cells.pivot_table(
        index=["dataset", "finding"], columns=by, values="share", aggfunc="first", sort=False
    )
    return _without_constant(wide.fillna("–").reset_index(), "dataset")


def _heading(value):
    """Name a size, a domain, or all of them."""
    return f"size {value:g}" if isinstance(value, float) else str(value) or "all"


def leakage_section(rows, summary, remarks=()):
    """Show what leakage is worth: the same experiment on other designs of splits.

    Parameters
    ----------
    rows, summary : DataFrame or None
        :meth:`probes.leakage.LeakageCost.to_frame` and ``summary``, with a column ``dataset``.
    remarks : sequence of str
        What was left out, and why.
    """
    title = "What leakage is worth"
    if rows is None or summary is None:
        missing = _missing("The cost of leakage", "'featstore reproduce'", remarks)
        return Section("leakage", title, missing)
    figures = [
        Figure.drawn(
            plot_leakage_cost,
            of_dataset,
            caption=f"{dataset}: AUROC on splits as they are given, without what leaks, and "
            "grouped, at the largest size.",
        )
        for dataset, of_dataset in rows.groupby("dataset", sort=False)
    ]
    largest = summary[summary["size"] == summary.groupby("dataset")["size"].transform("max")]
    names = ["dataset", "model", "design", "n_train", "n_test", "auroc_mean", "auroc_sd"]
    names += ["auroc_difference", "auroc_difference_se"]
    table = Table(
        _without_constant(largest[names], "dataset"),
        "At the largest size. A difference to the splits as given below 0 says how much leakage "
        "flatters; but thinned training parts are smaller too, thinned test parts hold other "
        "annotations, and grouped splits draw both anew. Its standard error is that of repeats "
        "which overlap (Nadeau and Bengio, 2003).",
    )
    return Section("leakage", title, (*figures, table, *map(Text, remarks)))


def domain_probe_section(summary, remarks=()):
    """Show how well the domain can be read off embeddings, beside the task.

    Parameters
    ----------
    summary : DataFrame or None
        :meth:`probes.domainprobe.DomainProbe.summary`, with a column ``dataset``.
    remarks : sequence of str
        What was left out, and why.
    """
    title = "What embeddings know of the domain"
    if summary is None:
        how = "'featstore reproduce', for a dataset with two domains or more,"
        return Section("domain-probe", title, _missing("A domain probe", how, remarks))
    names = ["dataset", "model", "target", "classes", "n_train", "n_test", "repeats"]
    names += [name for name in summary if name.endswith(("_mean", "_sd"))]
    table = Table(
        _without_constant(summary[names], "dataset"),
        "A probe of the domain and a probe of the label on the same splits, drawn by slide. "
        "Chance is an AUROC of 0.5, and a balanced accuracy of one in so many classes.",
    )
    return Section("domain-probe", title, (table, *map(Text, remarks)))


def warnings_section(results, remarks=()):
    """Say what a reader should know before believing a number.

    Parameters
    ----------
    results : Results
        Of any experiments.
    remarks : sequence of str
        More of it, such as results of another encoder than the store's.
    """
    frame = results.to_frame()
    parts = [*map(Note, remarks), *_not_converged(frame), *_collapsed(frame), *_undefined(frame)]
    fine = Text("All probes converged, none collapsed, and every value is a number.")
    return Section("warnings", "Warnings", tuple(parts) or (fine,))


def _trainings(frame):
    return frame.drop_duplicates(["model", "dataset", "experiment", "split", "encoder", "recipe"])


def _counted(frame, by):
    counts = frame.groupby(list(by)).size().rename("trainings").reset_index()
    return _without_constant(counts, "dataset").head(MOST_ROWS)


def _not_converged(frame):
    rows = _trainings(frame[~frame["converged"].astype(bool)])
    if rows.empty:
        return ()
    caption = "Trainings whose solver is not sure of the optimum."
    return (Table(_counted(rows, ("dataset", "model", "experiment", "size")), caption),)


def _collapsed(frame):
    rows = _trainings(frame[frame["collapsed"].astype(bool)])
    if rows.empty:
        return ()
    caption = (
        "Collapsed probes: the penalty outweighs the signal, the same is said of all annotations, "
        "and an AUROC of 0.5 says nothing of the embeddings."
    )
    return (Table(_counted(rows, ("dataset", "model", "experiment", "size")), caption),)


def _undefined(frame):
    rows = frame[frame["value"].isna()]
    if rows.empty:
        return ()
    by = ("dataset", "model", "experiment", "size", "train_domain", "test_domain", "metric")
    caption = "Values that are not defined, and why; they count in no mean."
    return (Table(_counted(rows, (*by, "reason")), caption),)
