"""DeLong's covariance of AUROCs on the same annotations, and what follows from it.

Annotations count as independent. Where cells of one slide resemble each other that makes intervals
too narrow: :func:`probes.metrics.bootstrap` draws whole slides.
"""

from dataclasses import dataclass

import numpy as np

from probes.errors import ProbesError
from probes.metrics.cases import Cases
from probes.metrics.ranking import placements

__all__ = ["DeLongTest", "Interval", "delong_covariance", "delong_interval", "delong_test"]


@dataclass(frozen=True, eq=False)
class Interval:
    """An estimate and the interval that covers the truth with a given confidence.

    With many fits each number is an array of shape (fits,).

    Parameters
    ----------
    estimate, low, high : float or ndarray
        NaN where undefined.
    standard_error : float or ndarray
        Of the estimate.
    confidence : float
        In 0..1.
    reason : str or ndarray of str
        Why a number is NaN; empty where none is.
    """

    estimate: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    standard_error: float | np.ndarray
    confidence: float
    reason: str | np.ndarray


@dataclass(frozen=True, eq=False)
class DeLongTest:
    """Whether two AUROCs on the same annotations differ.

    With many fits each number is an array of shape (fits,).

    Parameters
    ----------
    difference : float or ndarray
        AUROC of the first less that of the second.
    standard_error : float or ndarray
        Of the difference.
    z, p : float or ndarray
        Difference in standard errors, and the two-sided probability of one as large by chance.
    reason : str or ndarray of str
        Why a number is NaN; empty where none is.
    """

    difference: float | np.ndarray
    standard_error: float | np.ndarray
    z: float | np.ndarray
    p: float | np.ndarray
    reason: str | np.ndarray


def delong_covariance(labels, scores, classes=None):
    """AUROCs of many fits on the same annotations, and their covariance.

    Parameters
    ----------
    labels, scores, classes
        As for :func:`probes.metrics.auroc`, of two classes.

    Returns
    -------
    aurocs : ndarray of shape (fits,)
        NaN where a class is missing.
    covariance : ndarray of shape (fits, fits)
        NaN where a class has fewer than two annotations.

    Raises
    ------
    ProbesError
        If there are more than two classes, shapes do not fit or a score is NaN.

    Notes
    -----
    DeLong, DeLong and Clarke-Pearson (1988), by the algorithm of Sun and Xu (2014), O(n log n) per
    fit: the structural components of an annotation are its mid-ranks among all less among its own
    class.

    Examples
    --------
    >>> aurocs, covariance = delong_covariance([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9])
    >>> aurocs, covariance
    (array([0.75]), array([[0.125]]))
    """
    cases = _two_classes(labels, scores, classes)
    if cases.missing():
        n_fits = cases.scores.shape[1]
        return np.full(n_fits, np.nan), np.full((n_fits, n_fits), np.nan)
    components = [_components(cases.positive, scores_N) for scores_N in cases.scores.T]
    wins_FP, wins_FM = (np.stack(of_class) for of_class in zip(*components, strict=True))
    n_pairs = wins_FP.shape[1] * wins_FM.shape[1]
    return wins_FP.sum(axis=1) / n_pairs, _covariance(wins_FP, wins_FM)


def delong_interval(labels, scores, classes=None, *, confidence=0.95):
    """Confidence interval of the AUROC.

    Parameters
    ----------
    labels, scores, classes
        As for :func:`probes.metrics.auroc`, of two classes.
    confidence : float
        In 0..1.

    Returns
    -------
    Interval
        Numbers for scores of shape (n,) or with classes, arrays (fits,) for many fits.

    Raises
    ------
    ProbesError
        If there are more than two classes, shapes do not fit, a score is NaN or the confidence is
        no share.

    Notes
    -----
    Normal on the scale of logit(AUROC), with the standard error of the delta method (Pepe 2003,
    chapter 5), so that it stays within 0..1. No interval follows where DeLong's variance is 0:
    at an AUROC of 0 or 1, and for the same score everywhere.

    Examples
    --------
    >>> found = delong_interval([0, 0, 0, 1, 1, 1], [0.1, 0.4, 0.3, 0.2, 0.6, 0.7])
    >>> round(found.low, 3), round(found.estimate, 3), round(found.high, 3)
    (0.173, 0.778, 0.983)
    """
    from scipy.special import expit, logit, ndtri

    check_confidence(confidence)
    cases = _two_classes(labels, scores, classes)
    estimate, covariance = delong_covariance(labels, scores, classes)
    variance = np.diagonal(covariance)
    has_one = variance > 0
    error = np.where(has_one, np.sqrt(variance), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):  # logit of 0 and 1: NaN by the error
        half = ndtri((1 + confidence) / 2) * error / (estimate * (1 - estimate))
        low, high = expit(logit(estimate) - half), expit(logit(estimate) + half)
    reasons = _reasons(cases, has_one, "DeLong's variance is 0, from which no interval follows")
    one = cases.shape == ()
    numbers = (_of_fits(values, one) for values in (estimate, low, high, np.sqrt(variance)))
    return Interval(*numbers, confidence, _of_fits(reasons, one))


