"""Linear probes: logistic regressions on embeddings.

Two objectives, which are different models even at the same C:

- ``uni``, as published with UNI (Chen et al. 2024) and used by Ganz et al.: mean cross-entropy plus
  0.5 / C times the Frobenius norm of the weights, *not* squared;
- ``l2``, the ordinary ridge penalty in scikit-learn's convention: C times the summed cross-entropy
  plus half the squared norm.

C may be a grid, of which the validation part chooses one value; all values are fitted in one solve.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes import probefile
from probes.errors import CollapsedProbeWarning, OneClassError, ProbesError, SplitError
from probes.evaluate import evaluate
from probes.metrics import auroc
from probes.protocols import positions
from probes.solvers import is_tensor, solve

__all__ = ["SELECT_BY", "LogisticProbe", "default_C", "fit_splits"]

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
        if _is_grid(self.C):
            validation = _validation_part(self, X_val, y_val, classes)
        self.encoder_digest_ = ""
        return _fit_many([self], X, codes, weights[:, None], classes, [validation])[0]

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
        if _is_grid(self.C):
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
        logits = _logits(X, self.coef_, self.intercept_)
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X):
        """Class probabilities, shape (n, n_classes), columns as in ``classes_``."""
        from scipy.special import softmax

        logits = np.asarray(self.decision_function(X), np.float64)
        return softmax(logits, axis=1) if logits.ndim == 2 else _two_columns(logits)

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
        classes = self.classes_
        if classes.dtype.hasobject:
            classes = np.array(classes.tolist())
        parameters = self.get_params()
        if isinstance(self.class_weight, dict):  # JSON makes texts of all keys
            parameters["class_weight"] = [list(pair) for pair in self.class_weight.items()]
        metadata = {"parameters": parameters, "encoder_digest": self.encoder_digest_}
        metadata |= {name: getattr(self, f"{name}_") for name in FITTED}
        arrays = {"coef": self.coef_, "intercept": self.intercept_, "classes": classes}
        probefile.write(path, arrays, _plain(metadata))

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
        arrays, metadata = probefile.read(path)
        probe = _from_metadata(cls, path, metadata)
        probe.classes_, probe.coef_ = arrays["classes"], arrays["coef"]
        probe.intercept_ = arrays["intercept"]
        probe.n_features_in_ = probe.coef_.shape[1]
        return probe


# What a saved probe keeps beside its arrays, with the types it may have.
FITTED = {"C": float, "objective": float, "n_iter": int, "converged": bool, "collapsed": bool}


def _plain(value):
    """Turn values into lists, texts and numbers of Python, as JSON takes them."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _from_metadata(cls, path, metadata):
    """Make a probe of the parameters in metadata, and give it what was fitted beside arrays."""
    parameters, digest = metadata.get("parameters"), metadata.get("encoder_digest")
    known = cls().get_params()
    fits = (
        isinstance(parameters, dict)
        and set(parameters) <= set(known)
        and isinstance(digest, str)
        and all(type(metadata.get(name)) is kind for name, kind in FITTED.items())
    )
    if not fits:
        raise ProbesError(f"{path} is a damaged probe: its metadata are not those of a probe")
    if isinstance(parameters.get("class_weight"), list):
        parameters["class_weight"] = _pairs(path, parameters["class_weight"])
    probe = cls(**parameters)
    probe.encoder_digest_ = digest
    for name in FITTED:
        setattr(probe, f"{name}_", metadata[name])
    return probe


def _pairs(path, listed):
    try:
        return dict(listed)
    except (TypeError, ValueError) as error:
        raise ProbesError(f"{path} is a damaged probe: class_weight is {listed!r:.80}") from error


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
    classes, codes = np.unique(annotations.labels_of(rows.ids), return_inverse=True)
    weights = np.zeros((len(rows.ids), len(splits)))
    validation = [None] * len(splits)
    for fit, split in enumerate(splits):
        weights[positions(rows.ids, split.train), fit] = 1
        if _is_grid(probes[fit].C):
            _check_validates(split)
            places = positions(rows.ids, split.val)
            validation[fit] = _Validation(rows.values[places], codes[places])
    for probe in probes:
        probe.encoder_digest_ = getattr(rows, "digest", "") if digest is None else digest
    return _fit_many(probes, rows.values, codes, weights, classes, validation)


# ---- what is given


NO_LABELS = "no_validation"  # scikit-learn's word; None is a mistake to be told of


def _validated(probe, X, y=NO_LABELS, *, reset):
    """Check rows, and labels with them, as scikit-learn does; a tensor stays as it is."""
    if not is_tensor(X):
        return validate_data(probe, X, y, reset=reset, dtype=[np.float32, np.float64])
    if reset:
        probe.n_features_in_ = X.shape[-1]
    elif X.ndim != 2 or X.shape[1] != probe.n_features_in_:
        raise ProbesError(
            f"X has shape {tuple(X.shape)}; the probe takes (n, {probe.n_features_in_})"
        )
    return X if isinstance(y, str) and y == NO_LABELS else (X, np.asarray(y))


