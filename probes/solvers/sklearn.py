"""Fits by scikit-learn's LogisticRegression, one after another, on a CPU: to be compared with."""

import warnings

import numpy as np
from scipy.linalg import LinAlgWarning
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from probes.solvers import is_tensor, onebyone

__all__ = ["solve"]

# Above, the Hessian of scikit-learn's Newton steps takes more than 512 MiB; L-BFGS keeps none.
MOST_NEWTON_PARAMETERS = 8_192


def solve(X, codes, sample_weights, *, n_classes, objective, C, max_iter, tol, start=None):
    """Solve all fits; the arguments are those of `probes.solvers.solve`, already checked.

    A tensor on a device is brought to the CPU. ``start`` is not used.
    """
    if is_tensor(X):
        X = (X.float() if X.element_size() < 4 else X).cpu().numpy()  # NumPy has no bfloat16
    return onebyone.solve(
        X,
        codes,
        sample_weights,
        n_classes=n_classes,
        objective=objective,
        C=C,
        max_iter=max_iter,
        tol=tol,
        ridge=_ridge,
    )


def _ridge(rows, codes, weights, strength, *, max_iter, tol, start):
    """One ridge regression; see `probes.solvers.onebyone.solve`.

    Notes
    -----
    Of its warnings two are not passed on: that it did not converge is in ``converged``, and that
    Newton's steps gave way to L-BFGS is judged by the gradient that is left.
    """
    n_classes = codes.max() + 1
    n_parameters = (1 if n_classes == 2 else n_classes) * (rows.shape[1] + 1)
    model = LogisticRegression(
        C=1 / strength,
        solver="newton-cholesky" if n_parameters <= MOST_NEWTON_PARAMETERS else "lbfgs",
        tol=tol * 1e-2,
        max_iter=max(max_iter, 1),
        warm_start=start is not None,
    )
    if start is not None:
        model.coef_, model.intercept_ = start.weights.copy(), start.intercepts.copy()
        model.classes_ = np.arange(n_classes)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(rows, codes, sample_weight=weights)
    own = (ConvergenceWarning, LinAlgWarning)
    for each in told:
        if not issubclass(each.category, own):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    n_iter = int(np.max(model.n_iter_))
    return onebyone.Ridge(model.coef_, model.intercept_, n_iter, n_iter < max(max_iter, 1))
