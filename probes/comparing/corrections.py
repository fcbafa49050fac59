"""Corrections of p-values for how many tests there are."""

import numpy as np

from probes.errors import ProbesError

__all__ = ["CORRECTIONS", "adjusted"]

CORRECTIONS = ("holm", "bh", "none")


def adjusted(p, correction="holm"):
    """Adjust p-values of one family of tests; those that are NaN are none, and stay NaN.

    Parameters
    ----------
    p : array-like of shape (n,)
    correction : {'holm', 'bh', 'none'}
        ``holm`` bounds the chance of any false finding (Holm 1979), whatever the tests have in
        common; ``bh`` the expected share of false ones among the findings (Benjamini and Hochberg
        1995), for tests that are independent or positively dependent.

    Returns
    -------
    ndarray of shape (n,)
        To be compared with the level as they are.

    Raises
    ------
    ProbesError
        If the correction is unknown.

    Examples
    --------
    >>> adjusted([0.01, 0.04, 0.03, np.nan])
    array([0.03, 0.06, 0.06,  nan])
    >>> adjusted([0.01, 0.04, 0.03, np.nan], "bh")
    array([0.03, 0.04, 0.04,  nan])
    """
    if correction not in CORRECTIONS:
        raise ProbesError(
            f"correction={correction!r} is unknown; use one of {', '.join(CORRECTIONS)}"
        )
    p = np.asarray(p, np.float64)
    result, tested = np.full(p.shape, np.nan), ~np.isnan(p)
    if tested.any():
        result[tested] = _ADJUST[correction](p[tested])
    return result


def _holm(p):
    order = np.argsort(p)
    steps = p[order] * np.arange(len(p), 0, -1)
    result = np.empty_like(p)
    result[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return result


def _benjamini_hochberg(p):
    from scipy.stats import false_discovery_control

    return false_discovery_control(p, method="bh")


_ADJUST = {"holm": _holm, "bh": _benjamini_hochberg, "none": np.copy}
