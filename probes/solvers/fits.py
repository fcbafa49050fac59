"""The fits: what each minimises, in terms of scores and weights; nothing here touches features.

Axes of scores: n (samples), fits, then rows of a weight matrix (1 for two classes, else one per
class). Sums over samples are in float64.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

__all__ = ["Fits"]


@dataclass(frozen=True, eq=False)
class Fits:
    """What fits minimise: mean loss plus ``strength * norm`` or ``strength * norm**2 / 2``.

    Attributes
    ----------
    sample_weights : (n, fits) array
        Those of each fit over a power of 2, so that the largest is near 1.
    totals : (fits,) array
        Their sums.
    targets : (n, 1, rows) array of float
        1 where a sample is of the class of this row.
    strength : (fits,) array
        Factor of the penalty.
    squared : bool
        Whether the penalty is half the squared norm, or the norm.
    scale : (fits,) array
        The objective as the user wrote it, per this one.
    """

    sample_weights: np.ndarray
    totals: np.ndarray
    targets: np.ndarray
    strength: np.ndarray
    squared: bool
    scale: np.ndarray

    @classmethod
    def of(cls, codes, sample_weights, *, n_classes, objective, C, of_v=True, unit=1.0):
        """Bring both objectives to this form.

        Parameters
        ----------
        codes : (n,) array of int
        sample_weights : (n, fits) array
        n_classes : int
            Each of which has rows in each fit.
        objective, C
            As for `probes.solvers.solve`.
        of_v : bool
            Whether `l2` of two classes penalises v itself; else it is of W, as of more classes.
        unit : float
            What features were divided by.

        Notes
        -----
        With two classes there is one row v, class 1 less class 0, and W = (-v/2, v/2), of norm
        ``norm(v) / sqrt(2)``; `l2` takes the norm of v itself, as scikit-learn does.
        """
        weights, units = _near_one(sample_weights)
        totals = weights.sum(axis=0, dtype=np.float64)
        rows = [1] if n_classes == 2 else np.arange(n_classes)
        squared = objective == "l2"
        of_W = n_classes == 2 and not (squared and of_v)
        norm_of_W = (np.sqrt(0.5) if of_W else 1.0) / unit  # per norm of the rows that are solved
        scale = C * (totals * units) if squared else np.ones_like(C)
        strength = norm_of_W**2 / scale if squared else 0.5 / C * norm_of_W
        targets = (codes[:, None, None] == np.asarray(rows)).astype(np.float64)
        return cls(weights, totals, targets, strength, squared, scale)

    @property
    def n_rows(self):
        """Rows of a weight matrix: 1 for two classes, else one per class."""
        return self.targets.shape[2]

    def take(self, kept):
        """Keep the fits at these places."""
        return dataclasses.replace(
            self,
            sample_weights=self.sample_weights[:, kept],
            totals=self.totals[kept],
            strength=self.strength[kept],
            scale=self.scale[kept],
        )

    # ---- the penalty

    def pull(self, norms):
        """How strongly the penalty pulls, per unit of weight: its gradient is pull * weights."""
        return self.strength if self.squared else self.strength / norms

    def penalties(self, norms):
        """Value of the penalty at these norms."""
        return self.strength * (0.5 * norms**2 if self.squared else norms)

    # ---- the loss, of the samples in a slice

    def probabilities(self, scores, where):
        """Softmax of several rows; of one row the probability of the wrong class.

        Residuals of separable rows are far below the rounding error of 1, so they are never
        taken from 1.
        """
        if self.n_rows == 1:
            with np.errstate(over="ignore"):
                return 1 / (1 + np.exp((2 * self.targets[where] - 1) * scores))
        exponentials = np.exp(scores - scores.max(axis=2, keepdims=True))
        return exponentials / exponentials.sum(axis=2, keepdims=True)

    def residuals(self, probabilities, where):
        """Gradient of the summed loss in the scores, (n, fits, rows)."""
        sample_weights = self.sample_weights[where, :, None]
        if self.n_rows == 1:
            return sample_weights * ((1 - 2 * self.targets[where]) * probabilities)
        wrong = probabilities * (1 - self.targets[where])
        right = self.targets[where] * wrong.sum(axis=2, keepdims=True)
        return sample_weights * (wrong - right)

    def losses(self, scores, where):
        """Sum the cross-entropies, (fits,)."""
        targets = self.targets[where]
        if self.n_rows == 1:
            entropies = np.logaddexp(0, (1 - 2 * targets) * scores)[..., 0]
        else:
            own = (scores * targets).sum(axis=2, keepdims=True)
            entropies = np.logaddexp.reduce(scores - own, axis=2)
        return (self.sample_weights[where] * entropies).sum(axis=0)

    def curvatures(self, probabilities, where):
        """Sum the second derivatives of the loss in the scores, (fits,)."""
        variances = (probabilities * (1 - probabilities)).sum(axis=2) / max(1, self.n_rows - 1)
        return (self.sample_weights[where] * variances).sum(axis=0)

    def bends(self, probabilities, ways, where):
        """Sum the second derivatives of the loss along the scores' ways, (fits,)."""
        products = probabilities * ways
        variances = (products * ways).sum(axis=2) - products.sum(axis=2) ** 2
        return (self.sample_weights[where] * variances).sum(axis=0)

    def misfits(self, residuals):
        """Bound of the summed loss from below, as ``-log(p) >= 1 - p``, (fits,)."""
        return np.abs(residuals).sum(axis=(0, 2)) / min(2, self.n_rows)

    def best_intercepts(self):
        """Optimal intercepts of weights of zero: log odds of the classes, (fits, rows)."""
        sums = self.sample_weights.T @ self.targets[:, 0]
        if self.n_rows == 1:
            others = self.sample_weights.T @ (1 - self.targets[:, 0])
            return np.log(sums) - np.log(others)
        logs = np.log(sums)
        return logs - logs.mean(axis=1, keepdims=True)


def _near_one(sample_weights):
    """Weights over a power of 2 for each fit, and these; in float32 where nothing is lost by it."""
    units = 2.0 ** np.floor(np.log2(sample_weights.max(axis=0).astype(np.float64)))
    weights = sample_weights if (units == 1).all() else sample_weights / units
    single = weights.astype(np.float32)  # of 0 and 1 nothing is lost in half the space
    if np.array_equal(single, weights):
        return single, units
    return weights.astype(np.float64, copy=False), units
