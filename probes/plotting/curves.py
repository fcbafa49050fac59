"""Figure 1: how good each model is by the number of annotations that it was trained on."""

import numpy as np

from probes.means import labelled, means_by
from probes.plotting.style import (
    METRIC_NAMES,
    amount,
    as_given,
    chosen,
    legend_in,
    looks,
    name_lines,
    panels,
    plain,
)

__all__ = ["plot_learning_curves"]

STEP = 0.011  # share of the axis between models of one size, which are laid side by side


def plot_learning_curves(results, ax=None, *, metric="auroc", experiment="learning_curve"):
    """Draw a metric over the number of training annotations, one line per model.

    Parameters
    ----------
    results : DataFrame or Results
        Of :func:`probes.learning_curve`: any number of models and datasets, each dataset in a
        panel of its own.
    ax : matplotlib Axes, sequence of Axes, or empty Figure, optional
        Where to draw, one for each dataset; a new figure by default.
    metric, experiment : str
        Which rows are drawn.

    Returns
    -------
    matplotlib.axes.Axes
        Or an array of them, where there are several datasets.

    Raises
    ------
    ProbesError
        If there are no such rows, or not as many axes as datasets.

    Notes
    -----
    Marks are means over repeats and bars one standard deviation (n - 1) to each side. The models
    of one size are drawn a little beside each other, so that no bar hides another; the tick is
    where they all belong.
    """
    frame = labelled(chosen(results, metric=metric, experiment=experiment))
    datasets = list(dict.fromkeys(frame["dataset"]))
    styles = looks(frame["model"])
    axes = panels(
        ax,
        len(datasets),
        width_in=5.2,
        height_in=4.2,
        beside_in=legend_in(styles, extra=len(" (no value)") if frame["value"].isna().any() else 0),
        columns=2,
        sharey=True,
    )
    for place, (dataset, axis) in enumerate(zip(datasets, axes, strict=True)):
        _draw_dataset(frame[frame["dataset"] == dataset], axis, styles, metric)
        if place == 0:
            axis.set_ylabel(f"{METRIC_NAMES[metric]}, mean ± s.d.")
    _add_legend(axes[-1], styles)
    return as_given(axes)


def _draw_dataset(frame, ax, styles, metric):
    table = means_by(frame, ["size"])
    factors = _side_by_side(table["n_train"], len(styles))
    for factor, (model, style) in zip(factors, styles.items(), strict=True):
        line = table[table["model"] == model].sort_values("size")
        ax.errorbar(
            line["n_train"] * factor,
            line[f"{metric}_mean"],
            yerr=line[f"{metric}_sd"].fillna(0),
            markersize=5.5,
            linewidth=1.4,
            elinewidth=1,
            capsize=2,
            **style,
        )
    ax.set_xscale("log")
    _ticks_at_sizes(ax, table)
    ax.set_xlabel("training annotations (share of the pool)")
    ax.set_title(_heading(frame), fontsize=10)
    ax.grid(alpha=0.3)


def _side_by_side(n_train, n_models):
    """By what each model's sizes are multiplied: a small step, and never near the next size."""
    sizes = np.log10(np.unique(n_train))
    span = np.ptp(sizes) or 1.0
    gap = np.diff(sizes).min() if len(sizes) > 1 else span
    width = min(STEP * span * (n_models - 1), 0.4 * gap)
    return 10 ** np.linspace(-width / 2, width / 2, n_models)


def _ticks_at_sizes(ax, table):
    sizes = table.groupby("size")["n_train"].mean()
    labels = [f"{n_train:,.0f}\n({size:.3g})" for size, n_train in sizes.items()]
    ax.set_xticks(sizes.to_numpy(), labels)
    ax.minorticks_off()


def _heading(frame):
    """Dataset, how much was tested how often, and what is not drawn."""
    repeats = frame.groupby(["model", "size"])["repeat"].nunique()
    lines = [
        plain(frame["dataset"].iloc[0]),
        f"{amount(frame['n_test'])} annotations tested, {amount(repeats)} "
        f"repeat{'s' if repeats.max() > 1 else ''}",
    ]
    if repeats.max() == 1:
        lines[1] += " (no s.d.)"
    n_missing = int(frame["value"].isna().sum())
    if n_missing:
        lines.append(f"{n_missing} of {len(frame)} trainings without a value")
    return "\n".join(lines)


def _add_legend(ax, styles):
    """Name the lines in the order of their right ends."""
    ends = [_right_end(container) for container in ax.containers]
    names = [
        plain(name) if np.isfinite(end) else f"{plain(name)} (no value)"
        for name, end in zip(styles, ends, strict=True)
    ]
    order = sorted(range(len(names)), key=lambda place: -ends[place])
    name_lines(ax, [ax.containers[place] for place in order], [names[place] for place in order])


def _right_end(container):
    """Height of the last mark of a line; below all others where there is none."""
    heights = np.asarray(container.lines[0].get_ydata(), float)
    heights = heights[~np.isnan(heights)]
    return heights[-1] if len(heights) else -np.inf
