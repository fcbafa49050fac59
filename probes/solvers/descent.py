"""L-BFGS on many fits at once, in the precision of the rows, corrected in float64.

All fits step at once, so that a step costs two passes over the rows for all of them: for the
scores of the directions, and for the gradients of what the step changed in the residuals. A pass
in float32 then errs by a share of the step, not of the whole. What these errors add up to is taken
back by a pass in float64, when a fit has come as far as they allow (or to its optimum, which that
pass confirms). This is iterative refinement; the second round starts so near that it ends there.

Axes: fits, rows of a weight matrix (1 for two classes, else one per class), then features. A
"point" is the weights of a fit with the intercept as one more feature, in the last place:
(fits, rows, dim + 1). Those of scores are n (samples), fits, rows.
"""

from dataclasses import dataclass

import numpy as np

from probes.solvers.linesearch import PenaltyAlong, line_search, slices

__all__ = ["Optimum", "descend"]

# Pairs of steps that L-BFGS remembers. Nocedal and Wright, Numerical Optimization, section 7.2,
# find 3 to 20 useful. Several classes that a weak penalty lets a probe separate hang on a few rows
# only, whose curvature takes many more to learn; so there are more where they are small.
LEAST_REMEMBERED, MOST_REMEMBERED = 10, 80
REMEMBERED_BYTES = 2**21

# A round of steps ends when what is left to gain has fallen to (REACH * eps)**2 of what it was:
# the errors of the passes, each eps of a step, are then still small beside what is left to step.
REACH = 2**9

# A round that leaves more than this of what there was to gain is stopped by rounding.
STALLED = 0.5

# Where residuals have fallen to this share, as they do on rows that can be separated, the whole is
# less than its changes were, and a gradient of the whole errs less than the sum of their gradients.
SPENT = 0.5

