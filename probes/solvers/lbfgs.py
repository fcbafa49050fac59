"""Many penalised logistic regressions on shared rows, solved together by L-BFGS.

All fits step at once, so that an iteration costs two matrix products with the rows for all of
them: with weights, for scores, and with residuals, for gradients. Beyond that the rows are touched
once, for their means and second moments (or their span, where they are few). Line searches work on
scores, which are linear in the step.

Axes, in this order: fits (one logistic regression each), rows of a weight matrix (1 for two
classes, else one per class), then n (samples) or dim (features). A "point" is the weights of
a fit with the intercept as one more feature, in the last place: (fits, rows, dim + 1).
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from probes.solvers.solution import Solution

__all__ = ["solve"]

# Pairs of steps that L-BFGS remembers. Nocedal and Wright, Numerical Optimization, section 7.2,
# find 3 to 20 useful.
N_REMEMBERED = 10

# The line search ends when the slope has fallen to this share: the strong Wolfe curvature
# condition. The loss is convex, so the slope alone tells that the step is a good one.
SLOPE_LEFT = 0.2

# A class without rows has its optimal intercept at minus infinity; this frequency stands in.
LEAST_FREQUENCY = 1e-12

# Fits with fewer than dim / 2 rows are solved on their own rows, in the space these span.
OWN_ROWS_PER_DIM = 0.5


def solve(X, codes, sample_weights, *, n_classes, objective, C, max_iter, tol):
    """Solve all fits; the arguments are those of `probes.solvers.solve`, already checked."""
    weights = np.ascontiguousarray(np.transpose(sample_weights), dtype=np.float64)
    C = np.broadcast_to(np.asarray(C, dtype=np.float64), len(weights))
    groups = _groups(weights > 0, X.shape[1])
    solutions = []
    for group in groups:
        used = weights[group].any(axis=0)
        rows, centre = _centred(X[used])
        fits = _fits(codes[used], weights[group][:, used], n_classes, objective, C[group])
        optimum = _optimum(rows, fits, max_iter=max_iter, tol=tol)
        solutions.append(_solution(rows, centre, fits, optimum))
    return _joined(solutions, np.concatenate(groups))


def _groups(used, dim):
    """Part the fits into those with few rows, by the rows they use, and all others.

    Parameters
    ----------
    used : (fits, n) array of bool
    dim : int

    Returns
    -------
    list of (fits in group,) arrays of int
    """
    few = used.sum(axis=1) < OWN_ROWS_PER_DIM * dim
    groups = {}
    for fit in np.flatnonzero(few):
        groups.setdefault(np.packbits(used[fit]).tobytes(), []).append(fit)
    groups["many"] = np.flatnonzero(~few)
    return [np.asarray(group) for group in groups.values() if len(group)]


def _centred(X):
    """Return the rows in float64 less their mean, and the mean; exact, as intercepts are free."""
    X = X.astype(np.float64)
    centre = X.mean(axis=0)
    X -= centre
    return X, centre


# ---- the fits: everything but the features


@dataclass(frozen=True, eq=False)
class _Fits:
    """What fits minimise: mean loss plus ``strength * norm`` or ``strength * norm**2 / 2``.

    Attributes
    ----------
    weights : (fits, n) array
        Sample weights, adding up to 1 in each fit.
    targets : (rows, n) array of float
        1 where a sample is of the class of this row.
    strength : (fits,) array
        Factor of the penalty.
    squared : bool
        Whether the penalty is half the squared norm, or the norm.
    scale : (fits,) array
        The objective as the user wrote it, per this one.
    """

    weights: np.ndarray
    targets: np.ndarray
    strength: np.ndarray
    squared: bool
    scale: np.ndarray

    @property
    def n_rows(self):
        """Rows of a weight matrix: 1 for two classes, else one per class."""
        return len(self.targets)

    def take(self, kept):
        """Keep the fits at these places."""
        return dataclasses.replace(
            self,
            weights=self.weights[kept],
            strength=self.strength[kept],
            scale=self.scale[kept],
        )

    def pull(self, norms):
        """How strongly the penalty pulls, per unit of weight: its gradient is pull * weights."""
        return self.strength if self.squared else self.strength / norms

    def penalties(self, norms):
        """Value of the penalty at these norms."""
        return self.strength * (0.5 * norms**2 if self.squared else norms)

    def probabilities(self, scores):
        """Softmax of several rows; of one row the probability of the wrong class, (fits, rows, n).

        Residuals of separable rows are far below the rounding error of 1, so they are never
        taken from 1.
        """
        if self.n_rows == 1:
            with np.errstate(over="ignore"):
                return 1 / (1 + np.exp(np.where(self.targets > 0, scores, -scores)))
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def residuals(self, probabilities):
        """Gradient of the loss in the scores, (fits, rows, n), from those `probabilities`."""
        if self.n_rows == 1:
            return self.weights[:, None] * (1 - 2 * self.targets) * probabilities
        wrong = probabilities * (1 - self.targets)
        right = self.targets * wrong.sum(axis=1, keepdims=True)
        return self.weights[:, None] * (wrong - right)

    def curvatures(self, probabilities):
        """Mean second derivative of the loss in the scores, (fits,)."""
        variances = (probabilities * (1 - probabilities)).sum(axis=1)
        return np.einsum("fn,fn->f", self.weights, variances) / max(1, self.n_rows - 1)

    def losses(self, scores):
        """Mean cross-entropy, (fits,)."""
        if self.n_rows == 1:
            entropies = np.logaddexp(0, np.where(self.targets > 0, -scores, scores))[:, 0]
        else:
            own = (scores * self.targets).sum(axis=1, keepdims=True)
            entropies = np.logaddexp.reduce(scores - own, axis=1)
        return np.einsum("fn,fn->f", self.weights, entropies)

    def best_intercepts(self):
        """Optimal intercepts of weights of zero: log odds of the classes, (fits, rows)."""
        frequencies = np.maximum(self.weights @ self.targets.T, LEAST_FREQUENCY)
        if self.n_rows == 1:
            return np.log(frequencies) - np.log1p(-frequencies)
        logs = np.log(frequencies)
        return logs - logs.mean(axis=1, keepdims=True)


def _fits(codes, sample_weights, n_classes, objective, C):
    """Bring both objectives to the form of `_Fits`.

    Notes
    -----
    With two classes there is one row v, class 1 less class 0, and W = (-v/2, v/2), of norm
    ``norm(v) / sqrt(2)``; `l2` takes the norm of v itself, as scikit-learn does.
    """
    rows = [1] if n_classes == 2 else np.arange(n_classes)
    totals = sample_weights.sum(axis=1)
    squared = objective == "l2"
    if squared:
        strength, scale = 1 / (C * totals), C * totals
    else:
        strength, scale = 0.5 / C / (np.sqrt(2) if n_classes == 2 else 1), np.ones_like(C)
    return _Fits(
        weights=sample_weights / totals[:, None],
        targets=(codes == np.reshape(rows, (-1, 1))).astype(np.float64),
        strength=strength,
        squared=squared,
        scale=scale,
    )


# ---- the rows: everything that touches the features


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows, met in the eigenbasis of their second moments.

    In this basis the Hessian of a fit is nearly diagonal; it is orthonormal, so norms are kept.

    Attributes
    ----------
    X : (n, dim) array
    basis : (dim, dim) array
        One eigenvector per column.
    moments : (dim,) array
        Mean square of the rows along each.
    """

    X: np.ndarray
    basis: np.ndarray
    moments: np.ndarray

    def scores(self, points):
        """Scores (fits, rows, n) of points (fits, rows, dim + 1)."""
        n_fits, n_rows, _ = points.shape
        weights = points[..., :-1].reshape(n_fits * n_rows, -1)
        scores = ((weights @ self.basis.T) @ self.X.T).reshape(n_fits, n_rows, -1)
        scores += points[..., -1:]
        return scores

    def gradients(self, residuals):
        """Gradients of the loss (fits, rows, dim + 1) of residuals (fits, rows, n)."""
        n_fits, n_rows, n = residuals.shape
        weights = (residuals.reshape(n_fits * n_rows, n) @ self.X) @ self.basis
        weights = weights.reshape(n_fits, n_rows, -1)
        return np.concatenate([weights, residuals.sum(axis=2, keepdims=True)], axis=2)


