"""How the embeddings, or the cached patches, of one dataset come into another store.

Chunk files go over as they are where a row is the same row in both stores, and through a writer,
by annotation ID, where it is not.
"""

from dataclasses import dataclass, replace

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import DigestError, StoreError
from featstore.store.chunks import CHECKSUM_BYTES, MADE_BY, chunk_key, write_file
from featstore.store.index import write_table
from featstore.store.layout import check_key, local_path, new_group, open_root, rows_per_chunk
from featstore.store.lock import writer_lock
from featstore.store.parts import listed
from featstore.store.patchcache import UNKNOWN_LEVEL, WINDOW_COLUMNS, check_windows
from featstore.store.rowarray import RowArray
from featstore.store.seal import seal
from featstore.store.source import SourceChunks, check_chunk
from featstore.store.tableplan import (
    CopiedPart,
    TablePlan,
    array_like,
    copy_columns,
    source_attributes,
)
from featstore.store.writer import EmbeddingWriter, PatchWriter

__all__ = ["EmbeddingPlan", "PatchPlan"]


@dataclass(frozen=True)
class RowPlan:
    """How one array of rows comes into the target.

    Parameters
    ----------
    table : TablePlan
        The dataset's table.
    theirs : RowArray
        The source's rows.
    ours : RowArray or None
        The target's rows.
    chunks : SourceChunks
        The source's chunks.
    """

    table: TablePlan
    theirs: RowArray
    ours: RowArray | None
    chunks: SourceChunks

    n_axes = 0
    other_spec = ""  # what is said where the two were made by different specifications

    @classmethod
    def _of(cls, table, target, rows_in):
        """Look at both stores, and refuse what cannot be merged."""
        theirs = rows_in(table.store)
        path = theirs._array_path
        ours = rows_in(target) if target is not None and path in target._root else None
        plan = cls(table, theirs, ours, SourceChunks(table.store._root, path))
        plan.theirs.provenance.check_rows(table.theirs)
        plan._check_shape()
        if ours is not None:
            plan._check_same_spec(target)
        return plan

    @property
    def name(self):
        """Path of the group in either store."""
        return self.theirs.name

    def _check_shape(self):
        array, n_annotations = self.chunks.array, len(self.table.theirs)
        whole_rows = array.ndim == self.n_axes and array.chunks[1:] == array.shape[1:]
        fits, expected = self._row_fits(array)
        if not (whole_rows and fits and array.shape[0] <= n_annotations):
            raise StoreError(
                f"{self.name!r} of {self.table.store.path} has the shape {array.shape} in chunks "
                f"of {array.chunks} of {array.dtype}; expected at most {n_annotations} whole rows "
                f"of {expected}"
            )

    def _row_fits(self, array):
        """Whether the rows are of the kind that is expected, and what that is."""
        raise NotImplementedError

    def _check_same_spec(self, target):
        if self.ours.digest != self.theirs.digest:
            ours, theirs = self.ours.provenance.spec, self.theirs.provenance.spec
            raise DigestError(
                f"{self.name!r} in {target.path} was {self.other_spec} "
                f"({'; '.join(ours.differences(theirs))}); nothing was changed, copy into another "
                "store"
            )
        self._check_same_parts(target)
        ours, theirs = self.ours._array, self.chunks.array
        if (ours.shape[1:], ours.dtype) != (theirs.shape[1:], theirs.dtype):
            raise DigestError(
                f"{self.name!r} has {_row_of(ours)} to a row in {target.path} and "
                f"{_row_of(theirs)} in the store to copy; nothing was changed"
            )

    def _check_same_parts(self, target):
        """Refuse rows that are made of other parts; nothing unless a subclass says so."""

    def put(self, home, notes):
        """Bring the rows into the target; return what was done."""
        root = open_root(home, mode="r+")
        begun = self._begin(root) if self._path not in root else CopiedPart(self.name, 0, 0, 0)
        as_they_are = self.table.aligned and self._same_state(root)
        done = self._copy_chunks(home, notes) if as_they_are else self._write_rows(home, notes)
        n_copied, n_bytes = begun.copied + done.copied, begun.n_bytes + done.n_bytes
        return replace(done, copied=n_copied, n_bytes=n_bytes)

    @property
    def _path(self):
        return self.theirs._array_path

    def _begin(self, root):
        """Make the array without its chunks, as the source's or for the target's table."""
        array, attributes = self.chunks.array, self._source_attributes(self.name)
        shape, chunk_shape = array.shape, array.chunks
        if not self.table.aligned:
            merged = self.table.merged
            shape = (len(merged), *array.shape[1:])
            height = rows_per_chunk(len(merged), int(np.prod(array.shape[1:])), array.dtype)
            chunk_shape = (height, *array.shape[1:])
            rows = {"dataset_digest": merged.digest, "dataset_rows": len(merged)}
            attributes["provenance"] = {**attributes["provenance"], **rows}
        with new_group(root, self.name) as group:
            array_like(array, group, array.basename, shape, chunk_shape)
            n_files, n_bytes = self._put_beside(group)
            group.attrs.update(attributes)
        return CopiedPart(self.name, n_files, 0, n_bytes)

    def _source_attributes(self, name):
        return source_attributes(self.table.store._root, name)

    def _put_beside(self, group):
        """Fill a new group with what stands beside the array; number and bytes of its chunks."""
        return 0, 0

    def _same_state(self, root):
        """Whether chunk files of the source can stand in the target as they are."""
        ours, theirs = root[self._path], self.chunks.array
        n_made = root[self.name].attrs["provenance"]["dataset_rows"]
        return (ours.shape, ours.chunks, n_made) == (
            theirs.shape,
            theirs.chunks,
            self.theirs.provenance.dataset_rows,
        )

    def _copy_chunks(self, home, notes):
        """Copy the chunk files that the target does not have."""
        done = CopiedPart(self.name, 0, 0, 0)
        n_other = 0
        with writer_lock(home / self.name):
            for place in self.chunks.places():
                file = home.joinpath(self._path, "c", *map(str, place))
                if file.exists():
                    equal = self.chunks.checksum(place) == _checksum_of(file)
                    n_other += not equal
                    done = replace(done, equal=done.equal + equal)
                elif (data := self.chunks.raw(place)) is not None:
                    write_file(file, data)
                    done = replace(done, copied=done.copied + 1, n_bytes=done.n_bytes + len(data))
        if n_other:
            notes.append(f"{n_other} chunks of {self.name} are in {home} {self._of_another_run}")
        return done

    def _write_rows(self, home, notes):
        """Bring rows into the order and the chunks of the target."""
        n_left, written = 0, []
        with self._writer(home) as writer:
            pending = writer.pending()
            for chunk in pending:
                rows, there = self._rows_of(chunk.ids)
                if there.all():
                    writer.write(chunk, rows)
                    written.append(home / self._path / chunk_key(chunk.number, self.n_axes))
                else:
                    n_left += int(there.sum())
        if n_left:
            notes.append(
                f"{n_left} {self.theirs._plural} of {self.name} were not copied: they share chunks "
                f"with annotations that the source has no {self.theirs._plural} of; "
                f"'{MADE_BY[self.chunks.array.basename]}' makes them"
            )
        n_bytes = sum(file.stat().st_size for file in written)
        n_before = open_root(home)[self._path].nchunks - len(pending)
        return CopiedPart(self.name, len(written), n_before, n_bytes)

    def _rows_of(self, ids):
        """Rows of the source, and whether it has them."""
        positions = self.table.source_rows(ids)
        rows, there = self.chunks.rows(positions)
        height = self.chunks.array.chunks[0]
        return rows, there & ~self.theirs.provenance.awaited(positions, height)

    def _writer(self, home):
        """Open the target's array for writing."""
        raise NotImplementedError


