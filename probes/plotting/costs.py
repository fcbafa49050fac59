"""What leakage is worth: one experiment on several designs of splits."""

import numpy as np

from probes.errors import ProbesError
from probes.means import labelled
from probes.plotting.style import (
    METRIC_NAMES,
    amount,
    legend_in,
    looks,
    name_lines,
    panels,
    plain,
    wrapped,
)

__all__ = ["plot_leakage_cost"]


def plot_leakage_cost(cost, ax=None, *, metric="auroc", size=None):
    """Draw a metric of every model on every design of splits.

    Parameters
    ----------
    cost : LeakageCost, Results or DataFrame
        Of :func:`probes.leakage_cost`: the column ``experiment`` names the design.
    ax : matplotlib Axes or empty Figure, optional
        Where to draw; a new figure by default.
    metric : str
        Which rows are drawn.
    size : float, optional
        Share of the training pool; the largest by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ProbesError
        If there are no such rows.

    Notes
    -----
    Marks are means over repeats and bars one standard deviation (n - 1) to each side. Another
    design tests other annotations: not all of a difference is leakage.
    """
    frame = _rows(cost, metric, size)
    models = list(dict.fromkeys(frame["model"]))
    styles = looks(frame["experiment"])
    (ax,) = panels(
        ax,
        1,
        width_in=5.6,
        height_in=1.3 + 0.34 * len(models),
        beside_in=legend_in(styles),
    )
    drawn = [
        _draw_design(ax, frame[frame["experiment"] == design], models, shift, style)
        for (design, style), shift in zip(styles.items(), _shifts(len(styles)), strict=True)
    ]
    ax.set_yticks(range(len(models)), [wrapped(model, 24, lines=2) for model in models])
    ax.tick_params(axis="y", labelsize=8.5)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlabel(f"{METRIC_NAMES[metric]}, mean ± s.d.")
    ax.set_title(_heading(frame), fontsize=10)
    ax.grid(alpha=0.3)
    name_lines(ax, drawn, [plain(design) for design in styles], title="splits")
    return ax


def _rows(cost, metric, size):
    frame = cost.to_frame() if hasattr(cost, "to_frame") else cost
    frame = frame[frame["metric"] == metric]
    frame = frame[frame["size"] == (frame["size"].max() if size is None else size)]
    if frame.empty:
        raise ProbesError(f"no rows of {metric} at this size to draw; give another metric or size")
    return labelled(frame)


def _shifts(n):
    """Heights of the designs of a model, beside each other within its row."""
    return np.linspace(-0.22, 0.22, n) if n > 1 else [0.0]


def _draw_design(ax, rows, models, shift, style):
    values = rows.groupby("model", sort=False)["value"].agg(["mean", "std"]).reindex(models)
    return ax.errorbar(
        values["mean"],
        np.arange(len(models)) + shift,
        xerr=values["std"].fillna(0),
        markersize=5.5,
        elinewidth=1,
        capsize=2,
        **(style | {"linestyle": "none"}),
    )


def _heading(frame):
    repeats = frame.groupby(["model", "experiment"])["repeat"].nunique()
    return (
        f"{plain(frame['dataset'].iloc[0])}: {amount(frame['n_train'])} annotations trained on,\n"
        f"{amount(frame['n_test'])} tested, {amount(repeats)} "
        f"repeat{'s' if repeats.max() > 1 else ''}"
    )
