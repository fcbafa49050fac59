"""Fits by cuML's LogisticRegression, one after another, on a CUDA device.

cuML is imported only where it is asked for. Embeddings go to the device once, or are there already;
what comes back are weights, and scores of each row for the report.
"""

import importlib

import numpy as np

from probes.errors import MissingExtraError
from probes.solvers import is_tensor, onebyone

__all__ = ["solve"]


def solve(X, codes, sample_weights, *, n_classes, objective, C, max_iter, tol, start=None):
    """Solve all fits; the arguments are those of `probes.solvers.solve`, already checked.

    ``start`` is not used: cuML takes none.

    Raises
    ------
    MissingExtraError
        If there is no cuML, or no CUDA device for it.
    """
    cupy, estimator = _cuml()
    return onebyone.solve(
        _on_device(X, cupy),
        codes,
        sample_weights,
        n_classes=n_classes,
        objective=objective,
        C=C,
        max_iter=max_iter,
        tol=tol,
        ridge=_ridge_of(estimator, cupy),
        xp=cupy,
    )


def _cuml():
    """CuPy, and cuML's LogisticRegression; the device is looked for before cuML looks for it."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise MissingExtraError(_needed(error)) from error
    try:
        cupy.cuda.runtime.getDevice()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise MissingExtraError(_needed(error)) from error
    try:
        return cupy, importlib.import_module("cuml.linear_model").LogisticRegression
    except (ImportError, OSError) as error:  # OSError: a shared library that is not there
        raise MissingExtraError(_needed(error)) from error


def _on_device(X, cupy):
    """X as an array of CuPy, without a copy where it is on the device in 32 bits or more."""
    if is_tensor(X):
        X = X.float() if X.element_size() < 4 else X  # CuPy has no bfloat16
        X = X if X.is_cuda else X.numpy()
    return cupy.asarray(X)


def _needed(found):
    return (
        "solver='cuml' needs cuML on a CUDA machine: pip install 'featstore-probes[gpu]'. "
        f"Use solver='lbfgs' on a CPU (found: {' '.join(str(found).split())})"
    )


def arguments(strength, *, max_iter, tol):
    """Give what cuML's LogisticRegression is called with.

    Notes
    -----
    cuML minimises mean CE + 0.5 / C * norm(w)**2 where ``penalty_normalized`` is false, and stops
    where the gradient is at most ``tol`` of the loss, or the loss changed by less than a hundredth
    of ``tol`` in ten steps (cuml/solvers/qn.pyx of 26.10). The second rule ends first, and a gain
    of ``tol**2`` is asked for: so cuML gets our tolerance times 1e-4, by default 1e-12, which
    DINOv2's evaluation takes too. ``output_type`` makes its attributes NumPy arrays.
    """
    return {
        "penalty": "l2",
        "C": 1 / strength,
        "fit_intercept": True,
        "penalty_normalized": False,
        "max_iter": max(max_iter, 1),
        "tol": tol * 1e-4,
        "output_type": "numpy",
    }


def _ridge_of(estimator, xp):
    """Ridge regressions of a class with cuML's parameters, on arrays of ``xp``."""

    def ridge(rows, codes, weights, strength, *, max_iter, tol, start):
        model = estimator(**arguments(strength, max_iter=max_iter, tol=tol))
        model.fit(rows, xp.asarray(codes), sample_weight=xp.asarray(_of_mean_1(weights)))
        n_iter = int(np.max(model.n_iter_))
        return onebyone.Ridge(
            np.asarray(model.coef_, np.float64).reshape(-1, rows.shape[1]),
            np.asarray(model.intercept_, np.float64).ravel(),
            n_iter,
            n_iter < max(max_iter, 1),
        )

    return ridge


def _of_mean_1(weights):
    """Weights that add up to their number.

    cuML divides the weighted loss by the sum of the weights, and its gradient by the number of rows
    (cpp/src/glm/qn/glm_base.cuh of 25.12); only with a mean of 1 are these of one function.
    """
    return weights * (len(weights) / weights.sum())
