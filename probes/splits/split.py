"""Split: the annotations of one training. Splits: all of an experiment, and of what dataset."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from probes.errors import SplitError
from probes.protocols import as_texts, plain_ids

__all__ = ["PARTS", "Split", "Splits", "digest_of", "heading"]

PARTS = ("train", "val", "test")
FIRST = 3  # IDs that a message names of those that differ


@dataclass(frozen=True, eq=False)
class Split:
    """Train, validation and test IDs of one training.

    Parameters
    ----------
    train, val, test : ndarray
        Annotation IDs; no ID is in two of them.
    repeat : int
        Number of the draw, from 0.
    size : float
        Share of the training pool that was drawn, in (0, 1].
    train_domain : str
        Domain of the training annotations, 'all but' the one that was left out, or '' where all
        domains were mixed.
    redraws : int
        How often training and validation were drawn again because a class was missing.

    Examples
    --------
    >>> split = Split(np.array([1, 2]), np.array([3]), np.array([4, 5]))
    >>> split.test
    array([4, 5])
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    repeat: int = 0
    size: float = 1.0
    train_domain: str = ""
    redraws: int = 0

    @cached_property
    def digest(self):
        """SHA-256 over the IDs of the three parts, in their order."""
        return digest_of(self.train, self.val, self.test)

    @property
    def name(self):
        """How messages name this split."""
        domain = f", trained on {self.train_domain}" if self.train_domain else ""
        return f"repeat {self.repeat}, size {self.size:g}{domain}"


