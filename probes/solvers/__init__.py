"""Solvers of many logistic regressions on shared rows: one entry and one result type.

A fit is a column of sample weights: a split of a learning curve, or a value of a C path. What
is minimised is fixed here; how, is the solver's own business.
"""

import importlib

import numpy as np

from probes.errors import OneClassError, ProbesError
from probes.solvers.solution import Solution

__all__ = ["OBJECTIVES", "SOLVERS", "Solution", "solve"]

OBJECTIVES = ("uni", "l2")
SOLVERS = ("lbfgs", "sklearn", "cuml")

ROWS_AT_ONCE = 8_192  # looked over for values that are not finite


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
    codes, sample_weights, C = (np.asarray(array) for array in (codes, sample_weights, C))
    X = X if is_tensor(X) else np.asarray(X)
    _check_shapes(X, codes, sample_weights, C)
    _check_settings(objective, solver, C, max_iter, tol)
    _check_codes(codes, n_classes)
    _check_weights(sample_weights)
    _check_features(X)
    _check_classes(codes, sample_weights, n_classes)
    _check_start(start, sample_weights.shape[1], 1 if n_classes == 2 else n_classes, X.shape[1])
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


def is_tensor(X):
    """Whether this is a tensor of torch; told without importing torch.

    Examples
    --------
    >>> is_tensor(np.zeros(3))
    False
    """
    return type(X).__module__.partition(".")[0] == "torch"


def _check_shapes(X, codes, sample_weights, C):
    if X.ndim != 2 or 0 in X.shape:
        raise ProbesError(
            f"X has shape {tuple(X.shape)}; give (n, dim), with a row and a column at least"
        )
    if codes.shape != tuple(X.shape[:1]):
        raise ProbesError(f"codes has shape {codes.shape}; X has {len(X)} rows, give one code each")
    if sample_weights.ndim != 2 or sample_weights.shape[0] != len(X) or not sample_weights.size:
        raise ProbesError(
            f"sample_weights has shape {sample_weights.shape}; X has {len(X)} rows, "
            f"give ({len(X)}, fits), with a fit at least"
        )
    if C.shape not in [(), sample_weights.shape[1:]]:
        raise ProbesError(
            f"C has shape {C.shape}; give one number, or one for each of the "
            f"{sample_weights.shape[1]} fits"
        )


def _check_settings(objective, solver, C, max_iter, tol):
    if objective not in OBJECTIVES:
        raise ProbesError(f"objective={objective!r} is unknown; use one of {', '.join(OBJECTIVES)}")
    if solver not in SOLVERS:
        raise ProbesError(f"solver={solver!r} is unknown; use one of {', '.join(SOLVERS)}")
    if not ((C > 0) & np.isfinite(C)).all():
        raise ProbesError(f"C={np.min(C):g} is no inverse strength; give a finite C above 0")
    if max_iter < 0 or not tol > 0:
        raise ProbesError(
            f"max_iter={max_iter}, tol={tol} can end no fit; "
            "give max_iter of at least 0 and tol above 0"
        )


def _check_codes(codes, n_classes):
    if n_classes < 2:
        raise ProbesError(f"n_classes={n_classes} leaves nothing to tell apart; give at least 2")
    if not np.issubdtype(codes.dtype, np.integer):
        raise ProbesError(f"codes are {codes.dtype}; give integers from 0 to {n_classes - 1}")
    if codes.min() < 0 or codes.max() >= n_classes:
        raise ProbesError(
            f"codes run from {codes.min()} to {codes.max()}; n_classes={n_classes} "
            f"asks for 0 to {n_classes - 1}"
        )


def _check_weights(sample_weights):
    if not np.isfinite(sample_weights).all() or (sample_weights < 0).any():
        raise ProbesError(
            f"sample_weights reach {np.min(sample_weights):g}; give finite weights of at least 0"
        )
    empty = np.flatnonzero(~(sample_weights > 0).any(axis=0))
    if empty.size:
        raise ProbesError(
            f"sample_weights of fit {empty[0]} are all 0; give every fit a row at least"
        )


def _check_features(X):
    floating = X.is_floating_point() if is_tensor(X) else np.issubdtype(X.dtype, np.floating)
    if not floating:
        raise ProbesError(f"X is {X.dtype}; give an array of floats")
    blocks = [X[start : start + ROWS_AT_ONCE] for start in range(0, len(X), ROWS_AT_ONCE)]
    rows = np.flatnonzero(np.concatenate([_not_finite(block) for block in blocks]))
    if rows.size:
        raise ProbesError(
            f"X has values that are not finite in {rows.size} of {len(X)} rows, the first is "
            f"row {rows[0]}; drop these rows or embed them again"
        )


def _not_finite(block):
    """Which rows of a block hold a value that is not finite; only the answer leaves a device."""
    if is_tensor(block):
        return ~block.isfinite().all(dim=1).cpu().numpy()
    return ~np.isfinite(block).all(axis=1)


def _check_classes(codes, sample_weights, n_classes):
    """Refuse fits of one class; codes are already known to be in range."""
    present = np.array([(sample_weights[codes == k] > 0).any(axis=0) for k in range(n_classes)])
    alone = np.flatnonzero(present.sum(axis=0) < 2)
    if alone.size:
        raise OneClassError(
            f"fit {alone[0]} has rows of class {np.argmax(present[:, alone[0]])} only, of "
            f"{n_classes} classes; give it more rows, or draw another split"
        )


def _check_start(start, n_fits, n_rows, dim):
    if start is None:
        return
    shapes = [np.shape(part) for part in start]
    expected = [(n_fits, n_rows, dim), (n_fits, n_rows)]
    if shapes != expected:
        raise ProbesError(
            f"start has shapes {shapes}; give weights and intercepts of shapes {expected}"
        )
