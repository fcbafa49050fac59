"""Linear probes: logistic regressions on embeddings.

Two objectives, which are different models even at the same C:

- ``uni``, as published with UNI (Chen et al. 2024) and used by Ganz et al.: mean cross-entropy plus
  0.5 / C times the Frobenius norm of the weights, *not* squared;
- ``l2``, the ordinary ridge penalty in scikit-learn's convention: C times the summed cross-entropy
  plus half the squared norm.

C may be a grid, of which the validation part chooses one value; all values are fitted in one solve.
"""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes import probefile
from probes.errors import OneClassError, ProbesError, SplitError
from probes.evaluate import evaluate
from probes.fitting import fit_many
from probes.logits import logits, probabilities
from probes.protocols import positions
from probes.solvers import is_tensor
from probes.solvers.checks import check_features, check_rows, in_numpy
from probes.strengths import Validation, is_grid

__all__ = ["LogisticProbe", "fit_splits"]


class LogisticProbe(ClassifierMixin, BaseEstimator):
    """Logistic regression on embeddings, as a scikit-learn estimator.

    Parameters
    ----------
    objective : {'uni', 'l2'}
        What is minimised; see the module.
    C : float, 'uni' or sequence of float, optional
        Inverse strength of the penalty. 'uni' is dim x classes / 100, as published. By default
        'uni' for the objective of this name, and 1 for 'l2'. A sequence is a grid: the validation
        part chooses.
    max_iter : int
        Most iterations.
    standardize : bool
        Whether features are brought to mean 0 and standard deviation 1 of the training rows first.
        ``coef_`` is then still of the embeddings as they are.
    class_weight : None, 'balanced' or dict of label to weight
        What every row of a class counts; 'balanced' gives all classes the same sum.
    solver : {'lbfgs', 'sklearn', 'cuml'}
        See :func:`probes.solvers.solve`.
    select_by : {'auroc', 'log_loss'}
        What chooses of a grid: the highest validation AUROC, or the least log loss.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted.
    coef_ : ndarray of shape (1, dim) or (n_classes, dim)
        One row for two classes: the direction from the first class to the second.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Not penalised.
    C_ : float
        The strength that was used, or chosen.
    path_ : dict of ndarray of shape (n_values,)
        Only with a grid: ``C``, ``auroc`` and ``log_loss`` of the validation part, ``weight_norm``,
        ``n_iter``, ``converged`` and ``collapsed``, for every value.
    objective_ : float
        Value that was reached.
    n_iter_ : int
        Iterations.
    converged_, collapsed_ : bool
        Whether the solver is sure of the optimum, and whether that optimum is to predict the same
        for all (weights exactly zero).
    encoder_digest_ : str
        What made the embeddings that it was fitted on; '' where that is not known.

    Notes
    -----
    Of equal AUROC, and where AUROC is undefined because the validation part holds one class only,
    the least log loss chooses; of equal log loss, the smallest C. The probe of the chosen value is
    kept as it was fitted, on training rows alone, so that it is comparable with any other on these
    rows. DINOv2's evaluation then fits once more on training and validation rows together.

    Examples
    --------
    >>> X = np.array([[0.0, 1], [1, 0], [3, 1], [4, 0]])
    >>> probe = LogisticProbe(objective="l2").fit(X, ["a", "a", "b", "b"])
    >>> probe.predict([[5, 0.5]])
    array(['b'], dtype='<U1')
    """

    def __init__(
        self,
        objective="uni",
        C=None,
        max_iter=1000,
        *,
        standardize=False,
        class_weight=None,
        solver="lbfgs",
        select_by="auroc",
    ):
        self.objective = objective
        self.C = C
        self.max_iter = max_iter
        self.standardize = standardize
        self.class_weight = class_weight
        self.solver = solver
        self.select_by = select_by

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None):
        """Fit on embeddings and labels.

        Parameters
        ----------
        X : array-like or tensor of shape (n, dim)
            Embeddings. A tensor of torch stays on its device.
        y : array-like of shape (n,)
            Labels.
        sample_weight : array-like of shape (n,), optional
            Weights, at least 0.
        X_val, y_val : array-like of shape (n_val, dim) and (n_val,), optional
            What chooses of a grid of C; of no effect without one.

        Returns
        -------
        LogisticProbe
            Itself.

        Raises
        ------
        OneClassError
            If the labels hold one class only.
        ProbesError
            If there is a grid and no validation part.
        """
        X, y = _validated(self, X, y, reset=True)
        check_classification_targets(y)
        weights = _checked_weights(sample_weight, len(y))
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise OneClassError(
                f"all {len(y)} training labels are {classes.tolist()[0]!r}, which is 1 class; a "
                "probe needs two or more"
            )
        validation = None
        if is_grid(self.C):
            validation = _validation_part(self, X_val, y_val, classes)
        self.encoder_digest_ = ""
        return fit_many([self], X, codes, weights[:, None], classes, [validation])[0]

    def fit_source(self, source, annotations, split):
        """Fit on the training part of a split, and remember what encoder it is for.

        Parameters
        ----------
        source : Source
            Embeddings.
        annotations : LabelTable
            The labels.
        split : Split
            Its ``train`` IDs are read, and with a grid of C its ``val`` IDs.

        Returns
        -------
        LogisticProbe
            Itself.
        """
        part = {}
        if is_grid(self.C):
            _check_validates(split)
            part = {"X_val": source.read(split.val), "y_val": annotations.labels_of(split.val)}
        self.fit(source.read(split.train), annotations.labels_of(split.train), **part)
        self.encoder_digest_ = getattr(source, "digest", "")
        return self

    def check_source(self, source):
        """Refuse embeddings of another encoder than the probe was fitted on.

        Raises
        ------
        ProbesError
            If both digests are known and differ.
        """
        check_is_fitted(self)
        found = getattr(source, "digest", "")
        if self.encoder_digest_ and found and found != self.encoder_digest_:
            raise ProbesError(
                f"the probe was fitted on embeddings of {self.encoder_digest_}, those of "
                f"{getattr(source, 'model', '') or 'this source'} are of {found}; score the "
                "embeddings it was fitted on, or fit another probe on these"
            )

    def score_source(self, source, annotations, split):
        """Predict the test part of a split; returns a :class:`probes.Score`.

        Raises
        ------
        ProbesError
            If the embeddings are of another encoder than the probe.
        """
        self.check_source(source)
        return evaluate(self, source, annotations, split)

    def decision_function(self, X):
        """Logits: shape (n,) for two classes (of the second), else (n, n_classes)."""
        check_is_fitted(self)
        X = _validated(self, X, reset=False)
        scores = logits(X, self.coef_, self.intercept_)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X):
        """Class probabilities, shape (n, n_classes), columns as in ``classes_``."""
        scores = self.decision_function(X)
        return probabilities(scores[:, None] if scores.ndim == 1 else scores)

    def predict(self, X):
        """Return the most probable class, shape (n,)."""
        places = self.predict_proba(X).argmax(axis=1)
        return self.classes_[places]

    def save(self, path):
        """Write the fitted probe into one file, without pickle.

        Parameters
        ----------
        path : path-like
            Taken as it is; ``.npz`` is the usual ending.
        """
        check_is_fitted(self)
        probefile.save(path, self)

    @classmethod
    def load(cls, path):
        """Read a probe that :meth:`save` wrote; the file may come from anyone.

        Returns
        -------
        LogisticProbe
            Fitted; ``path_`` is not kept.

        Raises
        ------
        ProbesError
            If the file is no saved probe, or a damaged one.
        """
        return probefile.load(path, cls)


