"""Metrics of the order of scores: AUROC, average precision, sensitivity at a specificity.

They do not change when scores are put through any increasing function. Shape suffixes as in
:mod:`probes.metrics.cases`; P and M are the positive and the other annotations.
"""

from itertools import combinations

import numpy as np

from probes.errors import ProbesError
from probes.metrics.cases import Cases

__all__ = ["auroc", "average_precision", "sensitivity_at_specificity"]

ROUNDING = 1e-12  # of a specificity; a million annotations differ by 1e-6


def auroc(labels, scores, classes=None, *, weights=None):
    """Area under the ROC curve; for several classes the one-against-one macro average.

    Parameters
    ----------
    labels : array-like of shape (n,)
        True or 1 for the positive class; with ``classes``, their names.
    scores : array-like of shape (n,) or (n, fits); with classes (n, [fits,] n_classes)
        Scores of the positive class, a column per fit; with ``classes`` the probabilities of each
        class, in their order.
    classes : sequence of names, optional
        With two the second is the positive one.
    weights : array-like of shape (n,) or (n, weightings), optional
        How often each annotation counts.

    Returns
    -------
    float or ndarray of shape (fits,), (weightings,) or (fits, weightings)
        In 0..1, or NaN where a class is missing, since it is undefined then.

    Raises
    ------
    ProbesError
        If shapes do not fit, a score is NaN or a weight is negative.

    Notes
    -----
    The share of pairs of a positive and another annotation in the right order, ties counting half
    (Hanley and McNeil 1982); the scores of one class are sorted and those of the other looked up
    in them: O(n log n). Several classes: the mean over pairs of classes of Hand and
    Till (2001), as scikit-learn computes it.

    Examples
    --------
    >>> auroc([0, 1, 1], [0.1, 0.6, 0.05])
    0.5
    >>> auroc([0, 1, 1], [[0.1, 0.3], [0.6, 0.3], [0.05, 0.9]])
    array([0.5 , 0.75])
    >>> auroc(["a", "b", "b"], [[0.9, 0.1], [0.4, 0.6], [0.95, 0.05]], classes=["a", "b"])
    0.5
    """
    cases = Cases.of(labels, scores, classes, weights)
    return cases.measure(_auroc if cases.n_classes == 2 else _hand_and_till, every_class=True)


def average_precision(labels, scores, classes=None, *, weights=None):
    """Mean precision over the steps of recall; for several classes the one-against-rest mean.

    Parameters
    ----------
    labels, scores, classes, weights
        As for :func:`auroc`.

    Returns
    -------
    float or ndarray of shape (fits,), (weightings,) or (fits, weightings)
        In 0..1; its value by chance is the share of positives. NaN where a class is missing.

    Notes
    -----
    Sum over thresholds of (recall gained) x precision, without interpolation, as scikit-learn
    defines it (Davis and Goadrich 2006 on why not to interpolate). scikit-learn gives 1 where all
    labels are positive and 0 where none is.

    Examples
    --------
    >>> average_precision([0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6])
    0.5833333333333333
    """
    cases = Cases.of(labels, scores, classes, weights)
    if cases.n_classes == 2:
        return cases.measure(
            lambda it: _average_precision(it.positive, it.scores, it.weights),
            every_class=True,
        )
    return cases.measure(_average_precision_against_rest, every_class=True)


def sensitivity_at_specificity(labels, scores, classes=None, *, specificity=0.9, weights=None):
    """Largest sensitivity among the thresholds whose specificity is at least the one given.

    Parameters
    ----------
    labels, scores, classes, weights
        As for :func:`auroc`.
    specificity : float
        In 0..1: share of the other class that must stay below the threshold.

    Returns
    -------
    float or ndarray of shape (fits,), (weightings,) or (fits, weightings)
        In 0..1; NaN where a class is missing, and with more than two classes.

    Raises
    ------
    ProbesError
        If the specificity is not in 0..1.

    Notes
    -----
    Every score is a threshold, and so is one above all; an annotation counts as positive where its
    score is the threshold or more, so equal scores go together. Nothing is interpolated between
    thresholds: the operating point exists (Fawcett 2006). A specificity that falls short by less
    than 1e-12 is reached, so that rounding of weights that are fractions decides nothing.

    Examples
    --------
    >>> sensitivity_at_specificity([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], specificity=1.0)
    0.5
    >>> sensitivity_at_specificity([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], specificity=0.5)
    1.0
    """
    if not 0 <= specificity <= 1:
        raise ProbesError(f"specificity={specificity:g} is no share; give a number in 0..1")
    cases = Cases.of(labels, scores, classes, weights)
    if cases.n_classes > 2:
        undefined_FR = np.full((cases.scores.shape[1], cases.weights.shape[1]), np.nan)
        return cases.measure(lambda _: undefined_FR, every_class=True)
    return cases.measure(lambda it: _sensitivity(it, specificity), every_class=True)