def delong_test(labels, a, b, classes=None):
    """Test whether two models have the same AUROC on the same annotations.

    Parameters
    ----------
    labels : array-like of shape (n,)
        True or 1 for the positive class; with ``classes``, their names.
    a, b : array-like of shape (n,), (n, fits) or (n, 2)
        Scores of the two, as for :func:`probes.metrics.auroc`; each fit of ``a`` is compared with
        that of the same place in ``b``.
    classes : sequence of two names, optional
        The second is the positive one.

    Returns
    -------
    DeLongTest

    Raises
    ------
    ProbesError
        If there are more than two classes, shapes do not fit or a score is NaN.

    Notes
    -----
    The difference over its standard error is compared with a normal distribution (DeLong et al.
    1988). It is not for nested models on the annotations that they were fitted on (Demler et al.
    2012).

    Examples
    --------
    >>> labels = [0, 0, 0, 1, 1, 1]
    >>> found = delong_test(labels, [0.1, 0.4, 0.3, 0.2, 0.6, 0.7], [0.1, 0.8, 0.3, 0.2, 0.6, 0.7])
    >>> round(found.difference, 3), round(found.z, 3), round(found.p, 3)
    (0.222, 0.894, 0.371)
    """
    from scipy.special import ndtr

    cases, others = _two_classes(labels, a, classes), _two_classes(labels, b, classes)
    if cases.scores.shape != others.scores.shape or cases.shape != others.shape:
        raise ProbesError(
            f"scores of shape {np.shape(a)} and {np.shape(b)}; give two of the same shape"
        )
    difference, variance = _paired(cases, others)
    differs = variance > 0
    error = np.sqrt(variance)
    z = np.divide(difference, error, out=np.full_like(error, np.nan), where=differs)
    reasons = _reasons(cases, differs, "the variance of the difference is 0, so there is no test")
    one = cases.shape == ()
    numbers = (_of_fits(values, one) for values in (difference, error, z, 2 * ndtr(-np.abs(z))))
    return DeLongTest(*numbers, _of_fits(reasons, one))


def check_confidence(confidence):
    """Refuse a confidence outside of 0..1."""
    if not 0 < confidence < 1:
        raise ProbesError(f"confidence={confidence:g} is no share; give a number such as 0.95")


def _two_classes(labels, scores, classes):
    cases = Cases.of(labels, scores, classes)
    if cases.n_classes > 2:
        raise ProbesError(
            f"DeLong's variance is of two classes, and there are {cases.n_classes}; "
            "use probes.metrics.bootstrap"
        )
    return cases


def _components(positive_N, scores_N):
    """Others each positive lies above, positives that lie above each other; ties as a half.

    Halves of integers, so that sums are exact and equal components cancel to 0.
    """
    scores_P, scores_M = scores_N[positive_N], scores_N[~positive_N]
    wins_P = sum(placements(scores_P, np.sort(scores_M))) / 2
    return wins_P, len(scores_P) - sum(placements(scores_M, np.sort(scores_P))) / 2


def _covariance(wins_FP, wins_FM):
    """Covariance of AUROCs (or of differences), from components that are counts."""
    n_positive, n_other = wins_FP.shape[1], wins_FM.shape[1]
    if min(n_positive, n_other) < 2:
        return np.full((len(wins_FP), len(wins_FP)), np.nan)
    of_positives = _products(wins_FP / n_other) / (n_positive * (n_positive - 1))
    of_others = _products(wins_FM / n_positive) / (n_other * (n_other - 1))
    return of_positives + of_others


def _products(values_FN):
    centred = values_FN - values_FN.mean(axis=1, keepdims=True)
    return centred @ centred.T


def _paired(cases, others):
    """Differences of AUROC and their variances, from the differences of the components."""
    n_fits = cases.scores.shape[1]
    if cases.missing():
        return np.full(n_fits, np.nan), np.full(n_fits, np.nan)
    differences, variances = np.empty(n_fits), np.empty(n_fits)
    for fit in range(n_fits):
        one = _components(cases.positive, cases.scores[:, fit])
        other = _components(cases.positive, others.scores[:, fit])
        wins_1P, wins_1M = ((x - y)[None] for x, y in zip(one, other, strict=True))
        differences[fit] = wins_1P.sum() / (wins_1P.size * wins_1M.size)
        variances[fit] = _covariance(wins_1P, wins_1M)[0, 0]
    return differences, variances


def _reasons(cases, has_variance, at_zero):
    """Why numbers are NaN, one text per fit."""
    counts = [int((cases.codes == code).sum()) for code in (0, 1)]
    if cases.missing():
        why = cases.missing()
    elif min(counts) < 2:
        name = cases.names[int(np.argmin(counts))]
        why = f"there is 1 label {name!r}; DeLong's variance needs two of each class"
    else:
        why = at_zero
    return np.where(has_variance, "", why)


def _of_fits(values, one):
    """Return the only value, or all."""
    return values.item() if one else values
