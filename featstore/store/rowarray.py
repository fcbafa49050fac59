"""One array of a store with a row for each annotation of a dataset: read by annotation ID.

What embeddings and cached patches have in common: where their chunks are, which of them are there,
and how they were made. Nothing here knows what a row means.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from featstore.errors import NotInStoreError, StoreError
from featstore.ids import IdIndex
from featstore.store.chunks import MADE_BY, ChunkFiles, chunk_key
from featstore.store.index import read_ids
from featstore.store.layout import is_remote, members, metadata_of
from featstore.store.provenance import Provenance

__all__ = ["RowArray"]

REOPENED = ("_array", "_files")  # what a process opens for itself


class RowArray:
    """Rows of one array, by annotation ID.

    Parameters
    ----------
    store : Store
        Where it is.
    name : str
        Path of its group in the store.
    array_name : str
        Name of the array in the group.
    dataset : str
        Name of the dataset.
    """

    _plural = "rows"  # as errors name them

    def __init__(self, store, name, array_name, dataset):
        self.dataset = dataset
        self.name = name
        self._array_name = array_name
        self._store = store

    def __getstate__(self):
        """Leave open files behind: a worker process opens its own."""
        return {key: value for key, value in self.__dict__.items() if key not in REOPENED}

    @property
    def _array_path(self):
        return f"{self.name}/{self._array_name}"

    @property
    def _shown(self):
        """The array as errors name it."""
        return repr(self.name)

    @cached_property
    def _metadata(self):
        return metadata_of(self._store._root, self._array_path)

    @cached_property
    def _array(self):
        return self._store._root[self._array_path]

    @cached_property
    def _files(self):
        """The chunk files, where they can be mapped into memory or fetched; else None."""
        if is_remote(self._store.path):
            from featstore.store.remote import RemoteChunks

            return RemoteChunks.of(self._array.store_path, self._array)
        return ChunkFiles.of(self._folder / self._array_path, self._array) if self._folder else None

    @property
    def _folder(self):
        """Folder of the store; None where it is not one."""
        folder = getattr(self._store._root.store, "root", None)
        return None if folder is None else Path(folder)

    @property
    def _chunk_shape(self):
        return self._metadata["chunk_grid"]["configuration"]["chunk_shape"]

    @property
    def _chunks_there(self):
        """Numbers of the chunks that are there, ascending; shape (k,)."""
        names = members(self._store._root, f"{self._array_path}/c")
        numbers = sorted(int(name) for name in names if name.isdecimal())
        if self._folder is not None:
            home, n_axes = self._folder / self._array_path, len(self._chunk_shape)
            numbers = [number for number in numbers if (home / chunk_key(number, n_axes)).exists()]
        return np.array(numbers, np.int64)

    @property
    def _n_there(self):
        """Number of rows that are there."""
        n_rows, height = self._metadata["shape"][0], self._chunk_shape[0]
        rows = (self._chunks_there[:, None] * height + np.arange(height)).ravel()
        rows = rows[rows < n_rows]
        return len(rows) - int(self.provenance.awaited(rows, height).sum())

    @cached_property
    def provenance(self):
        """How these rows were made."""
        return self._read_provenance()

    def _read_provenance(self):
        try:
            attributes = metadata_of(self._store._root, self.name)["attributes"]
            return Provenance.from_json(attributes["provenance"])
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{self.name!r} has no readable provenance: {error}") from error

    @property
    def digest(self):
        """Digest of the specification that they were made by."""
        return self.provenance.digest

    @cached_property
    def _index(self):
        ids = read_ids(self._store._root[f"annotations/{self.dataset}"])
        return IdIndex(ids, self._shown)

    @property
    def ids(self):
        """Annotation IDs, shape (n,), in the order of the dataset."""
        return self._index.ids

    def _gathered(self, rows, within, dtype):
        """Gather rows, and tell which of them are there.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Rows of the dataset, which may have grown beyond the array.
        within : tuple of slice
            Part of each row.
        dtype : dtype
            Type of the result.

        Returns
        -------
        gathered : ndarray of shape (m, ...)
        there : ndarray of bool, shape (m,)
            Whether their chunk is there.
        """
        n_rows = self._array.shape[0]
        in_array = np.minimum(rows, n_rows - 1)
        if self._files is None:
            gathered, there = self._through_zarr(in_array, within)
            gathered = gathered.astype(dtype, copy=False)
        else:
            gathered, there = self._files.read(in_array, within, dtype, check=self._store.check)
        return gathered, there & (rows < n_rows)

    def _through_zarr(self, rows, within):
        """Read each row once, whole runs as slices."""
        behind = (*within, *[slice(None)] * (self._array.ndim - 1 - len(within)))
        distinct, place = np.unique(rows, return_inverse=True)
        if rows.size and distinct[-1] - distinct[0] + 1 > len(distinct):
            gathered = self._array.get_orthogonal_selection((distinct, *behind))
        else:
            run = slice(distinct[0], distinct[-1] + 1) if rows.size else slice(0, 0)
            gathered = self._array[(run, *behind)]
        return gathered[place], np.isin(rows // self._chunk_shape[0], self._chunks_there)

    def _refuse_missing(self, rows, there):
        """Name the first of the rows asked for that is not there yet."""
        if not there.all():
            first = self.ids[rows[~there]].tolist()[0]
            raise NotInStoreError(
                f"{(~there).sum()} of {len(rows)} {self._plural} asked for are not in "
                f"{self._shown} yet (first: ID {first!r}); run '{MADE_BY[self._array_name]}' again "
                "to go on"
            )
