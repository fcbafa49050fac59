"""Bootstrap of any metric, by annotation or by slide.

A draw is a weight per annotation: how often it, or its slide, was drawn. All draws and all fits are
computed together; no row is ever repeated.
"""

from dataclasses import dataclass, field

import numpy as np

from probes.errors import ProbesError
from probes.metrics.cases import Cases, number_slides
from probes.metrics.delong import Interval, check_confidence
from probes.metrics.summary import METRICS

__all__ = ["Bootstrap", "BootstrapTest", "bootstrap", "bootstrap_difference"]

DRAWS_AT_ONCE = 100  # weights of 4,110 annotations: 3 MB, which a cache holds
WEIGHTS_AT_ONCE = 8_000_000  # 64 MB, on which a metric makes a few more of that size
ROUNDING = 1e-12  # draws that are no further apart are alike


@dataclass(frozen=True, eq=False)
class Bootstrap(Interval):
    """A metric and how it varies over draws.

    Parameters
    ----------
    estimate, low, high, standard_error, confidence, reason
        As of :class:`probes.metrics.Interval`: the estimate on the annotations as they are, the
        interval of percentiles, the standard deviation over draws (n - 1).
    repeats, n_left_out : int
        Draws made, and those in which the metric was undefined, which count nowhere else.
    n_drawn : int
        Slides in each draw, or annotations where none were given.
    seed : int
        Of the draws.
    problem : str
        Why these draws give no interval of any fit; empty where they do.
    values : ndarray of shape (repeats,) or (repeats, fits)
        The metric in each draw, NaN where it was left out.
    """

    repeats: int
    n_left_out: int
    n_drawn: int
    seed: int
    problem: str = field(repr=False)
    values: np.ndarray = field(repr=False)

    def difference(self, a, b):
        """Compare fits with each other on these draws.

        Parameters
        ----------
        a, b : int or array-like of int
            Which fits: each of ``a`` is compared with that of the same place in ``b``.

        Returns
        -------
        BootstrapTest
            Of the metric of ``a`` less that of ``b``.

        Raises
        ------
        ProbesError
            If this is the bootstrap of one fit.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.random(300) < 0.4
        >>> models = np.array([2.0, 2.0, 0.5]) * labels[:, None] + rng.normal(size=(300, 3))
        >>> drawn = bootstrap("auroc", labels, models)
        >>> first, second = np.triu_indices(3, 1)
        >>> (drawn.difference(first, second).p < 0.05).tolist()
        [False, True, True]
        """
        if self.values.ndim == 1:
            raise ProbesError("this is the bootstrap of one fit; give scores of shape (n, fits)")
        found = _summary(
            self.estimate[a] - self.estimate[b],
            self.values[:, a] - self.values[:, b],
            undefined=np.where(np.isnan(self.estimate[a]), self.reason[a], self.reason[b]),
            problem=self.problem,
            confidence=self.confidence,
            n_drawn=self.n_drawn,
            seed=self.seed,
        )
        return BootstrapTest(**vars(found), p=_p(found))


