"""The rows of embeddings: everything that touches them, in three operations.

NumPy arrays and torch tensors, on any device, are met through the same expressions; the rows stay
where they are, and what is given and returned are NumPy arrays. This module never imports torch,
and never holds a second copy of all rows: what needs another precision goes block by block.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["BLOCK_BYTES", "Rows", "in_float64"]

# Bytes of a block of rows that is converted or scaled: small beside embeddings, and long enough
# for matrix products at full speed.
BLOCK_BYTES = 2**22


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows less a centre, met in one precision whatever that of the operands.

    Attributes
    ----------
    X : (n, dim) array or tensor of float
    centre : (dim,) array of float64
        Taken off each row, without a copy of the rows. Exact, as intercepts are free.
    dtype : numpy.dtype
        Precision of the products; sums over blocks of rows are in float64.
    """

    X: object
    centre: np.ndarray
    dtype: np.dtype

    @classmethod
    def of(cls, X, used):
        """Centre rows on the mean of those in use; float64 is met in float64, else float32.

        Parameters
        ----------
        X : (n, dim) array or tensor of float
        used : (n,) array of bool
        """
        dtype = np.dtype(np.float64 if "float64" in str(X.dtype) else np.float32)
        rows = cls(X, np.zeros(X.shape[1]), dtype)
        total = np.zeros(X.shape[1])
        for where in rows._spans(np.dtype(np.float64)):
            total += in_float64(X[where])[used[where]].sum(axis=0)
        return cls(X, total / used.sum(), dtype)

    def __len__(self):
        return len(self.X)

    @property
    def dim(self):
        """Number of features."""
        return self.X.shape[1]

    def scores(self, W):
        """``X @ W``: scores (n, columns), in `dtype`, of weights (dim, columns)."""
        W = np.ascontiguousarray(W, dtype=self.dtype)
        scores = np.empty((len(self), W.shape[1]), dtype=self.dtype)
        for where in self._spans(self.dtype):
            scores[where] = _to_numpy(self._met(where) @ _beside(self.X, W))
        scores -= (self.centre @ W).astype(self.dtype)
        return scores

    def gradients(self, R):
        """``X.T @ R``: gradients (dim, columns), as float64, of residuals (n, columns)."""
        R = np.ascontiguousarray(R, dtype=self.dtype)
        total = np.multiply.outer(-self.centre, R.sum(axis=0, dtype=np.float64))
        for where in self._spans(self.dtype):
            total += _to_numpy(self._met(where).T @ _beside(self.X, R[where]))
        return total

    def moments(self, s):
        """``X.T @ diag(s) @ X``: second moments (dim, dim), in `dtype`, of shares (n,)."""
        roots = np.sqrt(s).astype(self.dtype)[:, None]
        centre = _beside(self.X, self.centre.astype(self.dtype))
        total = 0
        for where in self._spans(self.dtype, copied=True):
            scaled = self._met(where) - centre
            scaled *= _beside(self.X, roots[where])
            total += scaled.T @ scaled
        return _to_numpy(total)

    def exact_blocks(self):
        """Yield slices of rows, and these as `Rows` in float64."""
        dtype = np.dtype(np.float64)
        centre = _beside(self.X, self.centre)
        for where in self._spans(dtype, copied=True):
            yield where, Rows(_converted(self.X[where], dtype) - centre, 0 * self.centre, dtype)

    def _met(self, where):
        return _converted(self.X[where], self.dtype)

    def _spans(self, dtype, copied=False):
        """Slices of rows: all at once where nothing is copied."""
        copied = copied or dtype.name not in str(self.X.dtype)
        length = max(1, BLOCK_BYTES // (self.dim * dtype.itemsize)) if copied else len(self)
        return [slice(first, first + length) for first in range(0, len(self), length)]


def in_float64(X):
    """Give a copy or view of few rows on the CPU, in float64."""
    return _to_numpy(_converted(X, np.dtype(np.float64)))


def _to_numpy(array):
    """Give an array on the CPU; a tensor is brought there."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


def _converted(X, dtype):
    if isinstance(X, np.ndarray):
        return X.astype(dtype, copy=False)
    return X.detach().double() if dtype == np.float64 else X.detach().float()


def _beside(X, array):
    """Bring an array to where X is."""
    if isinstance(X, np.ndarray):
        return array
    tensor = X.new_empty(0).double() if array.dtype == np.float64 else X.new_empty(0).float()
    return tensor.new_tensor(array)