def _in_eigenbasis(X):
    moments, basis = np.linalg.eigh(X.T @ X / len(X))
    return _Rows(X=X, basis=basis, moments=np.maximum(moments, 0))


# ---- the optimum


@dataclass(frozen=True, eq=False)
class _Optimum:
    """Where the fits ended: points, iterations, and which converged or collapsed."""

    points: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray
    collapsed: np.ndarray


def _optimum(X, fits, *, max_iter, tol):
    """Minimise, in the space that the rows span where this is smaller than that of features."""
    if len(X) < X.shape[1]:
        span, coordinates = np.linalg.qr(X.T)
        optimum = _optimum(coordinates.T, fits, max_iter=max_iter, tol=tol)
        return dataclasses.replace(optimum, points=_turned(optimum.points, span))
    intercepts = fits.best_intercepts()
    collapsed = _collapse(X, fits, intercepts)
    points = np.zeros((*intercepts.shape, X.shape[1] + 1))
    points[..., -1] = intercepts
    n_iter, converged = np.zeros(len(points), dtype=int), collapsed.copy()
    left = np.flatnonzero(~collapsed)
    if left.size:
        rows = _in_eigenbasis(X)
        points[left], n_iter[left], converged[left] = _descend(
            rows, fits.take(left), points[left], max_iter=max_iter, tol=tol
        )
        points[left] = _turned(points[left], rows.basis)
    return _Optimum(points=points, n_iter=n_iter, converged=converged, collapsed=collapsed)


