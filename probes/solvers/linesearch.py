"""The line search: lengths of steps at which the slopes of all fits are nearly gone.

It works on scores, which are linear in the step, so it never touches the rows. Slopes are the
gradient at the start of the line plus what has changed since: scores may come from passes in
float32, and a sum of whole residuals would drown in their rounding near the optimum.
"""

from dataclasses import dataclass

import numpy as np

from probes.solvers.fits import Fits

__all__ = ["line_search", "slices"]

# The line search ends when the slope has fallen to this share: the strong Wolfe curvature
# condition. The loss is convex, so the slope alone tells that the step is a good one.
SLOPE_LEFT = 0.2

N_TRIALS = 40

# Scores in a block of samples: a few of such arrays of float64 stay in the cache of a core.
BLOCK_SCORES = 2**15


def slices(n, n_scores):
    """Part n samples of so many scores each into blocks that stay in the cache."""
    length = max(1, BLOCK_SCORES // n_scores)
    return [slice(first, first + length) for first in range(0, n, length)]


def line_search(fits, scores, residuals, ways, slopes, penalty):
    """Find where the slope along each direction is nearly gone.

    Newton steps on the slope, kept inside the interval that is known to hold its zero.

    Parameters
    ----------
    fits : Fits
    scores, residuals : (n, fits, rows) arrays of float64
        At the start of the lines.
    ways : (n, fits, rows) array
        Change of the scores per unit of length.
    slopes : (fits,) array
        Derivatives of the loss at the start of the lines.
    penalty : PenaltyAlong

    Returns
    -------
    (fits,) array
    """
    goals = SLOPE_LEFT * np.abs(slopes + penalty.slopes(np.zeros(len(slopes))))
    low, high = np.zeros(len(goals)), np.full(len(goals), np.inf)
    lengths = np.ones(len(goals))
    open_ = np.arange(len(goals))
    for _ in range(N_TRIALS):
        changes, bends = _loss_along(fits, scores, residuals, ways, lengths, open_)
        here = (slopes + penalty.slopes(lengths))[open_] + changes
        bends += penalty.bends(lengths)[open_]
        low[open_] = np.where(here < 0, lengths[open_], low[open_])
        high[open_] = np.where(here < 0, high[open_], lengths[open_])
        steep = np.abs(here) > goals[open_]
        open_, here, bends = open_[steep], here[steep], bends[steep]
        if not open_.size:
            break
        lengths[open_] = _next_lengths(lengths[open_], here, bends, low[open_], high[open_])
    return lengths


def _next_lengths(lengths, slopes, bends, low, high):
    """Take a Newton step, or halve or double where this leaves the interval."""
    with np.errstate(over="ignore"):
        newton = lengths - slopes / np.maximum(bends, np.finfo(float).tiny)
    bounded = np.where(np.isinf(high), 4 * lengths, (low + high) / 2)
    inside = (newton > low) & (newton < np.where(np.isinf(high), 10 * lengths, high))
    return np.where(inside, newton, bounded)


def _loss_along(fits, scores, residuals, ways, lengths, open_):
    """Sum the changes of slope of the loss, and its second derivatives, of the open fits."""
    every = len(open_) == len(lengths)
    chosen = slice(None) if every else open_
    fits = fits if every else fits.take(open_)
    lengths = lengths[chosen, None]
    changes, bends = np.zeros(len(open_)), np.zeros(len(open_))
    for where in slices(len(scores), len(open_) * fits.n_rows):
        along = ways[where][:, chosen]
        probabilities = fits.probabilities(scores[where][:, chosen] + lengths * along, where)
        changed = fits.residuals(probabilities, where) - residuals[where][:, chosen]
        changes += (changed * along).sum(axis=(0, 2))
        bends += fits.bends(probabilities, along, where)
    return changes / fits.totals, bends / fits.totals


@dataclass(frozen=True)
class PenaltyAlong:
    """The penalty along directions: it needs three products per fit, whatever the length."""

    fits: Fits
    here: np.ndarray
    across: np.ndarray
    there: np.ndarray

    def _norms(self, lengths):
        squares = self.here + 2 * lengths * self.across + lengths**2 * self.there
        return np.sqrt(np.maximum(squares, np.finfo(float).tiny))

    def slopes(self, lengths):
        """First derivatives."""
        return self.fits.pull(self._norms(lengths)) * (self.across + lengths * self.there)

    def bends(self, lengths):
        """Second derivatives."""
        norms = self._norms(lengths)
        along = 0 if self.fits.squared else (self.across + lengths * self.there) / norms
        return self.fits.pull(norms) * (self.there - along**2)
