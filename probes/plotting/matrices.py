"""Figure 2: how good a model that was trained on one domain is on each other domain."""

import textwrap

import numpy as np

from probes.domains import domain_means
from probes.means import labelled
from probes.plotting.style import (
    METRIC_NAMES,
    amount,
    as_given,
    chosen,
    columns_of,
    makes_panels,
    panels,
    plain,
    wrapped,
)
from probes.splits import in_domain

__all__ = ["plot_domain_matrix"]

COLUMNS = 3
DARK = 0.179  # relative luminance at which black and white text have equal contrast (WCAG 2)


def plot_domain_matrix(
    results, ax=None, *, metric="auroc", experiment="cross_domain", limits=(0.5, 1.0)
):
    """Draw the mean of a metric for every pair of domains, one panel per model and dataset.

    Parameters
    ----------
    results : DataFrame or Results
        Of :func:`probes.cross_domain`, of any number of models and datasets.
    ax : matplotlib Axes, sequence of Axes, or empty Figure, optional
        Where to draw, one for each panel; a new figure by default.
    metric, experiment : str
        Which rows are drawn.
    limits : (float, float)
        Values at the ends of the scale of colours, which all panels share; AUROC begins at chance.

    Returns
    -------
    matplotlib.axes.Axes
        Or an array of them, where there are several panels.

    Raises
    ------
    ProbesError
        If there are no such rows, or not as many axes as panels.

    Notes
    -----
    Frames mark what was tested in the domain of training, on its part that was held out. A hatched
    cell has no value in any repeat.
    """
    frame = labelled(chosen(results, metric=metric, experiment=experiment))
    parts = list(frame.groupby(["dataset", "model"], sort=False))
    size = _size(frame)
    axes = panels(
        ax,
        len(parts),
        width_in=size,
        height_in=size + 0.1,
        beside_in=1.9,  # names of domains and the scale
        below_in=1.5,  # names of domains and the note
        columns=COLUMNS,
    )
    several = frame["dataset"].nunique() > 1
    for place, (((dataset, model), rows), axis) in enumerate(zip(parts, axes, strict=True)):
        picture = _draw_matrix(_matrix(rows, metric), axis, limits)
        name = f"{model}, {dataset}" if several else model
        axis.set_title(wrapped(name, int(10 * size), lines=2), fontsize=9)
        if makes_panels(ax) and not several:
            _keep_outer_labels(axis, place, len(parts))
    _add_scale(picture, axes, metric, limits)
    _add_note(axes, frame, several)
    return as_given(axes)


def _size(frame):
    """Inches of a panel: room for two digits and their point in every cell."""
    return float(np.clip(0.5 * frame["test_domain"].nunique(), 2.2, 6.0))


def _matrix(rows, metric):
    """Means with a row and a column for every domain, those without any value included."""
    return domain_means(rows, metric).reindex(
        index=sorted(set(rows["train_domain"])), columns=sorted(set(rows["test_domain"]))
    )


def _draw_matrix(matrix, ax, limits):
    from matplotlib import colormaps

    colours = colormaps["cividis"].with_extremes(bad="#e8e8e8")
    values = np.ma.masked_invalid(matrix.to_numpy(dtype=float))
    picture = ax.imshow(values, vmin=limits[0], vmax=limits[1], cmap=colours)
    for (row, column), value in np.ndenumerate(matrix.to_numpy(dtype=float)):
        _write(ax, row, column, value, picture)
        if in_domain(matrix.index[row], matrix.columns[column]):
            _frame(ax, row, column)
    ax.set_xticks(range(matrix.shape[1]), [wrapped(name, 15) for name in matrix.columns])
    ax.set_yticks(range(matrix.shape[0]), [wrapped(name, 15) for name in matrix.index])
    ax.tick_params(axis="x", labelsize=7, rotation=90 if matrix.shape[1] > 2 else 0)
    ax.tick_params(axis="y", labelsize=7)
    ax.set_xlabel("tested on", fontsize=8.5)
    ax.set_ylabel("trained on", fontsize=8.5)
    return picture


def _write(ax, row, column, value, picture):
    if np.isnan(value):
        _hatch(ax, row, column)
        return
    colour = "white" if _luminance(picture.to_rgba(value)) < DARK else "black"
    ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8.5)


def _luminance(rgba):
    """Relative luminance of a colour, 0 to 1 (WCAG 2.2)."""
    parts = np.asarray(rgba[:3])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _frame(ax, row, column):
    """Mark a cell, visible on dark and light: a black line within a white one."""
    from matplotlib.patches import Rectangle

    for width, colour in ((3.0, "white"), (1.2, "black")):
        square = Rectangle(
            (column - 0.45, row - 0.45), 0.9, 0.9, fill=False, edgecolor=colour, linewidth=width
        )
        ax.add_patch(square)


def _hatch(ax, row, column):
    from matplotlib.patches import Rectangle

    ax.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5),
            1,
            1,
            facecolor="none",
            edgecolor="#999999",
            hatch="////",
            linewidth=0,
        )
    )


def _keep_outer_labels(ax, place, n):
    """Name domains at the left and below only: all panels have the same ones."""
    across = columns_of(n, COLUMNS)
    if place % across:
        ax.set_ylabel("")
        ax.set_yticklabels([])
    if place + across < n:
        ax.set_xlabel("")
        ax.set_xticklabels([])


def _add_scale(picture, axes, metric, limits):
    values = np.concatenate([image.get_array().compressed() for ax in axes for image in ax.images])
    below, above = (values < limits[0]).any(), (values > limits[1]).any()
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    bar = axes[0].figure.colorbar(
        picture, ax=axes, label=METRIC_NAMES[metric], extend=extend, shrink=0.8, aspect=25
    )
    bar.ax.tick_params(labelsize=8)


def _add_note(axes, frame, several):
    """Say below the figure what was tested, how often, and what the marks mean."""
    repeats = frame.groupby(["model", "train_domain", "test_domain"])["repeat"].nunique()
    dataset = "" if several else f"{plain(frame['dataset'].iloc[0])}: "
    note = (
        f"{dataset}mean of {amount(repeats)} repeat{'s' if repeats.max() > 1 else ''}, "
        f"{amount(frame['n_test'])} annotations tested per cell; framed: in domain (held-out part)"
    )
    if frame["value"].isna().any():
        note += "; hatched: no value"
    figure = axes[0].figure
    figure.supxlabel(textwrap.fill(note, int(15 * figure.get_figwidth())), fontsize=8)
