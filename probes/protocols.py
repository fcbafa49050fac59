"""All that probes knows of where embeddings, pixels and labels come from.

A store of featstore fits, and so does any object with these members: nothing here is imported
from there. Only annotation IDs cross; row numbers and files stay where they are.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from probes.errors import ProbesError

__all__ = ["InMemory", "LabelTable", "Source", "as_texts", "plain_ids", "positions"]


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
    model, digest : str
        What made the rows, where that is known: results name it, and a probe refuses others.

    Examples
    --------
    >>> InMemory(np.array([5, 3]), np.array([[50.0], [30.0]])).read([3, 5, 3]).ravel()
    array([30., 50., 30.])
    """

    ids: np.ndarray
    values: np.ndarray
    model: str = ""
    digest: str = ""

    @classmethod
    def of(cls, source, splits):
        """Read every row that some split names; of the same model and digest as the source."""
        parts = [part for split in splits for part in (split.train, split.val, split.test)]
        ids = np.unique(np.concatenate([part for part in parts if len(part)]))
        made_by = (getattr(source, "model", ""), getattr(source, "digest", ""))
        return cls(ids, source.read(ids), *made_by)

    def read(self, ids):
        """Return the rows of these IDs, in the order asked."""
        return self.values[positions(self.ids, ids)]


def positions(ids, asked):
    """Where each asked ID stands among ``ids``.

    Parameters
    ----------
    ids, asked : array-like of shape (n,) and (m,)
        Annotation IDs; ``ids`` in any order, none twice.

    Returns
    -------
    ndarray of int, shape (m,)

    Raises
    ------
    ProbesError
        If an ID is not there.

    Examples
    --------
    >>> positions(np.array([30, 10, 20]), np.array([20, 30]))
    array([2, 0])
    >>> positions(np.array([30, 10, 20]), np.array([25]))
    Traceback (most recent call last):
    probes.errors.ProbesError: 1 of 1 annotations is not among the 3 that are there: ID 25
    """
    ids, asked = plain_ids(ids), plain_ids(asked)
    order = np.argsort(ids, kind="stable")
    if ids.dtype.kind != asked.dtype.kind:  # 7 is not '7'
        unknown = np.ones(len(asked), bool)
    else:
        places = np.searchsorted(ids, asked, sorter=order)
        unknown = places == len(ids)
        places[unknown] = 0
        unknown |= ids[order[places]] != asked if len(ids) else True
    if unknown.any():
        n = int(unknown.sum())
        raise ProbesError(
            f"{n} of {len(asked)} annotations {'is' if n == 1 else 'are'} not among the {len(ids)} "
            f"that are there: ID {asked[unknown].tolist()[0]!r}{'' if n == 1 else ' and more'}"
        )
    return order[places] if len(asked) else np.empty(0, np.int64)


def plain_ids(ids):
    """Bring IDs into int64 or ``<U``: what NumPy sorts and searches right.

    ``searchsorted`` on ``StringDType`` is wrong for strings of over 15 bytes in NumPy 2.4.

    Examples
    --------
    >>> plain_ids(np.array([1, 2], np.int32)).dtype, plain_ids(["a", "b"]).dtype
    (dtype('int64'), dtype('<U1'))
    """
    ids = np.asarray(ids)
    return ids.astype(np.int64) if ids.dtype.kind in "iu" or not ids.size else as_texts(ids)


def as_texts(values):
    """Bring values of any kind into ``<U``; what is missing (None, NaN) is ''.

    Examples
    --------
    >>> as_texts(np.array(["a", "bc"], np.dtypes.StringDType()))
    array(['a', 'bc'], dtype='<U2')
    >>> as_texts(np.array(["a", None, np.nan], object))
    array(['a', '', ''], dtype='<U1')
    """
    values = np.asarray(values)
    if values.dtype.kind == "U":
        return values
    texts = ["" if each is None or each != each else str(each) for each in values.tolist()]
    return np.array(texts, str)
