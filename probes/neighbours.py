"""Probes without training: what an encoder's own distances tell.

Both look at directions only: rows are centred by the mean of the training rows and brought to
length 1, as in the evaluation code of UNI.
"""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.errors import OneClassError, ProbesError
from probes.logistic import fit_splits
from probes.protocols import positions

__all__ = ["COMPANIONS", "KNNProbe", "SimpleShot", "fit_probes", "model_name"]


class _Directions(ClassifierMixin, BaseEstimator):
    """What both probes share: the rows that they see."""

    def _start(self, X, y):
        """Check rows and labels; remember mean and classes; return directions and codes."""
        X, y = validate_data(self, X, y, dtype=[np.float32, np.float64])
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise OneClassError(
                f"all {len(y)} training labels are {self.classes_.tolist()[0]!r}, which is 1 "
                "class; a probe needs two or more"
            )
        self.converged_, self.collapsed_ = True, False
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        return self._directions(X), codes

    def _directions(self, X):
        """Rows less the training mean, of length 1; a row that is the mean stays 0."""
        centred = X - self.mean_
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        return centred / np.where(lengths > 0, lengths, 1)

    def _seen(self, X):
        check_is_fitted(self)
        return self._directions(validate_data(self, X, reset=False, dtype=[np.float32, np.float64]))

    def predict(self, X):
        """Return the most probable class, shape (n,)."""
        places = self.predict_proba(X).argmax(axis=1)
        return self.classes_[places]


class KNNProbe(_Directions):
    """Vote of the nearest training rows.

    Parameters
    ----------
    n_neighbors : int
        Number of votes; all rows vote where there are fewer, and then the same for every row.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted.
    converged_, collapsed_ : bool
        True and False: there is no solver.
    mean_ : ndarray of shape (dim,)
        Of the training rows.
    n_neighbors_ : int
        Number of votes that there were.

    Examples
    --------
    >>> X = np.array([[5.0, 1], [6, 1], [1, 5], [1, 6]])
    >>> KNNProbe(n_neighbors=2).fit(X, ["a", "a", "b", "b"]).predict_proba([[9, 0]])
    array([[1., 0.]])
    """

    def __init__(self, n_neighbors=20):
        self.n_neighbors = n_neighbors

    def fit(self, X, y):
        """Keep embeddings (n, dim) and labels (n,); returns itself."""
        if self.n_neighbors < 1:
            raise ProbesError(f"n_neighbors={self.n_neighbors} lets no one vote; give at least 1")
        directions, codes = self._start(X, y)
        self.n_neighbors_ = min(self.n_neighbors, len(codes))
        votes = KNeighborsClassifier(self.n_neighbors_, algorithm="brute")
        self._votes = votes.fit(directions, codes)
        return self

    def predict_proba(self, X):
        """Shares of votes, shape (n, n_classes), columns as in ``classes_``."""
        directions = self._seen(X)
        return self._votes.predict_proba(directions)


class SimpleShot(_Directions):
    """Nearest mean of a class (Wang et al. 2019, "SimpleShot").

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted.
    mean_ : ndarray of shape (dim,)
        Of the training rows.
    prototypes_ : ndarray of shape (n_classes, dim)
        Mean direction of each class.

    Examples
    --------
    >>> X = np.array([[5.0, 1], [6, 1], [1, 5], [1, 6]])
    >>> SimpleShot().fit(X, ["a", "a", "b", "b"]).predict([[9, 0], [0, 0.5]])
    array(['a', 'b'], dtype='<U1')
    """

    def fit(self, X, y):
        """Take means of embeddings (n, dim) by label (n,); returns itself."""
        directions, codes = self._start(X, y)
        classes = range(len(self.classes_))
        self.prototypes_ = np.stack([directions[codes == each].mean(axis=0) for each in classes])
        return self

    def predict_proba(self, X):
        """Softmax of squared distances to the prototypes, negated, shape (n, n_classes).

        The most probable class is the one of the nearest prototype, as published; that distances
        become probabilities in this way is Snell et al.'s (2017).
        """
        from scipy.special import softmax

        products = self._seen(X) @ self.prototypes_.T
        return softmax(2 * products - (self.prototypes_**2).sum(axis=1), axis=1)


COMPANIONS = {"knn": KNNProbe, "simpleshot": SimpleShot}


def fit_probes(probe, rows, annotations, splits, *, digest="", **parameters):
    """Fit one probe per split on its training part, of any kind.

    Parameters
    ----------
    probe : {'logistic', 'knn', 'simpleshot'}
    rows : Source
        Embeddings in memory, as :func:`probes.logistic.fit_splits` takes them.
    annotations : LabelTable
        The labels.
    splits : sequence of Split
        Their ``train`` IDs are fitted.
    digest : str
        What made the rows.
    **parameters
        As for :class:`probes.LogisticProbe`, :class:`KNNProbe` or :class:`SimpleShot`.

    Returns
    -------
    list of LogisticProbe, KNNProbe or SimpleShot
        In the order of the splits.
    """
    if probe == "logistic":
        return fit_splits(rows, annotations, splits, digest=digest, **parameters)
    if probe not in COMPANIONS:
        known = ", ".join(map(repr, ("logistic", *COMPANIONS)))
        raise ProbesError(f"probe={probe!r} is unknown; use one of {known}")
    return [
        COMPANIONS[probe](**parameters).fit(
            rows.values[positions(rows.ids, split.train)], annotations.labels_of(split.train)
        )
        for split in splits
    ]


def model_name(source, probe):
    """Name of a model in tables, with that of a probe which is not the logistic one.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> model_name(SimpleNamespace(model="uni"), "knn")
    'uni (knn)'
    """
    model = getattr(source, "model", "")
    return model if probe == "logistic" else f"{model} ({probe})".strip()