@dataclass(frozen=True, eq=False)
class BootstrapTest(Bootstrap):
    """A difference of a metric between two models, and how it varies over draws.

    Parameters
    ----------
    estimate, low, high, standard_error, confidence, reason, ...
        As of :class:`Bootstrap`, of the difference.
    p : float or ndarray
        Two-sided; NaN where there is a reason.

    Notes
    -----
    p is twice the share of draws on the side of 0 where fewer are, those at 0 counting and one more
    added (Davison and Hinkley 1997, chapter 4), so at least 2 / (repeats + 1). It says what the
    percentile interval says: below 0.05, to within a draw, where that of 95 % leaves out 0.
    """

    p: float | np.ndarray


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
        If the metric is unknown, shapes do not fit, a slide has no name, or the seed is no whole
        number, so that nobody could repeat the draws.

    Notes
    -----
    Percentile interval (Efron and Tibshirani 1993, chapter 13), quantiles interpolated linearly.
    By slide: Field and Welsh (2007), the cluster bootstrap. As many slides are drawn as there are,
    so the number of annotations varies from draw to draw. With few slides (fewer than about 30:
    Cameron, Gelbach and Miller 2008) the interval is too narrow. Draws are not stratified: one in
    which the metric is undefined, such as of one class, is left out and counted. Where all of a
    class is on one slide, every draw that is kept holds that slide, and nothing is known of how it
    varies: there is no interval. Nor is there where every draw gives the same value, as at an AUROC
    of 1.

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
    _check_draws(repeats, seed)
    function, cases = _metric(metric), Cases.of(labels, scores, classes)
    slides_N = number_slides(groups, len(cases.codes))
    estimate = function(labels, scores, classes)
    draws = _draws(slides_N, repeats, np.random.default_rng(seed))
    values = np.concatenate(
        [np.moveaxis(function(labels, scores, classes, weights=drawn), -1, 0) for drawn in draws]
    )
    return _summary(
        estimate,
        values,
        undefined=cases.missing() or "the metric is undefined on these annotations",
        problem=_problem(cases, slides_N, values, by_slide=groups is not None),
        confidence=confidence,
        n_drawn=_n_drawn(slides_N),
        seed=seed,
    )


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
    BootstrapTest
        Of the difference, with p; numbers for one pair, arrays (fits,) for many.

    Raises
    ------
    ProbesError
        As for :func:`bootstrap`.

    See Also
    --------
    Bootstrap.difference : All pairs of several models from one set of draws.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.random(300) < 0.4
    >>> good, poor = (signal * labels + rng.normal(size=300) for signal in (2.0, 0.5))
    >>> found = bootstrap_difference("auroc", labels, good, poor)
    >>> found.low > 0.1, round(found.p, 3)
    (True, 0.002)
    """
    if np.shape(a) != np.shape(b):
        raise ProbesError(
            f"scores of shape {np.shape(a)} and {np.shape(b)}; give two of the same shape"
        )
    a, b = np.asarray(a), np.asarray(b)
    many = a.ndim == (2 if classes is None else 3)
    both = np.concatenate([a, b], axis=1) if many else np.stack([a, b], axis=1)
    drawn = bootstrap(
        metric,
        labels,
        both,
        classes,
        groups=groups,
        repeats=repeats,
        confidence=confidence,
        seed=seed,
    )
    n_fits = a.shape[1] if many else 1
    first = np.arange(n_fits) if many else 0
    return drawn.difference(first, first + n_fits)


def _metric(metric):
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise ProbesError(f"metric={metric!r} is unknown; give one of {', '.join(METRICS)}")
    return METRICS[metric]


def _check_draws(repeats, seed):
    if repeats < 2:
        raise ProbesError(f"repeats={repeats} gives no interval; give 2 or more, such as 1000")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ProbesError(f"seed={seed!r} cannot be drawn from again; give a whole number from 0")


def _draws(slides_N, repeats, rng):
    """Yield weights (n, draws), a few draws at once."""
    n_drawn = _n_drawn(slides_N)
    at_once = min(DRAWS_AT_ONCE, max(WEIGHTS_AT_ONCE // max(len(slides_N), 1), 1))
    for start in range(0, repeats, at_once):
        n_draws = min(at_once, repeats - start)
        drawn = rng.integers(max(n_drawn, 1), size=(n_draws, n_drawn))
        of_draw = drawn + n_drawn * np.arange(n_draws)[:, None]
        times = np.bincount(of_draw.ravel(), minlength=n_draws * n_drawn)
        yield np.ascontiguousarray(times.reshape(n_draws, n_drawn).T, np.float64)[slides_N]


def _n_drawn(slides_N):
    return int(slides_N.max()) + 1 if len(slides_N) else 0


def _left_out(values):
    """In which draws the metric is undefined, (repeats,)."""
    return np.isnan(values.reshape(len(values), -1)).any(axis=1)


def _problem(cases, slides_N, values, *, by_slide):
    """Why the draws give no interval of any fit, empty where they do."""
    n_left_out = int(_left_out(values).sum())
    lone = cases.lone_class(slides_N, by_slide=by_slide)
    if _n_drawn(slides_N) == 1:
        return "there is one slide or annotation to draw from, and every draw is the same"
    if n_left_out and lone:  # every draw that is kept holds that slide: it does not vary
        return lone
    if n_left_out > len(values) - 2:
        return f"the metric is undefined in {n_left_out} of {len(values)} draws; make more"
    return ""


def _summary(estimate, values, *, undefined, problem, confidence, **settings):
    """Bootstrap of what varies as ``values``, its NaN with their reasons."""
    left_out = _left_out(values)
    kept = values[~left_out]
    varies = np.full(values.shape[1:], False)
    low = high = error = np.full(values.shape[1:], np.nan)
    if not problem and len(kept):
        varies = np.ptp(kept, axis=0) > ROUNDING
        error = np.where(varies, kept.std(axis=0, ddof=1), 0.0)
        bounds = np.quantile(kept, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        low, high = np.where(varies, bounds, np.nan)
    why = problem or "every draw gives the same value, from which no interval follows"
    reason = np.where(np.isnan(estimate), undefined, np.where(varies, "", why))
    return Bootstrap(
        *(_plain(number) for number in (estimate, low, high, error)),
        confidence=confidence,
        repeats=len(values),
        n_left_out=int(left_out.sum()),
        reason=_plain(reason),
        problem=problem,
        values=values,
        **settings,
    )


def _p(drawn):
    """Twice the smaller share of draws on one side of 0, which is on both."""
    kept = drawn.values[~_left_out(drawn.values)]
    n_beyond = np.minimum((kept <= 0).sum(axis=0), (kept >= 0).sum(axis=0))
    p = np.minimum(2 * (n_beyond + 1) / (len(kept) + 1), 1)
    return _plain(np.where(np.asarray(drawn.reason) == "", p, np.nan))


def _plain(value):
    """Return the only value, or all."""
    return np.asarray(value).item() if np.ndim(value) == 0 else value
