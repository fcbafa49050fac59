"""Strengths of the penalty: what C stands for, and which one of a grid validation chooses."""

from dataclasses import dataclass

import numpy as np

from probes.errors import ProbesError
from probes.logits import logits
from probes.metrics import auroc

__all__ = ["SELECT_BY", "Validation", "chosen", "default_C", "grid_path", "is_grid", "values_of"]

SELECT_BY = ("auroc", "log_loss")


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


def is_grid(C):
    """Whether C is several values, of which one is to be chosen."""
    return C is not None and np.ndim(C) > 0


def values_of(C, objective, dim, n_classes):
    """Values of C to fit, (n_values,).

    Parameters
    ----------
    C : float, 'uni', sequence of float, or None
        As :class:`probes.LogisticProbe` takes it.
    objective : {'uni', 'l2'}
    dim, n_classes : int

    Raises
    ------
    ProbesError
        If C is none of these.

    Examples
    --------
    >>> values_of("uni", "l2", 50, 2), values_of([1, 10], "l2", 50, 2)
    (array([1.]), array([ 1., 10.]))
    """
    standard = default_C(objective, dim, n_classes)
    if C is None:
        return np.array([standard])
    if isinstance(C, str):
        if C != "uni":
            raise ProbesError(f"C={C!r} is unknown; give a number, a grid of them, or 'uni'")
        return np.array([default_C("uni", dim, n_classes)])
    try:
        values = np.atleast_1d(np.asarray(C, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ProbesError(
            f"C={C!r:.80} is unknown; give a number, a grid of them, or 'uni'"
        ) from error
    if values.ndim > 1 or not values.size:
        raise ProbesError(f"C has shape {values.shape}; give a number, or a grid of shape (n,)")
    return values


@dataclass(frozen=True, eq=False)
class Validation:
    """Rows that choose of a grid, and the codes of their classes."""

    X: np.ndarray
    codes: np.ndarray


def grid_path(solution, fits, Cs, validation):
    """Tell how every value of a grid did on the validation part.

    Parameters
    ----------
    solution : probes.solvers.Solution
    fits : (n_values,) array of int
        Which fits of the solution are of this grid.
    Cs : (n_values,) array
    validation : Validation

    Returns
    -------
    dict of (n_values,) arrays
        As ``LogisticProbe.path_``.
    """
    scores = [
        _validation_scores(solution.weights[fit], solution.intercepts[fit], validation)
        for fit in fits
    ]
    return {
        "C": Cs,
        "auroc": np.array([score[0] for score in scores]),
        "log_loss": np.array([score[1] for score in scores]),
        **{
            name: getattr(solution, name)[fits]
            for name in ("weight_norm", "n_iter", "converged", "collapsed")
        },
    }


def _validation_scores(weights, intercepts, validation):
    """AUROC (NaN where a class is missing) and mean log loss."""
    from scipy.special import log_softmax

    scores = np.asarray(logits(validation.X, weights, intercepts), np.float64)
    if scores.shape[1] == 1:  # logits of both classes, zero being the first one's
        scores = np.hstack([np.zeros_like(scores), scores])
    logs = log_softmax(scores, axis=1)
    classes = np.arange(scores.shape[1])
    own = logs[np.arange(len(logs)), validation.codes]
    return auroc(validation.codes, np.exp(logs), classes), -own.mean()


def chosen(path, select_by):
    """Place of the chosen value; see the notes of :class:`probes.LogisticProbe`.

    Examples
    --------
    >>> path = {"C": np.array([1.0, 2]), "auroc": np.ones(2), "log_loss": np.array([0.5, 0.2])}
    >>> chosen(path, "auroc")
    1
    """
    aurocs = np.nan_to_num(path["auroc"], nan=0.0)
    first = -aurocs if select_by == "auroc" else np.zeros(len(aurocs))
    return int(np.lexsort((path["C"], path["log_loss"], first))[0])
