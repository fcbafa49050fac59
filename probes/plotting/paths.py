"""What validation says over C."""

from probes.plotting.style import COLOURS, MARKERS, METRIC_NAMES, panels, plain

__all__ = ["plot_regularization_path"]


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
    (ax,) = panels(ax, 1, width_in=6.4, height_in=4.2)
    sizes = list(dict.fromkeys(frame["size"]))
    for _, line in frame.groupby("split", sort=False):
        place = sizes.index(line["size"].iloc[0])
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        line = line.sort_values("C")
        at_best = line[line["chosen"]]
        ax.plot(line["C"], line[metric], color=colour, linewidth=1.2, alpha=0.7)
        ax.plot(at_best["C"], at_best[metric], color=colour, marker=marker, linestyle="none")
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
    model, dataset = plain(frame["model"].iloc[0]), plain(frame["dataset"].iloc[0])
    ax.set_title(f"{model}\n{dataset}, {frame['split'].nunique()} splits", fontsize=11)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=9)
    return ax