def _row_of(array):
    """Describe a row of an array.

    Examples
    --------
    >>> _row_of(np.zeros((9, 64, 64, 3), "uint8"))
    '64 x 64 x 3 uint8'
    """
    return f"{' x '.join(map(str, array.shape[1:]))} {array.dtype}"


def _checksum_of(file):
    data = file.read_bytes()
    check_chunk(data, str(file))
    return data[-CHECKSUM_BYTES:]


class EmbeddingPlan(RowPlan):
    """How the embeddings of one model of one dataset come into the target."""

    n_axes = 2
    other_spec = "made by another encoder than the one to copy"
    _of_another_run = (
        "with other values (the same encoder, another run) and were kept; 'featstore diff' says "
        "how far the two are apart"
    )

    @classmethod
    def make(cls, target, model, table):
        """Look at both stores, and refuse what cannot be merged."""
        check_key("model", model)
        return cls._of(table, target, lambda store: store.embeddings(model, table.theirs.name))

    def _row_fits(self, array):
        return array.dtype.kind == "f", "floating-point numbers"

    def _check_same_parts(self, target):
        if self.ours.parts != self.theirs.parts:
            ours, theirs = (listed(rows.parts, as_slices=True) for rows in (self.ours, self.theirs))
            raise DigestError(
                f"{self.name!r} holds the parts {ours} in {target.path} and {theirs} in the store "
                "to copy; nothing was changed, copy into another store"
            )

    def _writer(self, home):
        provenance = self.theirs.stored_provenance
        spec = provenance.encoder.at(key=self.theirs.model)
        return EmbeddingWriter(
            home, self.theirs.dataset, spec, parts=provenance.parts, run=provenance.run
        )


