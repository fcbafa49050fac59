"""Linear probes: logistic regressions on embeddings.

Two objectives, which are different models even at the same C:

- ``uni``, as published with UNI (Chen et al. 2024) and used by Ganz et al.: mean cross-entropy plus
  0.5 / C times the Frobenius norm of the weights, *not* squared;
- ``l2``, the ordinary ridge penalty in scikit-learn's convention: C times the summed cross-entropy
  plus half the squared norm.
"""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.errors import CollapsedProbeWarning, OneClassError, ProbesError
from probes.protocols import positions
from probes.solvers import solve

__all__ = ["LogisticProbe", "default_C", "fit_splits"]


def default_C(objective, dim, n_classes):  # noqa: N802
    """Return the strength that an objective is used with where none is given.

    Examples
    --------
    >>> default_C("uni", 1536, 2), default_C("l2", 1536, 2)
    (30.72, 1.0)
    """
    if objective not in ("uni", "l2"):
        raise ProbesError(f"objective={objective!r} is unknown; give 'uni' or 'l2'")
    return dim * n_classes / 100 if objective == "uni" else 1.0


class LogisticProbe(ClassifierMixin, BaseEstimator):
    """Logistic regression on embeddings, as a scikit-learn estimator.

    Parameters
    ----------
    objective : {'uni', 'l2'}
        What is minimised; see the module.
    C : float, optional
        Inverse strength of the penalty. By default dim x classes / 100 for 'uni', as published,
        and 1 for 'l2'.
    max_iter : int
        Most iterations.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted.
    coef_ : ndarray of shape (1, dim) or (n_classes, dim)
        One row for two classes: the direction from the first class to the second.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Not penalised.
    C_ : float
        The strength that was used.
    objective_ : float
        Value that was reached.
    n_iter_ : int
        Iterations.
    converged_, collapsed_ : bool
        Whether the solver is sure of the optimum, and whether that optimum is to predict the same
        for all (weights exactly zero).

    Examples
    --------
    >>> X = np.array([[0.0, 1], [1, 0], [3, 1], [4, 0]])
    >>> probe = LogisticProbe(objective="l2").fit(X, ["a", "a", "b", "b"])
    >>> probe.predict([[5, 0.5]])
    array(['b'], dtype='<U1')
    """

    def __init__(self, objective="uni", C=None, max_iter=1000):
        self.objective = objective
        self.C = C
        self.max_iter = max_iter

    def fit(self, X, y, sample_weight=None):
        """Fit on embeddings and labels.

        Parameters
        ----------
        X : array-like of shape (n, dim)
            Embeddings, taken as they are: nothing is standardised.
        y : array-like of shape (n,)
            Labels.
        sample_weight : array-like of shape (n,), optional
            Weights, at least 0.

        Returns
        -------
        LogisticProbe
            Itself.

        Raises
        ------
        OneClassError
            If the labels hold one class only.
        """
        X, y = validate_data(self, X, y, dtype=[np.float32, np.float64])
        check_classification_targets(y)
        weights = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, float)
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise OneClassError(
                f"all {len(y)} training labels are {classes.tolist()[0]!r}; a probe needs two "
                "classes or more"
            )
        return _fit_many([self], X, codes, weights[:, None], classes)[0]

    def decision_function(self, X):
        """Logits: shape (n,) for two classes (of the second), else (n, n_classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float32, np.float64])
        logits = X @ self.coef_.T.astype(X.dtype) + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X):
        """Class probabilities, shape (n, n_classes), columns as in ``classes_``."""
        from scipy.special import expit, softmax

        logits = np.asarray(self.decision_function(X), np.float64)
        if logits.ndim == 2:
            return softmax(logits, axis=1)
        return np.stack([expit(-logits), expit(logits)], axis=1)

    def predict(self, X):
        """Return the most probable class, shape (n,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def fit_splits(rows, annotations, splits, *, objective="uni", C=None, max_iter=1000):
    """Fit one probe per split on its training part, all in one solve.

    Parameters
    ----------
    rows : Source
        Embeddings in memory: ``ids`` and ``values`` (n, dim), as
        :class:`probes.protocols.InMemory` holds them.
    annotations : LabelTable
        The labels.
    splits : sequence of Split
        Their ``train`` IDs are fitted, nothing else.
    objective, C, max_iter
        As for :class:`LogisticProbe`.

    Returns
    -------
    list of LogisticProbe
        In the order of the splits.
    """
    classes, codes = np.unique(annotations.labels_of(rows.ids), return_inverse=True)
    weights = np.zeros((len(rows.ids), len(splits)))
    for fit, split in enumerate(splits):
        weights[positions(rows.ids, split.train), fit] = 1
    probes = [LogisticProbe(objective, C, max_iter) for _ in splits]
    return _fit_many(probes, rows.values, codes, weights, classes)


def _fit_many(probes, X, codes, weights, classes):
    """Solve for probes of equal parameters, one per column of ``weights``."""
    first = probes[0]
    C = default_C(first.objective, X.shape[1], len(classes)) if first.C is None else first.C
    solution = solve(
        X,
        codes,
        weights,
        n_classes=len(classes),
        objective=first.objective,
        C=C,
        max_iter=first.max_iter,
    )
    for fit, probe in enumerate(probes):
        probe.classes_, probe.n_features_in_, probe.C_ = classes, X.shape[1], C
        probe.coef_, probe.intercept_ = solution.weights[fit], solution.intercepts[fit]
        probe.objective_ = float(solution.objective[fit])
        probe.n_iter_ = int(solution.n_iter[fit])
        probe.converged_ = bool(solution.converged[fit])
        probe.collapsed_ = bool(solution.collapsed[fit])
    _warn(probes)
    return probes


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
