"""Test a fitted model on the annotations that a split sets aside, and say how it did.

A model is anything with ``classes_`` and ``predict_proba``: a probe on embeddings and a network on
pixels are judged by the same lines.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from probes.errors import SplitError
from probes.metrics import all_metrics, auroc

__all__ = ["Score", "evaluate"]

ROWS_AT_ONCE = 1_024  # patches of 224 px: 150 MB


@dataclass(frozen=True, eq=False)
class Score:
    """How a model did on the test part of a split.

    Parameters
    ----------
    auroc : float
        Area under the ROC curve, NaN where the test part does not hold every class.
    ids, labels : ndarray of shape (n,)
        What was tested.
    probabilities : ndarray of shape (n, n_classes)
        What the model said.
    classes : ndarray of shape (n_classes,)
        Names of the columns of ``probabilities``.
    """

    auroc: float
    ids: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    classes: np.ndarray

    @property
    def n_test(self):
        """Number of annotations tested."""
        return len(self.ids)

    @cached_property
    def metrics(self):
        """Every metric by name, each a :class:`probes.metrics.Value`: a number, or NaN and why."""
        return all_metrics(self.labels, self.probabilities, self.classes)

    def among(self, chosen):
        """Return the score on some of the tested annotations.

        Parameters
        ----------
        chosen : ndarray of bool, shape (n,)
            Which of ``ids`` count.
        """
        parts = (self.ids[chosen], self.labels[chosen], self.probabilities[chosen])
        return Score(auroc(parts[1], parts[2], self.classes), *parts, self.classes)


def evaluate(model, source, annotations, split):
    """Predict the test part of a split.

    Parameters
    ----------
    model : object
        With ``classes_`` and ``predict_proba(rows) -> (n, n_classes)``.
    source : Source
        What the model reads: embeddings or patches.
    annotations : LabelTable
        The labels.
    split : Split
        Its ``test`` IDs are read, nothing else.

    Returns
    -------
    Score

    Raises
    ------
    SplitError
        If the test part is empty.
    ProbesError
        If the model is a probe that was fitted on embeddings of another encoder.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> class Sign:
    ...     classes_ = np.array(["minus", "plus"])
    ...     def predict_proba(self, X):
    ...         return np.hstack([X < 0, X >= 0]).astype(float)
    >>> source = SimpleNamespace(read=lambda ids: np.array(ids, float)[:, None] - 2)
    >>> table = SimpleNamespace(labels_of=lambda ids: np.where(np.array(ids) < 2, "minus", "plus"))
    >>> evaluate(Sign(), source, table, SimpleNamespace(test=np.array([0, 1, 2, 3]))).auroc
    1.0
    """
    getattr(model, "check_source", lambda source: None)(source)
    if len(split.test) == 0:
        raise SplitError("the test part of the split is empty; there is nothing to evaluate on")
    blocks = [split.test[i : i + ROWS_AT_ONCE] for i in range(0, len(split.test), ROWS_AT_ONCE)]
    probabilities = np.concatenate([model.predict_proba(source.read(ids)) for ids in blocks])
    labels, classes = annotations.labels_of(split.test), np.asarray(model.classes_)
    value = auroc(labels, probabilities, classes)
    return Score(value, split.test, labels, probabilities, classes)
