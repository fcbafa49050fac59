"""What a linear probe says of rows: logits, and the probabilities that they stand for."""

import numpy as np

from probes.solvers.rows import Rows, precision

__all__ = ["logits", "probabilities"]


def logits(X, weights, intercepts):
    """Logits of rows, computed where the rows are: float64 in float64, all others in float32.

    Parameters
    ----------
    X : (n, dim) array or tensor of float
    weights, intercepts : (rows, dim) and (rows,) arrays
        One row for two classes, else one per class.

    Returns
    -------
    (n, rows) array
        Of NumPy, wherever X is.

    Examples
    --------
    >>> logits(np.eye(2), np.array([[3.0, 5.0]]), np.array([1.0])).tolist()
    [[4.0], [6.0]]
    """
    rows = Rows(X, np.zeros(X.shape[1]), 1.0, precision(X))
    return rows.scores(weights.T) + intercepts


def probabilities(logits):
    """Probabilities of all classes, (n, n_classes) of float64.

    Parameters
    ----------
    logits : (n, rows) array
        A single row is the logit of the second of two classes.

    Examples
    --------
    >>> probabilities(np.array([[0.0], [-800.0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    from scipy.special import expit, softmax

    logits = np.asarray(logits, np.float64)
    if logits.shape[1] == 1:
        return np.hstack([expit(-logits), expit(logits)])
    return softmax(logits, axis=1)
