"""Tests of pairs of models on the annotations of one test part."""

import numpy as np

from probes.metrics import bootstrap, delong_test

__all__ = ["NO_SCORES", "by_bootstrap", "by_delong"]

NO_SCORES = "no per-annotation scores are kept; fit again with keep_scores=True (--keep-scores)"


def by_delong(part, pairs):
    """Test pairs by DeLong's variance, which takes annotations for independent.

    Parameters
    ----------
    part : JointScores
    pairs : list of tuple of str
        Models, both of them in ``part.said``.

    Returns
    -------
    list of dict
        ``delong_se``, ``delong_p`` and ``reason`` of each pair.
    """
    if len(part.classes) > 2:
        reason = f"DeLong's test is of two classes, and there are {len(part.classes)}"
        return [{"delong_se": np.nan, "delong_p": np.nan, "reason": reason} for _ in pairs]
    positive = part.labels == part.classes[1]
    first, second = (
        np.stack([part.said[pair[place]][:, 1] for pair in pairs], axis=1) for place in (0, 1)
    )
    found = delong_test(positive, first, second)
    numbers = zip(found.standard_error, found.p, found.reason, strict=True)
    return [
        {"delong_se": float(error), "delong_p": float(p), "reason": str(reason)}
        for error, p, reason in numbers
    ]


def by_bootstrap(part, pairs, *, metric, draws, seed):
    """Test pairs by drawing groups (slides) with replacement, the same for both models.

    Parameters
    ----------
    part, pairs
        As for :func:`by_delong`.
    metric : str
        A name of :data:`probes.metrics.METRICS`.
    draws, seed : int
        Number of draws, and what they are made from.

    Returns
    -------
    list of dict
        ``bootstrap_low``, ``bootstrap_high`` (95 %, percentiles of the difference),
        ``bootstrap_p`` and ``reason`` of each pair.

    Notes
    -----
    All models are met by the same draws. The difference over its standard deviation in the draws is
    held against a normal distribution, as pROC does (Robin et al. 2011): a share of draws could not
    be smaller than one in their number, which is too coarse for many comparisons.
    """
    from scipy.special import ndtr

    models = list(part.said)
    drawn = bootstrap(
        metric,
        part.labels,
        np.stack([part.said[model] for model in models], axis=1),
        part.classes,
        groups=part.groups,
        repeats=draws,
        seed=seed,
    )
    first, second = (np.array([models.index(pair[place]) for pair in pairs]) for place in (0, 1))
    found = drawn.difference(first, second)
    with np.errstate(divide="ignore", invalid="ignore"):  # of those with a reason
        p = 2 * ndtr(-np.abs(found.estimate / found.standard_error))
    tested = found.reason == ""
    numbers = (np.where(tested, values, np.nan) for values in (found.low, found.high, p))
    columns = zip(*numbers, found.reason, strict=True)
    names = ("bootstrap_low", "bootstrap_high", "bootstrap_p")
    return [
        dict(zip(names, map(float, values), strict=True)) | {"reason": str(reason)}
        for *values, reason in columns
    ]
