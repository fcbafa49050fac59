"""Write to a store: datasets whole or not at all, embeddings and patches chunk by chunk."""

import contextlib
import os
from pathlib import Path

import numpy as np

from featstore.errors import AnnotationError, DigestError, EncoderError, StoreError
from featstore.store.index import read_table, write_table
from featstore.store.layout import (
    check_key,
    local_path,
    members,
    new_group,
    open_root,
    remove_group,
    replaced_group,
)
from featstore.store.lock import writer_lock
from featstore.store.parts import StoredRow, listed
from featstore.store.patchcache import check_windows
from featstore.store.reader import Store
from featstore.store.rowwriter import PendingChunk, RowWriter
from featstore.store.seal import seal
from featstore.store.source import check_seal

__all__ = [
    "EmbeddingWriter",
    "PatchWriter",
    "PendingChunk",
    "add_annotations",
    "check_addable",
    "extend_annotations",
    "remove_patches",
]


def add_annotations(path, annotations, *, folder=None, source=None):
    """Add a dataset to a store.

    Parameters
    ----------
    path : path-like
        A store.
    annotations : AnnotationTable
        Its ``name`` becomes the dataset's.
    folder : ImageFolder, optional
        Where the images are; kept relative to the store's own folder.
    source : dict, optional
        Where the annotations were read from.

    Raises
    ------
    AlreadyInStoreError
        If the store has a dataset of that name.
    """
    check_addable(annotations)
    root = open_root(path, mode="r+")
    with new_group(root, f"annotations/{annotations.name}") as group:
        write_table(group, annotations)
        group.attrs["source"] = source or {}
        if folder is not None:
            home = local_path(root).absolute().parent
            relative = Path(os.path.relpath(Path(folder.root).absolute(), home)).as_posix()
            group.attrs["images"] = {"root": relative, "whole": folder.whole}


def check_addable(annotations):
    """Refuse a table that no store can hold.

    Raises
    ------
    StoreError
        If it is empty, or a name is not allowed.
    """
    check_key("dataset", annotations.name)
    for column in annotations.columns:
        check_key("column", column)
    if len(annotations) == 0:
        raise StoreError(f"dataset {annotations.name!r} has no annotations; nothing to add")


def extend_annotations(path, annotations, *, source=None):
    """Put a longer table in the place of a dataset's own.

    Parameters
    ----------
    path : path-like
        A store.
    annotations : AnnotationTable
        Begins with the rows that are there; :meth:`AnnotationTable.extended` makes such tables.
        Its embeddings are topped up by the next extraction.
    source : dict, optional
        Where the new annotations were read from; kept beside the first source.

    Raises
    ------
    StoreError
        If the table does not begin with the rows that are there.
    """
    root = open_root(path, mode="r+")
    there = Store(path).annotations(annotations.name)
    if len(annotations) < len(there) or not np.array_equal(
        annotations.ids[: len(there)], there.ids
    ):
        raise StoreError(
            f"the new table of {annotations.name!r} does not begin with the {len(there)} "
            "annotations that are there; rows may only be added at its end"
        )
    there.extended(annotations)  # refuses another label, position or column
    name = f"annotations/{annotations.name}"
    attributes = dict(root[name].attrs)
    with replaced_group(root, name) as group:
        group.attrs.update(attributes)
        group.attrs["extended"] = [*attributes.get("extended", []), source or {}]
        write_table(group, annotations)


