"""Metrics of decisions: probabilities are first turned into a class.

With two classes an annotation is called positive where its score is the threshold or more; with
more it is called what is most probable, the first of equals.
"""

import numpy as np

from probes.metrics.cases import Cases

__all__ = ["balanced_accuracy", "f1"]


def balanced_accuracy(labels, scores, classes=None, *, threshold=0.5, weights=None):
    """Mean over classes of the share that is called what it is.

    Parameters
    ----------
    labels, scores, classes, weights
        As for :func:`probes.metrics.auroc`.
    threshold : float
        Scores of at least this are called positive; not used with more than two classes.

    Returns
    -------
    float or ndarray of shape (fits,), (weightings,) or (fits, weightings)
        In 0..1, 0.5 by chance with two classes; NaN where a class is missing.

    Notes
    -----
    Brodersen et al. (2010); scikit-learn's ``balanced_accuracy_score``, which leaves out a class
    that is missing.

    Examples
    --------
    >>> balanced_accuracy([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9])
    0.75
    """
    cases = Cases.of(labels, scores, classes, weights)
    return cases.measure(lambda it: _mean_recall(it, threshold), every_class=True)


def f1(labels, scores, classes=None, *, threshold=0.5, weights=None):
    """Harmonic mean of precision and sensitivity; with several classes their macro average.

    Parameters
    ----------
    labels, scores, classes, weights
        As for :func:`probes.metrics.auroc`.
    threshold : float
        Scores of at least this are called positive; not used with more than two classes.

    Returns
    -------
    float or ndarray of shape (fits,), (weightings,) or (fits, weightings)
        In 0..1, of the positive class with two classes; NaN where a class is missing.

    Notes
    -----
    2 TP / (2 TP + FP + FN) (van Rijsbergen 1979), 0 where nothing is called positive. It depends
    on the share of positives: compare it on the same annotations only.

    Examples
    --------
    >>> f1([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9])
    0.8
    """
    cases = Cases.of(labels, scores, classes, weights)
    return cases.measure(lambda it: _mean_f1(it, threshold), every_class=True)


def _mean_recall(cases, threshold):
    recalls = []
    for code in range(cases.n_classes):
        called_NF, own_N = _called(cases, threshold, code), cases.codes == code
        recalls.append(_weight(called_NF & own_N[:, None], cases) / _weight(own_N[:, None], cases))
    return np.mean(recalls, axis=0)


def _mean_f1(cases, threshold):
    codes = (1,) if cases.n_classes == 2 else range(cases.n_classes)
    return np.mean([_f1_of_class(cases, threshold, code) for code in codes], axis=0)


def _f1_of_class(cases, threshold, code):
    called_NF, own_N1 = _called(cases, threshold, code), (cases.codes == code)[:, None]
    hits_FR = _weight(called_NF & own_N1, cases)
    return 2 * hits_FR / (_weight(called_NF, cases) + _weight(own_N1, cases))


def _called(cases, threshold, code):
    """Which annotations each fit calls that class, (n, fits)."""
    if cases.n_classes > 2:
        return cases.scores.argmax(axis=1)[:, None] == code
    return (cases.scores >= threshold) == bool(code)


def _weight(chosen_NF, cases):
    """Sum the weights of the chosen: (fits, weightings)."""
    return chosen_NF.T.astype(np.float64) @ cases.weights
