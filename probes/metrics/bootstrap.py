"""Bootstrap of any metric, by annotation or by slide.

A draw is a weight per annotation: how often it, or its slide, was drawn. All draws and all fits are
computed together; no row is ever repeated.
"""

from dataclasses import dataclass, field

import numpy as np

from probes.errors import ProbesError
from probes.metrics.delong import check_confidence
from probes.metrics.summary import METRICS

__all__ = ["Bootstrap", "bootstrap", "bootstrap_difference"]

DRAWS_AT_ONCE = 100  # weights of 4,110 annotations: 3 MB, which a cache holds


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """A metric, or a difference of two, and how it varies over draws.

    With many fits each number is an array of shape (fits,).

    Parameters
    ----------
    estimate : float or ndarray
        On the annotations as they are.
    low, high : float or ndarray
        Percentile interval.
    standard_error : float or ndarray
        Standard deviation over draws (n - 1).
    confidence : float
        Of the interval, in 0..1.
    repeats, n_left_out : int
        Draws made, and those in which the metric was undefined, which count nowhere else.
    n_drawn : int
        Slides in each draw, or annotations where none were given.
    seed : int
        Of the draws.
    reason : str
        Why numbers are NaN; empty where none is.
    values : ndarray of shape (repeats,) or (repeats, fits)
        The metric in each draw, NaN where it was left out.
    """

    estimate: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    standard_error: float | np.ndarray
    confidence: float
    repeats: int
    n_left_out: int
    n_drawn: int
    seed: int
    reason: str
    values: np.ndarray = field(repr=False)


def bootstrap(
    metric, labels, scores, classes=None, *, groups=None, repeats=1000, confidence=0.95, seed=42
):
    """Draw annotations, or whole slides, with replacement and compute a metric on each draw.

    Parameters
    ----------
    metric : str or callable
        A name of :data:`probes.metrics.METRICS`, or a function that takes ``labels, scores,
        classes`` and ``weights`` of shape (n, draws), as those do.
    labels, scores, classes
        As for :func:`probes.metrics.auroc`; many fits are computed on the same draws.
    groups : array-like of shape (n,), optional
        Slide of each annotation: its annotations are drawn together. By default each annotation is
        drawn by itself.
    repeats : int
        Number of draws.
    confidence : float
        In 0..1.
    seed : int
        Of the draws.

    Returns
    -------
    Bootstrap

    Raises
    ------
    ProbesError
        If the metric is unknown or shapes do not fit.

    Notes
    -----
    Percentile interval (Efron and Tibshirani 1993, chapter 13), quantiles interpolated linearly.
    By slide: Field and Welsh (2007), the cluster bootstrap. As many slides are drawn as there are,
    so the number of annotations varies from draw to draw. With few slides (fewer than about 30:
    Cameron, Gelbach and Miller 2008) the interval is too narrow. Draws are not stratified: one in
    which the metric is undefined, such as of one class, is left out and counted.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> slides = np.repeat(np.arange(40), 5)
    >>> labels = rng.random(200) < 0.4
    >>> scores = labels + rng.normal(size=200) + rng.normal(size=40)[slides]
    >>> by_cell = bootstrap("auroc", labels, scores)
    >>> by_slide = bootstrap("auroc", labels, scores, groups=slides)
    >>> by_cell.estimate == by_slide.estimate, by_cell.n_drawn, by_slide.n_drawn
    (True, 200, 40)
    """
    check_confidence(confidence)
    function, labels = _metric(metric), np.asarray(labels)
    estimate = function(labels, scores, classes)
    codes = _codes(groups, len(labels))
    values = _over_draws(function, labels, scores, classes, codes, repeats, seed)
    return _summary(estimate, values, codes, confidence=confidence, seed=seed)