class PatchPlan(RowPlan):
    """How the cached patches of one dataset come into the target."""

    n_axes = 4
    other_spec = "cut in another way than the patches to copy"
    _of_another_run = (
        "with other pixels and were kept; 'featstore verify' says whether one of them is damaged"
    )

    @classmethod
    def make(cls, target, table):
        """Look at both stores, and refuse what cannot be merged."""
        return cls._of(table, target, lambda store: store.patches(table.theirs.name))

    def _check_shape(self):
        super()._check_shape()
        windows, table = self.theirs.windows, self.table.theirs
        check_windows(windows)
        of_table = windows.digest == table.digest_of_first(len(windows))
        if not of_table or len(windows) < self.chunks.array.shape[0]:
            raise StoreError(
                f"'{self.name}/windows' of {self.table.store.path} has {len(windows)} rows, which "
                f"are not the windows of its {self.chunks.array.shape[0]} patches; get the store "
                "again"
            )

    def _row_fits(self, array):
        row = (self.theirs.cut.patch_px, self.theirs.cut.patch_px, 3)
        return (array.dtype, array.shape[1:]) == (np.uint8, row), f"{row} uint8"

    def _put_beside(self, group):
        beside = group.create_group("windows")
        if self.table.aligned:
            name, columns = f"{self.name}/windows", ["id", "label", *self.theirs.windows.columns]
            n_bytes = copy_columns(self.table.store._root, name, columns, beside)
            beside.attrs.update(self._source_attributes(name))
        else:
            write_table(beside, self._windows)
            columns = ["id", "label", *self._windows.columns]
            n_bytes = sum(file.stat().st_size for file in _chunk_files(beside))
        seal(local_path(group) / "windows")
        return len(columns), n_bytes

    def _writer(self, home):
        provenance = self.theirs.provenance
        return PatchWriter(home, self._windows, provenance.spec, run=provenance.run)

    @property
    def _windows(self):
        """Windows of the target's annotations: its own, else the source's, else unknown."""
        merged, held = self.table.merged, [self.theirs.windows]
        held += [] if self.ours is None else [self.ours.windows]
        columns = {name: _unknown(held[0].column(name), len(merged)) for name in WINDOW_COLUMNS}
        for windows in held:
            known = windows.ids[windows.column("read_level") != UNKNOWN_LEVEL]
            rows, placed = merged.positions(known), windows.take(known)
            for name in WINDOW_COLUMNS:
                columns[name][rows] = placed.column(name)
        return AnnotationTable(merged.name, merged.ids, merged.labels, columns)


def _chunk_files(group):
    return (local_path(group) / group.path).glob("*/c/**/[0-9]*")


def _unknown(values, n_rows):
    """Fill a column of windows that nobody has placed yet.

    Examples
    --------
    >>> _unknown(np.array([0.25]), 2), _unknown(np.array([0, 1]), 2), _unknown(np.array([True]), 2)
    (array([nan, nan]), array([-1, -1]), array([False, False]))
    """
    blanks = {"f": np.nan, "b": False}
    dtype = values.dtype if values.dtype.kind in blanks else np.int64
    return np.full(n_rows, blanks.get(values.dtype.kind, UNKNOWN_LEVEL), dtype)
