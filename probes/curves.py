"""Learning curves: how good a probe is by the number of annotations it was trained on."""

from dataclasses import dataclass

from probes.evaluate import RESULT_COLUMNS, evaluate, result_row
from probes.neighbours import fit_probes, model_name
from probes.protocols import InMemory

__all__ = ["LearningCurve", "learning_curve"]


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Results of one model over training sizes and repeats.

    Parameters
    ----------
    rows : tuple of dict
        One per training; see :data:`probes.evaluate.RESULT_COLUMNS`.
    """

    rows: tuple

    def to_frame(self):
        """Return a pandas DataFrame, one row per training."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=list(RESULT_COLUMNS))

    def summary(self):
        """Mean and standard deviation over repeats, one row per model and size."""
        return summarise(self.to_frame())

    def plot(self, ax=None):
        """Draw the curve; returns the matplotlib axes."""
        from probes.plotting import plot_learning_curves

        return plot_learning_curves(self.to_frame(), ax)


def learning_curve(source, annotations, splits, *, probe="logistic", **parameters):
    """Fit a probe on every split, logistic ones in one solve, and test each.

    Parameters
    ----------
    source : Source
        Embeddings.
    annotations : LabelTable
        The labels.
    splits : Splits
        As :func:`probes.monte_carlo` or :func:`probes.grouped` makes them.
    probe : {'logistic', 'knn', 'simpleshot'}
        What is fitted. The name of a companion stands behind that of the model in tables.
    **parameters
        As for :class:`probes.LogisticProbe` (``objective``, ``C``, ``solver``, ...),
        :class:`probes.KNNProbe` or :class:`probes.SimpleShot`.

    Returns
    -------
    LearningCurve

    Raises
    ------
    SplitError
        If the splits are of other annotations.

    Examples
    --------
    >>> import numpy as np, probes
    >>> from types import SimpleNamespace
    >>> ids = np.arange(200)
    >>> labels = np.where(ids % 2, "mitotic figure", "look-alike")
    >>> table = SimpleNamespace(name="toy", digest="", ids=ids, labels=labels,
    ...                         labels_of=lambda asked: labels[asked])
    >>> X = np.random.default_rng(0).normal(size=(200, 4)) + 2 * (ids % 2)[:, None]
    >>> source = SimpleNamespace(ids=ids, read=lambda asked: X[asked])
    >>> splits = probes.monte_carlo(table, repeats=3, train=[0.1, 1.0])
    >>> curve = learning_curve(source, table, splits, objective="l2")
    >>> curve.summary()[["size", "n_train", "repeats"]].values.tolist()
    [[0.1, 13.0, 3.0], [1.0, 128.0, 3.0]]
    """
    splits.check(annotations)
    rows = InMemory.of(source, splits)
    digest = getattr(source, "digest", "")
    probes = fit_probes(probe, rows, annotations, splits, digest=digest, **parameters)
    model = model_name(source, probe)
    return LearningCurve(
        tuple(
            result_row(
                evaluate(fitted, rows, annotations, split),
                split,
                model=model,
                encoder=digest,
                annotations=annotations,
                experiment="learning_curve",
                converged=fitted.converged_,
                collapsed=fitted.collapsed_,
            )
            for fitted, split in zip(probes, splits, strict=True)
        )
    )


def summarise(frame):
    """Mean and standard deviation (n - 1) of AUROC over repeats, by model and size.

    Parameters
    ----------
    frame : DataFrame
        With :data:`probes.evaluate.RESULT_COLUMNS`, of any number of models.

    Returns
    -------
    DataFrame
        Columns model, size, n_train (mean), n_test (mean), repeats, auroc_mean, auroc_sd, collapsed
        (number of probes).
    """
    by_size = frame.groupby(["model", "size"], sort=False)
    table = by_size.agg(
        n_train=("n_train", "mean"),
        n_test=("n_test", "mean"),
        repeats=("value", "size"),
        auroc_mean=("value", "mean"),
        auroc_sd=("value", "std"),
        collapsed=("collapsed", "sum"),
    )
    return table.reset_index()
