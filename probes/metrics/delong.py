"""DeLong's covariance of AUROCs on the same annotations, and what follows from it.

DeLong counts annotations as independent. Where cells of one slide resemble each other that makes
intervals too narrow: with ``groups`` it is Obuchowski's covariance, and slides are independent.
Shape suffixes as in :mod:`probes.metrics.ranking`; S are slides.
"""

from dataclasses import dataclass

import numpy as np

from probes.errors import ProbesError
from probes.metrics.cases import Cases, count_slides, number_slides
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
    difference, low, high : float or ndarray
        AUROC of the first less that of the second, and its interval.
    standard_error : float or ndarray
        Of the difference.
    z, p : float or ndarray
        Difference in standard errors, and the two-sided probability of one as large by chance.
    confidence : float
        Of the interval, in 0..1.
    reason : str or ndarray of str
        Why a number is NaN; empty where none is.
    """

    difference: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    standard_error: float | np.ndarray
    z: float | np.ndarray
    p: float | np.ndarray
    confidence: float
    reason: str | np.ndarray


def delong_covariance(labels, scores, classes=None, *, groups=None):
    """AUROCs of many fits on the same annotations, and their covariance.

    Parameters
    ----------
    labels, scores, classes
        As for :func:`probes.metrics.auroc`, of two classes.
    groups : array-like of shape (n,), optional
        Slide of each annotation; by default annotations count as independent.

    Returns
    -------
    aurocs : ndarray of shape (fits,)
        NaN where a class is missing.
    covariance : ndarray of shape (fits, fits)
        NaN where a class has fewer than two annotations, or is on fewer than two slides.

    Raises
    ------
    ProbesError
        If there are more than two classes, shapes do not fit, a score is NaN or a slide has no
        name.

    Notes
    -----
    DeLong, DeLong and Clarke-Pearson (1988), by the algorithm of Sun and Xu (2014), O(n log n) per
    fit: the structural components of an annotation are its mid-ranks among all less among its own
    class. By slide: Obuchowski (1997), who sums the components of a slide and adds the covariance
    of both classes on it; slides of one annotation each give DeLong's.

    Examples
    --------
    >>> aurocs, covariance = delong_covariance([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9])
    >>> aurocs, covariance
    (array([0.75]), array([[0.125]]))
    """
    cases = _two_classes(labels, scores, classes)
    slides_N = number_slides(groups, len(cases.codes))
    wins_FN = _components(cases)
    return _means(cases, wins_FN), _covariance(cases, wins_FN, slides_N, _every_pair)


def delong_interval(labels, scores, classes=None, *, groups=None, confidence=0.95):
    """Confidence interval of the AUROC.

    Parameters
    ----------
    labels, scores, classes, groups
        As for :func:`delong_covariance`.
    confidence : float
        In 0..1.

    Returns
    -------
    Interval
        Numbers for scores of shape (n,) or with classes, arrays (fits,) for many fits.

    Raises
    ------
    ProbesError
        As for :func:`delong_covariance`, or if the confidence is no share.

    Notes
    -----
    Normal on the scale of logit(AUROC), with the standard error of the delta method (Pepe 2003,
    chapter 5), so that it stays within 0..1. No interval follows where the variance is 0: at an
    AUROC of 0 or 1 (Obuchowski and Lieber 2002), and for the same score everywhere. With few slides
    (fewer than about 30) an interval by slide is too narrow.

    Examples
    --------
    >>> found = delong_interval([0, 0, 0, 1, 1, 1], [0.1, 0.4, 0.3, 0.2, 0.6, 0.7])
    >>> round(found.low, 3), round(found.estimate, 3), round(found.high, 3)
    (0.173, 0.778, 0.983)
    """
    from scipy.special import expit, logit, ndtri

    check_confidence(confidence)
    cases = _two_classes(labels, scores, classes)
    slides_N = number_slides(groups, len(cases.codes))
    wins_FN = _components(cases)
    estimate = _means(cases, wins_FN)
    variance = _covariance(cases, wins_FN, slides_N, _each_alone)
    has_one = variance > 0
    error = np.where(has_one, np.sqrt(variance), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):  # logit of 0 and 1: NaN by the error
        half = ndtri((1 + confidence) / 2) * error / (estimate * (1 - estimate))
        low, high = expit(logit(estimate) - half), expit(logit(estimate) + half)
    at_zero = "the variance is 0, from which no interval follows"
    lone = cases.lone_class(slides_N, by_slide=groups is not None)
    reasons = np.where(has_one, "", cases.missing() or lone or at_zero)
    one = cases.shape == ()
    numbers = (_of_fits(values, one) for values in (estimate, low, high, np.sqrt(variance)))
    return Interval(*numbers, confidence, _of_fits(reasons, one))


def delong_test(labels, a, b, classes=None, *, groups=None, confidence=0.95):
    """Test whether two models have the same AUROC on the same annotations.

    Parameters
    ----------
    labels : array-like of shape (n,)
        True or 1 for the positive class; with ``classes``, their names.
    a, b : array-like of shape (n,) or (n, fits); with classes (n, [fits,] 2)
        Scores of the two, as for :func:`probes.metrics.auroc`; each fit of ``a`` is compared with
        that of the same place in ``b``.
    classes : sequence of two names, optional
        The second is the positive one.
    groups, confidence
        As for :func:`delong_interval`.

    Returns
    -------
    DeLongTest
        Numbers for one pair, arrays (fits,) for many.

    Raises
    ------
    ProbesError
        As for :func:`delong_interval`.

    Notes
    -----
    The difference over its standard error is compared with a normal distribution (DeLong et al.
    1988; by slide Obuchowski 1997), and so is the interval. There is no test where the variance of
    the difference is 0, as of a model with itself. It is not for nested models on the annotations
    that they were fitted on (Demler et al. 2012).

    Examples
    --------
    >>> labels = [0, 0, 0, 1, 1, 1]
    >>> found = delong_test(labels, [0.1, 0.4, 0.3, 0.2, 0.6, 0.7], [0.1, 0.8, 0.3, 0.2, 0.6, 0.7])
    >>> round(found.difference, 3), round(found.z, 3), round(found.p, 3)
    (0.222, 0.894, 0.371)
    """
    from scipy.special import ndtr, ndtri

    check_confidence(confidence)
    cases, others = _two_classes(labels, a, classes), _two_classes(labels, b, classes)
    if cases.scores.shape != others.scores.shape or cases.shape != others.shape:
        raise ProbesError(
            f"scores of shape {np.shape(a)} and {np.shape(b)}; give two of the same shape"
        )
    slides_N = number_slides(groups, len(cases.codes))
    wins_FN = _components(cases) - _components(others)
    difference = _means(cases, wins_FN)
    variance = _covariance(cases, wins_FN, slides_N, _each_alone)
    error, differs = np.sqrt(variance), variance > 0
    z = np.divide(difference, error, out=np.full_like(error, np.nan), where=differs)
    half = ndtri((1 + confidence) / 2) * np.where(differs, error, np.nan)
    at_zero = "the variance of the difference is 0, so there is no test"
    lone = cases.lone_class(slides_N, by_slide=groups is not None)
    reasons = np.where(differs, "", cases.missing() or lone or at_zero)
    one = cases.shape == ()
    numbers = (difference, difference - half, difference + half, error, z, 2 * ndtr(-np.abs(z)))
    return DeLongTest(
        *(_of_fits(values, one) for values in numbers),
        confidence,
        _of_fits(reasons, one),
    )


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


def _components(cases):
    """Others each positive lies above, positives that lie above each other: (fits, n).

    Halves of integers, ties counting half, so that sums are exact and equal ones cancel to 0.
    """
    positive_N = cases.positive
    wins_FN = np.empty(cases.scores.T.shape)
    for wins_N, scores_N in zip(wins_FN, cases.scores.T, strict=True):
        scores_P, scores_M = scores_N[positive_N], scores_N[~positive_N]
        wins_N[positive_N] = sum(placements(scores_P, np.sort(scores_M))) / 2
        above_M = sum(placements(scores_M, np.sort(scores_P))) / 2
        wins_N[~positive_N] = len(scores_P) - above_M
    return wins_FN


def _means(cases, wins_FN):
    """AUROCs, or differences of two, from components that are counts: (fits,)."""
    if cases.missing():
        return np.full(len(wins_FN), np.nan)
    n_pairs = cases.positive.sum() * (~cases.positive).sum()
    return wins_FN[:, cases.positive].sum(axis=1) / n_pairs


def _covariance(cases, wins_FN, slides_N, products):
    """Obuchowski's covariance of AUROCs or of differences; ``products`` says of which pairs.

    It is (S10, S01 and S11 in her words) a sum of products of slides' deviations u of positives and
    d of others: a u u + b d d + c (u d + d u) = c (u + d)(u + d) + (a - c) u u + (b - c) d d, where
    no term is negative, and all are exactly 0 where they should be.
    """
    if cases.missing() or cases.lone_class(slides_N, by_slide=True):
        return products(np.full((len(wins_FN), 1), np.nan))
    n_slides = slides_N.max() + 1
    classes = (cases.positive, ~cases.positive)
    up_FS, down_FS = (_deviations(wins_FN[:, own], slides_N[own], n_slides) for own in classes)
    a, b, c = (_unbiased(slides_N[own]) for own in (*classes, slice(None)))
    total = c * products(up_FS + down_FS) + (a - c) * products(up_FS) + (b - c) * products(down_FS)
    n_positive, n_other = (int(own.sum()) for own in classes)
    return total / (n_positive * n_other) ** 2


def _deviations(wins_FP, slides_P, n_slides):
    """Sum by slide of the components of a class less their mean, (fits, slides).

    Divided last: counts of annotations times sums of wins are exact.
    """
    n_annotations = wins_FP.shape[1]
    sums_FS = np.stack([np.bincount(slides_P, wins_P, n_slides) for wins_P in wins_FP])
    counts_S = np.bincount(slides_P, minlength=n_slides)
    total_F1 = wins_FP.sum(axis=1, keepdims=True)
    return (n_annotations * sums_FS - counts_S * total_F1) / n_annotations


def _unbiased(slides_N):
    """Return n / (n - 1) of the number of slides."""
    n_slides = count_slides(slides_N)
    return n_slides / (n_slides - 1)


def _every_pair(deviations_FS):
    return deviations_FS @ deviations_FS.T


def _each_alone(deviations_FS):
    return np.einsum("fs,fs->f", deviations_FS, deviations_FS)


def _of_fits(values, one):
    """Return the only value, or all."""
    return values.item() if one else values
