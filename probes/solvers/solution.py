"""What every solver returns: optima of many fits, and how well each was reached."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Solution"]


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