def placements(own_scores, other_scores):
    """How many other scores each own score lies above: strictly, and with those it equals.

    Half their sum is the count with ties as a half: mid-rank among all less mid-rank among its own
    (Sun and Xu 2014).

    Parameters
    ----------
    own_scores : ndarray of shape (p,)
    other_scores : ndarray of shape (m,)
        Sorted.

    Returns
    -------
    below, not_above : ndarray of int, shape (p,)

    Examples
    --------
    >>> placements(np.array([2.0, 5.0]), np.array([1.0, 2.0, 2.0]))
    (array([1, 3]), array([3, 3]))
    """
    return (
        np.searchsorted(other_scores, own_scores, side="left"),
        np.searchsorted(other_scores, own_scores, side="right"),
    )


def _auroc(cases):
    return _area(cases.positive, cases.scores, cases.weights)


def _area(positive_N, scores_NF, weights_NR):
    """Weighted pairs in the right order over all weighted pairs, (fits, weightings)."""
    weights_PR, weights_MR = weights_NR[positive_N], weights_NR[~positive_N]
    right_FR = [
        _pairs_in_order(scores_N[positive_N], scores_N[~positive_N], weights_PR, weights_MR)
        for scores_N in scores_NF.T
    ]
    share_FR = np.stack(right_FR) / (weights_PR.sum(axis=0) * weights_MR.sum(axis=0))
    return np.minimum(share_FR, 1)  # sums of fractions round


def _pairs_in_order(scores_P, scores_M, weights_PR, weights_MR):
    """Weight of pairs in the right order, ties as a half; exact where weights are integers."""
    order = np.argsort(scores_M)
    below, not_above = placements(np.sort(scores_P), scores_M[order])
    weight_up_to = _cumulated(weights_MR[order])
    weight_below = weight_up_to[below]
    if (below != not_above).any():
        weight_below = (weight_below + weight_up_to[not_above]) / 2
    return np.einsum("pr,pr->r", weights_PR[np.argsort(scores_P)], weight_below)


def _hand_and_till(cases):
    return np.mean(
        [_area_of_pair(cases, *pair) for pair in combinations(range(cases.n_classes), 2)], axis=0
    )


def _area_of_pair(cases, one, other):
    """Mean of both ways to tell two classes on their own annotations."""
    of_pair = np.isin(cases.codes, (one, other))
    codes, weights = cases.codes[of_pair], cases.weights[of_pair]
    scores = cases.scores[of_pair]
    ways = [_area(codes == code, scores[..., code], weights) for code in (one, other)]
    return (ways[0] + ways[1]) / 2


def _average_precision_against_rest(cases):
    values = [
        _average_precision(cases.codes == code, cases.scores[..., code], cases.weights)
        for code in range(cases.n_classes)
    ]
    return np.mean(values, axis=0)


def _average_precision(positive_N, scores_NF, weights_NR):
    return np.stack([_steps_of_recall(positive_N, s, weights_NR) for s in scores_NF.T])


def _steps_of_recall(positive_N, scores_N, weights_NR):
    """Sum over positives of the precision among all that score as high or higher."""
    scores_P, scores_M = np.sort(scores_N[positive_N]), np.sort(scores_N[~positive_N])
    up_to_PR, up_to_MR = _weights_up_to(positive_N, scores_N, weights_NR)
    true_PR = up_to_PR[-1] - up_to_PR[placements(scores_P, scores_P)[0]]
    called_PR = true_PR + up_to_MR[-1] - up_to_MR[placements(scores_P, scores_M)[0]]
    precision_PR = np.divide(true_PR, called_PR, out=np.zeros_like(true_PR), where=called_PR > 0)
    gained_R = np.einsum("pr,pr->r", np.diff(up_to_PR, axis=0), precision_PR)
    return np.minimum(gained_R / up_to_PR[-1], 1)  # sums of fractions round


def _sensitivity(cases, specificity):
    return np.stack(
        [
            _sensitivity_of_fit(cases.positive, scores_N, cases.weights, specificity)
            for scores_N in cases.scores.T
        ]
    )


def _sensitivity_of_fit(positive_N, scores_N, weights_NR, specificity):
    """Weight of positives above the first score, from below, that is specific enough."""
    scores_P, scores_M = np.sort(scores_N[positive_N]), np.sort(scores_N[~positive_N])
    up_to_PR, up_to_MR = _weights_up_to(positive_N, scores_N, weights_NR)
    # true negatives over negatives: 2 / 10 is the same float as 0.2, 1 - 8 / 10 is not
    n_below_R = (up_to_MR / up_to_MR[-1] < specificity - ROUNDING).sum(axis=0)
    not_above_M1 = np.append(0, placements(scores_M, scores_P)[1])
    missed_R = not_above_M1[np.minimum(n_below_R, len(scores_M))]
    total_R = up_to_PR[-1]
    return (total_R - np.take_along_axis(up_to_PR, missed_R[None], axis=0)[0]) / total_R


def _weights_up_to(positive_N, scores_N, weights_NR):
    """Cumulated weights of positives and of others in the order of their scores, from 0."""
    return tuple(
        _cumulated(weights_NR[of_class][np.argsort(scores_N[of_class])])
        for of_class in (positive_N, ~positive_N)
    )


def _cumulated(weights_PR):
    up_to_PR = np.zeros((len(weights_PR) + 1, weights_PR.shape[1]))
    np.cumsum(weights_PR, axis=0, out=up_to_PR[1:])
    return up_to_PR
