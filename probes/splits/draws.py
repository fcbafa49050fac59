"""Random draws of rows: parts of a given number, nested parts, whole groups, each within strata.

Rows are those of annotations in the order of their IDs, so that a table in another order gives the
same draws. Nothing here knows of splits.
"""

from dataclasses import dataclass

import numpy as np

from probes.errors import SplitError
from probes.protocols import as_texts, plain_ids

__all__ = ["Cells", "generator", "nested_draws", "part", "take_groups"]

ORDERS_TRIED = 100  # of groups, when shares of strata should hold


@dataclass(frozen=True, eq=False)
class Cells:
    """Annotations in the order of their IDs.

    Parameters
    ----------
    annotations : LabelTable
        Where they come from.
    order : ndarray of int, shape (n,)
        Row of each in its table.
    ids, labels : ndarray of shape (n,)
        Ascending IDs, and their labels.
    """

    annotations: object
    order: np.ndarray
    ids: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, annotations):
        """Sort annotations by ID.

        Examples
        --------
        >>> from types import SimpleNamespace
        >>> table = SimpleNamespace(ids=np.array([7, 3]), labels=np.array(["a", "b"]))
        >>> Cells.of(table).labels
        array(['b', 'a'], dtype='<U1')
        """
        ids = plain_ids(annotations.ids)
        order = np.argsort(ids, kind="stable")
        return cls(annotations, order, ids[order], np.asarray(annotations.labels)[order])

    def column(self, name):
        """Return one column, a value per annotation."""
        if name == "label":
            return self.labels
        values = np.asarray(self.annotations.column(name))[self.order]
        return values if values.dtype.kind in "iufb" else as_texts(values)

    def full_column(self, name):
        """Return one column, and refuse one that has no value for some annotations."""
        values = self.column(name)
        unknown = int(np.sum(values == "" if values.dtype.kind == "U" else values != values))
        if unknown:
            raise SplitError(
                f"{unknown} of {len(values)} annotations of {self.annotations.name!r} have no "
                f"{name}; name them all, or leave these out"
            )
        return values

    def codes(self, name):
        """Which of its column's values each annotation has, from 0; None where no column is named.

        Returns
        -------
        ndarray of int, shape (n,), or None
        """
        return None if name is None else np.unique(self.column(name), return_inverse=True)[1]


def generator(*seeds):
    """Make the generator of a draw from the user's seed, and which draw it is."""
    return np.random.default_rng(seeds)


def part(rows, n, strata, rng):
    """Draw n rows, and shuffle the others.

    Parameters
    ----------
    rows : ndarray of int
        What is drawn from.
    n : int
        How many, 0 to ``len(rows)``.
    strata : ndarray of int, or None
        Stratum of each row of the table. Every stratum then gives what is due to it, rounded down
        or up at random.
    rng : numpy.random.Generator

    Returns
    -------
    drawn, others : ndarray of int

    Examples
    --------
    >>> strata = np.array([0, 0, 0, 0, 1, 1])
    >>> drawn, others = part(np.arange(6), 3, strata, generator(42))
    >>> sorted(strata[drawn].tolist()), len(others)
    ([0, 0, 1], 3)
    """
    shuffled = rng.permutation(rows)
    if strata is None or not len(rows):
        return shuffled[:n], shuffled[n:]
    codes = strata[shuffled]
    due = _rounded(np.bincount(codes), n, rng)
    taken = _place_in_stratum(codes) < due[codes]
    return shuffled[taken], shuffled[~taken]


def _rounded(sizes, n, rng):
    """How many of n each stratum gives: systematic sampling, in integers so that n is met exactly.

    Strata lie on a line in random order, each as long as its share; points one annotation apart,
    from a random start, fall into each as often as is due, rounded down or up.
    """
    total = int(sizes.sum())
    order = rng.permutation(len(sizes))
    ends = (np.cumsum(sizes[order]) * n + rng.integers(total)) // total
    due = np.empty_like(ends)
    due[order] = np.diff(ends, prepend=0)
    return due


def _place_in_stratum(codes):
    """How many of the same stratum stand before each."""
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], codes[order])
    places = np.empty(len(codes), np.int64)
    places[order] = np.arange(len(codes)) - starts
    return places


