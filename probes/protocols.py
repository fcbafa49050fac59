"""All that probes knows of where embeddings, pixels and labels come from.

A store of featstore fits, and so does any object with these members: nothing here is imported
from there. Only annotation IDs cross; row numbers and files stay where they are.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

__all__ = ["InMemory", "LabelTable", "Source", "positions"]


@runtime_checkable
class Source(Protocol):
    """Rows by annotation ID: embeddings (n, dim) or pixels (n, px, px, 3).

    Sources may also carry ``model`` and ``digest`` (what made the rows); results then name them.
    """

    ids: np.ndarray

    def read(self, ids) -> np.ndarray:
        """Return the rows of these IDs, in the order asked."""


@runtime_checkable
class LabelTable(Protocol):
    """What is known of each annotation.

    ``name`` and ``digest`` identify the dataset; ``column`` gives any further column, such as
    ``slide`` or ``domain``.
    """

    name: str
    digest: str
    ids: np.ndarray
    labels: np.ndarray

    def labels_of(self, ids) -> np.ndarray:
        """Return the labels of these IDs, in the order asked."""

    def column(self, name) -> np.ndarray:
        """Return one column, a value per annotation."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Rows that were read once: a Source of its own.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        Distinct annotation IDs.
    values : ndarray of shape (n, ...)
        One row per ID.

    Examples
    --------
    >>> InMemory(np.array([5, 3]), np.array([[50.0], [30.0]])).read([3, 5, 3]).ravel()
    array([30., 50., 30.])
    """

    ids: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, source, splits):
        """Read every row that some split names."""
        parts = [part for split in splits for part in (split.train, split.val, split.test)]
        ids = np.unique(np.concatenate([part for part in parts if len(part)]))
        return cls(ids, source.read(ids))

    def read(self, ids):
        """Return the rows of these IDs, in the order asked."""
        return self.values[positions(self.ids, np.asarray(ids))]


def positions(ids, asked):
    """Where each asked ID stands among ``ids``, all of which are known to be there.

    Examples
    --------
    >>> positions(np.array([30, 10, 20]), np.array([20, 30]))
    array([2, 0])
    """
    order = np.argsort(ids, kind="stable")
    return order[np.searchsorted(ids[order], asked)]
