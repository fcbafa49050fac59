"""Cases: labels, scores and weights as every metric takes them, checked in one place.

Shapes: N annotations, F fits, R weightings (draws of a bootstrap), C classes.
"""

from dataclasses import dataclass

import numpy as np

from probes.errors import ProbesError

__all__ = ["Cases"]


@dataclass(frozen=True, eq=False)
class Cases:
    """What metrics are computed from.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        Class of each annotation, -1 where it has none of ``names``.
    scores : ndarray of float64, shape (n, fits) or (n, n_classes)
        With two classes the score of the second, a column per fit; with more a column per class,
        of one fit.
    weights : ndarray of float64, shape (n, weightings)
        How often each annotation counts.
    names : tuple
        The classes.
    shape : tuple of int
        Of what a metric returns: (), (fits,), (weightings,) or (fits, weightings).
    problem : str
        Why no metric is defined, empty where there is no such reason.
    """

    codes: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    names: tuple
    shape: tuple
    problem: str

    @classmethod
    def of(cls, labels, scores, classes=None, weights=None):
        """Check and convert.

        Parameters
        ----------
        labels : array-like of shape (n,)
            True or 1 for the positive class and False or 0 for the other; with ``classes``, their
            names.
        scores : array-like of shape (n,), (n, fits) or (n, n_classes)
            Of the positive class, a column per fit; with ``classes`` a column per class.
        classes : sequence of names, optional
            Two or more; with two the second is the positive one.
        weights : array-like of shape (n,) or (n, weightings), optional
            At least 0; 1 by default.

        Raises
        ------
        ProbesError
            If shapes do not fit, a score is NaN, a weight is negative or a label is neither 0 nor 1
            and no classes are given.
        """
        labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
        names = (0, 1) if classes is None else tuple(np.asarray(classes).tolist())
        _check_scores(labels, scores, None if classes is None else names)
        weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
        _check_weights(labels, weights)
        codes = _codes(labels, names, named=classes is not None)
        if classes is not None and len(names) == 2:
            scores = scores[:, 1]
        shape = scores.shape[1:] if len(names) == 2 else ()
        return cls(
            codes,
            _columns(scores),
            _columns(weights),
            names,
            shape + weights.shape[1:],
            _problem(labels, codes),
        )

    @property
    def positive(self):
        """Which annotations are of the second of two classes."""
        return self.codes == 1

    @property
    def n_classes(self):
        """Number of classes."""
        return len(self.names)

    def missing(self):
        """Why a metric that compares the classes is undefined, empty where it is not."""
        if self.problem:
            return self.problem
        present = [self.names[code] for code in np.unique(self.codes)]
        if len(present) == self.n_classes:
            return ""
        n = len(self.codes)
        if len(present) == 1:
            return f"all {n} labels are {present[0]!r}; there is no other class to tell them from"
        absent = ", ".join(repr(name) for name in self.names if name not in present)
        return f"none of {n} labels is {absent}; each of the {self.n_classes} classes is needed"

    def measure(self, kernel, *, every_class):
        """Compute a metric, and put NaN where it is undefined.

        Parameters
        ----------
        kernel : callable
            Takes these cases, returns values (fits, weightings).
        every_class : bool
            Whether the metric is undefined where a class has no weight.

        Returns
        -------
        float or ndarray of :attr:`shape`
        """
        if self.problem:
            values = np.full(self.shape, np.nan)
        else:
            with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 becomes NaN below
                values = kernel(self)
            totals_CR = np.stack(
                [self.weights[self.codes == code].sum(axis=0) for code in range(self.n_classes)]
            )
            empty_CR = totals_CR == 0
            undefined_R = empty_CR.any(axis=0) if every_class else empty_CR.all(axis=0)
            values = np.where(undefined_R, np.nan, values).reshape(self.shape)
        return float(values) if values.ndim == 0 else values

    def check_probabilities(self):
        """Refuse scores outside of 0..1."""
        if len(self.scores) and not 0 <= self.scores.min() <= self.scores.max() <= 1:
            raise ProbesError(
                f"scores range from {self.scores.min():g} to {self.scores.max():g}; this "
                "metric is of probabilities, give values in 0..1"
            )


def _check_scores(labels, scores, names):
    n = len(labels)
    if labels.ndim != 1:
        raise ProbesError(f"labels of shape {labels.shape}; give one per annotation, ({n},)")
    if names is None:
        fits, wanted = scores.ndim in (1, 2), f"({n},) or ({n}, fits)"
    else:
        fits, wanted = scores.shape == (n, len(names)), f"({n}, {len(names)}), a column per class"
    if not fits or len(scores) != n:
        raise ProbesError(f"scores of shape {scores.shape} for {n} labels; give {wanted}")
    n_nan = int(np.isnan(scores).sum())
    if n_nan:
        raise ProbesError(f"{n_nan} of {scores.size} scores are NaN; leave these annotations out")


def _check_weights(labels, weights):
    n = len(labels)
    if weights.ndim not in (1, 2) or len(weights) != n:
        raise ProbesError(
            f"weights of shape {weights.shape} for {n} labels; give ({n},) or ({n}, weightings)"
        )
    if weights.size and not 0 <= weights.min() <= weights.max() < np.inf:
        raise ProbesError(
            f"weights range from {weights.min():g} to {weights.max():g}; give finite ones from 0"
        )


def _codes(labels, names, *, named):
    codes = np.full(len(labels), -1)
    for code, name in enumerate(names):
        codes[labels == name] = code
    if not named and (codes < 0).any():
        found = ", ".join(repr(label) for label in np.unique(labels)[:3].tolist())
        raise ProbesError(
            f"labels hold {found}; give True or 1 for the positive class and False or 0 for the "
            "other, or name the classes"
        )
    return codes


def _problem(labels, codes):
    if len(labels) == 0:
        return "there is no annotation to test on"
    if (codes < 0).any():
        unknown = ", ".join(repr(label) for label in np.unique(labels[codes < 0])[:3].tolist())
        return f"labels hold {unknown}, and there is no probability of that"
    return ""


def _columns(values):
    return values[:, None] if values.ndim == 1 else values