class EmbeddingWriter(RowWriter):
    """The one writer of an array of embeddings; a context manager, for it holds the lock.

    Parameters
    ----------
    path : path-like
        A store.
    dataset : str
        Name of the dataset.
    spec : EncoderSpec
        Encoder; its key names the array, its digest guards it, its pooling names the default view.
    parts : dict of str to (start, stop)
        Named slices of a row, which stand side by side: a row is as long as the largest stop, or
        ``spec.dim`` where there are none. Those of ``spec.pooling`` are ``spec.dim`` long.
    run : dict
        What to record of the run.

    Raises
    ------
    DigestError
        If the array is there and was made by another encoder or of other annotations, or holds
        other parts.
    LockedError
        If another process is writing to it.
    StoreError
        If the parts do not stand side by side, or do not fit the specification.
    """

    array_name = "values"
    dimension_names = ("annotation", "feature")
    other_spec = (
        "was made by another encoder than is asked for ({}); give the new one another --name"
    )

    def __init__(self, path, dataset, spec, *, parts, run):
        check_key("model", spec.key)
        parts = {name: tuple(ends) for name, ends in parts.items()}
        self._stored = StoredRow(parts, spec.pooling, spec.dim)
        if self._stored.problem is not None:
            raise StoreError(
                f"embeddings of {spec.key!r} cannot be stored by the parts given "
                f"({self._stored.problem}); give parts that fit the specification"
            )
        super().__init__(
            path, dataset, f"embeddings/{spec.key}/{dataset}", spec, run=run, parts=parts
        )

    def _row(self, spec):
        return (self._stored.width,), "float32" if spec.precision == "float32" else "float16"

    def _checked_provenance(self, spec):
        provenance = super()._checked_provenance(spec)
        there = StoredRow(provenance.parts, spec.pooling, spec.dim)
        if there.parts != self._stored.parts:
            raise DigestError(
                f"{self.name!r} holds {_other_parts(there.ordered, self._stored.ordered)}give the "
                "new one another --name"
            )
        return provenance

    def _why_refused(self, provenance, spec):
        held = StoredRow(provenance.parts, spec.pooling, spec.dim)
        if provenance.spec.at(pooling=spec.pooling).digest == spec.digest and held.names_parts:
            return (
                f"holds the parts {listed(held.ordered)}: no extraction is needed for pooling "
                f"{spec.pooling!r}, read it as '{spec.key}:{spec.pooling}'"
            )
        return super()._why_refused(provenance, spec)

    def _as_on_disk(self, chunk, rows):
        shape = (len(chunk.ids), *self._array.shape[1:])
        if np.shape(rows) != shape:
            raise StoreError(
                f"embeddings of {self.name!r} have the shape {np.shape(rows)}; {shape} is needed "
                f"for these {len(chunk.ids)} annotations (parts {listed(self._stored.ordered)})"
            )
        with np.errstate(over="ignore"):  # an overflow becomes infinity, refused below
            rows = np.asarray(rows).astype(self._array.dtype, copy=False)
        if not np.isfinite(rows).all():
            bad = ~np.isfinite(rows).all(axis=1)
            first = chunk.ids[bad].tolist()[0]
            raise EncoderError(
                f"the embedding of annotation {first!r} is not finite as {rows.dtype} "
                f"({bad.sum()} in this chunk); extract with --precision float32, or look at the "
                "annotation with 'featstore show'"
            )
        return rows


def _other_parts(there, asked):
    """Say which parts are there and which were asked for, and how to get the former.

    Examples
    --------
    >>> _other_parts({"class": (0, 2)}, {"class": (0, 2), "mean": (2, 4)})
    'the parts class; class, mean were asked for; extract with --parts class, or '
    >>> _other_parts({"class": (0, 2)}, {"class": (0, 3)})
    'the parts class 0:2; class 0:3 were asked for; '
    """
    same_names = there.keys() == asked.keys()
    held, wanted = (listed(parts, as_slices=same_names) for parts in (there, asked))
    others = f"extract with --parts {'+'.join(there)}, or " if there and not same_names else ""
    return f"the parts {held}; {wanted} were asked for; {others}"


