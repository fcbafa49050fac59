"""A t-test for repeats that share annotations."""

from dataclasses import dataclass

import numpy as np

from probes.errors import ProbesError

__all__ = ["ResampledTTest", "resampled_t_test"]

ROUNDING = 1e-12  # a deviation of metrics below this is the rounding of equal numbers


@dataclass(frozen=True, eq=False)
class ResampledTTest:
    """Whether two models differ over repeats of a random split.

    With differences of many pairs each number is an array.

    Parameters
    ----------
    difference, sd : float or ndarray
        Mean over repeats, and standard deviation (n - 1).
    repeats : int or ndarray
        Number of differences that are numbers.
    t, p : float or ndarray
        Corrected for what repeats share, two-sided, ``repeats - 1`` degrees of freedom.
    naive_t, naive_p : float or ndarray
        The paired t-test, which takes repeats for independent samples. They are not.
    reason : str or ndarray of str
        Why ``t`` and ``p`` are NaN; empty where they are not.
    """

    difference: float | np.ndarray
    sd: float | np.ndarray
    repeats: int | np.ndarray
    t: float | np.ndarray
    p: float | np.ndarray
    naive_t: float | np.ndarray
    naive_p: float | np.ndarray
    reason: str | np.ndarray


def resampled_t_test(differences, *, n_train, n_test):
    """Test differences of two models over repeats, corrected for what the repeats share.

    Parameters
    ----------
    differences : array-like of shape (repeats,) or (pairs, repeats)
        Of a metric, one model less the other on the same split; NaN is left out.
    n_train, n_test : float or array-like of shape (pairs,)
        Annotations that a training part was drawn from, and that were tested.

    Returns
    -------
    ResampledTTest

    Raises
    ------
    ProbesError
        If there is nothing to train on or to test.

    Notes
    -----
    Nadeau and Bengio (2003): the variance of the mean of J differences is taken as
    ``(1 / J + n_test / n_train) * sd**2`` rather than ``sd**2 / J``, since parts of random splits
    overlap and more repeats are no more data. Where models do not depend on the training part, and
    ``n_train`` counts all that is not tested, this is exact; else it is their approximation, and a
    careful one.

    Examples
    --------
    >>> found = resampled_t_test([0.02, 0.01, 0.03, 0.01, 0.02], n_train=80, n_test=20)
    >>> round(found.naive_p, 4), round(found.p, 4)
    (0.0086, 0.0327)
    """
    from scipy.special import stdtr

    d = np.asarray(differences, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.asarray(n_test, np.float64) / np.asarray(n_train, np.float64)
    if not (np.isfinite(share) & (share > 0)).all():
        raise ProbesError(
            f"n_train={n_train}, n_test={n_test} are no sizes of parts; give numbers above 0"
        )
    counted = ~np.isnan(d)
    n = counted.sum(axis=-1)
    each = 1 / np.maximum(n, 1)
    mean = np.where(n > 0, np.where(counted, d, 0).sum(axis=-1) * each, np.nan)
    squares = np.where(counted, (d - mean[..., None]) ** 2, 0).sum(axis=-1)
    sd = np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)
    error = np.where(sd > ROUNDING, sd, np.nan)
    naive_t, t = mean / (error * np.sqrt(each)), mean / (error * np.sqrt(each + share))
    naive_p, p = (2 * stdtr(np.maximum(n - 1, 1), -np.abs(value)) for value in (naive_t, t))
    numbers = (mean, sd, n, t, p, naive_t, naive_p, _reasons(n, sd))
    return ResampledTTest(*(value.item() if value.ndim == 0 else value for value in numbers))


def _reasons(n, sd):
    same = "all repeats differ by the same, so there is nothing to hold the difference against"
    few = "a t-test needs two repeats or more in which both values are numbers"
    return np.where(n < 2, few, np.where(sd > ROUNDING, "", same))
