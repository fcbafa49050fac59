"""Many penalised logistic regressions on shared rows, solved together by L-BFGS.

The parts, each in a module of its own: `fits`, what is minimised, in terms of scores; `rows`, all
that touches the features; `spectrum`, the model of the Hessians that their second moments give;
`descent`, the steps, and `linesearch`, their lengths. Here the fits are parted into batches that
are solved together, and their optima written as the user reads them.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from probes.solvers.descent import descend
from probes.solvers.fits import Fits
from probes.solvers.rows import BLOCK_BYTES, Rows, in_float64, scale_of
from probes.solvers.solution import Solution, of_all_classes
from probes.solvers.spectrum import Spectrum

__all__ = ["solve"]

# Fits with fewer than dim / 2 rows are solved on their own rows, in the space these span.
OWN_ROWS_PER_DIM = 0.5

# Where no more than this share of the rows is in use, these are copied: passes cost less, and the
# copy stays small beside the embeddings.
COPIED_SHARE = 0.2

# Arrays of scores are of n x columns: with dim / 72 columns at most at a time, the few that are
# held come to a fifth of float32 embeddings. Narrow embeddings are small, and have 20.
DIM_PER_COLUMN, LEAST_COLUMNS = 72, 20


def solve(X, codes, sample_weights, *, n_classes, objective, C, max_iter, tol, start=None):
    """Solve all fits; the arguments are those of `probes.solvers.solve`, already checked.

    Parameters
    ----------
    X : (n, dim) array or torch tensor of float
        Passes over float64 are in float64, all others in float32, corrected in float64. A tensor
        stays on its device.
    start : tuple of (fits, rows, dim) and (fits, rows) arrays, optional
        Weights and intercepts to step from, as `Solution` holds them: those of a neighbour in a C
        path, say. Fits whose weights are all 0 there start as they do without.

    Returns
    -------
    Solution
        In NumPy arrays, wherever X is.
    """
    C = np.broadcast_to(np.asarray(C, dtype=np.float64), sample_weights.shape[1])
    solved, solutions = [], []
    for group, present in _groups(codes, sample_weights, n_classes, X.shape[1]):
        shares = _shares(sample_weights, group)
        rows, space, kept = _met(X, shares > 0, present, n_classes)
        places = np.full(n_classes, -1)  # of each class among those present
        places[present] = np.arange(len(present))
        rows, spectrum = _measured(rows, shares[kept], len(group))
        for batch in _batches(group, C, X.shape[1], len(present)):
            fits = Fits.of(
                places[codes[kept]],
                sample_weights[kept][:, batch],
                n_classes=len(present),
                objective=objective,
                C=C[batch],
                of_v=n_classes == 2,
                unit=space.scale,
            )
            points = None if start is None else space.points(*(part[batch] for part in start))
            optimum = descend(rows, spectrum, fits, points, max_iter=max_iter, tol=tol)
            solved.append(batch)
            solutions.append(_solution(optimum, space, fits))
    return _joined(solutions, np.concatenate(solved))


def _measured(rows, shares, n_fits):
    """Give rows, in the precision that they need, and their spectrum; the moments are let go."""
    moments = rows.moments(shares)
    return rows.trusted(moments), Spectrum.of(moments, n_fits)


def _groups(codes, sample_weights, n_classes, dim):
    """Part the fits by the classes that have rows, and those with few rows by these.

    Parameters
    ----------
    codes : (n,) array of int
    sample_weights : (n, fits) array
    n_classes, dim : int

    Returns
    -------
    list of (fits in group,) array of int and (n_present,) array of int
    """
    groups = {}
    for fit, weights in enumerate(np.transpose(sample_weights)):
        used = weights > 0
        present = np.flatnonzero(np.bincount(codes[used], minlength=n_classes))
        own = np.packbits(used).tobytes() if used.sum() < OWN_ROWS_PER_DIM * dim else b""
        groups.setdefault((own, tuple(present)), []).append(fit)
    return [(np.asarray(group), np.asarray(present)) for (_, present), group in groups.items()]


def _batches(group, C, dim, n_classes):
    """Part the fits of a group into those whose scores are held at a time.

    Fits of like C take about as many steps, so they are put together.
    """
    n_columns = max(LEAST_COLUMNS, dim // DIM_PER_COLUMN)
    n_fits = max(1, n_columns // (1 if n_classes == 2 else n_classes))
    ordered = group[np.argsort(C[group], kind="stable")]
    return np.array_split(ordered, -(-len(group) // n_fits))


def _shares(sample_weights, group):
    """Mean weight of each row in a group of fits, each of which adds up to 1, (n,)."""
    shares = np.zeros(len(sample_weights))
    for fit in group:
        shares += sample_weights[:, fit] / sample_weights[:, fit].sum()
    return shares / len(group)


# ---- the space in which a group is solved


@dataclass(frozen=True, eq=False)
class _Space:
    """The coordinates in which weights are solved for, and those in which a user has them.

    Attributes
    ----------
    centre : (dim,) array
        Taken off the rows.
    scale : float
        What the rows are divided by then.
    present : (n_present,) array of int
        The classes that have rows.
    n_classes : int
        Number of all.
    span : (dim, n) array, or None
        Orthonormal columns that span the rows, where they are fewer than features.
    """

    centre: np.ndarray
    scale: float
    present: np.ndarray
    n_classes: int
    span: np.ndarray | None = None

    def points(self, weights, intercepts):
        """Points (fits, rows, coordinates + 1) of weights and intercepts as a user has them.

        What is common to several classes changes no probability, and is left out.
        """
        intercepts = intercepts + weights @ self.centre
        weights = (weights if self.span is None else weights @ self.span) * self.scale
        points = np.concatenate([weights, intercepts[..., None]], axis=2)
        if self.n_classes == 2:
            return points
        points = points[:, self.present]
        if len(self.present) == 2:
            return points[:, 1:] - points[:, :1]
        return points - points.mean(axis=1, keepdims=True)

    def solved(self, points):
        """Weights and intercepts of points."""
        weights = self._along_features(points[..., :-1]) / self.scale
        parts = weights, points[..., -1]
        weights, intercepts = of_all_classes(*parts, self.present, self.n_classes)
        return weights, intercepts - weights @ self.centre

    def largest(self, gradients):
        """Largest absolute entries of gradients in the centred features and the intercepts."""
        along = self._along_features(gradients[..., :-1]) * self.scale
        return np.maximum(np.abs(along).max(axis=(1, 2)), np.abs(gradients[..., -1]).max(axis=1))

    def _along_features(self, weights):
        return weights if self.span is None else weights @ self.span.T


def _met(X, used, *classes):
    """Return the rows to be met, their space, and which of all rows they are.

    Few rows are copied, in float64: those that fit in a block, and those that are fewer than
    features, which are met in the space they span. Else all are met, unless few are in use.
    """
    n_used, dim = np.count_nonzero(used), X.shape[1]
    if n_used < dim or 8 * n_used * dim <= BLOCK_BYTES:
        kept = np.flatnonzero(used)
        exact = in_float64(X[kept])
        centre = exact.mean(axis=0)
        exact = exact - centre
        scale = scale_of(np.abs(exact).max())
        exact /= scale
        span = None
        if n_used < dim:
            span, coordinates = np.linalg.qr(exact.T)
            exact = coordinates.T
        rows = Rows(exact, np.zeros(exact.shape[1]), 1.0, exact.dtype)
        return rows, _Space(centre, scale, *classes, span), kept
    kept = np.flatnonzero(used) if n_used <= COPIED_SHARE * len(X) else slice(None)
    rows = Rows.of(X[kept], used[kept])
    return rows, _Space(rows.centre, rows.scale, *classes), kept


# ---- the result


def _solution(optimum, space, fits):
    """Write optima in the coordinates and the scale in which the fits were given."""
    weights, intercepts = space.solved(optimum.points)
    norms = np.linalg.norm(optimum.points[..., :-1], axis=(1, 2)) / space.scale
    return Solution(
        weights=weights,
        intercepts=intercepts,
        objective=fits.scale * optimum.objective,
        gradient_norm=space.largest(optimum.gradients),
        n_iter=optimum.n_iter,
        converged=optimum.converged,
        weight_norm=norms / (np.sqrt(2) if fits.n_rows == 1 else 1),
        collapsed=optimum.collapsed,
    )


def _joined(solutions, fits):
    """Join solutions of batches of fits, and bring the fits back to their order."""
    order = np.argsort(fits)
    fields = [field.name for field in dataclasses.fields(Solution)]
    return Solution(
        **{
            name: np.concatenate([getattr(part, name) for part in solutions])[order]
            for name in fields
        }
    )