class PatchWriter(RowWriter):
    """The one writer of the cached patches of a dataset; a context manager, for it holds the lock.

    Parameters
    ----------
    path : path-like
        A store.
    windows : AnnotationTable
        Named as the dataset, with its annotations in its order and, for each, the columns of
        :data:`featstore.store.patchcache.WINDOW_COLUMNS`. It takes the place of the table that is
        there, where that one is another or damaged.
    cut : CutSpec
        How the patches are cut; its digest guards them.
    run : dict
        What to record of the run.

    Raises
    ------
    AnnotationError
        If ``windows`` is of other annotations, in another order, or lacks a column of numbers.
    DigestError
        If patches are there that were cut in another way or of other annotations.
    LockedError
        If another process is writing them.

    Examples
    --------
    >>> import tempfile, featstore
    >>> from featstore.store.patchcache import WINDOW_COLUMNS
    >>> from featstore.windows import CutSpec
    >>> path = tempfile.mkdtemp()
    >>> store = featstore.create(path)
    >>> cells = featstore.AnnotationTable("cells", [7, 8], ["a", "b"])
    >>> add_annotations(path, cells)
    >>> windows = cells.with_columns(**{column: [1, 1] for column in WINDOW_COLUMNS})
    >>> with PatchWriter(path, windows, CutSpec(4, 0.25), run={}) as writer:
    ...     for chunk in writer.pending():
    ...         writer.write(chunk, np.full((len(chunk.ids), 4, 4, 3), 255, np.uint8))
    >>> store.patches("cells").read([8, 7, 8]).shape
    (3, 4, 4, 3)
    """

    array_name = "pixels"
    dimension_names = ("annotation", "y", "x", "rgb")
    other_spec = (
        "was cut in another way than is asked for ({}); 'featstore cut --replace' removes the old "
        "patches"
    )

    def __init__(self, path, windows, cut, *, run):
        self._windows = _checked_windows(windows, Store(path).annotations(windows.name))
        super().__init__(path, windows.name, f"patches/{windows.name}", cut, run=run)

    def _row(self, spec):
        return (spec.patch_px, spec.patch_px, 3), "uint8"

    def _put_beside(self, group):
        write_table(group.create_group("windows"), self._windows)
        seal(local_path(group) / "windows")

    def _grow(self):
        """Make room for new patches, behind new windows: there is a window for each patch."""
        there = self._windows_there()
        if there is None or not _same_table(there, self._windows):
            self._put_windows(keep_attributes=there is not None)
        super()._grow()

    def _windows_there(self):
        """Windows as they are; None where they are missing or damaged, and to be made again."""
        try:
            for metadata in (self._home / "windows").rglob("zarr.json"):
                check_seal(metadata.read_bytes(), str(metadata))
            group = self._root[f"{self.name}/windows"]
            return read_table(group, self._windows.name, what="windows of patches of")
        except (StoreError, KeyError):
            return None

    def _put_windows(self, *, keep_attributes):
        name = f"{self.name}/windows"
        attributes = dict(self._root[name].attrs) if keep_attributes else {}
        put = replaced_group if (self._home / "windows").exists() else new_group
        with put(self._root, name) as group:
            group.attrs.update(attributes)
            write_table(group, self._windows)

    def _as_on_disk(self, chunk, rows):
        pixels, shape = np.asarray(rows), (len(chunk.ids), *self._array.shape[1:])
        if pixels.dtype != np.uint8 or pixels.shape != shape:
            raise StoreError(
                f"patches of {self._windows.name!r} have the shape {pixels.shape} and are "
                f"{pixels.dtype}; {shape} of uint8 are needed for these {len(chunk.ids)} "
                "annotations"
            )
        return pixels


def _checked_windows(windows, annotations):
    """Refuse windows that are not of the annotations of a dataset, row by row."""
    check_addable(windows)
    if windows.digest != annotations.digest:
        raise AnnotationError(
            f"the windows given are not of the {len(annotations)} annotations of "
            f"{annotations.name!r} in their order ({len(windows)} rows); make them of the table in "
            "the store"
        )
    check_windows(windows)
    return windows


def _same_table(here, there):
    """Whether two tables hold the same values, NaN being NaN."""
    names = ["id", "label", *here.columns]
    if sorted(here.columns) != sorted(there.columns) or len(here) != len(there):
        return False
    pairs = [(here.column(name), there.column(name)) for name in names]
    return all((((a == b) | ((a != a) & (b != b))).all()) for a, b in pairs)


def remove_patches(path, dataset):
    """Take the cached patches of a dataset away.

    Parameters
    ----------
    path : path-like
        A store.
    dataset : str
        Name of the dataset.

    Raises
    ------
    NotInStoreError
        If the store has no patches of that dataset.
    LockedError
        If another process is writing them.
    """
    root, name = open_root(path, mode="r+"), f"patches/{dataset}"
    if dataset not in members(root, "patches"):
        Store(path).patches(dataset)  # says what there is
    home = local_path(root) / name
    with contextlib.ExitStack() as locks:  # a writer locks the array, a copy its group
        for folder in filter(Path.is_dir, (home / "pixels", home)):
            locks.enter_context(writer_lock(folder))
        remove_group(root, name)
