"""Which part of each split an annotation is in, and which parts it has to do with.

Parts are bits, so that what is near to an annotation in all splits is one OR over its neighbours.
"""

import numpy as np

from probes.errors import SplitError

__all__ = [
    "TEST",
    "TRAIN",
    "VAL",
    "bit_planes",
    "bits_of",
    "of_groups",
    "of_neighbours",
    "parts_of",
]

TRAIN, VAL, TEST = 1, 2, 4


def parts_of(ids, splits):
    """Put the parts of all splits in one table.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        Of all annotations.
    splits : sequence of Split

    Returns
    -------
    ndarray of uint8, shape (n, n_splits)
        TRAIN, VAL or TEST, 0 where an annotation is in no part.

    Raises
    ------
    SplitError
        If a split holds an ID that is not there, or one in two parts.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> split = SimpleNamespace(train=["b"], val=[], test=["d", "a"])
    >>> parts_of(np.array(["a", "b", "c", "d"]), [split]).ravel()
    array([4, 1, 0, 4], dtype=uint8)
    """
    row_of = {key: row for row, key in enumerate(np.asarray(ids).tolist())}
    parts = np.zeros((len(row_of), len(splits)), np.uint8)
    for number, split in enumerate(splits):
        for part, members in ((TRAIN, split.train), (VAL, split.val), (TEST, split.test)):
            rows = _rows(row_of, members, split)
            _check_free(rows, parts[rows, number], members, split)
            parts[rows, number] = part
    return parts


def _rows(row_of, ids, split):
    try:
        return np.fromiter((row_of[key] for key in np.asarray(ids).tolist()), np.int64)
    except KeyError as error:
        raise SplitError(
            f"{split.name} holds the ID {error.args[0]!r}, which is not among the {len(row_of)} "
            "annotations; make new splits with 'featstore split'"
        ) from None


def _check_free(rows, there, ids, split):
    """Refuse annotations that another part has, or that this one has twice."""
    if there.any() or len(np.unique(rows)) < len(rows):
        taken = there > 0 if there.any() else np.bincount(rows)[rows] > 1
        raise SplitError(
            f"{split.name} holds {len(np.unique(rows[taken]))} annotations twice (first: ID "
            f"{np.asarray(ids)[taken].tolist()[0]!r}); each is in one part, once"
        )


def of_groups(groups, parts):
    """Parts that an annotation's group has members in, itself among them.

    Parameters
    ----------
    groups : ndarray of shape (n,)
        Slide, case or whatever each belongs to.
    parts : ndarray of uint8, shape (n, n_splits)

    Returns
    -------
    ndarray of uint8, shape (n, n_splits)

    Examples
    --------
    >>> of_groups(np.array(["s1", "s2", "s1"]), np.array([[TRAIN], [VAL], [TEST]], np.uint8)).T
    array([[5, 2, 5]], dtype=uint8)
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(numbers.max(initial=-1) + 1))
    return np.bitwise_or.reduceat(parts[order], starts, axis=0)[numbers]


def of_neighbours(rows, others, parts):
    """Parts that the others of each row are in.

    Parameters
    ----------
    rows, others : ndarray of int64, shape (m,)
        Pairs, at least one; ``rows`` ascend.
    parts : ndarray of uint8, shape (n, n_splits)

    Returns
    -------
    rows : ndarray of int64, shape (k,)
        Each once.
    reached : ndarray of uint8, shape (k, n_splits)
    """
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    return rows[starts], np.bitwise_or.reduceat(parts[others], starts, axis=0)


def bit_planes(parts):
    """Write bits as columns of 0 and 1, for a matrix product.

    Returns
    -------
    ndarray of float32, shape (n, 3 * n_splits)

    Examples
    --------
    >>> bits_of(bit_planes(np.array([[TRAIN, TEST | VAL]], np.uint8)))
    array([[1, 6]], dtype=uint8)
    """
    return np.concatenate([(parts & bit) > 0 for bit in (TRAIN, VAL, TEST)], axis=1, dtype="f4")


def bits_of(planes):
    """Turn columns of :func:`bit_planes`, or sums of them, into bits; (n, n_splits)."""
    of_parts = np.split(planes > 0, 3, axis=1)
    bits = (bit * plane for bit, plane in zip((TRAIN, VAL, TEST), of_parts, strict=True))
    return np.sum(list(bits), axis=0, dtype=np.uint8)
