"""How the annotation table of one dataset comes into another store."""

import itertools
from dataclasses import dataclass

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import DamagedChunkError, StoreError
from featstore.store.chunks import write_file
from featstore.store.layout import (
    check_key,
    fetch,
    local_path,
    new_array,
    new_group,
    open_root,
)
from featstore.store.manifest import store_files
from featstore.store.reader import Store
from featstore.store.seal import SEAL
from featstore.store.source import SourceChunks, check_seal
from featstore.store.writer import extend_annotations

__all__ = ["CopiedPart", "TablePlan", "array_like", "copy_columns", "source_attributes"]

COMPARED = ("label", "x", "y", "image")  # what makes an annotation the same in two stores
NAMED_CONFLICTS = 3


@dataclass(frozen=True)
class CopiedPart:
    """What a copy did with one dataset, or one array of embeddings or patches.

    Parameters
    ----------
    name : str
        Path in the store.
    copied : int
        Chunk files that were written.
    equal : int
        Chunk files that were there already.
    n_bytes : int
        Bytes that were written.
    """

    name: str
    copied: int
    equal: int
    n_bytes: int


@dataclass(frozen=True)
class TablePlan:
    """How the table of one dataset comes into the target.

    Parameters
    ----------
    store : Store
        The source.
    theirs : AnnotationTable
        The source's table.
    ours : AnnotationTable or None
        The target's table.
    merged : AnnotationTable
        What the target will hold.
    """

    store: Store
    theirs: AnnotationTable
    ours: AnnotationTable | None
    merged: AnnotationTable

    @classmethod
    def make(cls, store, target, dataset):
        """Look at both stores, and refuse what cannot be merged."""
        check_key("dataset", dataset)
        theirs = store.annotations(dataset)
        for column in theirs.columns:
            check_key("column", column)
        if target is None or dataset not in target.datasets():
            return cls(store, theirs, None, theirs)
        ours = target.annotations(dataset)
        _check_same_cells(ours, theirs, target.path)
        new = theirs.take(theirs.ids[~np.isin(theirs.ids, ours.ids)])
        return cls(store, theirs, ours, ours.extended(new) if len(new) else ours)

    @property
    def name(self):
        """Path of the table in either store."""
        return f"annotations/{self.theirs.name}"

    @property
    def aligned(self):
        """Whether a row of the source's table is the same row of the target's."""
        return np.array_equal(self.merged.ids[: len(self.theirs)], self.theirs.ids)

    def source_rows(self, ids):
        """Row of each ID in the source's table; -1 where it has none."""
        rows = np.full(len(ids), -1)
        known = np.isin(ids, self.theirs.ids)
        rows[known] = self.theirs.positions(ids[known])
        return rows

    def put(self, home):
        """Bring the table into the target; return what was done."""
        n_columns = 2 + len(self.merged.columns)
        if self.ours is None:
            return self._copy(home)
        if len(self.merged) == len(self.ours):
            return CopiedPart(self.name, 0, n_columns, 0)
        extend_annotations(home, self.merged)
        folder = home / self.name
        n_bytes = sum((folder / file).stat().st_size for file in store_files(folder))
        return CopiedPart(self.name, n_columns, 0, n_bytes)

    def _copy(self, home):
        """Copy the columns of a table, whose place in the target is empty."""
        source, columns = self.store._root, ["id", "label", *self.theirs.columns]
        with new_group(open_root(home, mode="r+"), self.name) as group:
            n_bytes = copy_columns(source, self.name, columns, group)
            attributes = source_attributes(source, self.name)
            attributes.get("images", {}).pop("root", None)  # a path of the source's machine
            group.attrs.update(attributes)
        return CopiedPart(self.name, len(columns), 0, n_bytes)


def _check_same_cells(ours, theirs, target_path):
    """Refuse tables in which an ID has another label, position or image."""
    if ours.ids.dtype.kind != theirs.ids.dtype.kind:
        raise StoreError(
            f"the annotation IDs of {ours.name!r} are integers in one store and strings in the "
            f"other (first in {target_path}: {ours.ids.tolist()[0]!r}, to copy: "
            f"{theirs.ids.tolist()[0]!r}); nothing was changed"
        )
    common = theirs.ids[np.isin(theirs.ids, ours.ids)]
    ours, theirs = ours.take(common), theirs.take(common)
    conflicts = {column: _differing(ours, theirs, column) for column in COMPARED}
    if any(conflicts.values()):
        counts = ", ".join(f"{len(found)} in {name}" for name, found in conflicts.items() if found)
        first = list(itertools.chain(*conflicts.values()))[:NAMED_CONFLICTS]
        raise StoreError(
            f"annotations of {ours.name!r} are not the same in {target_path}: {counts} (first: "
            f"{'; '.join(first)}); nothing was changed, copy into another store or mend one of them"
        )


def _differing(ours, theirs, column):
    """Describe each annotation with another value in the two tables of the same IDs."""
    known = [{"label", *table.columns} for table in (ours, theirs)]
    if not all(column in columns for columns in known):
        return []
    here, there = ours.column(column), theirs.column(column)
    if (here.dtype.kind == "U") != (there.dtype.kind == "U"):
        here, there = here.astype(str), there.astype(str)
    same = (here == there) | ((here != here) & (there != there))  # NaN is NaN
    return [
        f"ID {ours.ids[row].item()!r} {column} {here[row].item()!r} here, "
        f"{there[row].item()!r} there"
        for row in np.flatnonzero(~same)
    ]


def copy_columns(source, name, columns, group):
    """Copy the columns of a table as they are.

    Parameters
    ----------
    source : zarr.Group
        Root of the source.
    name : str
        Path of the table in it.
    columns : sequence of str
        Their names.
    group : zarr.Group
        Where they are made.

    Returns
    -------
    int
        Bytes of their chunks.
    """
    return sum(_copy_column(SourceChunks(source, f"{name}/{column}"), group) for column in columns)


def _copy_column(chunks, group):
    name, n_bytes = chunks.array.basename, 0
    array_like(chunks.array, group, name, chunks.array.shape, chunks.array.chunks)
    for place in chunks.places():
        data = chunks.raw(place)
        if data is None:
            raise DamagedChunkError(
                f"chunk {'/'.join(map(str, place))} of {chunks.name!r} is not there; get the store "
                "again"
            )
        write_file(local_path(group).joinpath(group.path, name, "c", *map(str, place)), data)
        n_bytes += len(data)
    return n_bytes


def array_like(array, group, name, shape, chunk_shape):
    """Make an empty array that differs from another at most in its number of rows."""
    made = new_array(
        group,
        name,
        shape=shape,
        chunk_shape=chunk_shape,
        dtype=array.dtype,
        dimension_names=array.metadata.dimension_names,
    )
    attributes = {key: value for key, value in array.attrs.items() if key != SEAL}
    if attributes:
        made.attrs.update(attributes)


def source_attributes(root, name):
    """Attributes of a group of the source, all but the seal, which is of that one file."""
    check_seal(fetch(root, f"{name}/zarr.json"), f"{name}/zarr.json of {root.store}")
    return {key: value for key, value in root[name].attrs.items() if key != SEAL}