def fit_splits(rows, annotations, splits, *, digest=None, **parameters):
    """Fit one probe per split on its training part, all in one solve.

    Parameters
    ----------
    rows : Source
        Embeddings in memory: ``ids`` and ``values`` (n, dim), as
        :class:`probes.protocols.InMemory` holds them.
    annotations : LabelTable
        The labels.
    splits : sequence of Split
        Their ``train`` IDs are fitted; with a grid of C their ``val`` IDs choose.
    digest : str, optional
        What made the rows; by default their own ``digest``, where they have one.
    **parameters
        As for :class:`LogisticProbe`.

    Returns
    -------
    list of LogisticProbe
        In the order of the splits.

    Raises
    ------
    SplitError
        If there is a grid, and a split without validation part.

    Notes
    -----
    Where features are standardised each split has features of its own, so splits are solved one
    after another, each with all values of a grid.
    """
    probes = [LogisticProbe(**parameters) for _ in splits]
    if not probes:
        return []
    classes, codes = np.unique(annotations.labels_of(rows.ids), return_inverse=True)
    weights = np.zeros((len(rows.ids), len(splits)), dtype=bool)  # an eighth of the space of 1.0
    validation = [None] * len(splits)
    for fit, split in enumerate(splits):
        weights[positions(rows.ids, split.train), fit] = True
        if is_grid(probes[fit].C):
            _check_validates(split)
            places = positions(rows.ids, split.val)
            validation[fit] = Validation(rows.values[places], codes[places])
    for probe in probes:
        probe.encoder_digest_ = getattr(rows, "digest", "") if digest is None else digest
    return fit_many(probes, rows.values, codes, weights, classes, validation)