@dataclass(frozen=True, eq=False)
class Splits(Sequence):
    """Splits of one dataset, made by one rule from one seed.

    Parameters
    ----------
    dataset, dataset_digest : str
        What was split.
    rule : str
        Maker of the splits.
    seed : int
        Seed of the draws.
    options : dict
        The maker's other arguments.
    members : tuple of Split
        The splits, ordered by repeat, then size or domain.
    ids : ndarray of shape (n,), optional
        All annotations that were split, ascending; by default those that are in some part.
    labels : ndarray of shape (n,), optional
        Their labels; without them, :meth:`check` cannot tell which labels differ.

    Examples
    --------
    >>> splits = Splits("demo", "sha256:0", "by hand", 0, {}, (Split([1, 2], [], [3]),))
    >>> len(splits), splits[-1].test, splits.ids
    (1, [3], array([1, 2, 3]))
    """

    dataset: str
    dataset_digest: str
    rule: str
    seed: int
    options: dict
    members: tuple = field(repr=False)
    ids: np.ndarray = field(default=None, repr=False)
    labels: np.ndarray = field(default=None, repr=False)

    def __post_init__(self):
        if self.ids is None:
            parts = [np.asarray(getattr(each, part)) for each in self.members for part in PARTS]
            there = [part for part in parts if part.size]
            found = np.unique(np.concatenate(there)) if there else np.empty(0, np.int64)
            object.__setattr__(self, "ids", found)

    def __len__(self):
        return len(self.members)

    def __getitem__(self, place):
        return self.members[place]

    @cached_property
    def digest(self):
        """SHA-256 over everything: dataset, rule, seed, options, IDs, labels and the splits.

        The same splits have the same digest in memory, as JSON and as Parquet.
        """
        labels = [] if self.labels is None else self.labels
        content = {
            **heading(self),
            "annotations": digest_of(self.ids, labels),
            "splits": [
                [each.repeat, float(each.size), each.train_domain, each.redraws, each.digest]
                for each in self.members
            ],
        }
        try:
            text = json.dumps(content, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise SplitError(f"these splits cannot be written as JSON: {error}") from error
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def check(self, annotations):
        """Refuse annotations other than those that were split, and say what differs.

        The same IDs and labels in another order of rows are the same annotations.

        Raises
        ------
        SplitError
            If annotations are missing or new, or labels are others.
        """
        named = self.dataset_digest or self.labels is None
        if named and annotations.digest == self.dataset_digest:
            return
        theirs = plain_ids(annotations.ids)
        differing = _differing_ids(self.ids, theirs, annotations.name)
        if self.labels is not None:
            differing += _differing_labels(self, theirs, np.asarray(annotations.labels))
        elif not differing:
            differing = [
                f"its digest is {annotations.digest:.15}..., not {self.dataset_digest:.15}"
            ]
        if differing:
            raise SplitError(
                f"these splits are of {len(self.ids)} annotations of {self.dataset!r}, and "
                f"{annotations.name!r} holds others: {'; '.join(differing)}. Make new ones with "
                "'featstore split'"
            )

    def save(self, path):
        """Write a file that :func:`load_splits` reads: Parquet where it ends so, else JSON.

        Raises
        ------
        SplitError
            If the options hold what JSON cannot, or a part holds an ID that is not in ``ids``.
        MissingExtraError
            If Parquet is asked for and pyarrow is not installed.
        """
        from probes.splits.files import save_splits

        save_splits(self, path)

    def to_frame(self):
        """Return a pandas DataFrame, one row per split.

        Columns ``repeat``, ``size``, ``train_domain``, then for each part ``n_<part>`` and, where
        the labels are known, ``n_<part> <class>`` for every class, ``redraws`` and ``digest``.
        """
        import pandas as pd

        return pd.DataFrame([_row(self, split) for split in self.members])


def heading(splits):
    """Say of splits what a digest and a file do before the splits themselves."""
    return {
        "dataset": splits.dataset,
        "dataset_digest": splits.dataset_digest,
        "rule": splits.rule,
        "seed": splits.seed,
        "options": splits.options,
    }


def digest_of(*arrays):
    """SHA-256 over the values of some arrays, in their order."""
    state = hashlib.sha256()
    for values in arrays:
        state.update("\n".join(map(str, np.asarray(values).tolist())).encode())
        state.update(b"\0")
    return "sha256:" + state.hexdigest()


def _row(splits, split):
    row = {"repeat": split.repeat, "size": split.size, "train_domain": split.train_domain}
    for part in PARTS:
        ids = np.asarray(getattr(split, part))
        row[f"n_{part}"] = len(ids)
        if splits.labels is not None:
            labels = splits.labels[np.searchsorted(splits.ids, ids)]
            for name in np.unique(splits.labels):
                row[f"n_{part} {name}"] = int(np.sum(labels == name))
    return row | {"redraws": split.redraws, "digest": split.digest}


def _differing_ids(ours, theirs, name):
    """Say which annotations are on one side only."""
    if len(ours) and len(theirs) and ours.dtype.kind != theirs.dtype.kind:
        return [f"IDs here are such as {ours.tolist()[0]!r}, there such as {theirs.tolist()[0]!r}"]
    gone, new = np.setdiff1d(ours, theirs), np.setdiff1d(theirs, ours)
    return [
        f"{len(ids)} of {where} ({_first(ids.tolist())})"
        for ids, where in (
            (gone, f"the splits are not in {name!r}"),
            (new, f"{name!r} are not in the splits"),
        )
        if len(ids)
    ]


def _differing_labels(splits, ids, labels):
    """Say how many annotations that are on both sides have another label, and the first of them."""
    if len(splits.ids) and len(ids) and splits.ids.dtype.kind != ids.dtype.kind:
        return []
    common, ours, theirs = np.intersect1d(splits.ids, ids, return_indices=True)
    before, now = as_texts(splits.labels[ours]), as_texts(labels[theirs])
    others = np.flatnonzero(before != now)
    if not len(others):
        return []
    first = others[0]
    return [
        f"{len(others)} labels differ (first: ID {common.tolist()[first]!r}, in the splits "
        f"{str(before[first])!r}, now {str(now[first])!r})"
    ]


def _first(ids):
    named = ", ".join(map(repr, ids[:FIRST]))
    return f"first: {named}" if len(ids) > FIRST else named
