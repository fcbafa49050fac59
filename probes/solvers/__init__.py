"""Solvers of many logistic regressions on shared rows: one entry and one result type.

A fit is a column of sample weights: a split of a learning curve, or a value of a C path. What
is minimised is fixed here; how, is the solver's own business.
"""

import importlib

import numpy as np

from probes.solvers.checks import (
    OBJECTIVES,
    SOLVERS,
    check_problem,
    check_settings,
    check_start,
    in_numpy,
)
from probes.solvers.rows import is_tensor
from probes.solvers.solution import Solution

__all__ = ["OBJECTIVES", "SOLVERS", "Solution", "is_tensor", "solve"]


def solve(
    X,
    codes,
    sample_weights,
    *,
    n_classes,
    objective="uni",
    C,
    solver="lbfgs",
    max_iter=1000,
    tol=1e-8,
    start=None,
) -> Solution:
    """Fit one penalised logistic regression per column of sample weights.

    Parameters
    ----------
    X : (n, dim) array of float
        Embeddings, of NumPy or torch, and then on any device; neither copied nor moved here.
    codes : (n,) array of int
        Class of each row, 0 to ``n_classes - 1``.
    sample_weights : (n, fits) array
        Weight of each row in each fit, at least 0; 0 leaves a row out.
    n_classes : int
        At least 2.
    objective : {"uni", "l2"}, default="uni"
        With sample weights w, cross-entropies CE and the softmax weight matrix W of one row per
        class, ``uni`` is ``sum(w * CE) / sum(w) + 0.5 * norm(W) / C``, the Frobenius norm not
        squared; ``l2`` is ``C * sum(w * CE) + 0.5 * norm(W)**2``, where for two classes the one
        row of `Solution.weights` stands for W, as in scikit-learn. Intercepts are free.
    C : float or (fits,) array
        Inverse strength of the penalty, above 0.
    solver : {"lbfgs", "sklearn", "cuml"}, default="lbfgs"
        ``lbfgs`` is ours, for all fits at once; scikit-learn on a CPU and cuML on a CUDA device
        take one after another, and are here to be compared with.
    max_iter : int, default=1000
        Steps after which a fit is given up, and says so in ``converged``.
    tol : float, default=1e-8
        A fit has converged when at most a share ``tol**2`` of its objective is left to gain, by
        the solver's own estimate.
    start : tuple of (fits, rows, dim) and (fits, rows) arrays, optional
        Weights and intercepts that ``lbfgs`` starts from, as `Solution` holds them; the others
        start at 0.

    Returns
    -------
    Solution

    Raises
    ------
    OneClassError
        If a fit has rows of one class only.
    ProbesError
        If shapes do not fit, or a value is out of its range.
    MissingExtraError
        If cuML is asked for where it cannot run.

    Notes
    -----
    Under ``uni`` all weights are 0 at the optimum when the norm of the gradient of the loss
    there is at most ``0.5 / C``; `Solution.collapsed` says so. A class that has no row in a fit
    of more than two classes gets an intercept that stands for a frequency of 1e-12.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> solution = solve(X, np.array([0, 1, 0, 1]), np.ones((4, 1)), n_classes=2, C=100.0)
    >>> solution.weights.shape, bool(solution.converged[0])
    ((1, 1, 1), True)
    """
    codes, sample_weights, C = (in_numpy(array) for array in (codes, sample_weights, C))
    X = X.detach() if is_tensor(X) else np.asarray(X)
    check_settings(objective, solver, max_iter, tol)
    check_problem(X, codes, sample_weights, n_classes, C)
    n_fits, n_rows = sample_weights.shape[1], 1 if n_classes == 2 else n_classes
    start = check_start(start, n_fits, n_rows, X.shape[1])
    chosen = importlib.import_module(f"probes.solvers.{solver}")
    return chosen.solve(
        X,
        codes,
        sample_weights,
        n_classes=n_classes,
        objective=objective,
        C=C,
        max_iter=max_iter,
        tol=tol,
        **({} if start is None else {"start": start}),
    )
