"""The spectrum of the rows: the model of every fit's Hessian, and its inverse.

In the eigenbasis of the rows' second moments the Hessian of each fit is nearly diagonal: its mean
curvature times the moments, plus the pull of its penalty. One basis serves all fits.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Spectrum"]

# Eigenvectors that are found of wide rows, where all would cost more than the fits themselves.
# The rest of the space, where moments are small and penalties count for more, has one mean moment.
N_LEADING = 384

# From so many fits on, all eigenvectors pay: a path of 45 C takes a third of the steps with them.
MANY_FITS = 64

# Products with the second moments, each of which multiplies what is left of the space outside the
# leading one by the ratio of moments.
N_PRODUCTS = 2


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Leading eigenvectors of second moments.

    Attributes
    ----------
    basis : (dim, n_leading) array
        One eigenvector per column.
    moments : (n_leading,) array of float64
        Mean square of the rows along each.
    rest : float
        That along all other directions.
    """

    basis: np.ndarray
    moments: np.ndarray
    rest: float

    @classmethod
    def of(cls, moments, n_fits):
        """Decompose second moments (dim, dim), in full if narrow or for many fits; overwrites them.

        Notes
        -----
        Block subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) with a
        Rayleigh-Ritz step: all its work is in matrix products.
        """
        from scipy import linalg

        dim = len(moments)
        if dim <= N_LEADING or n_fits >= MANY_FITS:
            # in place, where they lie as Fortran has them; numpy holds four times as much meanwhile
            values, basis = linalg.eigh(moments.T, overwrite_a=True, check_finite=False)
            values = np.maximum(values.astype(np.float64), 0)
            return cls(basis, values, values[-1])
        block = np.random.default_rng(0).standard_normal((dim, N_LEADING)).astype(moments.dtype)
        for _ in range(N_PRODUCTS):
            block = np.linalg.qr(moments @ block)[0]
        values, turn = np.linalg.eigh((block.T @ (moments @ block)).astype(np.float64))
        rest = (np.trace(moments, dtype=np.float64) - values.sum()) / (dim - N_LEADING)
        return cls(block @ turn.astype(block.dtype), np.maximum(values, 0), max(rest, 0))

    def parts(self, weights):
        """Squares (fits, n_leading + 1) of weights (fits, rows, dim) along each moment."""
        squares = (self._along(weights) ** 2).sum(axis=1)
        outside = np.maximum((weights**2).sum(axis=(1, 2)) - squares.sum(axis=1), 0)
        return np.column_stack([squares, outside])

    def stiffness(self, curvatures):
        """Second derivatives of the loss (fits, n_leading + 1), from mean curvatures (fits,)."""
        return curvatures[:, None] * np.append(self.moments, self.rest)

    def divide(self, weights, divisors):
        """Divide weights (fits, rows, dim) by (fits, n_leading + 1), in the basis."""
        outside = divisors[:, -1:]
        factors = 1 / divisors[:, :-1] - 1 / outside
        turned = (self._along(weights) * factors[:, None]).astype(self.basis.dtype)
        return turned @ self.basis.T + weights / outside[:, None]

    def _along(self, weights):
        return weights.astype(self.basis.dtype, copy=False) @ self.basis
