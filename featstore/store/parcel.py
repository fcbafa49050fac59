"""Embeddings on their way between a store and the files of other tools.

A parcel holds what travels: IDs, embeddings, and where the file has them labels, further columns
and the provenance. Its rows are read when they are asked for; nothing is held in memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Parcel", "Rows"]

BATCH_BYTES = 32 * 2**20  # what is held in memory at a time


@dataclass(frozen=True)
class Rows:
    """Embeddings in a file, read a run of rows at a time.

    Parameters
    ----------
    shape : tuple of int
        (n, dim).
    dtype : dtype
        Type in the file.
    run : callable
        Gives the rows from ``start`` up to ``stop``, shape (stop - start, dim).
    close : callable
        Lets go of the files that are held open.

    Examples
    --------
    >>> values = np.arange(8.0).reshape(4, 2)
    >>> rows = Rows(values.shape, values.dtype, lambda start, stop: values[start:stop])
    >>> rows.take(np.array([3, 0, 3]))[:, 0]
    array([6., 0., 6.])
    """

    shape: tuple[int, int]
    dtype: np.dtype
    run: Callable[[int, int], np.ndarray]
    close: Callable[[], None] = lambda: None

    def take(self, positions):
        """Read the rows at these positions, in their order, duplicates allowed; shape (m, dim)."""
        distinct, place = np.unique(positions, return_inverse=True)
        rows = np.empty((len(distinct), self.shape[1]), self.dtype)
        starts = np.flatnonzero(np.diff(distinct, prepend=-2) != 1).tolist()
        for start, stop in zip(starts, [*starts[1:], len(distinct)], strict=True):
            rows[start:stop] = self.run(int(distinct[start]), int(distinct[stop - 1]) + 1)
        return rows[place]

    def batches(self):
        """Yield (start, rows) over all rows, about 32 MiB at a time."""
        size = max(1, BATCH_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        for start in range(0, self.shape[0], size):
            yield start, self.run(start, min(start + size, self.shape[0]))


@dataclass(frozen=True, eq=False)
class Parcel:
    """Embeddings and what is known of them.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        Annotation IDs.
    rows : Rows
        Their embeddings.
    labels : ndarray of shape (n,), optional
        Their labels; None where the files carry none.
    columns : mapping of str to ndarray of shape (n,)
        What else is known of each annotation.
    provenance : dict, optional
        As :meth:`featstore.store.provenance.Provenance.to_json` gives it; None where unknown.
    """

    ids: np.ndarray
    rows: Rows
    labels: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    provenance: dict | None = None