# Least curvature, as a share of the misfit: of rows that are wrong beyond doubt, as after a far
# start, no curvature is left to go by.
LEAST_CURVATURE = 1e-4


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where fits ended, computed in float64 from the points themselves.

    Attributes
    ----------
    points : (fits, rows, dim + 1) array
    objective : (fits,) array
        Mean loss and penalty.
    gradients : (fits, rows, dim + 1) array
        Of that objective; 0 of a collapsed fit, at whose kink 0 is a subgradient.
    n_iter : (fits,) array of int
    converged, collapsed : (fits,) arrays of bool
    """

    points: np.ndarray
    objective: np.ndarray
    gradients: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray
    collapsed: np.ndarray


def descend(rows, spectrum, fits, start, *, max_iter, tol):
    """Step all fits until each has settled.

    Parameters
    ----------
    rows : Rows
    spectrum : Spectrum
    fits : Fits
    start : (fits, rows, dim + 1) array, or None
        Points to step from; fits whose weights are 0 there start as without.
    max_iter, tol
        As for `probes.solvers.solve`.

    Returns
    -------
    Optimum
    """
    state = _State(rows, spectrum, fits)
    state.leave_zero(start)
    trusted = (REACH * np.finfo(rows.dtype).eps) ** 2
    goals = np.full(len(state.points), max(tol**2, trusted))
    before = np.full(len(state.points), np.inf)
    left = np.flatnonzero(~state.collapsed)
    while left.size:
        state.run(goals, max_iter)
        shares = state.correct(left)
        state.converged[left] = shares <= tol**2
        going = (shares > tol**2) & (state.n_iter[left] < max_iter)
        going &= shares <= STALLED * before[left]
        before[left] = shares
        goals[left] = np.maximum(tol**2, trusted * shares)
        left = left[going]
        state.keep(going)
    return state.optimum()


class _State:
    """Where fits stand, what L-BFGS remembers of their way, and the scores of those that step.

    Attributes
    ----------
    all_fits : Fits
    points, gradients : (fits, rows, dim + 1) arrays
        The gradients are those of the loss, without the penalty.
    losses, misfits, curvatures : (fits,) arrays
        Mean loss (where corrected, or at zero), its bound from below, mean second derivative.
    whole_misfits : (fits,) array
        The misfits when a gradient was last taken of whole residuals, not of their changes.
    steps, changes, inverses : (remembered, fits, rows, dim + 1) arrays, (remembered, fits) array
        Steps, changes of the gradient, and 1 / (step . change); that of iteration i of a fit is in
        place i modulo their number, whatever the fits beside it have done.
    active : (active,) array of int
        The fits that step; the attributes below are theirs.
    fits : Fits
    scores, residuals : (n, active, rows) arrays of float64
    """

    def __init__(self, rows, spectrum, fits):
        self.rows, self.spectrum, self.all_fits = rows, spectrum, fits
        n_fits = len(fits.totals)
        shape = (n_fits, fits.n_rows, rows.dim + 1)
        self.points, self.gradients = np.zeros(shape), np.zeros(shape)
        self.losses, self.misfits, self.curvatures = np.zeros((3, n_fits))
        self.whole_misfits = np.full(n_fits, np.inf)
        fitting = REMEMBERED_BYTES // (2 * self.points.size * rows.dtype.itemsize)
        self.n_remembered = int(np.clip(fitting, LEAST_REMEMBERED, MOST_REMEMBERED))
        self.steps = np.zeros((self.n_remembered, *shape), dtype=rows.dtype)
        self.changes = np.zeros_like(self.steps)
        self.inverses = np.zeros((self.n_remembered, n_fits))
        self.n_iter = np.zeros(n_fits, dtype=int)
        self.converged = np.zeros(n_fits, dtype=bool)
        self.collapsed = np.zeros(n_fits, dtype=bool)
        self._activate(np.arange(n_fits))

    def _activate(self, active):
        """Make room for the scores of these fits, and let go of those before."""
        self.scores = self.residuals = None
        self.active = active
        every = len(active) == len(self.points)
        self.fits = self.all_fits if every else self.all_fits.take(active)
        shape = (len(self.rows), len(active), self.fits.n_rows)
        self.scores, self.residuals = np.zeros(shape), np.zeros(shape)

    def keep(self, kept):
        """Let only these of the active fits step on."""
        if not kept.all():
            self.active, self.fits = self.active[kept], self.fits.take(kept)
            self.scores = self.scores[:, kept]
            self.residuals = self.residuals[:, kept]

    # ---- rounds

    def leave_zero(self, start):
        """Settle the fits that stay at weights of zero; take all others to where they start."""
        self.points[..., -1] = self.fits.best_intercepts()
        self._add(np.zeros(self.residuals.shape, self.rows.dtype), self.points[..., -1])
        self.collapsed[:] = self._collapse()
        self.converged[:] = self.collapsed
        for span in slices(len(self.scores), self.scores[0].size):
            self.losses += self.fits.losses(self.scores[span], span) / self.fits.totals
        self.keep(~self.collapsed)
        if self.active.size:
            steps = self._first_steps(start)
            self._move(steps, self._scores_of(steps))

    def run(self, goals, max_iter):
        """Step each active fit until the share that is left to gain has reached its goal."""
        while True:
            going = (self._shares() > goals[self.active]) & (self.n_iter[self.active] < max_iter)
            self.keep(going)
            if not self.active.size:
                return
            self._step()

    def correct(self, active):
        """Take up these fits, from their points in float64; return what is left to gain."""
        self._recompute(active)
        return self._shares()

    def _recompute(self, active):
        self._activate(active)
        totals = self.fits.totals
        weights = _columns(self.points[active])
        gradients, sums = np.zeros(weights.shape), np.zeros((3, len(active)))
        intercepts = np.zeros((len(active), self.fits.n_rows))
        for span, rows in self.rows.exact_blocks():
            scores = rows.scores(weights).reshape(self.scores[span].shape)
            self.scores[span] = scores + self.points[active, :, -1]
            probabilities = self.fits.probabilities(self.scores[span], span)
            residuals = self.fits.residuals(probabilities, span)
            self.residuals[span] = residuals
            gradients += rows.gradients(residuals.reshape(len(rows), -1))
            intercepts += residuals.sum(axis=0)
            sums[0] += self.fits.losses(self.scores[span], span)
            sums[1] += self.fits.misfits(residuals)
            sums[2] += self.fits.curvatures(probabilities, span)
        self.gradients[active] = _points(gradients, intercepts) / _wide(totals)
        self.losses[active], self.misfits[active], self.curvatures[active] = sums / totals
        self.whole_misfits[active] = self.misfits[active]

    def optimum(self):
        """Report on all fits."""
        norms = _norms(self.points[..., :-1])
        gradients = self.gradients.copy()
        pulls = self.all_fits.pull(np.where(norms > 0, norms, 1))
        gradients[..., :-1] += _wide(pulls) * self.points[..., :-1]
        gradients[self.collapsed] = 0
        return Optimum(
            points=self.points,
            objective=self.losses + self.all_fits.penalties(norms),
            gradients=gradients,
            n_iter=self.n_iter,
            converged=self.converged,
            collapsed=self.collapsed,
        )

    # ---- the start

    def _collapse(self):
        """Whether weights of zero are optimal: the penalty outweighs the loss there, (fits,).

        Notes
        -----
        A squared norm has no pull at zero, so it never collapses.
        """
        if self.fits.squared:
            return False
        norms = _norms(self.gradients[..., :-1])
        if (np.abs(norms / self.fits.strength - 1) < REACH * np.finfo(self.rows.dtype).eps).any():
            self._recompute(self.active)
            norms = _norms(self.gradients[..., :-1])
        return norms <= self.fits.strength

    def _first_steps(self, start):
        """Give the steps from weights of zero to the given start, or to the optimum of a model.

        The model is quadratic but for the penalty, which it keeps as it is. So the start is not
        zero, where the norm has no gradient.
        """
        gradients = self.gradients[self.active]
        stiffness = self.spectrum.stiffness(self._curvatures())
        pulls = self.fits.strength
        if not self.fits.squared:
            pulls = _model_pull(self.spectrum.parts(gradients[..., :-1]), stiffness, pulls)
        steps = np.zeros(gradients.shape)
        steps[..., :-1] = -self.spectrum.divide(gradients[..., :-1], stiffness + pulls[:, None])
        if start is not None:
            given = start[self.active]
            chosen = given[..., :-1].any(axis=(1, 2))
            steps[chosen] = given[chosen] - self.points[self.active][chosen]
        return steps

    # ---- steps

    def _step(self):
        """Take one L-BFGS step in all active fits."""
        active = self.active
        directions = self._directions()
        ways = self._scores_of(directions)
        weights, along = self.points[active, :, :-1], directions[..., :-1]
        penalty = PenaltyAlong(
            self.fits, _dot(weights, weights), _dot(weights, along), _dot(along, along)
        )
        slopes = _dot(self.gradients[active], directions)
        lengths = line_search(self.fits, self.scores, self.residuals, ways, slopes, penalty)
        steps = _wide(lengths) * directions
        ways *= lengths[:, None].astype(ways.dtype)
        before = self._objective_gradients()
        self._move(steps, ways)
        self._remember(steps, self._objective_gradients() - before)
        self.n_iter[active] += 1

    def _scores_of(self, points):
        """Scores of points, (n, active, rows), in the precision of the rows."""
        scores = self.rows.scores(_columns(points)).reshape(self.scores.shape)
        scores += points[..., -1].astype(scores.dtype)
        return scores

    def _move(self, steps, ways):
        """Move the active fits; `ways` are the scores of the steps."""
        self.points[self.active] += steps
        self._add(ways, np.zeros(steps.shape[:2]))

    def _add(self, ways, intercepts):
        """Add to the scores, and bring all that depends on them up to date; `ways` is spent.

        Gradients are added up from the changes of residuals, whose rounding is that of a step; but
        from the whole where that is small.
        """
        intercept_changes, sums = np.zeros(intercepts.shape), np.zeros((2, len(self.active)))
        for span in slices(len(ways), ways[0].size):
            self.scores[span] += ways[span]
            self.scores[span] += intercepts
            probabilities = self.fits.probabilities(self.scores[span], span)
            residuals = self.fits.residuals(probabilities, span)
            changes = residuals - self.residuals[span]
            self.residuals[span], ways[span] = residuals, changes
            intercept_changes += changes.sum(axis=0)
            sums[0] += self.fits.misfits(residuals)
            sums[1] += self.fits.curvatures(probabilities, span)
        active, totals = self.active, self.fits.totals
        self.misfits[active], self.curvatures[active] = sums / totals
        whole = self.misfits[active] < SPENT * self.whole_misfits[active]
        ways[:, whole] = self.residuals[:, whole]
        intercept_changes[whole] = self.residuals[:, whole].sum(axis=0)
        self.gradients[active[whole]] = 0
        self.whole_misfits[active[whole]] = self.misfits[active[whole]]
        gradients = self.rows.gradients(ways.reshape(len(ways), -1))
        self.gradients[active] += _points(gradients, intercept_changes) / _wide(totals)

    def _objective_gradients(self):
        """Gradients of the loss and the penalty, of the active fits."""
        gradients, weights = self.gradients[self.active], self.points[self.active, :, :-1]
        gradients[..., :-1] += _wide(self.fits.pull(_norms(weights))) * weights
        return gradients

    def _remember(self, steps, changes):
        """Keep a pair in the place of the oldest; where rounding leaves no curvature, forget it."""
        places = self.n_iter[self.active] % self.n_remembered
        products = _dot(steps, changes)
        curved = products > 0
        self.steps[places, self.active] = steps
        self.changes[places, self.active] = changes
        self.inverses[places, self.active] = np.where(curved, 1 / np.where(curved, products, 1), 0)

    def _directions(self):
        """Directions of descent: the two-loop recursion, with our preconditioner inside."""
        n_iter = self.n_iter[self.active]
        latest = range(1, 1 + min(self.n_remembered, n_iter.max()))
        places = [((n_iter - back) % self.n_remembered, self.active) for back in latest]
        directions = -self._objective_gradients()
        shares = []
        for place in places:
            shares.append(self.inverses[place] * _dot(self.steps[place], directions))
            directions -= _wide(shares[-1]) * self.changes[place]
        directions = self._preconditioned(directions)
        for place in reversed(places):
            share = shares.pop() - self.inverses[place] * _dot(self.changes[place], directions)
            directions += _wide(share) * self.steps[place]
        return directions

    def _preconditioned(self, points):
        """Divide by a model of the Hessian: that of the loss, and the penalty's own.

        Notes
        -----
        A norm does not curve along the weights themselves; the Sherman-Morrison formula takes that
        direction out of its curvature. This saves no steps, but near a collapse, where the weights
        are small and the norm curves most, a fit would else be taken for settled too early.
        """
        curvatures, weights = self._curvatures(), self.points[self.active, :, :-1]
        norms = _norms(weights)
        pulls = self.fits.pull(norms)
        stiffness = self.spectrum.stiffness(curvatures)
        divisors = stiffness + pulls[:, None]
        divided = np.empty_like(points)
        divided[..., :-1] = self.spectrum.divide(points[..., :-1], divisors)
        divided[..., -1:] = points[..., -1:] / _wide(curvatures)
        if not self.fits.squared:
            along = weights / _wide(norms)
            left = (self.spectrum.parts(along) * stiffness / divisors).sum(axis=1)
            shares = pulls * _dot(along, divided[..., :-1]) / left
            divided[..., :-1] += _wide(shares) * self.spectrum.divide(along, divisors)
        return divided

    def _curvatures(self):
        """Mean curvatures, above 0, of the active fits."""
        least = LEAST_CURVATURE * self.misfits[self.active] + np.finfo(float).tiny
        return np.maximum(self.curvatures[self.active], least)

    def _shares(self):
        """Estimate what is left to gain, as a share of the objective, (active,).

        Notes
        -----
        The gain is estimated by the Newton decrement under the model of the Hessian, so that
        scaling a feature changes nothing.
        """
        gradients = self._objective_gradients()
        gains = _dot(gradients, self._preconditioned(gradients)) / 2
        norms = _norms(self.points[self.active, :, :-1])
        return gains / (self.misfits[self.active] + self.fits.penalties(norms))


def _model_pull(squares, stiffness, strength):
    """Find strength / norm(w) at the least value of gradient . w + w . stiffness w / 2 + penalty.

    There w = -gradient / (stiffness + pull), and ``pull * norm(w) = strength``; the left side
    rises with the pull, from 0 to the norm of the gradient, so halving an interval finds it.
    """
    top = stiffness.max(axis=1)
    low, high = np.log(top * 1e-16), np.log(top * 1e16)
    for _ in range(50):
        middle = (low + high) / 2
        pulls = np.exp(middle)
        shares = pulls[:, None] / (stiffness + pulls[:, None])
        above = np.sqrt((squares * shares**2).sum(axis=1)) > strength
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.exp(low)


def _columns(points):
    """Weights of points, as the columns that are met with rows: (dim, fits * rows)."""
    return points[..., :-1].reshape(-1, points.shape[2] - 1).T


def _points(columns, intercepts):
    """Put gradients, in columns (dim, fits * rows) and intercepts (fits, rows), as points are.

    Those of several classes add up to 0 but for rounding, which is taken out: the loss does not
    curve along a common change of all classes, so nothing would take such errors back.
    """
    weights = columns.T.reshape(*intercepts.shape, -1)
    points = np.concatenate([weights, intercepts[..., None]], axis=2)
    return points - points.mean(axis=1, keepdims=True) if points.shape[1] > 1 else points


def _dot(left, right):
    return np.einsum("frp,frp->f", left, right)


def _norms(points):
    return np.sqrt(_dot(points, points))


def _wide(values):
    """Give values per fit the axes of points."""
    return values[:, None, None]
