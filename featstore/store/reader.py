"""Read a store: what it holds, annotations, and embeddings by annotation ID."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from featstore.errors import NotInStoreError, StoreError
from featstore.ids import IdIndex
from featstore.images import ImageFolder
from featstore.store.index import read_table
from featstore.store.layout import local_path, open_root
from featstore.store.provenance import Provenance

__all__ = ["EmbeddingInfo", "Embeddings", "Store"]


@dataclass(frozen=True)
class EmbeddingInfo:
    """One line of :meth:`Store.list`.

    Parameters
    ----------
    model, dataset : str
        Names in the store.
    rows : int
        Rows that are there.
    dim : int
        Length of an embedding.
    dtype : str
        Type on disk.
    complete : bool
        Whether every annotation has its embedding.
    """

    model: str
    dataset: str
    rows: int
    dim: int
    dtype: str
    complete: bool


class Store:
    """A store, opened for reading.

    Parameters
    ----------
    path : path-like
        Folder of the store.

    Examples
    --------
    >>> import tempfile, featstore
    >>> store = featstore.create(tempfile.mkdtemp())
    >>> store.datasets(), store.list()
    ([], [])
    """

    def __init__(self, path):
        self.path = path
        self._root = open_root(path)

    def __repr__(self):
        return f"<featstore.Store {self.path}>"

    def datasets(self):
        """Names of the datasets, sorted."""
        return _members(self._root, "annotations")

    def models(self, dataset):
        """Names of the models whose embeddings of a dataset are complete, sorted."""
        return [row.model for row in self.list() if row.dataset == dataset and row.complete]

    def list(self):
        """Return one :class:`EmbeddingInfo` for each array of embeddings."""
        return [
            self.embeddings(model, dataset).info
            for model in _members(self._root, "embeddings")
            for dataset in _members(self._root, f"embeddings/{model}")
        ]

    def annotations(self, dataset):
        """Return the annotation table of a dataset.

        Raises
        ------
        NotInStoreError
            If the store has no such dataset.
        """
        return read_table(self._dataset_group(dataset), dataset)

    def source(self, dataset):
        """Where a dataset was read from: file name, SHA-256, reader."""
        return dict(self._dataset_group(dataset).attrs.get("source", {}))

    def image_folder(self, dataset):
        """Where the images of a dataset were when it was added.

        Returns
        -------
        ImageFolder or None
            None where it was added without images.
        """
        images = self._dataset_group(dataset).attrs.get("images")
        if images is None:
            return None
        root = os.path.normpath(local_path(self._root).absolute().parent / images["root"])
        return ImageFolder(root, whole=bool(images["whole"]))

    def embeddings(self, model, dataset):
        """Return embeddings, read only when asked for rows.

        Raises
        ------
        NotInStoreError
            If the store has no such embeddings.
        """
        group = self._root.get(f"embeddings/{model}/{dataset}") if _plain(model, dataset) else None
        if group is None or "values" not in group:
            held = [f"{row.model}/{row.dataset}" for row in self.list()]
            raise NotInStoreError(
                f"no embeddings '{model}/{dataset}' in {self.path}; it holds "
                f"{', '.join(held) or 'none yet'}"
            )
        return Embeddings(self, model, dataset, group)

    def _dataset_group(self, dataset):
        group = self._root.get(f"annotations/{dataset}") if _plain(dataset) else None
        if group is None:
            raise NotInStoreError(
                f"no dataset {dataset!r} in {self.path}; it holds "
                f"{', '.join(self.datasets()) or 'none yet'}"
            )
        return group


class Embeddings:
    """Embeddings of one model on one dataset.

    Made by :meth:`Store.embeddings`.
    """

    def __init__(self, store, model, dataset, group):
        self.model = model
        self.dataset = dataset
        self._store = store
        self._group = group
        self._values = group["values"]

    def __repr__(self):
        return f"<featstore.Embeddings {self.model}/{self.dataset} {self.shape}>"

    @property
    def shape(self):
        """(n, dim)."""
        return self._values.shape

    @property
    def info(self):
        """The line of :meth:`Store.list` for this array."""
        array = self._values
        there = array.nchunks_initialized
        rows = min(there * array.chunks[0], array.shape[0])
        return EmbeddingInfo(
            self.model, self.dataset, rows, array.shape[1], str(array.dtype), there == array.nchunks
        )

    @cached_property
    def provenance(self):
        """How these embeddings were made."""
        try:
            return Provenance.from_json(self._group.attrs["provenance"])
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{self!r} has no readable provenance: {error}") from error

    @property
    def digest(self):
        """Digest of the encoder's specification."""
        return self.provenance.digest

    @cached_property
    def _index(self):
        return IdIndex(self._store.annotations(self.dataset).ids, f"'{self.model}/{self.dataset}'")

    @property
    def ids(self):
        """Annotation IDs, shape (n,), in the order of the dataset."""
        return self._index.ids

    def read(self, ids, *, dtype=np.float32):
        """Read embeddings by annotation ID.

        Parameters
        ----------
        ids : array-like of shape (m,)
            Annotation IDs, in any order, duplicates allowed.
        dtype : dtype
            Type of the result.

        Returns
        -------
        ndarray of shape (m, dim)
            Rows in the order asked.

        Raises
        ------
        NotInStoreError
            If an ID is not in the dataset, or not embedded yet.
        """
        rows = self._index.positions(ids)
        values = self._read_rows(rows)
        missing = np.isnan(values[:, :1]).any(axis=1)
        if missing.any():
            first = self.ids[rows[missing]].tolist()[0]
            raise NotInStoreError(
                f"{missing.sum()} of {len(rows)} embeddings asked for are not in "
                f"'{self.model}/{self.dataset}' yet (first: ID {first!r}); run "
                "'featstore extract' again to go on"
            )
        return values.astype(dtype, copy=False)

    def _read_rows(self, rows):
        """Read each row once, whole runs as slices."""
        if rows.size == 0:
            return np.empty((0, self.shape[1]), self._values.dtype)
        distinct, place = np.unique(rows, return_inverse=True)
        first, last = distinct[0], distinct[-1]
        if last - first + 1 == len(distinct):
            values = self._values[first : last + 1]
        else:
            values = self._values.get_orthogonal_selection((distinct, slice(None)))
        in_order = len(rows) == len(distinct) and (place[1:] > place[:-1]).all()
        return values if in_order else values[place]


def _members(root, name):
    group = root.get(name)
    return sorted(key for key, _ in group.members()) if group is not None else []


def _plain(*names):
    return all(name and Path(name).name == name and name not in (".", "..") for name in names)
