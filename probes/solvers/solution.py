"""What every solver returns: optima of many fits, and how well each was reached."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Solution", "of_all_classes", "softmax_rows"]

# A class without rows has its optimal intercept at minus infinity; this frequency stands in.
LEAST_FREQUENCY = 1e-12


@dataclass(frozen=True, eq=False)
class Solution:
    """Optima of fits on shared rows.

    Attributes
    ----------
    weights : (fits, rows, dim) array of float64
        For two classes one row, the direction of class 1 less that of class 0 (the ``coef_`` of
        scikit-learn); else one row per class.
    intercepts : (fits, rows) array of float64
    objective : (fits,) array of float64
        Value of the objective, as `probes.solvers.solve` defines it.
    gradient_norm : (fits,) array of float64
        Largest absolute entry of the gradient of the objective per unit of sample weight, in
        the weights of centred features and the intercepts; 0 for a collapsed fit, at whose kink
        0 is a subgradient.
    n_iter : (fits,) array of int
    converged : (fits,) array of bool
    weight_norm : (fits,) array of float64
        Frobenius norm of the softmax weight matrix, one row per class; for two classes
        ``norm(weights) / sqrt(2)``.
    collapsed : (fits,) array of bool
        Whether weights of 0 are the optimum (only under the ``uni`` objective).
    """

    weights: np.ndarray
    intercepts: np.ndarray
    objective: np.ndarray
    gradient_norm: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray
    weight_norm: np.ndarray
    collapsed: np.ndarray


def softmax_rows(rows):
    """Half a single row on either side, as softmax has it; else the rows.

    Parameters
    ----------
    rows : (fits, rows, ...) array

    Examples
    --------
    >>> softmax_rows(np.array([[3.0]])).tolist()
    [[-1.5, 1.5]]
    """
    return np.concatenate([-rows / 2, rows / 2], axis=1) if rows.shape[1] == 1 else rows


def of_all_classes(weights, intercepts, present, n_classes):
    """Write fits of the classes that have rows as fits of all classes.

    A class without rows has weights of 0, and the intercept of a very small frequency.

    Parameters
    ----------
    weights, intercepts : (fits, rows, dim) and (fits, rows) arrays
        Of centred features; of two classes one row, or two.
    present : (n_present,) array of int
        Sorted.
    n_classes : int

    Returns
    -------
    weights, intercepts : (fits, rows, dim) and (fits, rows) arrays
        One row for two classes, else one per class.
    """
    if n_classes > len(present):
        few = softmax_rows(weights), softmax_rows(intercepts)
        weights = np.zeros((len(weights), n_classes, weights.shape[2]))
        summed = np.logaddexp.reduce(few[1], axis=1)
        intercepts = np.repeat(np.log(LEAST_FREQUENCY) + summed[:, None], n_classes, axis=1)
        weights[:, present], intercepts[:, present] = few
    if n_classes == 2 and weights.shape[1] == 2:
        return weights[:, 1:] - weights[:, :1], intercepts[:, 1:] - intercepts[:, :1]
    return weights, intercepts
