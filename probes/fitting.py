"""Fitting: many logistic probes of equal parameters on shared rows, in one solve.

A probe is anything with the parameters of :class:`probes.LogisticProbe`; it is given what was
fitted. Rows and labels come checked.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from probes.errors import CollapsedProbeWarning, ProbesError
from probes.solvers import is_tensor, solve
from probes.solvers.checks import check_features
from probes.strengths import SELECT_BY, Validation, chosen, grid_path, is_grid, values_of

__all__ = ["fit_many"]


def fit_many(probes, X, codes, weights, classes, validation):
    """Solve for probes of equal parameters, one per column of weights.

    Parameters
    ----------
    probes : list of LogisticProbe
    X : (n, dim) array or tensor of float
    codes : (n,) array of int
        Place of each row's label in ``classes``.
    weights : (n, n_probes) array of float
        Sample weights.
    classes : (n_classes,) array
    validation : list of Validation or None
        One per probe; what chooses of a grid.

    Returns
    -------
    list of LogisticProbe
        The same, fitted.

    Raises
    ------
    ProbesError
        If a parameter makes no sense.
    """
    first = probes[0]
    if first.select_by not in SELECT_BY:
        raise ProbesError(
            f"select_by={first.select_by!r} is unknown; use one of {', '.join(SELECT_BY)}"
        )
    if first.standardize:
        for fit, probe in enumerate(probes):
            _fit_standardized(probe, X, codes, weights[:, fit], classes, validation[fit])
    else:
        _fit_together(probes, X, codes, weights, classes, validation)
    _warn(probes)
    return probes


def _fit_standardized(probe, X, codes, weights, classes, validation):
    """Fit one probe on features of mean 0 and deviation 1; its weights are of the given ones."""
    if is_tensor(X) or (validation is not None and is_tensor(validation.X)):
        raise ProbesError("standardize=True takes NumPy arrays; scale a tensor before it is given")
    check_features(X)
    used = weights > 0
    X, codes, weights = X[used], codes[used], weights[used]
    means = np.average(X.astype(np.float64), axis=0, weights=weights)
    deviations = np.sqrt(np.average((X - means) ** 2, axis=0, weights=weights))
    deviations[np.ptp(X, axis=0) == 0] = 1  # where rounding of the mean leaves a little
    if validation is not None:
        validation = Validation((validation.X - means) / deviations, validation.codes)
    scaled = (X - means) / deviations
    _fit_together([probe], scaled, codes, weights[:, None], classes, [validation])
    probe.coef_ = probe.coef_ / deviations
    probe.intercept_ = probe.intercept_ - probe.coef_ @ means


def _fit_together(probes, X, codes, weights, classes, validation):
    """Solve all probes and all values of a grid at once, and take of each probe the chosen one."""
    first = probes[0]
    Cs = values_of(first.C, first.objective, X.shape[1], len(classes))
    if first.class_weight is not None:
        weights = weights * _class_weights(first.class_weight, weights, codes, classes)
    solution = solve(
        X,
        codes,
        np.repeat(weights, len(Cs), axis=1),
        n_classes=len(classes),
        objective=first.objective,
        C=np.tile(Cs, len(probes)),
        solver=first.solver,
        max_iter=first.max_iter,
    )
    for place, probe in enumerate(probes):
        fits = np.arange(place * len(Cs), (place + 1) * len(Cs))
        vars(probe).pop("path_", None)
        best = 0
        if is_grid(probe.C):
            probe.path_ = grid_path(solution, fits, Cs, validation[place])
            best = chosen(probe.path_, probe.select_by)
        probe.classes_, probe.n_features_in_, probe.C_ = classes, X.shape[1], float(Cs[best])
        _take(probe, solution, fits[best])


def _take(probe, solution, fit):
    probe.coef_, probe.intercept_ = solution.weights[fit], solution.intercepts[fit]
    probe.objective_ = float(solution.objective[fit])
    probe.n_iter_ = int(solution.n_iter[fit])
    probe.converged_ = bool(solution.converged[fit])
    probe.collapsed_ = bool(solution.collapsed[fit])


def _class_weights(class_weight, weights, codes, classes):
    """Factor of each row by its class, (n, fits), or (n, 1) where it is the same in all fits."""
    if isinstance(class_weight, dict):
        unknown = set(class_weight) - set(classes.tolist())
        if unknown:
            raise ProbesError(
                f"class_weight names {min(map(repr, unknown))}, which no label is; there are "
                f"{', '.join(map(repr, classes.tolist()))}"
            )
        factors = np.asarray([class_weight.get(label, 1) for label in classes.tolist()])
        if factors.dtype.kind not in "biuf":
            raise ProbesError(f"class_weight={class_weight!r:.80} holds no numbers; give weights")
        return factors[codes][:, None]
    if not (isinstance(class_weight, str) and class_weight == "balanced"):
        raise ProbesError(
            f"class_weight={class_weight!r} is unknown; give None, 'balanced' or a dict"
        )
    sums = np.stack([weights[codes == code].sum(axis=0) for code in range(len(classes))])
    even = weights.sum(axis=0) / (sums > 0).sum(axis=0)
    return (even / np.where(sums > 0, sums, 1))[codes]


def _warn(probes):
    stalled = [probe for probe in probes if not probe.converged_]
    collapsed = [probe for probe in probes if probe.collapsed_]
    if stalled:
        warnings.warn(
            f"{len(stalled)} of {len(probes)} probes did not converge in "
            f"{stalled[0].max_iter} iterations; raise max_iter",
            ConvergenceWarning,
            stacklevel=4,
        )
    if collapsed:
        warnings.warn(
            f"{len(collapsed)} of {len(probes)} probes collapsed: at C = {collapsed[0].C_:g} the "
            "norm penalty outweighs the difference of the class means, and all weights are 0 "
            "(AUROC 0.5). Raise C, or take objective='l2'",
            CollapsedProbeWarning,
            stacklevel=4,
        )
