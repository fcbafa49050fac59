"""Figures of results. Numbers come in as tables; nothing is computed here beyond means."""

import textwrap

import numpy as np

from probes.curves import summarise
from probes.domains import domain_means
from probes.errors import require

__all__ = ["plot_domain_matrix", "plot_learning_curves", "plot_regularization_path"]

# Okabe and Ito (2008): told apart by colour-blind readers; with markers, in grey as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


def plot_learning_curves(frame, ax=None):
    """Draw AUROC over the number of training annotations, one line per model.

    Parameters
    ----------
    frame : DataFrame
        Results of :func:`probes.learning_curve`, of any number of models on the same splits.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or _new_axes(width_in=6.4, height_in=4.2)
    table = summarise(frame)
    for place, (model, line) in enumerate(table.groupby("model", sort=False)):
        ax.errorbar(
            line["n_train"],
            line["auroc_mean"],
            yerr=line["auroc_sd"].fillna(0),
            label=f"{model} ({line['repeats'].max()} repeats)",
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            capsize=3,
        )
    ax.set_xscale("log")
    _ticks_at_sizes(ax, table)
    ax.set_xlabel("training annotations (share of the pool)")
    ax.set_ylabel("AUROC, mean ± s.d.")
    ax.set_title(
        f"{frame['dataset'].iloc[0]}: {frame['n_test'].mean():,.0f} annotations tested", fontsize=11
    )
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=9)
    return ax


def _ticks_at_sizes(ax, table):
    sizes = table.groupby("size")["n_train"].mean()
    labels = [f"{n_train:,.0f}\n({size:.3g})" for size, n_train in sizes.items()]
    ax.set_xticks(sizes.to_numpy(), labels)
    ax.minorticks_off()


def plot_domain_matrix(frame, ax=None):
    """Draw the mean AUROC of every pair of domains.

    Parameters
    ----------
    frame : DataFrame
        Results of :func:`probes.cross_domain` for one model.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or _new_axes(width_in=6.0, height_in=5.0)
    matrix = domain_means(frame)
    values = matrix.to_numpy()
    picture = ax.imshow(values, vmin=0.5, vmax=1.0, cmap="cividis")
    for (row, column), value in np.ndenumerate(values):
        ax.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            color="white" if value < 0.72 else "black",
        )
    ax.set_xticks(range(matrix.shape[1]), [_wrapped(name) for name in matrix.columns], fontsize=7.5)
    ax.set_yticks(range(matrix.shape[0]), [_wrapped(name) for name in matrix.index], fontsize=7.5)
    ax.set_xlabel("tested on")
    ax.set_ylabel("trained on")
    model, dataset = frame["model"].iloc[0], frame["dataset"].iloc[0]
    ax.set_title(f"{model}\n{dataset}, mean of {frame['repeat'].nunique()} repeats", fontsize=11)
    ax.figure.colorbar(picture, ax=ax, label="AUROC", fraction=0.046, extend="min")
    return ax


METRIC_NAMES = {"auroc": "AUROC", "log_loss": "log loss"}


def plot_regularization_path(frame, ax=None, *, metric="auroc"):
    """Draw what validation says over C, a line per split, with a mark at each chosen value.

    Parameters
    ----------
    frame : DataFrame
        Results of :func:`probes.regularization_path` for one model.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    metric : {'auroc', 'log_loss'}
        Column that is drawn.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = ax or _new_axes(width_in=6.4, height_in=4.2)
    sizes = list(dict.fromkeys(frame["size"]))
    for _, line in frame.groupby("split", sort=False):
        place = sizes.index(line["size"].iloc[0])
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        line = line.sort_values("C")
        chosen = line[line["chosen"]]
        ax.plot(line["C"], line[metric], color=colour, linewidth=1.2, alpha=0.7)
        ax.plot(chosen["C"], chosen[metric], color=colour, marker=marker, linestyle="none")
    for place, size in enumerate(sizes):
        n_train = frame.loc[frame["size"] == size, "n_train"].mean()
        ax.plot(
            [],
            [],
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            label=f"{n_train:,.0f} training annotations",
        )
    ax.set_xscale("log")
    ax.set_xlabel("C (marks: chosen)")
    ax.set_ylabel(f"{METRIC_NAMES[metric]}, validation")
    model, dataset = frame["model"].iloc[0], frame["dataset"].iloc[0]
    ax.set_title(f"{model}\n{dataset}, {frame['split'].nunique()} splits", fontsize=11)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=9)
    return ax


def _wrapped(name):
    return textwrap.fill(str(name), width=12)


def _new_axes(*, width_in, height_in):
    pyplot = require("matplotlib.pyplot", extra="plot", purpose="plotting")
    return pyplot.subplots(figsize=(width_in, height_in), layout="constrained")[1]