def nested_draws(pool, sizes, val, strata, rng):
    """Draw training and validation rows of ascending sizes, the smaller within the larger.

    Parameters
    ----------
    pool : ndarray of int
        Shuffled rows; the first of them are drawn, or with strata as many at random.
    sizes : sequence of float
        Shares of the pool, ascending.
    val : float
        Share of what is drawn that validates, rounded down.
    strata, rng
        As for :func:`part`.

    Returns
    -------
    list of (ndarray, ndarray)
        Training and validation rows of each size.

    Examples
    --------
    >>> small, large = nested_draws(np.arange(10), [0.5, 1.0], 0.2, None, generator(42))
    >>> small, large[0]
    ((array([0, 1, 2, 3]), array([4])), array([0, 1, 2, 3, 5, 6, 7, 8]))
    """
    n_drawn = [round(size * len(pool)) for size in sizes]
    if strata is None:
        return [_by_place(pool[:n], val) for n in n_drawn]
    n_val = [int(_quota(n, val)) for n in n_drawn]
    n_train = [n - validating for n, validating in zip(n_drawn, n_val, strict=True)]
    drawn, _ = part(pool, n_drawn[-1], strata, rng)
    validation, training = part(drawn, n_val[-1], strata, rng)
    training = ordered_for(training, n_train[:-1], strata, rng)
    validation = ordered_for(validation, n_val[:-1], strata, rng)
    return [(training[:n], validation[:m]) for n, m in zip(n_train, n_val, strict=True)]


def ordered_for(rows, counts, strata, rng):
    """Order rows so that the first n, for each n of ascending counts, are drawn within strata.

    Each is drawn of the next larger one.
    """
    if not counts:
        return rows
    drawn, others = part(rows, counts[-1], strata, rng)
    return np.concatenate([ordered_for(drawn, counts[:-1], strata, rng), others])


def _by_place(drawn, val):
    """Send every 1/val-th of drawn rows to validation.

    What place k is for depends on k alone, so that a larger draw holds a smaller one, part by part.
    """
    validates = np.diff(_quota(np.arange(len(drawn) + 1), val)) > 0
    return drawn[~validates], drawn[validates]


def _quota(n, share):
    return np.floor(n * share + 1e-9)  # 1e-9: 0.2 * 5 is 1


def take_groups(groups, rows, share, strata, rng):
    """Part rows into whole groups that come nearest to a share, and the rest; both shuffled.

    Parameters
    ----------
    groups : ndarray of int
        Group of each row of the table.
    rows : ndarray of int
        What is parted; one group at least is left over.
    share : float
        Wanted share of the rows, from 0 to under 1.
    strata, rng
        As for :func:`part`. With strata, of a hundred random choices that one is taken whose
        counts of strata are nearest to their shares.

    Raises
    ------
    SplitError
        If there is one group only.
    """
    shuffled = rng.permutation(rows)
    if share == 0:
        return rows[:0], shuffled
    names, codes = np.unique(groups[rows], return_inverse=True)
    if len(names) < 2:
        raise SplitError(
            f"one group of {len(rows)} annotations is left to train and validate, and cannot be "
            "parted; give val=0, or a smaller test share"
        )
    if strata is None:
        counts = np.bincount(codes)[:, None]
        chosen, _ = _nearest(counts, share, rng.permutation(len(names)))
    else:
        counts = np.zeros((len(names), strata.max() + 1), np.int64)
        np.add.at(counts, (codes, strata[rows]), 1)
        orders = [rng.permutation(len(names)) for _ in range(ORDERS_TRIED)]
        chosen, _ = min((_nearest(counts, share, order) for order in orders), key=lambda c: c[1])
    taken = np.isin(groups[shuffled], names[chosen])
    return shuffled[taken], shuffled[~taken]


def _nearest(counts, share, order):
    """Take the first groups of an order, as many as come nearest to the share of all strata.

    Parameters
    ----------
    counts : ndarray of shape (n_groups, n_strata)
        Annotations.

    Returns
    -------
    chosen : ndarray of int
        Groups.
    distance : float
        Annotations too many or too few, summed over strata.
    """
    filled = np.cumsum(counts[order], axis=0)[:-1]
    distances = np.abs(filled - share * counts.sum(axis=0)).sum(axis=1)
    best = int(np.argmin(distances))
    return order[: best + 1], float(distances[best])