def bootstrap_difference(
    metric, labels, a, b, classes=None, *, groups=None, repeats=1000, confidence=0.95, seed=42
):
    """Bootstrap the metric of one model less that of another, both on the same draws.

    Parameters
    ----------
    metric, labels, classes, groups, repeats, confidence, seed
        As for :func:`bootstrap`.
    a, b : array-like of the same shape
        Scores of the two models; each fit of ``a`` is compared with that of the same place in
        ``b``.

    Returns
    -------
    Bootstrap
        Of the difference.

    Raises
    ------
    ProbesError
        If the metric is unknown or shapes do not fit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.random(300) < 0.4
    >>> good, poor = (signal * labels + rng.normal(size=300) for signal in (2.0, 0.5))
    >>> bootstrap_difference("auroc", labels, good, poor).low > 0.1
    True
    """
    check_confidence(confidence)
    if np.shape(a) != np.shape(b):
        raise ProbesError(
            f"scores of shape {np.shape(a)} and {np.shape(b)}; give two of the same shape"
        )
    function, labels, codes = _metric(metric), np.asarray(labels), _codes(groups, len(labels))
    estimates = [function(labels, scores, classes) for scores in (a, b)]
    of_a, of_b = (
        _over_draws(function, labels, scores, classes, codes, repeats, seed) for scores in (a, b)
    )
    return _summary(
        estimates[0] - estimates[1], of_a - of_b, codes, confidence=confidence, seed=seed
    )


def _metric(metric):
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise ProbesError(f"metric={metric!r} is unknown; give one of {', '.join(METRICS)}")
    return METRICS[metric]


def _codes(groups, n):
    """Assign numbers to slides in order of appearance, so that their names change no draw: (n,)."""
    if groups is None:
        return np.arange(n)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ProbesError(f"groups of shape {groups.shape} for {n} labels; give ({n},)")
    _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]


def _over_draws(function, labels, scores, classes, codes, repeats, seed):
    """Compute the metric in each draw: (repeats,) or (repeats, fits)."""
    if repeats < 2:
        raise ProbesError(f"repeats={repeats} gives no interval; give 2 or more, such as 1000")
    values = [
        np.moveaxis(function(labels, scores, classes, weights=weights), -1, 0)
        for weights in _draws(codes, repeats, np.random.default_rng(seed))
    ]
    return np.concatenate(values)


def _draws(codes, repeats, rng):
    """Yield weights (n, draws), a few draws at once."""
    n_drawn = _n_drawn(codes)
    for start in range(0, repeats, DRAWS_AT_ONCE):
        n_draws = min(DRAWS_AT_ONCE, repeats - start)
        drawn = rng.integers(max(n_drawn, 1), size=(n_draws, n_drawn))
        of_draw = drawn + n_drawn * np.arange(n_draws)[:, None]
        times = np.bincount(of_draw.ravel(), minlength=n_draws * n_drawn)
        yield np.ascontiguousarray(times.reshape(n_draws, n_drawn).T, np.float64)[codes]


def _n_drawn(codes):
    return int(codes.max()) + 1 if len(codes) else 0


def _summary(estimate, values, codes, *, confidence, seed):
    left_out = np.isnan(values.reshape(len(values), -1)).any(axis=1)
    kept, n_drawn = values[~left_out], _n_drawn(codes)
    reason = _reason(estimate, len(kept), len(values), n_drawn)
    if reason:
        low = high = error = np.full(values.shape[1:], np.nan)
    else:
        low, high = np.quantile(kept, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        error = kept.std(axis=0, ddof=1)
    return Bootstrap(
        estimate,
        *(number.item() if np.ndim(number) == 0 else number for number in (low, high, error)),
        confidence=confidence,
        repeats=len(values),
        n_left_out=int(left_out.sum()),
        n_drawn=n_drawn,
        seed=seed,
        reason=reason,
        values=values,
    )


def _reason(estimate, n_kept, repeats, n_drawn):
    if np.isnan(estimate).any():
        return "the metric is undefined on these annotations; all_metrics says why"
    if n_drawn == 1:
        return "there is one slide or annotation to draw from, and every draw is the same"
    if n_kept < 2:
        return f"the metric is undefined in {repeats - n_kept} of {repeats} draws; make more"
    return ""