def _turned(points, basis):
    """Write points in the coordinates in which the basis vectors are written."""
    return np.concatenate([points[..., :-1] @ basis.T, points[..., -1:]], axis=2)


def _collapse(X, fits, intercepts):
    """Whether weights of zero are optimal: the penalty outweighs the loss there, (fits,).

    Notes
    -----
    A squared norm has no pull at zero, so it never collapses.
    """
    if fits.squared:
        return np.zeros(len(intercepts), dtype=bool)
    residuals = fits.residuals(fits.probabilities(intercepts[:, :, None]))
    gradients = residuals.reshape(-1, len(X)) @ X
    return np.linalg.norm(gradients.reshape(len(intercepts), -1), axis=1) <= fits.strength


@dataclass(frozen=True, eq=False)
class _State:
    """Where unfinished fits stand, and what L-BFGS remembers of their way.

    Attributes
    ----------
    fits : _Fits
    points, gradients : (fits, rows, dim + 1) arrays
        Gradients are those of the whole objective.
    scores, probabilities : (fits, rows, n) arrays
    history : tuple of (steps, changes, inverses)
        Steps and changes of gradients, (fits, rows, dim + 1), and 1 / (step . change), (fits,);
        the newest last.
    """

    fits: _Fits
    points: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    gradients: np.ndarray
    history: tuple = ()

    @property
    def norms(self):
        """Norms of the weights, (fits,)."""
        return _norms(self.points[..., :-1])

    def take(self, kept):
        """Keep the fits at these places."""
        return _State(
            fits=self.fits.take(kept),
            points=self.points[kept],
            scores=self.scores[kept],
            probabilities=self.probabilities[kept],
            gradients=self.gradients[kept],
            history=tuple(tuple(part[kept] for part in pair) for pair in self.history),
        )


def _dot(left, right):
    return np.einsum("frp,frp->f", left, right)


def _norms(points):
    return np.sqrt(_dot(points, points))


def _wide(values):
    """Give values per fit the axes of points."""
    return values[:, None, None]


def _descend(rows, fits, points, *, max_iter, tol):
    """Step all fits until each has settled; return their points, iterations and success."""
    points = points.copy()
    n_iter = np.zeros(len(points), dtype=int)
    converged = np.zeros(len(points), dtype=bool)
    left = np.arange(len(points))
    state = _start(rows, fits, points)
    for iteration in range(max_iter + 1):
        settled = _settled(rows, state, tol)
        points[left], n_iter[left], converged[left] = state.points, iteration, settled
        if settled.any():
            left, state = left[~settled], state.take(~settled)
        if not left.size or iteration == max_iter:
            break
        state = _step(rows, state)
    return points, n_iter, converged


def _start(rows, fits, points):
    """Step from weights of zero to the least value of the quadratic model there.

    The model keeps the penalty as it is. So the start is not zero, where the norm has no
    gradient.
    """
    probabilities = fits.probabilities(points[..., -1:])
    curvatures = fits.curvatures(probabilities)
    gradients = rows.gradients(fits.residuals(probabilities))[..., :-1]
    stiffness = curvatures[:, None] * rows.moments
    pulls = fits.strength if fits.squared else _model_pull(gradients, stiffness, fits.strength)
    points = points.copy()
    points[..., :-1] = -gradients / (stiffness + pulls[:, None])[:, None, :]
    return _at(rows, fits, points, rows.scores(points))


