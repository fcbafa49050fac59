"""Paths of C: how a probe does on validation data by the strength of its penalty."""

from dataclasses import dataclass, field

import numpy as np

from probes.evaluate import evaluate
from probes.logistic import fit_splits
from probes.protocols import InMemory

__all__ = ["DINOV2_CS", "PATH_COLUMNS", "RegularizationPath", "regularization_path"]

# Oquab et al. (2023), DINOv2: the values among which its evaluation chooses.
DINOV2_CS = tuple((10.0 ** np.linspace(-6, 5, 45)).tolist())

PATH_COLUMNS = (
    "model",
    "dataset",
    "repeat",
    "size",
    "C",
    "auroc",
    "log_loss",
    "chosen",
    "test_auroc",
    "n_train",
    "n_val",
    "n_test",
    "weight_norm",
    "n_iter",
    "converged",
    "collapsed",
    "split",
    "encoder",
)


@dataclass(frozen=True, eq=False)
class RegularizationPath:
    """Results of one model over values of C and splits.

    Parameters
    ----------
    rows : tuple of dict
        One per split and value, with the keys :data:`PATH_COLUMNS`: ``auroc`` and ``log_loss`` of
        the validation part, and ``test_auroc`` of the test part at the chosen value, NaN at all
        others: nothing may be chosen by it.
    probes : tuple of LogisticProbe
        One per split: that of the chosen value, fitted on the training part.
    metric : {'auroc', 'log_loss'}
        What chose.
    """

    rows: tuple
    probes: tuple = field(repr=False)
    metric: str

    def to_frame(self):
        """Return a pandas DataFrame, one row per split and value of C."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=list(PATH_COLUMNS))

    def chosen(self):
        """Return the rows of the chosen values, one per split."""
        frame = self.to_frame()
        return frame[frame["chosen"]].reset_index(drop=True)

    def plot(self, ax=None):
        """Draw validation results over C with the chosen values; returns the matplotlib axes."""
        from probes.plotting import plot_regularization_path

        return plot_regularization_path(self.to_frame(), ax, metric=self.metric)


def regularization_path(
    source,
    annotations,
    splits,
    *,
    objective="l2",
    Cs=DINOV2_CS,
    metric="auroc",
    standardize=False,
    class_weight=None,
    solver="lbfgs",
    max_iter=1000,
):
    """Fit a probe for every value of C on every split, in one solve, and choose by validation.

    Parameters
    ----------
    source : Source
        Embeddings.
    annotations : LabelTable
        The labels.
    splits : Splits
        With validation parts.
    Cs : sequence of float
        By default the 45 values of DINOv2's evaluation, ``10 ** linspace(-6, 5, 45)``.
    metric : {'auroc', 'log_loss'}
        What chooses; ties as for :class:`probes.LogisticProbe`.
    objective, standardize, class_weight, solver, max_iter
        As for :class:`probes.LogisticProbe`.

    Returns
    -------
    RegularizationPath

    Raises
    ------
    SplitError
        If the splits are of other annotations, or one has no validation part.

    Notes
    -----
    DINOv2's evaluation chooses by accuracy and fits the chosen value once more on training and
    validation rows; here AUROC chooses, and the probe stays as it was fitted.

    Examples
    --------
    >>> import probes
    >>> from types import SimpleNamespace
    >>> ids = np.arange(200)
    >>> labels = np.where(ids % 2, "mitotic figure", "look-alike")
    >>> table = SimpleNamespace(name="toy", digest="", ids=ids, labels=labels,
    ...                         labels_of=lambda asked: labels[asked])
    >>> X = np.random.default_rng(0).normal(size=(200, 4)) + (ids % 2)[:, None]
    >>> source = SimpleNamespace(ids=ids, read=lambda asked: X[asked])
    >>> splits = probes.monte_carlo(table, repeats=3, train=[1.0])
    >>> path = regularization_path(source, table, splits)
    >>> len(path.to_frame()), len(path.chosen())
    (135, 3)
    """
    splits.check(annotations)
    rows = InMemory.of(source, splits)
    probes = fit_splits(
        rows,
        annotations,
        splits,
        digest=getattr(source, "digest", ""),
        objective=objective,
        C=[float(C) for C in np.ravel(Cs)],
        select_by=metric,
        standardize=standardize,
        class_weight=class_weight,
        solver=solver,
        max_iter=max_iter,
    )
    table = [
        row
        for probe, split in zip(probes, splits, strict=True)
        for row in _rows(probe, split, source, rows, annotations)
    ]
    return RegularizationPath(tuple(table), tuple(probes), metric)


def _rows(probe, split, source, rows, annotations):
    """Lines of the table for one split, one per value of C."""
    score = evaluate(probe, rows, annotations, split)
    known = {
        "model": getattr(source, "model", ""),
        "dataset": annotations.name,
        "repeat": split.repeat,
        "size": split.size,
        "n_train": len(split.train),
        "n_val": len(split.val),
        "n_test": score.n_test,
        "split": split.digest,
        "encoder": getattr(source, "digest", ""),
    }
    for place in range(len(probe.path_["C"])):
        line = known | {name: values[place].item() for name, values in probe.path_.items()}
        line["chosen"] = line["C"] == probe.C_
        line["test_auroc"] = score.auroc if line["chosen"] else float("nan")
        yield {name: line[name] for name in PATH_COLUMNS}