# ---- what is given


NO_LABELS = "no_validation"  # scikit-learn's word; None is a mistake to be told of


def _validated(probe, X, y=NO_LABELS, *, reset):
    """Check rows, and labels with them, as scikit-learn does; a tensor stays where it is."""
    with_labels = not (isinstance(y, str) and y == NO_LABELS)
    y = _labels(y) if with_labels else y
    if not is_tensor(X):
        return validate_data(probe, X, y, reset=reset, dtype=[np.float32, np.float64])
    X = X.detach()
    check_rows(X)
    if reset:
        probe.n_features_in_ = X.shape[1]
    elif X.shape[1] != probe.n_features_in_:
        raise ProbesError(
            f"X has shape {tuple(X.shape)}; the probe takes (n, {probe.n_features_in_})"
        )
    check_features(X)
    if with_labels and np.shape(y) != (len(X),):
        raise ProbesError(f"y has shape {np.shape(y)}; X has {len(X)} rows, give one label each")
    return (X, np.asarray(y)) if with_labels else X


def _labels(y):
    """Labels on the CPU, and texts in the type that scikit-learn knows."""
    y = in_numpy(y) if is_tensor(y) else y
    variable = isinstance(getattr(y, "dtype", None), np.dtypes.StringDType)
    return np.asarray(y.tolist()) if variable else y


def _checked_weights(sample_weight, n):
    if sample_weight is None:
        return np.ones(n)
    try:
        weights = in_numpy(sample_weight).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ProbesError(f"sample_weight holds no numbers ({error}); give weights") from error
    if weights.shape != (n,):
        raise ProbesError(f"sample_weight has shape {weights.shape}; give ({n},), one for each row")
    if not weights.any():
        raise ProbesError(f"all {n} sample weights are zero; give some row a weight above 0")
    return weights


def _validation_part(probe, X_val, y_val, classes):
    if X_val is None or y_val is None:
        raise ProbesError(
            f"C is a grid of {len(probe.C)} values and there is nothing to choose by; give X_val "
            "and y_val, or one C"
        )
    X_val, y_val = _validated(probe, X_val, y_val, reset=False)
    unknown = np.setdiff1d(y_val, classes)
    if unknown.size:
        raise ProbesError(
            f"y_val holds {unknown.tolist()[0]!r}, which no training label is; there are "
            f"{', '.join(map(repr, classes.tolist()))}"
        )
    return Validation(X_val, np.searchsorted(classes, y_val))


def _check_validates(split):
    if not len(split.val):
        raise SplitError(
            f"C is a grid, and the validation part of repeat {split.repeat}, size {split.size:g} "
            "is empty; draw splits with val above 0, or give one C"
        )