def _checked_weights(sample_weight, n):
    if sample_weight is None:
        return np.ones(n)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,):
        raise ProbesError(f"sample_weight has shape {weights.shape}; give ({n},), one for each row")
    if not weights.any():
        raise ProbesError(f"all {n} sample weights are zero; give some row a weight above 0")
    return weights


def _is_grid(C):
    return C is not None and np.ndim(C) > 0


def _strengths(probe, dim, n_classes):
    """Values of C to fit, (n_values,)."""
    standard = default_C(probe.objective, dim, n_classes)
    if probe.C is None:
        return np.array([standard])
    if isinstance(probe.C, str):
        if probe.C != "uni":
            raise ProbesError(f"C={probe.C!r} is unknown; give a number, a grid of them, or 'uni'")
        return np.array([default_C("uni", dim, n_classes)])
    values = np.atleast_1d(np.asarray(probe.C, dtype=np.float64))
    if values.ndim > 1 or not values.size:
        raise ProbesError(f"C has shape {values.shape}; give a number, or a grid of shape (n,)")
    return values


@dataclass(frozen=True, eq=False)
class _Validation:
    """Rows that choose of a grid, and the codes of their classes."""

    X: np.ndarray
    codes: np.ndarray


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
    return _Validation(X_val, np.searchsorted(classes, y_val))


def _check_validates(split):
    if not len(split.val):
        raise SplitError(
            f"C is a grid, and the validation part of repeat {split.repeat}, size {split.size:g} "
            "is empty; draw splits with val above 0, or give one C"
        )


# ---- the fits


def _fit_many(probes, X, codes, weights, classes, validation):
    """Solve for probes of equal parameters, one per column of ``weights``."""
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
    used = weights > 0
    X, codes, weights = X[used], codes[used], weights[used]
    if is_tensor(X):
        raise ProbesError("standardize=True takes NumPy arrays; scale a tensor before it is given")
    means = np.average(X.astype(np.float64), axis=0, weights=weights)
    deviations = np.sqrt(np.average((X - means) ** 2, axis=0, weights=weights))
    deviations[deviations == 0] = 1
    if validation is not None:
        validation = _Validation((validation.X - means) / deviations, validation.codes)
    scaled = (X - means) / deviations
    _fit_together([probe], scaled, codes, weights[:, None], classes, [validation])
    probe.coef_ = probe.coef_ / deviations
    probe.intercept_ = probe.intercept_ - probe.coef_ @ means


def _fit_together(probes, X, codes, weights, classes, validation):
    """Solve all probes and all values of a grid at once, and take of each probe the chosen one."""
    first = probes[0]
    Cs = _strengths(first, X.shape[1], len(classes))
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
        chosen = 0
        if _is_grid(probe.C):
            probe.path_ = _path(solution, fits, Cs, validation[place])
            chosen = _chosen(probe.path_, probe.select_by)
        probe.classes_, probe.n_features_in_, probe.C_ = classes, X.shape[1], float(Cs[chosen])
        _take(probe, solution, fits[chosen])


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
        factors = [float(class_weight.get(label, 1)) for label in classes.tolist()]
        return np.array(factors)[codes][:, None]
    if class_weight != "balanced":
        raise ProbesError(
            f"class_weight={class_weight!r} is unknown; give None, 'balanced' or a dict"
        )
    sums = np.stack([weights[codes == code].sum(axis=0) for code in range(len(classes))])
    even = weights.sum(axis=0) / (sums > 0).sum(axis=0)
    return (even / np.where(sums > 0, sums, 1))[codes]


def _logits(X, weights, intercepts):
    """Logits of rows, (n, K) of NumPy, computed where and in what type the rows are."""
    if is_tensor(X):
        products = X @ X.new_tensor(weights.T)
        return products.cpu().numpy() + intercepts
    return X @ weights.T.astype(X.dtype) + intercepts


def _two_columns(logits):
    """Probabilities of both classes by the logit of the second, (n, 2)."""
    from scipy.special import expit

    return np.stack([expit(-logits), expit(logits)], axis=1)


# ---- the choice of C


def _path(solution, fits, Cs, validation):
    """Tell how every value of a grid did on the validation part."""
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

    logits = np.asarray(_logits(validation.X, weights, intercepts), np.float64)
    if logits.shape[1] == 1:  # logits of both classes, zero being the first one's
        logits = np.hstack([np.zeros_like(logits), logits])
    logs = log_softmax(logits, axis=1)
    classes = np.arange(logits.shape[1])
    own = logs[np.arange(len(logs)), validation.codes]
    return auroc(validation.codes, np.exp(logs), classes), -own.mean()


def _chosen(path, select_by):
    """Place of the chosen value; see the notes of :class:`LogisticProbe`."""
    aurocs = np.nan_to_num(path["auroc"], nan=0.0)
    first = -aurocs if select_by == "auroc" else np.zeros(len(aurocs))
    return int(np.lexsort((path["C"], path["log_loss"], first))[0])


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
