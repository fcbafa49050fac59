"""What differs between two arrays of embeddings: how they were made, and how far they drifted."""

from dataclasses import dataclass

import numpy as np

from featstore.errors import StoreError

__all__ = ["Comparison", "compare"]

ROWS_AT_ONCE = 4_096


@dataclass(frozen=True, eq=False)
class Comparison:
    """The difference of two arrays of embeddings.

    Parameters
    ----------
    fields : dict of str to (here, there)
        Fields of specification, run and versions that differ.
    n_common : int
        Annotation IDs that both hold.
    n_only_here, n_only_there : int
        IDs that one of them holds.
    cosines : ndarray of shape (n_common,), or None
        Cosine of each common ID's two embeddings, ascending; None where their lengths differ.
    largest_differences : ndarray of shape (n_common,), or None
        Largest absolute difference of an entry, in the same order.
    ids : ndarray of shape (n_common,)
        The common IDs in that order: the worst first.
    """

    fields: dict
    n_common: int
    n_only_here: int
    n_only_there: int
    cosines: np.ndarray | None
    largest_differences: np.ndarray | None
    ids: np.ndarray


def compare(here, there):
    """Compare two arrays of embeddings on the annotations that both hold.

    Parameters
    ----------
    here, there : Embeddings
        Of the same or another store, model or dataset. Views are compared as they are: give
        ``embeddings.whole`` for every part that is stored, as ``featstore diff`` does.

    Returns
    -------
    Comparison

    Raises
    ------
    StoreError
        If they have no annotation ID in common.
    """
    common = here.ids[np.isin(here.ids, there.ids)]
    if not len(common):
        raise StoreError(f"{here!r} and {there!r} have no annotation ID in common")
    fields = _differing(here.provenance, there.provenance)
    only = len(here.ids) - len(common), len(there.ids) - len(common)
    if here.shape[1] != there.shape[1]:
        fields["dim"] = here.shape[1], there.shape[1]
        return Comparison(fields, len(common), *only, None, None, common)
    cosines, largest = _drift(here, there, common)
    order = np.argsort(cosines, kind="stable")
    return Comparison(fields, len(common), *only, cosines[order], largest[order], common[order])


def _differing(here, there):
    ours, theirs = _flat(here.to_json()), _flat(there.to_json())
    keys = [*ours, *(key for key in theirs if key not in ours)]
    pairs = {key: (ours.get(key), theirs.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _flat(values):
    flat = {}
    for key, value in values.items():
        inner = value if isinstance(value, dict) else {"": value}
        flat.update({f"{key}.{name}".rstrip("."): entry for name, entry in inner.items()})
    return flat


def _drift(here, there, ids):
    """Cosine and largest difference of each ID, a few thousand rows at a time."""
    cosines, largest = [], []
    for start in range(0, len(ids), ROWS_AT_ONCE):
        ours = here.read(ids[start : start + ROWS_AT_ONCE], dtype=np.float64)
        theirs = there.read(ids[start : start + ROWS_AT_ONCE], dtype=np.float64)
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines.append((ours * theirs).sum(axis=1) / np.where(norms == 0, np.nan, norms))
        largest.append(np.abs(ours - theirs).max(axis=1))
    return np.concatenate(cosines), np.concatenate(largest)
