"""All metrics of one fit by their names, each with the reason where it is undefined."""

from dataclasses import dataclass

import numpy as np

from probes.errors import ProbesError
from probes.metrics.calibration import brier, calibration_error
from probes.metrics.cases import Cases
from probes.metrics.ranking import auroc, average_precision, sensitivity_at_specificity
from probes.metrics.thresholds import balanced_accuracy, f1

__all__ = ["METRICS", "Value", "all_metrics"]

METRICS = {
    "auroc": auroc,
    "average_precision": average_precision,
    "balanced_accuracy": balanced_accuracy,
    "f1": f1,
    "sensitivity_at_specificity": sensitivity_at_specificity,
    "brier": brier,
    "calibration_error": calibration_error,
}


@dataclass(frozen=True)
class Value:
    """A number, or NaN and why.

    Parameters
    ----------
    value : float
    reason : str
        Why ``value`` is NaN; empty where it is a number.

    Examples
    --------
    >>> float(Value(0.75)), Value(float("nan"), "all 12 labels are 'a'").reason
    (0.75, "all 12 labels are 'a'")
    """

    value: float
    reason: str = ""

    def __float__(self):
        return self.value


def all_metrics(labels, probabilities, classes=None):
    """Compute every metric of one fit, at its default threshold, specificity and bins.

    Parameters
    ----------
    labels : array-like of shape (n,)
        True or 1 for the positive class; with ``classes``, their names.
    probabilities : array-like of shape (n,) or (n, n_classes)
        Of the positive class; with ``classes`` a column per class.
    classes : sequence of names, optional
        With two the second is the positive one.

    Returns
    -------
    dict of str to Value
        In the order of :data:`METRICS`.

    Raises
    ------
    ProbesError
        If shapes do not fit, the numbers are no probabilities or they are of many fits.

    Examples
    --------
    >>> values = all_metrics([1, 1, 1], [0.9, 0.8, 0.7])
    >>> values["auroc"]
    Value(value=nan, reason='all 3 labels are 1; there is no other class to tell them from')
    >>> round(values["brier"].value, 3)
    0.047
    """
    cases = Cases.of(labels, probabilities, classes)
    if cases.shape:
        raise ProbesError(
            f"probabilities of {cases.shape[0]} fits; give one, or call each metric by its name"
        )
    return {
        name: _value(name, metric(labels, probabilities, classes), cases)
        for name, metric in METRICS.items()
    }


def _value(name, number, cases):
    if not np.isnan(number):
        return Value(number)
    if name == "sensitivity_at_specificity" and cases.n_classes > 2:
        return Value(number, f"it is defined for two classes, and there are {cases.n_classes}")
    return Value(number, cases.missing())
