"""The fits: what each minimises, in terms of scores and weights; nothing here touches features.

Axes of scores: n (samples), fits, then rows of a weight matrix (1 for two classes, else one per
class). Sums over samples are in float64.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

__all__ = ["Fits"]

# A class without rows has its optimal intercept at minus infinity; this frequency stands in.
LEAST_FREQUENCY = 1e-12


@dataclass(frozen=True, eq=False)
class Fits:
    """What fits minimise: mean loss plus ``strength * norm`` or ``strength * norm**2 / 2``.

    Attributes
    ----------
    sample_weights : (n, fits) array
        As the user gave them.
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
    def of(cls, codes, sample_weights, *, n_classes, objective, C):
        """Bring both objectives to this form.

        Notes
        -----
        With two classes there is one row v, class 1 less class 0, and W = (-v/2, v/2), of norm
        ``norm(v) / sqrt(2)``; `l2` takes the norm of v itself, as scikit-learn does.
        """
        single = sample_weights.astype(np.float32)  # of 0 and 1 nothing is lost in half the space
        if not np.array_equal(single, sample_weights):
            single = sample_weights.astype(np.float64, copy=False)
        sample_weights = single
        rows = [1] if n_classes == 2 else np.arange(n_classes)
        totals = sample_weights.sum(axis=0, dtype=np.float64)
        squared = objective == "l2"
        if squared:
            strength, scale = 1 / (C * totals), C * totals
        else:
            strength, scale = 0.5 / C / (np.sqrt(2) if n_classes == 2 else 1), np.ones_like(C)
        targets = (codes[:, None, None] == np.asarray(rows)).astype(np.float64)
        return cls(sample_weights, totals, targets, strength, squared, scale)

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
        frequencies = (self.sample_weights.T @ self.targets[:, 0]) / self.totals[:, None]
        frequencies = np.maximum(frequencies, LEAST_FREQUENCY)
        if self.n_rows == 1:
            return np.log(frequencies) - np.log1p(-frequencies)
        logs = np.log(frequencies)
        return logs - logs.mean(axis=1, keepdims=True)