def _model_pull(gradients, stiffness, strength):
    """Find strength / norm(w) at the least value of gradient . w + w . stiffness w / 2 + penalty.

    There w = -gradient / (stiffness + pull), and ``pull * norm(w) = strength``; the left side
    rises with the pull, from 0 to the norm of the gradient, so halving an interval finds it.
    """
    squares = (gradients**2).sum(axis=1)
    top = stiffness.max(axis=1)
    low, high = np.log(top * 1e-16), np.log(top * 1e16)
    for _ in range(50):
        middle = (low + high) / 2
        pulls = np.exp(middle)
        shares = pulls[:, None] / (stiffness + pulls[:, None])
        above = np.sqrt((squares * shares**2).sum(axis=1)) > strength
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.exp(low)


def _at(rows, fits, points, scores, probabilities=None, history=()):
    """Take the state of fits at points with these scores."""
    if probabilities is None:
        probabilities = fits.probabilities(scores)
    gradients = rows.gradients(fits.residuals(probabilities))
    weights = points[..., :-1]
    gradients[..., :-1] += _wide(fits.pull(_norms(weights))) * weights
    return _State(
        fits=fits,
        points=points,
        scores=scores,
        probabilities=probabilities,
        gradients=gradients,
        history=history,
    )


def _step(rows, state):
    """Take one L-BFGS step in all fits."""
    directions = _directions(rows, state)
    score_directions = rows.scores(directions)
    lengths, probabilities = _line_search(state, directions, score_directions)
    steps = _wide(lengths) * directions
    moved = _at(
        rows,
        state.fits,
        state.points + steps,
        state.scores + _wide(lengths) * score_directions,
        probabilities,
    )
    changes = moved.gradients - state.gradients
    pair = (steps, changes, _inverses(_dot(steps, changes)))
    return dataclasses.replace(moved, history=(*state.history, pair)[-N_REMEMBERED:])


def _inverses(products):
    """1 / (step . change), or 0, which forgets the pair, where rounding leaves no curvature."""
    curved = products > 0
    return np.where(curved, 1 / np.where(curved, products, 1), 0)


def _directions(rows, state):
    """Directions of descent: the two-loop recursion of L-BFGS, with our preconditioner inside."""
    directions = -state.gradients
    shares = []
    for steps, changes, inverses in reversed(state.history):
        shares.append(inverses * _dot(steps, directions))
        directions -= _wide(shares[-1]) * changes
    directions = _preconditioned(rows, state, directions)
    for steps, changes, inverses in state.history:
        share = shares.pop() - inverses * _dot(changes, directions)
        directions += _wide(share) * steps
    return directions


def _preconditioned(rows, state, points):
    """Divide by a model of the Hessian: mean curvature x second moments, and the penalty's own.

    Notes
    -----
    A norm does not curve along the weights themselves; the Sherman-Morrison formula takes that
    direction out of its curvature. This saves no steps, but near a collapse, where the weights are
    small and the norm curves most, a fit would else be taken for settled too early.
    """
    fits, norms = state.fits, state.norms
    curvatures = fits.curvatures(state.probabilities)
    stiffness = (curvatures[:, None] * rows.moments)[:, None, :]
    divisors = stiffness + _wide(fits.pull(norms))
    divided = np.empty_like(points)
    divided[..., :-1] = points[..., :-1] / divisors
    divided[..., -1:] = points[..., -1:] / _wide(curvatures)
    if not fits.squared:
        along = state.points[..., :-1] / _wide(norms)
        left = _dot(along * stiffness / divisors, along)
        shares = fits.pull(norms) * _dot(along, divided[..., :-1]) / left
        divided[..., :-1] += _wide(shares) * along / divisors
    return divided


def _settled(rows, state, tol):
    """Whether at most a share ``tol**2`` of the objective is left to gain, (fits,).

    Notes
    -----
    The gain is estimated by the Newton decrement under the model of the Hessian, so that scaling
    a feature changes nothing. The objective is at least residuals and penalty, as
    ``-log(p) >= 1 - p``.
    """
    gains = _dot(state.gradients, _preconditioned(rows, state, state.gradients)) / 2
    residuals = np.abs(state.fits.residuals(state.probabilities)).sum(axis=(1, 2))
    losses = residuals / min(2, state.fits.n_rows)
    return gains <= tol**2 * (losses + state.fits.penalties(state.norms))


