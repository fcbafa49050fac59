"""Cases: labels, scores and weights as every metric takes them, checked in one place.

Shapes: N annotations, F fits, R weightings (draws of a bootstrap), C classes.
"""

from dataclasses import dataclass

import numpy as np

from probes.errors import ProbesError

__all__ = ["Cases", "count_slides", "number_slides"]


@dataclass(frozen=True, eq=False)
class Cases:
    """What metrics are computed from.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        Class of each annotation, -1 where it has none of ``names``.
    scores : ndarray of float64, shape (n, fits) or (n, fits, n_classes)
        With two classes the score of the second; with more that of each class.
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
        scores : array-like of shape (n,) or (n, fits); with classes (n, [fits,] n_classes)
            Of the positive class; with ``classes`` of each, in their order.
        classes : sequence of names, optional
            Two or more; with two the second is the positive one.
        weights : array-like of shape (n,) or (n, weightings), optional
            At least 0; 1 by default.

        Raises
        ------
        ProbesError
            If shapes do not fit, a score is no number or NaN, a weight is negative, a class is
            named twice, or a label is neither 0 nor 1 and no classes are given.
        """
        labels, scores = np.asarray(labels), _numbers(scores, "scores")
        names = (0, 1) if classes is None else _names(classes)
        _check_scores(labels, scores, None if classes is None else names)
        weights = np.ones(len(labels)) if weights is None else _numbers(weights, "weights")
        _check_weights(labels, weights)
        codes = _codes(labels, names, named=classes is not None)
        fits = scores.shape[1:] if classes is None else scores.shape[1:-1]
        if classes is not None and len(names) == 2:
            scores = scores[..., 1]
        return cls(
            codes,
            scores if fits else scores[:, None],
            weights if weights.ndim == 2 else weights[:, None],
            names,
            fits + weights.shape[1:],
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

    def lone_class(self, slides, *, by_slide):
        """Why nothing is known of how a class varies, empty where there are two of each.

        Parameters
        ----------
        slides : ndarray of int, shape (n,)
            As from :func:`number_slides`.
        by_slide : bool
            Whether slides were given; else each annotation stands alone.
        """
        for code, name in enumerate(self.names):
            own = self.codes == code
            if count_slides(slides[own]) == 1:
                n = int(own.sum())
                if by_slide:
                    return (
                        f"all {n} labels {name!r} are on one slide; two slides with each are needed"
                    )
                return f"there is 1 label {name!r}; two of each class are needed"
        return ""


def number_slides(groups, n):
    """Give each slide a number in order of appearance, so that its name changes no draw: (n,).

    Parameters
    ----------
    groups : array-like of shape (n,) or None
        Slide of each annotation; None: each is a slide of its own.
    n : int
        Number of annotations.

    Raises
    ------
    ProbesError
        If there is not one slide for each annotation.

    Examples
    --------
    >>> number_slides(["b", "a", "b"], 3)
    array([0, 1, 0])
    """
    if groups is None:
        return np.arange(n)
    from pandas import isna

    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ProbesError(f"groups of shape {groups.shape} for {n} labels; give ({n},)")
    n_missing = int(isna(groups).sum())
    if n_missing:
        raise ProbesError(f"groups are missing for {n_missing} of {n} labels; name every slide")
    names = groups.tolist()
    number = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], int)


def count_slides(numbers):
    """Count the slides among numbers of :func:`number_slides`, without sorting."""
    return int(np.count_nonzero(np.bincount(numbers)))


def _numbers(values, what):
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ProbesError(f"{what} are no array of numbers ({error})") from None


def _names(classes):
    names = np.asarray(classes)
    if names.ndim != 1 or len(names) < 2 or len(set(names.tolist())) < len(names):
        raise ProbesError(f"classes={classes!r}; name two or more, each once, in order of columns")
    return tuple(names.tolist())


def _check_scores(labels, scores, names):
    n = len(labels) if labels.ndim else 0
    if labels.ndim != 1:
        raise ProbesError(f"labels of shape {labels.shape}; give one per annotation, ({n},)")
    if names is None:
        fits, wanted = scores.shape[1:], f"({n},) or ({n}, fits)"
    else:
        fits, wanted = scores.shape[1:-1], f"({n}, {len(names)}), a column per class"
    by_class = names is None or (scores.ndim > 1 and scores.shape[-1] == len(names))
    if scores.shape[:1] != (n,) or len(fits) > 1 or fits == (0,) or not by_class:
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
        raise ProbesError(
            f"labels hold {_some(labels)}; give True or 1 for the positive class and False or 0 "
            "for the other, or name the classes"
        )
    return codes


def _problem(labels, codes):
    if len(labels) == 0:
        return "there is no annotation to test on"
    if (codes < 0).any():
        return f"labels hold {_some(labels[codes < 0])}, and there is no probability of that"
    return ""


def _some(labels):
    """Name up to three of the different labels, which may be of different types."""
    return ", ".join(repr(label) for label in list(dict.fromkeys(labels.tolist()))[:3])
