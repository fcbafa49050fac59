"""Metrics of probabilities as such: what is given 0.8 should be true in eight of ten.

Both are defined where the annotations hold one class only.
"""

import numpy as np

from probes.errors import ProbesError
from probes.metrics.cases import Cases

__all__ = ["brier", "calibration_error"]

SUM_TOLERANCE = 1e-3  # float16 rounds each of a row's probabilities by up to 5e-4 of itself


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
        If scores are no probabilities: outside of 0..1, or rows of classes that do not sum to 1.

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
    _check_probabilities(scores, classes)
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
        If scores are no probabilities, as for :func:`brier`, or there is not a bin.

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
    _check_probabilities(scores, classes)
    return cases.measure(lambda it: _distance_by_bin(it, bins), every_class=False)


def _check_probabilities(scores, classes):
    scores = np.asarray(scores, np.float64)
    if scores.size and not 0 <= scores.min() <= scores.max() <= 1:
        raise ProbesError(
            f"scores range from {scores.min():g} to {scores.max():g}; this metric is of "
            "probabilities, give values in 0..1"
        )
    if classes is None or not scores.size:
        return
    sums = scores.sum(axis=-1)
    if np.abs(sums - 1).max() > SUM_TOLERANCE:
        raise ProbesError(
            f"probabilities of the classes sum to {sums.min():g} to {sums.max():g}; this metric "
            "needs rows that sum to 1"
        )


def _squared_error(cases):
    if cases.n_classes == 2:
        errors_NF = (cases.scores - cases.positive[:, None]) ** 2
    else:
        outcomes_NC = cases.codes[:, None] == np.arange(cases.n_classes)
        errors_NF = ((cases.scores - outcomes_NC[:, None]) ** 2).sum(axis=2)
    return errors_NF.T @ cases.weights / cases.weights.sum(axis=0)


def _distance_by_bin(cases, bins):
    if cases.n_classes == 2:
        said_NF, so_NF = cases.scores, np.broadcast_to(cases.positive[:, None], cases.scores.shape)
    else:
        said_NF, so_NF = (
            cases.scores.max(axis=2),
            cases.scores.argmax(axis=2) == cases.codes[:, None],
        )
    distance_FR = [
        _distance(said_N, so_N - said_N, cases.weights, bins)
        for said_N, so_N in zip(said_NF.T, so_NF.T, strict=True)
    ]
    return np.stack(distance_FR) / cases.weights.sum(axis=0)


def _distance(said_N, miss_N, weights_NR, bins):
    """Sum over bins of the absolute weighted sum of outcome less probability: (weightings,)."""
    upper_edges = np.arange(1, bins) / bins  # linspace misses some by a rounding
    bin_N = np.searchsorted(upper_edges, said_N, side="left")
    sums_BR = [miss_N[bin_N == b] @ weights_NR[bin_N == b] for b in np.unique(bin_N)]
    return np.abs(sums_BR).sum(axis=0)
