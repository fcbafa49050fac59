"""Figures of merit of predicted probabilities."""

import numpy as np

__all__ = ["auroc"]


def auroc(labels, probabilities, classes):
    """Area under the ROC curve; for several classes the one-against-one macro average.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        True classes.
    probabilities : ndarray of shape (n, n_classes)
        Predicted probabilities; rows sum to 1.
    classes : ndarray of shape (n_classes,)
        Sorted class names, one for each column. With two classes the second is the positive one.

    Returns
    -------
    float
        In 0..1, or NaN where the labels do not hold every class, since it is undefined then.

    Notes
    -----
    Several classes: Hand and Till (2001), as scikit-learn computes it.

    Examples
    --------
    >>> auroc(np.array(["a", "b", "b"]), np.array([[.9, .1], [.4, .6], [.95, .05]]),
    ...       np.array(["a", "b"]))
    0.5
    """
    from sklearn.metrics import roc_auc_score

    if not np.array_equal(np.unique(labels), classes):
        return float("nan")
    if len(classes) == 2:
        return float(roc_auc_score(labels == classes[1], probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovo", labels=classes))
