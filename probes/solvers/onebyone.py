"""Fits one after another with a library's ridge regression: what scikit-learn and cuML share.

A library is asked for one thing only, the ridge optimum of one fit at one strength. Everything that
is reported is computed here, in float64, from the weights that come back.

Axes: samples n, classes K, features dim. W is the softmax weight matrix (K, dim), for two classes
as well: its rows are then -v / 2 and v / 2 for the direction v of `Solution.weights`.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from probes.solvers.solution import Solution, of_all_classes, softmax_rows

__all__ = ["Ridge", "collapses", "solve", "uni_strength"]

# Error that is left in the logarithm of the strength at which ridge and norm penalty agree.
LOG_STRENGTH_TOL = 1e-9
FARTHEST = 500.0  # beyond, strengths overflow


@dataclass(frozen=True, eq=False)
class Ridge:
    """Optimum of one ridge regression, as a library gives it.

    Attributes
    ----------
    weights : (1, dim) or (K, dim) array of float64
        One row for two classes.
    intercepts : (1,) or (K,) array of float64
    n_iter : int
    converged : bool
        By the library's own rule.
    """

    weights: np.ndarray
    intercepts: np.ndarray
    n_iter: int
    converged: bool


def solve(X, codes, sample_weights, *, n_classes, objective, C, max_iter, tol, ridge, xp=np):
    """Solve all fits; further arguments are those of `probes.solvers.solve`, already checked.

    Parameters
    ----------
    X : (n, dim) array of ``xp``
    ridge : callable
        ``ridge(rows, codes, weights, strength, max_iter=, tol=, start=) -> Ridge`` minimises
        ``sum(weights * CE) + strength / 2 * norm(w)**2`` over rows of ``xp``, where ``codes`` run
        from 0 without a gap, ``weights`` add up to 1, ``w`` is the one row v for two classes, else
        W, and ``start`` is None or a Ridge to start from.
    xp : module
        NumPy, or CuPy.
    """
    Cs = np.broadcast_to(np.asarray(C, float), sample_weights.shape[1])
    rows = _Rows.of(X, xp)
    fits = [
        _one(
            rows,
            codes,
            sample_weights[:, fit],
            n_classes=n_classes,
            objective=objective,
            C=Cs[fit],
            max_iter=max_iter,
            tol=tol,
            ridge=ridge,
        )
        for fit in range(len(Cs))
    ]
    return Solution(**{name: np.stack([fit[name] for fit in fits]) for name in fits[0]})


@dataclass(frozen=True, eq=False)
class _Rows:
    """Features in float64 about their mean, over one scale for all.

    Intercepts are free, so centring changes no optimum; one scale changes strengths only, and
    spares the tolerance of a library from the units of the embeddings.

    Attributes
    ----------
    values : (n, dim) array of xp
    centre : (dim,) array of NumPy
    scale : float
    xp : module
    """

    values: object
    centre: np.ndarray
    scale: float
    xp: object

    @classmethod
    def of(cls, X, xp):
        values = xp.array(X, dtype=xp.float64)
        centre = values.mean(axis=0)
        values -= centre
        scale = float(xp.linalg.norm(values)) / values.size**0.5 or 1.0
        values /= scale
        return cls(values, _to_numpy(centre), scale, xp)

    def take(self, kept):
        """Keep the rows at these places."""
        if kept.all():
            return self
        return _Rows(self.values[self.xp.asarray(kept)], self.centre, self.scale, self.xp)

    def scores(self, W, b):
        """Logits, (n, K) of NumPy."""
        return _to_numpy(self.values @ self.xp.asarray(W.T)) + b

    def gradients(self, residuals):
        """Sum residuals times features, (K, dim) of NumPy."""
        return _to_numpy(self.xp.asarray(residuals.T) @ self.values)

    def lengths(self):
        """Norms of the rows, (n,) of NumPy."""
        return np.sqrt(_to_numpy(self.xp.einsum("nd,nd->n", self.values, self.values)))


def _to_numpy(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)  # of CuPy, or of NumPy


def _one(rows, codes, sample_weights, *, n_classes, objective, C, max_iter, tol, ridge):
    """Solve one fit; return the fields of a Solution for it."""
    used = sample_weights > 0
    rows, total = rows.take(used), sample_weights[used].sum()
    weights = sample_weights[used] / total
    present, codes = np.unique(codes[used], return_inverse=True)
    targets = (codes[:, None] == np.arange(len(present))).astype(float)
    norm_strength = 0.5 / C / rows.scale  # of the scaled weights, as is the ridge strength
    ridge_strength = (2 if n_classes == 2 else 1) / (C * total * rows.scale**2)
    collapsed = objective == "uni" and collapses(rows, targets, weights, norm_strength)
    if collapsed:
        b = np.log(weights @ targets)
        W, n_iter, sure = np.zeros((len(present), rows.values.shape[1])), 0, True
    else:
        fits = _RidgeFits(rows, codes, weights, ridge, max_iter=max_iter, tol=tol)
        if objective == "uni":
            strength = uni_strength(lambda a: np.linalg.norm(fits.at(a)[0]), norm_strength)
        else:
            strength = ridge_strength
        W, b = fits.at(strength)
        n_iter, sure = fits.n_iter, fits.converged
    strengths = (norm_strength, None) if objective == "uni" else (None, ridge_strength)
    value, gradient, pulls = _objective(rows, targets, weights, W, b, *strengths)
    # A library may end early without a word; what is left must be small beside what pulls.
    settled = collapsed or np.linalg.norm(gradient) <= np.sqrt(tol) * pulls
    return {
        **_in_users_terms(rows, W, b, present, n_classes),
        "objective": value * (C * total if objective == "l2" else 1.0),
        "gradient_norm": 0.0 if collapsed else _largest(gradient, rows.scale, n_classes),
        "n_iter": n_iter,
        "converged": bool(sure and settled),
        "weight_norm": np.linalg.norm(W) / rows.scale,
        "collapsed": bool(collapsed),
    }


def collapses(rows, targets, weights, norm_strength):
    """Whether weights of zero are optimal under a norm that is not squared.

    They are where the gradient of the loss there is no longer than the penalty's pull: for two
    classes ``sqrt(2) * pi0 * pi1 * norm(mu1 - mu0) <= 0.5 / C``.

    Parameters
    ----------
    rows : _Rows
    targets : (n, K) array
        1 in the column of a sample's class.
    weights : (n,) array
        Adding up to 1.
    norm_strength : float
        Factor of the norm.
    """
    residuals = weights[:, None] * (weights @ targets - targets)
    return np.linalg.norm(rows.gradients(residuals)) <= norm_strength


def uni_strength(norm_at, norm_strength):
    """Find the ridge strength at which the ridge optimum is that of the norm penalty.

    Parameters
    ----------
    norm_at : callable
        ``norm_at(a)`` is norm(W) at the least value of mean CE + a / 2 * norm(W)**2.
    norm_strength : float
        0.5 / C of mean CE + 0.5 / C * norm(W), which does not collapse.

    Notes
    -----
    Both gradients vanish together where ``a * norm(W(a)) = 0.5 / C``. With C_sk = 1 / (a * n) this
    is C_sk = 2 C norm(W) / n, and for two classes, where scikit-learn penalises
    norm(v)**2 = 2 norm(W)**2, C_sk = 4 C norm(W) / n. As ``a`` grows, norm(W) falls and
    ``a * norm(W)``, the length of the loss's gradient, rises: so there is one such strength, and
    the fixed-point step ``a <- 0.5 / C / norm(W)`` never passes it. Near a collapse these steps are
    very many; a bracket and Brent's method end after about ten.

    Examples
    --------
    >>> round(float(uni_strength(lambda a: 1 / (1 + a), 0.25)), 6)  # a / (1 + a) = 1 / 4
    0.333333
    """

    @functools.cache  # fits start from one another, so a second one may differ in its last digits
    def miss(log_strength):
        return log_strength + np.log(norm_at(np.exp(log_strength)) / norm_strength)

    here = np.log(norm_strength)  # norm(W) = 1
    missed = miss(here)
    if missed == 0:
        return np.exp(here)
    step = -2 * missed  # twice the fixed-point step
    there = here + step
    while np.sign(miss(there)) == np.sign(missed):
        here, step = there, 2 * step
        there = here + step
        if not abs(there) < FARTHEST:  # only where fits are given up; their gradients will tell
            return np.exp(here)
    return np.exp(brentq(miss, *sorted((here, there)), xtol=LOG_STRENGTH_TOL))


class _RidgeFits:
    """Ridge optima of one fit by strength; each starts from the one before."""

    def __init__(self, rows, codes, weights, ridge, **settings):
        self._rows, self._codes, self._weights = rows, codes, weights
        self._ridge, self._settings = ridge, settings
        self._last = self._last_strength = None
        self.n_iter = 0

    @property
    def converged(self):
        """Whether the library is sure of the last one."""
        return self._last.converged

    def at(self, strength):
        """W and intercepts, (K, dim) and (K,), at the least mean CE + strength / 2 * norm(W)**2."""
        if strength != self._last_strength:
            own = strength / 2 if self._codes.max() == 1 else strength  # norm(v)**2 = 2 norm(W)**2
            self._last = self._ridge(
                self._rows.values,
                self._codes,
                self._weights,
                own,
                start=self._last,
                **self._settings,
            )
            self._last_strength = strength
            self.n_iter += self._last.n_iter
        last = self._last
        return tuple(softmax_rows(part[None])[0] for part in (last.weights, last.intercepts))


def _objective(rows, targets, weights, W, b, norm_strength, ridge_strength):
    """Value, gradient and size of the pulls of mean CE with either penalty, at scaled weights.

    Returns
    -------
    value : float
    gradient : (K, dim + 1) array
        The intercepts' in the last column.
    pulls : float
        Sum of the lengths of what the samples and the penalty add to the gradient.
    """
    scores = rows.scores(W, b)
    entropies = logsumexp(scores, axis=1) - (scores * targets).sum(axis=1)
    wrong = softmax(scores, axis=1) * (1 - targets)
    residuals = weights[:, None] * (wrong - targets * wrong.sum(axis=1, keepdims=True))
    norm = np.linalg.norm(W)
    if ridge_strength is None:
        penalty, pull = norm_strength * norm, norm_strength / (norm or 1)
    else:
        penalty, pull = ridge_strength / 2 * norm**2, ridge_strength
    gradient = np.hstack([rows.gradients(residuals) + pull * W, residuals.sum(axis=0)[:, None]])
    sizes = np.linalg.norm(residuals, axis=1) * np.hypot(rows.lengths(), 1)
    return weights @ entropies + penalty, gradient, sizes.sum() + pull * norm


def _largest(gradient, scale, n_classes):
    """Largest entry of the gradient in the weights of `Solution`, whose features are not scaled."""
    entries = np.abs(gradient)
    entries[:, :-1] *= scale
    return entries[-1:].max() if n_classes == 2 else entries.max()


def _in_users_terms(rows, W, b, present, n_classes):
    """Weights and intercepts of a Solution: of features as they came, with all classes."""
    weights, intercepts = of_all_classes((W / rows.scale)[None], b[None], present, n_classes)
    return {"weights": weights[0], "intercepts": intercepts[0] - weights[0] @ rows.centre}
