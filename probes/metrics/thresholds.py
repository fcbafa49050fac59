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
    return cases.measure(lambda it: _of_classes(_recall, it, threshold), every_class=True)


def f1(labels, scores, classes=None, *, threshold=0.5, weights=None):
    """Harmonic mean of precision and sensitivity; with several classes their macro average.

    Parameters
    ----------
    labels, scores, classes, threshold, weights
        As for :func:`balanced_accuracy`.

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
    positive = (1,) if cases.n_classes == 2 else None
    return cases.measure(lambda it: _of_classes(_f1, it, threshold, positive), every_class=True)


def _of_classes(of_class, cases, threshold, codes=None):
    """Mean over classes, or some of them, of a function of hits, called and own weight."""
    called_NF = _called(cases, threshold)
    values = []
    for code in range(cases.n_classes) if codes is None else codes:
        of_NF, own_N1 = called_NF == code, (cases.codes == code)[:, None]
        sums_FR = [_weight(chosen, cases) for chosen in (of_NF & own_N1, of_NF, own_N1)]
        values.append(of_class(*sums_FR))
    return np.mean(values, axis=0)


def _recall(hits_FR, called_FR, own_1R):
    return hits_FR / own_1R


def _f1(hits_FR, called_FR, own_1R):
    return 2 * hits_FR / (called_FR + own_1R)


def _called(cases, threshold):
    """Which class each fit calls each annotation, (n, fits)."""
    if cases.n_classes > 2:
        return cases.scores.argmax(axis=2)
    return (cases.scores >= threshold).astype(int)


def _weight(chosen_NF, cases):
    """Sum the weights of the chosen: (fits, weightings)."""
    return chosen_NF.T.astype(np.float64) @ cases.weights
