"""How figures look: colours, marks, names, panels."""

import textwrap

import numpy as np

from probes.errors import ProbesError, require

__all__ = [
    "METRIC_NAMES",
    "amount",
    "as_given",
    "chosen",
    "columns_of",
    "legend_in",
    "looks",
    "makes_panels",
    "name_lines",
    "panels",
    "plain",
    "wrapped",
]

# Okabe and Ito (2008), without its yellow, which is too light for a line on white: told apart by
# colour-blind readers. Marks and dashes tell the same lines apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*<>hp"
DASHES = ("-", "--", "-.", (0, (1, 1.2)))

LONGEST = 40  # characters of a name in a legend

METRIC_NAMES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "sensitivity_at_specificity": "sensitivity at 90 % specificity",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "log_loss": "log loss",
}


def plain(name, longest=LONGEST):
    """Give a name as matplotlib draws it: on one line, not as a formula, cut where it is long.

    Examples
    --------
    >>> plain("price in $ or $$"), plain("a" * 50, longest=8)
    ('price in \\\\$ or \\\\$\\\\$', 'aaaaaaa…')
    """
    text = " ".join(str(name).split())
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


def wrapped(name, width=14, lines=3):
    """Give a name on a few lines of so many characters; see :func:`plain`.

    Examples
    --------
    >>> wrapped("canine cutaneous mast cell tumour", width=12)
    'canine\\ncutaneous\\nmast cell…'
    """
    folded = textwrap.wrap(" ".join(str(name).split()), width=width)
    if len(folded) > lines:
        folded = [*folded[: lines - 1], folded[lines - 1][: width - 1] + "…"]
    return "\n".join(folded).replace("$", r"\$")


def looks(names):
    """Give every name a line of its own, in the order in which they come.

    Returns
    -------
    dict of str to dict
        Arguments of ``Axes.plot``; the first twelve differ in mark and in dashes or colour.
    """
    return {
        name: {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": DASHES[place % len(DASHES)],
            "markerfacecolor": COLOURS[place % len(COLOURS)] if place % 2 == 0 else "white",
        }
        for place, name in enumerate(dict.fromkeys(names))
    }


def chosen(results, *, metric=None, experiment=None):
    """Rows of a frame or of Results that are of a metric and an experiment.

    Raises
    ------
    ProbesError
        If there are none.
    """
    frame = results.to_frame() if hasattr(results, "to_frame") else results
    kept = frame
    for column, value in (("metric", metric), ("experiment", experiment)):
        if value is not None:
            kept = kept[kept[column] == value]
    if kept.empty:
        there = frame[["experiment", "metric"]].drop_duplicates().agg("/".join, axis=1)
        raise ProbesError(
            f"no rows of {experiment or 'any experiment'}/{metric or 'any metric'} to draw; there "
            f"are rows of {', '.join(there) or 'nothing'}"
        )
    return kept


def panels(ax, n, *, width_in, height_in, beside_in=0.0, below_in=0.0, columns=3, **sharing):
    """Give the axes of so many panels: those that were given, or those of a new figure.

    Parameters
    ----------
    ax : Axes, sequence of Axes, Figure or None
        What the caller was given; a figure is empty, and gets the size that the panels need.
    n : int
        Number of panels.
    width_in, height_in : float
        Size of one panel, in inches.
    beside_in, below_in : float
        Room for what stands beside and below the panels, in inches.
    columns : int
        Most panels beside each other.
    **sharing
        ``sharex``, ``sharey`` of a new figure.

    Returns
    -------
    list of Axes

    Raises
    ------
    ProbesError
        If another number of axes was given.
    """
    if not makes_panels(ax):
        given = list(np.atleast_1d(np.asarray(ax, dtype=object)).ravel())
        if len(given) != n:
            raise ProbesError(f"{n} panels need {n} axes, and {len(given)} were given; give none")
        return given
    figure = ax or require("matplotlib.pyplot", extra="plot", purpose="plotting").figure()
    across = columns_of(n, columns)
    down = -(-n // across)
    figure.set_size_inches(width_in * across + beside_in, height_in * down + below_in)
    figure.set_layout_engine("compressed")
    grid = figure.subplots(down, across, squeeze=False, **sharing)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    for spare in grid.ravel()[n:]:
        spare.remove()
    return list(grid.ravel()[:n])


def makes_panels(ax):
    """Whether there are no axes yet."""
    return ax is None or hasattr(ax, "set_size_inches")


def columns_of(n, most):
    """Panels beside each other: as many as may be, and four as two by two.

    Examples
    --------
    >>> [columns_of(n, 3) for n in (1, 2, 3, 4, 5, 9)]
    [1, 2, 3, 2, 3, 3]
    """
    return 2 if n == 4 else min(n, most)


def name_lines(ax, handles, labels, *, title=None):
    """Put a legend beside the axes, where it hides nothing."""
    ax.legend(
        handles,
        labels,
        title=title,
        title_fontsize=8.5,
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
        frameon=False,
        fontsize=8.5,
        handlelength=3.2,
    )


def legend_in(names, *, extra=0):
    """Width of a legend of these names, in inches; extra: characters that stand behind them."""
    return 0.75 + 0.075 * (extra + min(LONGEST, max(len(str(name)) for name in names)))


def as_given(axes):
    """One Axes, or an array where there are several panels: what a user gets back."""
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def amount(numbers):
    """Say a range of counts: '4,110', or '887 to 8,216'.

    Examples
    --------
    >>> amount([4110, 4110]), amount([887, 8216])
    ('4,110', '887 to 8,216')
    """
    low, high = np.min(numbers), np.max(numbers)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
