"""Write to a store: datasets whole or not at all, embeddings chunk by chunk in order."""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featstore.errors import DigestError, EncoderError, StoreError
from featstore.store.chunks import ChunkFiles
from featstore.store.index import write_table
from featstore.store.layout import (
    check_key,
    local_path,
    new_array,
    new_group,
    open_root,
    replaced_group,
    rows_per_chunk,
)
from featstore.store.lock import writer_lock
from featstore.store.provenance import Provenance
from featstore.store.reader import Store
from featstore.store.seal import rewrite

__all__ = [
    "EmbeddingWriter",
    "PendingChunk",
    "add_annotations",
    "check_addable",
    "extend_annotations",
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


@dataclass(frozen=True)
class PendingChunk:
    """A chunk that is not there yet, or not all of it.

    Parameters
    ----------
    number : int
        Place in the array.
    ids : ndarray
        Annotation IDs of the rows to be made, in order.
    n_kept : int
        Rows before them that are there already.
    """

    number: int
    ids: np.ndarray
    n_kept: int = 0


class EmbeddingWriter:
    """The one writer of an array of embeddings; a context manager, for it holds the lock.

    Parameters
    ----------
    path : path-like
        A store.
    dataset : str
        Name of the dataset.
    spec : EncoderSpec
        Encoder; its key names the array, its digest guards it.
    parts : dict of str to (start, stop)
        Named slices of an embedding.
    run : dict
        What to record of the run.

    Raises
    ------
    DigestError
        If the array is there and was made by another encoder or of other annotations.
    LockedError
        If another process is writing to it.
    """

    def __init__(self, path, dataset, spec, *, parts, run):
        check_key("model", spec.key)
        self.annotations = Store(path).annotations(dataset)
        self.name = f"embeddings/{spec.key}/{dataset}"
        self._path = path
        self._root = open_root(path, mode="r+")
        self._is_new = self._root.get(self.name) is None
        if self._is_new:
            self._create(Provenance.now(spec, parts, self.annotations, run))
        with contextlib.ExitStack() as stack:
            stack.enter_context(writer_lock(local_path(self._root) / self.name / "values"))
            self._provenance = self._checked_provenance(spec)
            self._values = self._root[f"{self.name}/values"]
            self._chunks = ChunkFiles.of(
                local_path(self._root) / self.name / "values", self._values
            )
            self._grow()
            self._held = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.close()

    def close(self):
        """Give the lock back; an array that got no chunk at all is taken away again."""
        self._held.close()
        folder = local_path(self._root) / self.name
        if self._is_new and not (folder / "values" / "c").exists():
            shutil.rmtree(folder)

    def _create(self, provenance):
        spec, rows = provenance.encoder, len(self.annotations)
        dtype = "float32" if spec.precision == "float32" else "float16"
        with new_group(self._root, self.name) as group:
            new_array(
                group,
                "values",
                shape=(rows, spec.dim),
                chunk_shape=(rows_per_chunk(rows, spec.dim, dtype), spec.dim),
                dtype=dtype,
                dimension_names=("annotation", "feature"),
            )
            group.attrs["provenance"] = provenance.to_json()

    def _checked_provenance(self, spec):
        provenance = Provenance.from_json(self._root[self.name].attrs["provenance"])
        if provenance.digest != spec.digest:
            differing = "; ".join(provenance.encoder.differences(spec))
            raise DigestError(
                f"{self.name!r} was made by another encoder than is asked for ({differing}); "
                "give the new one another --name"
            )
        provenance.check_rows(self.annotations)
        return provenance

    @property
    def _n_stale(self):
        """Rows at the end of the last chunk as it was before the table grew; 0 once it is full."""
        return self._provenance.dataset_rows % self._values.chunks[0] if self._growing else 0

    @property
    def _growing(self):
        return self._provenance.dataset_rows < len(self.annotations)

    def _grow(self):
        """Make room for annotations that were added since the array was begun."""
        if self._values.shape[0] < len(self.annotations):
            shape = [len(self.annotations), self._values.shape[1]]
            rewrite(local_path(self._root) / self.name / "values", shape=shape)
            self._values = open_root(self._path, mode="r+")[f"{self.name}/values"]
        if self._growing and not (self._n_stale and self._chunks.path(self._last_old).exists()):
            self._settle()

    @property
    def _last_old(self):
        """Number of the chunk that held the last row before the table grew."""
        return self._provenance.dataset_rows // self._values.chunks[0]

    def _settle(self):
        """Record that no chunk ends before its rows do."""
        self._provenance = self._provenance.of_all(self.annotations)
        attributes = {"provenance": self._provenance.to_json()}
        rewrite(local_path(self._root) / self.name, attributes=attributes)

    def pending(self):
        """Chunks still to be written, in order."""
        pending = []
        for number in range(self._values.nchunks):
            n_kept = self._n_stale if number == self._last_old else 0
            if n_kept or not self._chunks.path(number).exists():
                first = number * self._values.chunks[0]
                ids = self.annotations.ids[first + n_kept : first + self._values.chunks[0]]
                pending.append(PendingChunk(number, ids, n_kept))
        return pending

    def write(self, chunk, values):
        """Write one chunk, whole.

        Parameters
        ----------
        chunk : PendingChunk
            As :meth:`pending` gave it.
        values : ndarray of shape (len(chunk.ids), dim)
            Embeddings.

        Raises
        ------
        EncoderError
            If a value is not finite in the type on disk; nothing is written.
        StoreError
            If the disk is full or gone; nothing is written.
        """
        rows = self._as_on_disk(chunk, values)
        if chunk.n_kept:
            kept = self._chunks.map(chunk.number, check=True)[: chunk.n_kept]
            rows = np.concatenate([kept, rows])
        self._chunks.write(chunk.number, rows)
        if chunk.n_kept:
            self._settle()

    def _as_on_disk(self, chunk, values):
        with np.errstate(over="ignore"):  # an overflow becomes infinity, refused below
            rows = np.asarray(values).astype(self._values.dtype, copy=False)
        if not np.isfinite(rows).all():
            bad = ~np.isfinite(rows).all(axis=1)
            first = chunk.ids[bad].tolist()[0]
            raise EncoderError(
                f"the embedding of annotation {first!r} is not finite as {rows.dtype} "
                f"({bad.sum()} in this chunk); extract with --precision float32, or look at the "
                "annotation with 'featstore show'"
            )
        return rows
