"""The one writer of an array of rows: chunk by chunk, whole or not at all, and topped up.

What writers of embeddings and of patches have in common; each says what a row of it looks like.
"""

import contextlib
from dataclasses import dataclass

import numpy as np

from featstore.errors import AlreadyInStoreError, DigestError
from featstore.store.chunks import ChunkFiles
from featstore.store.layout import (
    local_path,
    new_array,
    new_group,
    open_root,
    remove_group,
    rows_per_chunk,
)
from featstore.store.lock import writer_lock
from featstore.store.provenance import Provenance
from featstore.store.reader import Store
from featstore.store.seal import rewrite

__all__ = ["PendingChunk", "RowWriter"]


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


class RowWriter:
    """The one writer of an array of rows; a context manager, for it holds the lock.

    Made by its subclasses, which say by class attributes and methods what a row is.

    Parameters
    ----------
    path : path-like
        A store.
    dataset : str
        Name of the dataset.
    name : str
        Path of the array's group in the store.
    spec : EncoderSpec or CutSpec
        What the rows are made by; its digest guards them.
    run : dict
        What to record of the run.
    parts : dict of str to (start, stop), optional
        Named slices of an embedding.

    Raises
    ------
    DigestError
        If the array is there and was made by another specification or of other annotations, or
        holds other parts.
    LockedError
        If another process is writing to it.
    """

    array_name = ""
    dimension_names = ()
    other_spec = ""  # what to say, and to do, where the array was made by another specification

    def __init__(self, path, dataset, name, spec, *, run, parts=None):
        self.annotations = Store(path).annotations(dataset)
        self.name = name
        self._path = path
        self._root = open_root(path, mode="r+")
        self._is_new = self._root.get(name) is None
        if self._is_new:
            self._begin(Provenance.now(spec, self.annotations, run, parts=parts))
        with contextlib.ExitStack() as stack:
            stack.enter_context(writer_lock(self._home / self.array_name))
            self._provenance = self._checked_provenance(spec)
            self._array = self._opened()
            self._chunks = ChunkFiles.of(self._home / self.array_name, self._array)
            self._grow()
            self._held = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.close()

    def close(self):
        """Give the lock back; an array that got no chunk at all is taken away again."""
        with self._held:
            if self._is_new and not (self._home / self.array_name / "c").exists():
                remove_group(self._root, self.name)

    @property
    def _home(self):
        return local_path(self._root) / self.name

    def _opened(self):
        return open_root(self._path, mode="r+")[f"{self.name}/{self.array_name}"]

    def _row(self, spec):
        """Shape and type of a row."""
        raise NotImplementedError

    def _begin(self, provenance):
        """Make the array, where no other process that began with us was quicker."""
        try:
            self._create(provenance)
        except AlreadyInStoreError:
            self._is_new = False

    def _create(self, provenance):
        (*shape,), dtype = self._row(provenance.spec)
        n_rows = len(self.annotations)
        n_per_chunk = rows_per_chunk(n_rows, int(np.prod(shape)), dtype)
        with new_group(self._root, self.name) as group:
            new_array(
                group,
                self.array_name,
                shape=(n_rows, *shape),
                chunk_shape=(n_per_chunk, *shape),
                dtype=dtype,
                dimension_names=self.dimension_names,
            )
            self._put_beside(group)
            group.attrs["provenance"] = provenance.to_json()

    def _put_beside(self, group):
        """Fill a new group with what stands beside the array; nothing unless a subclass says so."""

    def _checked_provenance(self, spec):
        provenance = Provenance.from_json(self._root[self.name].attrs["provenance"])
        if provenance.digest != spec.digest:
            raise DigestError(f"{self.name!r} {self._why_refused(provenance, spec)}")
        provenance.check_rows(self.annotations)
        return provenance

    def _why_refused(self, provenance, spec):
        """Say what the array is, where it was made by another specification, and what to do."""
        return self.other_spec.format("; ".join(provenance.spec.differences(spec)))

    @property
    def _n_stale(self):
        """Rows at the end of the last chunk as it was before the table grew; 0 once it is full."""
        return self._provenance.dataset_rows % self._array.chunks[0] if self._growing else 0

    @property
    def _growing(self):
        return self._provenance.dataset_rows < len(self.annotations)

    def _grow(self):
        """Make room for annotations that were added since the array was begun."""
        if self._array.shape[0] < len(self.annotations):
            shape = [len(self.annotations), *self._array.shape[1:]]
            rewrite(self._home / self.array_name, shape=shape)
            self._array = self._opened()
        if self._growing and not (self._n_stale and self._chunks.path(self._last_old).exists()):
            self._settle()

    @property
    def _last_old(self):
        """Number of the chunk that held the last row before the table grew."""
        return self._provenance.dataset_rows // self._array.chunks[0]

    def _settle(self):
        """Record that no chunk ends before its rows do."""
        self._provenance = self._provenance.of_all(self.annotations)
        rewrite(self._home, attributes={"provenance": self._provenance.to_json()})

    def pending(self):
        """Chunks still to be written, in order, as a list of :class:`PendingChunk`."""
        pending, height = [], self._array.chunks[0]
        for number in range(-(-self._array.shape[0] // height)):
            n_kept = self._n_stale if number == self._last_old else 0
            if n_kept or not self._chunks.path(number).exists():
                first = number * height
                ids = self.annotations.ids[first + n_kept : first + height]
                pending.append(PendingChunk(number, ids, n_kept))
        return pending

    def write(self, chunk, rows):
        """Write one chunk, whole.

        Parameters
        ----------
        chunk : PendingChunk
            As :meth:`pending` gave it.
        rows : ndarray of shape (len(chunk.ids), ...)
            What belongs to its annotations.

        Raises
        ------
        EncoderError
            If an embedding is not finite in the type on disk; nothing is written.
        StoreError
            If rows are of another shape, or the disk is full or gone; nothing is written.
        """
        rows = self._as_on_disk(chunk, rows)
        if chunk.n_kept:
            kept = self._chunks.map(chunk.number, check=True)[: chunk.n_kept]
            rows = np.concatenate([kept, rows])
        self._chunks.write(chunk.number, rows)
        if chunk.n_kept:
            self._settle()

    def _as_on_disk(self, chunk, rows):
        """Bring rows into the type on disk, or refuse them."""
        raise NotImplementedError