# ---- the line search


def _line_search(state, directions, score_directions):
    """Find where the slope along each direction is nearly gone.

    Newton steps on the slope, kept inside the interval that is known to hold its zero.

    Returns
    -------
    lengths : (fits,) array
    probabilities : (fits, rows, n) array
        Those at the ends of the steps.
    """
    penalty = _PenaltyAlong.of(state, directions)
    goals = SLOPE_LEFT * np.abs(_dot(state.gradients, directions))
    low, high = np.zeros(len(goals)), np.full(len(goals), np.inf)
    lengths = np.ones(len(goals))
    for _ in range(40):
        probabilities = state.fits.probabilities(state.scores + _wide(lengths) * score_directions)
        slopes, bends = _loss_along(state.fits, probabilities, score_directions)
        slopes, bends = slopes + penalty.slopes(lengths), bends + penalty.bends(lengths)
        open_ = np.abs(slopes) > goals
        if not open_.any():
            break
        low, high = np.where(slopes < 0, lengths, low), np.where(slopes < 0, high, lengths)
        lengths = np.where(open_, _next_lengths(lengths, slopes, bends, low, high), lengths)
    return lengths, probabilities


def _next_lengths(lengths, slopes, bends, low, high):
    """Take a Newton step, or halve or double where this leaves the interval."""
    newton = lengths - slopes / np.maximum(bends, np.finfo(float).tiny)
    bounded = np.where(np.isinf(high), 4 * lengths, (low + high) / 2)
    inside = (newton > low) & (newton < np.where(np.isinf(high), 10 * lengths, high))
    return np.where(inside, newton, bounded)


def _loss_along(fits, probabilities, score_directions):
    """First and second derivatives of the loss along the directions, (fits,) each."""
    slopes = _dot(fits.residuals(probabilities), score_directions)
    products = probabilities * score_directions
    variances = (products * score_directions).sum(axis=1) - products.sum(axis=1) ** 2
    return slopes, np.einsum("fn,fn->f", fits.weights, variances)


@dataclass(frozen=True)
class _PenaltyAlong:
    """The penalty along directions: it needs three products per fit, whatever the length."""

    fits: _Fits
    here: np.ndarray
    across: np.ndarray
    there: np.ndarray

    @classmethod
    def of(cls, state, directions):
        weights, ways = state.points[..., :-1], directions[..., :-1]
        return cls(state.fits, _dot(weights, weights), _dot(weights, ways), _dot(ways, ways))

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


# ---- the result


def _solution(X, centre, fits, optimum):
    """Compute what is reported from the points themselves, not from the way to them."""
    weights = optimum.points[..., :-1]
    n_fits, n_rows, dim = weights.shape
    scores = (weights.reshape(-1, dim) @ X.T).reshape(n_fits, n_rows, -1)
    scores += optimum.points[..., -1:]
    residuals = fits.residuals(fits.probabilities(scores))
    gradients = (residuals.reshape(n_fits * n_rows, -1) @ X).reshape(weights.shape)
    norms = _norms(weights)
    gradients += _wide(fits.pull(np.where(norms > 0, norms, 1))) * weights
    largest = np.maximum(
        np.abs(gradients).max(axis=(1, 2)), np.abs(residuals.sum(axis=2)).max(axis=1)
    )
    return Solution(
        weights=weights,
        intercepts=optimum.points[..., -1] - weights @ centre,
        objective=fits.scale * (fits.losses(scores) + fits.penalties(norms)),
        gradient_norm=np.where(optimum.collapsed, 0, largest),
        n_iter=optimum.n_iter,
        converged=optimum.converged,
        weight_norm=norms / (np.sqrt(2) if n_rows == 1 else 1),
        collapsed=optimum.collapsed,
    )


def _joined(solutions, fits):
    """Join solutions of groups of fits, and bring the fits back to their order."""
    order = np.argsort(fits)
    fields = [field.name for field in dataclasses.fields(Solution)]
    return Solution(
        **{
            name: np.concatenate([getattr(part, name) for part in solutions])[order]
            for name in fields
        }
    )
