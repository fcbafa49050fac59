"""The rows of embeddings: everything that touches them, in three operations.

NumPy arrays and torch tensors, on any device, are met through the same expressions; the rows stay
where they are, and what is given and returned are NumPy arrays. This module never imports torch,
and never holds a second copy of all rows: what needs another precision goes block by block.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

__all__ = ["BLOCK_BYTES", "Rows", "in_float64", "is_tensor", "precision", "scale_of"]

# Bytes of a block of rows that is converted or scaled: small beside embeddings, and long enough
# for matrix products at full speed.
BLOCK_BYTES = 2**22

# Products of float32 rows err by a share of what the rows are before their centre is taken off.
# Where that comes to more than this of what they are afterwards, they are met in float64.
LOST = 1e-3

# Scales are kept where their reciprocals times weights do not overflow float32.
LEAST_SCALE, LARGEST_SCALE = 2.0**-100, 2.0**100


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows less a centre and over a scale, met in one precision whatever that of the operands.

    Attributes
    ----------
    X : (n, dim) array or tensor of float
    centre : (dim,) array of float64
        Taken off each row, without a copy of the rows. Exact, as intercepts are free.
    scale : float
        What is left is divided by it, so that squares neither overflow nor vanish: a power of 2.
    dtype : numpy.dtype
        Precision of the products; sums over blocks of rows are in float64.
    """

    X: object
    centre: np.ndarray
    scale: float
    dtype: np.dtype

    @classmethod
    def of(cls, X, used):
        """Centre rows on the mean of those in use, and scale them by the largest value.

        Parameters
        ----------
        X : (n, dim) array or tensor of float
        used : (n,) array of bool
        """
        rows = cls(X, np.zeros(X.shape[1]), 1.0, precision(X))
        total, largest = np.zeros(X.shape[1]), 0.0
        for where in rows._spans(np.dtype(np.float64)):
            block = in_float64(X[where])[used[where]]
            total += block.sum(axis=0)
            largest = max(block.max(initial=largest), -block.min(initial=0))
        return dataclasses.replace(rows, centre=total / used.sum(), scale=scale_of(largest))

    def __len__(self):
        return len(self.X)

    @property
    def dim(self):
        """Number of features."""
        return self.X.shape[1]

    def scores(self, W):
        """``X @ W``: scores (n, columns), in `dtype`, of weights (dim, columns)."""
        W = np.ascontiguousarray(W / self.scale, dtype=self.dtype)
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
        return total / self.scale

    def moments(self, s):
        """``X.T @ diag(s) @ X``: second moments (dim, dim), in `dtype`, of shares (n,)."""
        roots = (np.sqrt(s) / self.scale).astype(self.dtype)[:, None]
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
            exact = _converted(self.X[where], dtype) - centre
            exact /= self.scale
            yield where, Rows(exact, 0 * self.centre, 1.0, dtype)

    def trusted(self, moments):
        """Give these rows, met in float64 where float32 loses too much beside so far a centre.

        Parameters
        ----------
        moments : (dim, dim) array
            Their second moments.
        """
        spread = np.sqrt(np.trace(moments, dtype=np.float64))
        lost = np.finfo(self.dtype).eps * np.linalg.norm(self.centre / self.scale)
        exact = np.dtype(np.float64)
        return self if lost <= LOST * spread else dataclasses.replace(self, dtype=exact)

    def _met(self, where):
        return _converted(self.X[where], self.dtype)

    def _spans(self, dtype, copied=False):
        """Slices of rows: all at once where nothing is copied."""
        copied = copied or dtype.name not in str(self.X.dtype)
        length = max(1, BLOCK_BYTES // (self.dim * dtype.itemsize)) if copied else len(self)
        return [slice(first, first + length) for first in range(0, len(self), length)]


def is_tensor(X):
    """Whether this is a tensor of torch; told without importing torch.

    Examples
    --------
    >>> is_tensor(np.zeros(3))
    False
    """
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(X).__mro__)


def precision(X):
    """In what precision rows are met: float64 in float64, all others in float32."""
    return np.dtype(np.float64 if "float64" in str(X.dtype) else np.float32)


def scale_of(largest):
    """Give the power of 2 next to the largest absolute value: dividing by it is exact.

    Examples
    --------
    >>> scale_of(3.0), scale_of(0.0)
    (4.0, 1.0)
    """
    if not largest > 0:
        return 1.0
    return float(np.clip(2.0 ** np.ceil(np.log2(largest)), LEAST_SCALE, LARGEST_SCALE))


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
