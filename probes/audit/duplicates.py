"""Embeddings that are the same, or nearly.

Rows are compared by the cosine of the angle between them. Two rows near each other lie near each
other in every direction as well, so rows are sorted along one direction, and blocks that lie
apart in it are not multiplied.
"""

import hashlib

import numpy as np

from probes.errors import AuditError

__all__ = ["equal_rows", "near_blocks", "read_rows"]

ROWS_AT_ONCE = 1_024  # of a block; a product of two blocks is 4 MiB
ROWS_OF_SAMPLE = 2_048  # by which the direction of largest spread is found
STEPS = 20  # of the power iteration for it; any direction is correct, a wide one is fast
ROUNDING = 1e-4  # of positions along a direction, in float32


def read_rows(source, ids):
    """Read embeddings (n, dim) as float32.

    Raises
    ------
    AuditError
        If a value is not finite, or rows are not embeddings.
    """
    values = np.asarray(source.read(ids))
    if values.ndim != 2:
        raise AuditError(
            f"the source gives rows of shape {values.shape[1:]}; embeddings of shape (dim,) are "
            "compared"
        )
    values = values.astype(np.float32, copy=False)
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if wrong.size:
        raise AuditError(
            f"{wrong.size} of {len(values)} embeddings hold values that are not finite (first: ID "
            f"{np.asarray(ids)[wrong].tolist()[0]!r}); extract them anew"
        )
    return values


def equal_rows(values):
    """Give equal rows one number.

    Parameters
    ----------
    values : ndarray of float32, shape (n, dim)

    Returns
    -------
    ndarray of int64, shape (n,)
        From 0.

    Examples
    --------
    >>> equal_rows(np.array([[1, 0], [2, 0], [1, -0.0]], np.float32))
    array([0, 1, 0])
    """
    number_of, numbers = {}, np.empty(len(values), np.int64)
    for row, value in enumerate(values):
        key = hashlib.blake2b((value + 0).tobytes(), digest_size=16).digest()  # + 0: -0 is 0
        numbers[row] = number_of.setdefault(key, len(number_of))
    return numbers


def near_blocks(values, near, rows_at_once=ROWS_AT_ONCE):
    """Yield blocks of rows and whether the cosine of each pair is at least ``near``.

    Parameters
    ----------
    values : ndarray of float32, shape (n, dim)
        A row of zeros is near to none.
    near : float
        Cosine, between 0 and 1.
    rows_at_once : int
        Rows of a block.

    Yields
    ------
    rows, others : ndarray of int64, shapes (m,) and (k,)
        Every pair that is near is in one block, in one of its two orders.
    is_near : ndarray of bool, shape (m, k)

    Raises
    ------
    AuditError
        If ``near`` is not between 0 and 1.

    Examples
    --------
    >>> values = np.array([[1, 0], [0, 1], [5, 0.01]], np.float32)
    >>> for rows, others, is_near in near_blocks(values, 0.99):
    ...     row, other = np.nonzero(is_near)
    ...     print(sorted(zip(rows[row].tolist(), others[other].tolist())))
    [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)]
    """
    if not 0 < near < 1:
        raise AuditError(f"near={near} is no cosine of near rows; give one such as 0.999")
    if not len(values):
        return
    # In float64: squares of numbers that float32 holds may be too large for it, or too small.
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    scales = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype("f4")
    along = (values @ _widest_direction(values, scales)) * scales
    order = np.argsort(along, kind="stable")
    reach = np.sqrt(2 - 2 * near) + ROUNDING  # distance of two rows of length 1
    stops = np.searchsorted(along[order], along[order] + reach, side="right")
    for first in range(0, len(order), rows_at_once):
        rows = order[first : first + rows_at_once]
        scaled = values[rows] * scales[rows, None]
        for start in range(first, stops[first + len(rows) - 1], rows_at_once):
            others = order[start : start + rows_at_once]
            cosines = (scaled @ values[others].T) * scales[others]
            yield rows, others, cosines >= near


def _widest_direction(values, scales):
    """Direction of length 1 along which rows of length 1 are spread widest, roughly; (dim,)."""
    chosen = slice(None, None, -(-len(values) // ROWS_OF_SAMPLE) or 1)
    sample = values[chosen] * scales[chosen, None]
    sample = sample - sample.mean(axis=0)
    direction = np.random.default_rng(0).normal(size=sample.shape[1]).astype(np.float32)
    for _ in range(STEPS):
        stretched = sample.T @ (sample @ direction)
        length = np.linalg.norm(stretched)
        if length == 0:
            break
        direction = stretched / length
    return direction / np.linalg.norm(direction)
