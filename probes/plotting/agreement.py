"""ROC and calibration curves, from what was said of every annotation tested."""

from dataclasses import dataclass

import numpy as np

from probes.errors import ProbesError
from probes.means import labelled
from probes.metrics import auroc
from probes.plotting.style import (
    amount,
    as_given,
    chosen,
    legend_in,
    looks,
    name_lines,
    panels,
    plain,
)

__all__ = ["plot_calibration", "plot_roc"]

GRID = np.linspace(0, 1, 201)  # shares of false positives at which curves of repeats are averaged
BINS = 10
FEWEST = 10  # annotations in a bin; the share of fewer says little


@dataclass(frozen=True)
class _Said:
    """What one training said of every annotation tested: truth (n,) bool, probability (n,)."""

    model: str
    truth: np.ndarray
    probability: np.ndarray


def plot_roc(results, ax=None, *, experiment="learning_curve", size=None, split=None):
    """Draw the ROC curve of every model, the mean over repeats.

    Parameters
    ----------
    results : Results
        With per-annotation scores of two classes; every dataset gets a panel of its own.
    ax : matplotlib Axes, sequence of Axes, or empty Figure, optional
        Where to draw, one for each dataset; a new figure by default.
    experiment : str
        Which trainings are drawn.
    size : float, optional
        Share of the training pool; the largest by default.
    split : str, optional
        Digest of the one split that is drawn; all repeats by default.

    Returns
    -------
    matplotlib.axes.Axes
        Or an array of them, where there are several datasets.

    Raises
    ------
    ProbesError
        If no such scores are kept, or there are not two classes.

    Notes
    -----
    Sensitivities of the repeats are averaged at equal shares of false positives (Fawcett 2006,
    vertical averaging). A repeat that tested one class only has no curve.
    """
    return _draw(results, ax, experiment, size, split, draw_line=_draw_roc)


def plot_calibration(results, ax=None, *, experiment="learning_curve", size=None, split=None):
    """Draw how often what is given a probability is so, a line per model.

    Parameters
    ----------
    results, ax, experiment, size, split
        As for :func:`plot_roc`.

    Returns
    -------
    matplotlib.axes.Axes
        Or an array of them, where there are several datasets.

    Raises
    ------
    ProbesError
        If no such scores are kept, or there are not two classes.

    Notes
    -----
    Ten bins of equal width, all repeats together; a bin with fewer than ten annotations is not
    drawn. On the dotted line what is given 0.8 is so in eight of ten.
    """
    return _draw(results, ax, experiment, size, split, draw_line=_draw_calibration)


def _draw(results, ax, experiment, size, split, *, draw_line):
    rows = _rows(results, experiment, size, split)
    datasets = list(dict.fromkeys(rows["dataset"]))
    styles = looks(rows["model"])
    beside = legend_in(styles, extra=len(" (0.99)"))
    axes = panels(ax, len(datasets), width_in=4.6, height_in=4.6, beside_in=beside, columns=1)
    for dataset, axis in zip(datasets, axes, strict=True):
        of_dataset = rows[rows["dataset"] == dataset]
        classes, said = _said(results.scores, of_dataset)
        axis.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle=":")
        drawn = [
            draw_line(axis, model, [each for each in said if each.model == model], style)
            for model, style in styles.items()
        ]
        _label(axis, of_dataset, classes, [line for line in drawn if line], draw_line)
    return as_given(axes)


def _rows(results, experiment, size, split):
    """Rows of the trainings that are drawn, one per training."""
    rows = labelled(chosen(results, metric="auroc", experiment=experiment))
    if split is None:
        rows = rows[rows["size"] == (rows["size"].max() if size is None else size)]
    else:
        rows = rows[rows["split"] == split]
    if rows.empty or getattr(results, "scores", None) is None:
        raise ProbesError(
            f"no per-annotation scores of {experiment} are kept for these trainings; fit them "
            "with keep_scores=True"
        )
    return rows.drop_duplicates(["model", "dataset", "split", "encoder", "recipe"])


def _said(scores, rows):
    """Names of the two classes, and what each training said."""
    names = ["dataset", "experiment", "split", "encoder", "recipe"]
    kept = scores[scores["split"].isin(set(rows["split"]))]
    by_training = dict(list(kept.groupby(names, observed=True, sort=False)))
    parts = [(row["model"], by_training.get(tuple(row[names]))) for _, row in rows.iterrows()]
    parts = [(model, part.dropna(axis=1, how="all")) for model, part in parts if part is not None]
    columns = {tuple(name for name in part if name.startswith("p ")) for _, part in parts}
    if len(columns) != 1 or len(next(iter(columns))) != 2:
        there = sorted({name[2:] for found in columns for name in found})
        raise ProbesError(
            f"a curve is of two classes, and the scores are of {', '.join(there) or 'none'}; "
            "draw results of two classes"
        )
    other, positive = next(iter(columns))
    said = [
        _Said(model, (part["label"] == positive[2:]).to_numpy(), part[positive].to_numpy())
        for model, part in parts
    ]
    return (other[2:], positive[2:]), said


def _draw_roc(ax, model, said, style):
    from sklearn.metrics import roc_curve

    said = [each for each in said if 0 < each.truth.sum() < len(each.truth)]
    if not said:
        return None
    curves = [roc_curve(each.truth, each.probability)[:2] for each in said]
    found = np.mean([np.interp(GRID, *curve) for curve in curves], axis=0)
    found[0] = 0.0  # np.interp gives the top of the first step
    mean = np.mean([auroc(each.truth, each.probability) for each in said])
    marks = (len(ax.lines) * 3 % 25, 25)
    (line,) = ax.plot(GRID, found, markevery=marks, **_thin(style))
    return line, f"{plain(model)} ({mean:.2f})"


def _draw_calibration(ax, model, said, style):
    if not said:
        return None
    truth = np.concatenate([each.truth for each in said])
    probability = np.concatenate([each.probability for each in said])
    places = np.minimum((probability * BINS).astype(int), BINS - 1)
    n = np.bincount(places, minlength=BINS)
    enough = n >= FEWEST
    with np.errstate(invalid="ignore"):
        given = np.bincount(places, probability, BINS) / n
        so = np.bincount(places, truth, BINS) / n
    (line,) = ax.plot(given[enough], so[enough], **_thin(style))
    return line, plain(model)


def _thin(style):
    return style | {"linewidth": 1.3, "markersize": 4.5}


def _label(ax, rows, classes, lines, draw_line):
    other, positive = (plain(name, longest=24) for name in classes)
    if draw_line is _draw_roc:
        ax.set_xlabel(f"share of {other} called {positive} (1 - specificity)")
        ax.set_ylabel(f"share of {positive} found (sensitivity)")
        title = "model (mean AUROC)"
    else:
        ax.set_xlabel(f"probability given of {positive}")
        ax.set_ylabel(f"share that is {positive}")
        title = None
    repeats = rows["repeat"].nunique()
    ax.set_title(
        f"{plain(rows['dataset'].iloc[0])}\n{amount(rows['n_train'])} annotations trained on, "
        f"{amount(rows['n_test'])} tested, {repeats} repeat{'s' if repeats > 1 else ''}",
        fontsize=10,
    )
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_aspect("equal")
    ax.grid(alpha=0.3)
    if lines:
        name_lines(ax, *zip(*lines, strict=True), title=title)
