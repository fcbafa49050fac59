"""Annotated cells as a table: one row per annotation, columns as arrays.

The table knows nothing of files, stores or pixels. Annotation IDs are what every other part asks
by; a row number means nothing outside of one table.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from featstore.errors import AnnotationError
from featstore.ids import IdIndex, as_ids

__all__ = ["LOOK_ALIKE", "MITOTIC_FIGURE", "AnnotationTable"]

# What the field asks of a mitotic-figure dataset, in words that every reader brings its own to.
MITOTIC_FIGURE = "mitotic figure"
LOOK_ALIKE = "look-alike"


@dataclass(frozen=True, eq=False)
class AnnotationTable:
    """Annotations of one dataset.

    Parameters
    ----------
    name : str
        Name of the dataset.
    ids : array-like of shape (n,)
        Unique annotation IDs, integers or strings.
    labels : array-like of shape (n,)
        Class of each annotation, never empty.
    columns : mapping of str to array-like of shape (n,)
        Anything else. Known names: ``x`` and ``y`` (centre in pixels of the image or slide; the
        upper left corner of the image is (0, 0)), ``image`` (file name), ``slide``, ``domain``,
        ``mpp`` (um per pixel of the image).

    Raises
    ------
    AnnotationError
        If an ID stands twice, a label is empty or a column has another length.

    Examples
    --------
    >>> cells = AnnotationTable("demo", [7, 8], ["look-alike", "mitotic figure"],
    ...                         {"slide": ["s1", "s1"], "x": [10.5, 80], "y": [4, 4]})
    >>> cells.labels_of([8])
    array(['mitotic figure'], dtype='<U14')
    >>> cells.slides
    array(['s1', 's1'], dtype='<U2')
    """

    name: str
    ids: np.ndarray
    labels: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "ids", as_ids(self.ids))
        object.__setattr__(self, "labels", np.asarray(self.labels).astype(str))
        columns = {key: _as_column(values) for key, values in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        self._check_lengths()
        self._check_ids_and_labels()

    def _check_lengths(self):
        for key, values in {"label": self.labels, **self.columns}.items():
            if values.shape != self.ids.shape:
                raise AnnotationError(
                    f"column {key!r} of {self.name!r} has the shape {values.shape}; "
                    f"one value for each of {len(self.ids)} annotation IDs is needed"
                )

    def _check_ids_and_labels(self):
        twice = self._index.duplicates()
        if twice.size:
            raise AnnotationError(
                f"{twice.size} annotation IDs stand more than once in {self.name!r} "
                f"(first: {twice.tolist()[0]!r}); IDs must be unique"
            )
        empty = np.flatnonzero(self.labels == "")
        if empty.size:
            raise AnnotationError(
                f"{empty.size} annotations of {self.name!r} have no label "
                f"(first: ID {self.ids[empty].tolist()[0]!r}); label them or leave them out"
            )

    @cached_property
    def _index(self):
        return IdIndex(self.ids, f"dataset {self.name!r}")

    def __len__(self):
        return len(self.ids)

    def column(self, name):
        """Return one column, ``id`` and ``label`` among them.

        Raises
        ------
        AnnotationError
            If the table has no column of that name.
        """
        if name in ("id", "label"):
            return self.ids if name == "id" else self.labels
        if name not in self.columns:
            known = ", ".join(["id", "label", *self.columns])
            raise AnnotationError(f"dataset {self.name!r} has no column {name!r}; it has {known}")
        return self.columns[name]

    @property
    def x(self):
        """Horizontal centre in pixels, shape (n,)."""
        return self.column("x")

    @property
    def y(self):
        """Vertical centre in pixels, downwards, shape (n,)."""
        return self.column("y")

    @property
    def images(self):
        """Image file of each annotation, shape (n,)."""
        return self.column("image")

    @property
    def slides(self):
        """Slide of each annotation, shape (n,)."""
        return self.column("slide")

    @property
    def domains(self):
        """Domain (tumour type, scanner, laboratory) of each annotation, shape (n,)."""
        return self.column("domain")

    @cached_property
    def digest(self):
        """SHA-256 over IDs and labels: whether two tables are about the same cells."""
        return self.digest_of_first(len(self))

    def digest_of_first(self, n_rows):
        """Return the digest that the table had when it held its first rows only."""
        state = hashlib.sha256()
        for values in (self.ids[:n_rows].astype(str), self.labels[:n_rows]):
            state.update("\n".join(values.tolist()).encode())
            state.update(b"\0")
        return "sha256:" + state.hexdigest()

    def positions(self, ids):
        """Row of each ID in this table; see :meth:`featstore.ids.IdIndex.positions`."""
        return self._index.positions(ids)

    def labels_of(self, ids):
        """Labels of the given IDs, in their order; shape (m,).

        Raises
        ------
        NotInStoreError
            If an ID is not in the table.
        """
        return self.labels[self.positions(ids)]

    def take(self, ids):
        """Return the table of the given IDs, in their order."""
        rows = self.positions(ids)
        columns = {key: values[rows] for key, values in self.columns.items()}
        return AnnotationTable(self.name, self.ids[rows], self.labels[rows], columns)

    def extended(self, more):
        """Return this table with the annotations of another behind its own.

        Parameters
        ----------
        more : AnnotationTable
            IDs that are here already must have the same label and columns as here.

        Returns
        -------
        AnnotationTable
            The rows of this table, then those of ``more`` with new IDs, in its order.

        Raises
        ------
        AnnotationError
            If an ID has another label or value there, or the columns differ.

        Examples
        --------
        >>> here = AnnotationTable("d", [1, 2], ["a", "b"], {"x": [0, 1]})
        >>> here.extended(AnnotationTable("d", [2, 3], ["b", "b"], {"x": [1, 2]})).ids
        array([1, 2, 3])
        """
        if set(more.columns) != set(self.columns):
            differing = ", ".join(sorted(set(more.columns) ^ set(self.columns)))
            raise AnnotationError(
                f"the annotations to add to {self.name!r} differ in their columns ({differing}); "
                "give them the same"
            )
        known = np.isin(more.ids, self.ids)
        self._check_agreement(more.take(more.ids[known]))
        new = more.take(more.ids[~known])
        columns = {
            key: np.concatenate([here, new.columns[key]]) for key, here in self.columns.items()
        }
        ids, labels = np.concatenate([self.ids, new.ids]), np.concatenate([self.labels, new.labels])
        return AnnotationTable(self.name, ids, labels, columns)

    def _check_agreement(self, other):
        here = self.take(other.ids)
        for column in ("label", *self.columns):
            ours, theirs = here.column(column), other.column(column)
            same = (ours == theirs) | ((ours != ours) & (theirs != theirs))  # NaN is NaN
            if not same.all():
                row = np.flatnonzero(~same)[0]
                raise AnnotationError(
                    f"{(~same).sum()} annotations of {self.name!r} have another {column} there "
                    f"(first: ID {other.ids.tolist()[row]!r}, here {ours.tolist()[row]!r}, there "
                    f"{theirs.tolist()[row]!r}); nothing was changed"
                )

    def with_columns(self, **columns):
        """Return the table with these columns added or replaced."""
        return AnnotationTable(self.name, self.ids, self.labels, {**self.columns, **columns})

    def to_frame(self):
        """Return a pandas DataFrame, one row per annotation, indexed by ``id``."""
        import pandas as pd

        columns = {"label": self.labels, **self.columns}
        return pd.DataFrame(columns, index=pd.Index(self.ids, name="id"))


def _as_column(values):
    array = np.asarray(values)
    return array if array.dtype.kind in "iufb" else array.astype(str)
