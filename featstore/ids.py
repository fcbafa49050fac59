"""Annotation IDs: one form for them, and where each stands.

IDs are int64 where all are integers, else strings (NumPy ``<U``). NumPy's variable-width
``StringDType`` is turned into ``<U`` on the way in: ``searchsorted`` on it is wrong for strings
of more than 15 bytes in NumPy 2.4.
"""

from functools import cached_property

import numpy as np

from featstore.errors import AnnotationError, NotInStoreError

__all__ = ["IdIndex", "as_ids"]


def as_ids(values):
    """Bring annotation IDs into their one form.

    Parameters
    ----------
    values : array-like of shape (n,)
        Integers, or anything whose ``str`` names an annotation.

    Returns
    -------
    ndarray of shape (n,)
        int64 where all values are integers, else ``<U``.

    Raises
    ------
    AnnotationError
        If the values are not one-dimensional, or an ID is empty or holds a control character.

    Examples
    --------
    >>> as_ids([3, 1])
    array([3, 1])
    >>> as_ids(["a-1", "b"])
    array(['a-1', 'b'], dtype='<U3')
    """
    # Python's own strings first: a NumPy array of them would drop a NUL at the end.
    array = values if isinstance(values, np.ndarray) else np.array(list(values), dtype=object)
    if array.ndim != 1:
        raise AnnotationError(f"annotation IDs have the shape {array.shape}; give a flat list")
    if array.dtype.kind == "i" or array.size == 0:
        return array.astype(np.int64)
    plain = array.tolist()
    if all(isinstance(value, (int, np.integer)) for value in plain):
        return _as_int64(plain)
    texts = [str(value) for value in plain]
    bad = next((text for text in texts if not text or not text.isprintable()), None)
    if bad is not None:
        raise AnnotationError(f"annotation ID {bad!r} is empty or holds a control character")
    return np.array(texts, dtype=str)


def _is_settled(values):
    """Whether IDs are in their form already; no control character is looked for."""
    return isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iU"


def _as_int64(integers):
    largest = max(integers, key=abs)
    if abs(largest) >= 2**63:
        raise AnnotationError(f"annotation ID {largest} does not fit 64 bits; use strings as IDs")
    return np.array(integers, dtype=np.int64)


class IdIndex:
    """Positions of IDs, found by one sort.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        IDs as :func:`as_ids` gives them.
    holder : str
        What the IDs belong to, as errors name it.

    Examples
    --------
    >>> IdIndex(as_ids([30, 10, 20]), "demo").positions([10, 30, 10])
    array([1, 0, 1])
    """

    def __init__(self, ids, holder):
        self.ids = ids
        self.holder = holder

    @cached_property
    def _order(self):
        return np.argsort(self.ids, kind="stable")

    @cached_property
    def _sorted(self):
        return self.ids[self._order]

    def duplicates(self):
        """IDs that stand more than once, sorted, each named once."""
        return np.unique(self._sorted[1:][self._sorted[1:] == self._sorted[:-1]])

    def positions(self, asked):
        """Where each asked ID stands.

        Parameters
        ----------
        asked : array-like of shape (m,)
            IDs, in any order, duplicates allowed.

        Returns
        -------
        ndarray of int64, shape (m,)

        Raises
        ------
        NotInStoreError
            If an ID is not among them.
        """
        if asked is self.ids:
            return np.arange(len(self.ids))
        asked = asked if _is_settled(asked) else as_ids(asked)
        if asked.size and (asked.dtype.kind != self.ids.dtype.kind):
            raise NotInStoreError(
                f"{self.holder} has {self._kind(self.ids)} as IDs; "
                f"asked for {self._kind(asked)} such as {asked.tolist()[0]!r}"
            )
        places = np.searchsorted(self._sorted, asked)
        found = places < len(self.ids)
        found[found] = self._sorted[places[found]] == asked[found]
        if not found.all():
            missing = asked[~found]
            raise NotInStoreError(
                f"{len(missing)} of {len(asked)} annotation IDs asked for are not in {self.holder}"
                f" (first: {missing.tolist()[0]!r}); its .ids lists those that are"
            )
        return self._order[places]

    @staticmethod
    def _kind(ids):
        return "integers" if ids.dtype.kind == "i" else "strings"
