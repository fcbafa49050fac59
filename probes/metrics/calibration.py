"""Metrics of probabilities as such: what is given 0.8 should be true in eight of ten.

Both are defined where the annotations hold one class only.
"""

import numpy as np

from probes.errors import ProbesError
from probes.metrics.cases import Cases

__all__ = ["brier", "calibration_error"]


def brier(labels, scores, classes=None, *, weights=None):
    """Mean squared difference of probability and outcome.

    Parameters
    ----------
    labels, scores, classes, weights
        As for :func:`probes.metrics.auroc`; scores are probabilities.

    Returns
    -------
    float or ndarray of shape (fits,), (weightings,) or (fits, weightings)
        With two classes in 0..1 (0.25 where 0.5 is always given), with more in 0..2; 0 is best.

    Raises
    ------
    ProbesError
        If scores are no probabilities.

    Notes
    -----
    Brier (1950). With two classes of the positive class alone, which is half of Brier's sum over
    classes; with more that sum: scikit-learn's ``brier_score_loss``.

    Examples
    --------
    >>> round(brier([0, 1], [0.1, 0.8]), 3)
    0.025
    """
    cases = Cases.of(labels, scores, classes, weights)
    cases.check_probabilities()
    return cases.measure(_squared_error, every_class=False)


def calibration_error(labels, scores, classes=None, *, bins=15, weights=None):
    """Mean distance of what is said from what is so, by bin: expected calibration error.

    Parameters
    ----------
    labels, scores, classes, weights
        As for :func:`probes.metrics.auroc`; scores are probabilities.
    bins : int
        Number of bins of equal width.

    Returns
    -------
    float or ndarray of shape (fits,), (weightings,) or (fits, weightings)
        In 0..1; 0 is best.

    Raises
    ------
    ProbesError
        If scores are no probabilities, or there is not a bin.

    Notes
    -----
    Sum over bins of abs(sum of (outcome - probability)) / n. Two classes: the probability of the
    positive class (Naeini et al. 2015). More: the largest probability, the outcome being whether
    that class is right (Guo et al. 2017, whose 15 bins ((b - 1) / 15, b / 15] these are; the first
    has 0, too). An estimate on few annotations is too high, the more so with more bins (Roelofs et
    al. 2022): compare it on the same annotations only.

    Examples
    --------
    >>> round(calibration_error([0, 1, 1, 1], [0.7, 0.7, 0.7, 0.7]), 3)
    0.05
    """
    if bins < 1:
        raise ProbesError(f"bins={bins} is not a number of bins; give 1 or more")
    cases = Cases.of(labels, scores, classes, weights)
    cases.check_probabilities()
    return cases.measure(lambda it: _distance_by_bin(it, bins), every_class=False)


def _squared_error(cases):
    if cases.n_classes == 2:
        errors_NF = (cases.scores - cases.positive[:, None]) ** 2
    else:
        outcomes_NC = cases.codes[:, None] == np.arange(cases.n_classes)
        errors_NF = ((cases.scores - outcomes_NC) ** 2).sum(axis=1, keepdims=True)
    return errors_NF.T @ cases.weights / cases.weights.sum(axis=0)


def _distance_by_bin(cases, bins):
    if cases.n_classes == 2:
        said_NF, so_N = cases.scores, cases.positive
    else:
        said_NF = cases.scores.max(axis=1, keepdims=True)
        so_N = cases.scores.argmax(axis=1) == cases.codes
    distances_FR = [_distances(so_N, said_N, bins) @ cases.weights for said_N in said_NF.T]
    return np.abs(distances_FR).sum(axis=1) / cases.weights.sum(axis=0)


def _distances(so_N, said_N, bins):
    """Outcome less probability, each in the row of its bin: (bins, n)."""
    place_N = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], said_N, side="left")
    return np.where(np.arange(bins)[:, None] == place_N, so_N - said_N, 0.0)
