"""Read a store: what it holds, annotations, and embeddings and patches by annotation ID."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from featstore.errors import NotInStoreError, require
from featstore.images import ImageFolder
from featstore.store.index import read_table
from featstore.store.layout import is_remote, local_path, members, metadata_of, open_root
from featstore.store.patchcache import CachedPatches
from featstore.store.rowarray import RowArray

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
        Folder of the store, or its ``s3://``, ``https://`` or ``http://`` address.
    check : bool
        Compare the checksum of every chunk that is read. Local reads leave that to
        ``featstore verify`` otherwise; remote reads always do.
    storage_options : dict, optional
        For fsspec, where the store is on another machine, such as ``{"anon": True}``.

    Examples
    --------
    >>> import tempfile, featstore
    >>> store = featstore.create(tempfile.mkdtemp())
    >>> store.datasets(), store.list()
    ([], [])
    """

    def __init__(self, path, *, check=False, storage_options=None):
        self.path = path
        self.check = check
        self._storage_options = storage_options
        self._root = open_root(path, storage_options=storage_options)

    def __reduce__(self):
        """Travel as the place: another process opens the store for itself."""
        again = partial(Store, check=self.check, storage_options=self._storage_options)
        return again, (self.path,)

    def __repr__(self):
        return f"<featstore.Store {self.path}>"

    def datasets(self):
        """Names of the datasets, sorted."""
        return members(self._root, "annotations")

    def models(self, dataset):
        """Names of the models whose embeddings of a dataset are complete, sorted."""
        return [row.model for row in self.list() if row.dataset == dataset and row.complete]

    def list(self):
        """Return one :class:`EmbeddingInfo` for each array of embeddings."""
        return [
            self.embeddings(model, dataset).info
            for model in members(self._root, "embeddings")
            for dataset in members(self._root, f"embeddings/{model}")
        ]

    def annotations(self, dataset):
        """Return the annotation table of a dataset.

        Raises
        ------
        NotInStoreError
            If the store has no such dataset.
        """
        self._attributes(dataset)
        return read_table(self._root[f"annotations/{dataset}"], dataset)

    def source(self, dataset):
        """Where a dataset was read from: file name, SHA-256, reader."""
        return dict(self._attributes(dataset).get("source", {}))

    def has_whole_patches(self, dataset):
        """Whether each image of a dataset is one cropped patch, wherever the images are."""
        return bool(self._images(dataset).get("whole", False))

    def _images(self, dataset):
        images = self._attributes(dataset).get("images")
        return images if isinstance(images, dict) else {}

    def image_folder(self, dataset):
        """Where the images of a dataset were when it was added.

        Returns
        -------
        ImageFolder or None
            None where it was added without images, or the store was made on another machine.
        """
        images = self._images(dataset)
        if "root" not in images or is_remote(self.path):
            return None
        root = os.path.normpath(local_path(self._root).absolute().parent / images["root"])
        return ImageFolder(root, whole=self.has_whole_patches(dataset))

    def embeddings(self, model, dataset):
        """Return embeddings, read only when asked for rows.

        Raises
        ------
        NotInStoreError
            If the store has no such embeddings.
        """
        name = f"embeddings/{model}/{dataset}"
        if not _plain(model, dataset) or metadata_of(self._root, f"{name}/values") is None:
            raise NotInStoreError(
                f"no embeddings '{model}/{dataset}' in {self.path}; {self._held(self._arrays)}"
            )
        return Embeddings(self, model, dataset)

    def cached_datasets(self):
        """Names of the datasets whose patches are cached, sorted; some may not be complete."""
        names = members(self._root, "patches")
        return [name for name in names if metadata_of(self._root, f"patches/{name}/pixels")]

    def patches(self, dataset):
        """Return cached patches, read only when asked for rows.

        Returns
        -------
        CachedPatches

        Raises
        ------
        NotInStoreError
            If the store has no patches of that dataset.
        """
        name = f"patches/{dataset}/pixels"
        if not _plain(dataset) or metadata_of(self._root, name) is None:
            held = self._held(self.cached_datasets)
            raise NotInStoreError(
                f"no patches of {dataset!r} in {self.path}; {held} ('featstore cut' makes them)"
            )
        return CachedPatches(self, dataset)

    def _attributes(self, dataset):
        name = f"annotations/{dataset}"
        metadata = metadata_of(self._root, name) if _plain(dataset) else None
        if metadata is None:
            raise NotInStoreError(
                f"no dataset {dataset!r} in {self.path}; {self._held(self.datasets)}"
            )
        return metadata.get("attributes", {})

    def _held(self, listing):
        """Say in an error what the store holds; not every web server can be asked."""
        if not getattr(self._root.store, "listable", True):
            return "this server cannot be listed, check the name"
        return f"it holds {', '.join(listing()) or 'none yet'}"

    def _arrays(self):
        return [
            f"{model}/{dataset}"
            for model in members(self._root, "embeddings")
            for dataset in members(self._root, f"embeddings/{model}")
        ]


class Embeddings(RowArray):
    """Embeddings of one model on one dataset, or one part of them.

    Made by :meth:`Store.embeddings`; a source of rows for probes.
    """

    _plural = "embeddings"

    def __init__(self, store, model, dataset, part=None):
        super().__init__(store, f"embeddings/{model}/{dataset}", "values", dataset)
        self.model = model if part is None else f"{model}:{part}"
        self._part = part

    def __repr__(self):
        return f"<featstore.Embeddings {self.model}/{self.dataset} {self.shape}>"

    @property
    def _shown(self):
        return f"'{self.model}/{self.dataset}'"

    @property
    def shape(self):
        """(n, dim): rows of the dataset and length of what :meth:`read` gives."""
        first, last = self._columns
        return len(self.ids), last - first

    @property
    def _columns(self):
        if self._part is None:
            return 0, self._metadata["shape"][1]
        return self.parts[self._part]

    @property
    def parts(self):
        """Named slices of an embedding, as {name: (start, stop)}."""
        return self.provenance.parts

    def part(self, name):
        """Return one part alone, such as the class token, as embeddings of their own.

        Parameters
        ----------
        name : str
            A key of :attr:`parts`.

        Raises
        ------
        NotInStoreError
            If the embeddings have no such part.
        """
        if name not in self.parts:
            raise NotInStoreError(
                f"'{self.model}/{self.dataset}' has no part {name!r}; it has "
                f"{', '.join(self.parts)}"
            )
        return Embeddings(self._store, self.model, self.dataset, part=name)

    @property
    def info(self):
        """The line of :meth:`Store.list` for this array."""
        asked = self._store._attributes(self.dataset)["rows"]
        rows, dim, dtype = self._n_there, self._metadata["shape"][1], self._metadata["data_type"]
        return EmbeddingInfo(self.model, self.dataset, rows, dim, dtype, rows == asked)

    def read(self, ids, *, dtype=np.float32):
        """Read embeddings by annotation ID.

        Parameters
        ----------
        ids : array-like of shape (m,)
            Annotation IDs, in any order, duplicates allowed.
        dtype : dtype
            Type of the result; None for the one on disk.

        Returns
        -------
        ndarray of shape (m, dim)
            Rows in the order asked.

        Raises
        ------
        NotInStoreError
            If an ID is not in the dataset, or not embedded yet.
        DamagedChunkError
            If a chunk is not what was written; checksums are compared on local disks only where
            the store was opened with ``check=True``.
        """
        rows = self._index.positions(ids)
        columns = slice(*self._columns)
        dtype = np.dtype(self._array.dtype if dtype is None else dtype)
        values, there = self._gathered(rows, (columns,), dtype)
        self._refuse_missing(rows, there & ~np.isnan(values[:, :1]).any(axis=1))
        return values

    def batches(self, batch_size, *, ids=None, dtype=np.float32):
        """Iterate over embeddings in batches, for torch or anything else that takes its time.

        Parameters
        ----------
        batch_size : int
            Rows of a batch; the last one may have fewer.
        ids : array-like, optional
            Annotation IDs; all of the dataset by default.
        dtype : dtype
            Type of the rows.

        Yields
        ------
        (ndarray of shape (b,), ndarray of shape (b, dim))
            IDs and rows; ``torch.from_numpy`` takes the rows as they are.
        """
        asked = self.ids if ids is None else np.asarray(ids)
        for start in range(0, len(asked), batch_size):
            batch = asked[start : start + batch_size]
            yield batch, self.read(batch, dtype=dtype)

    def to_frame(self, ids=None):
        """Return a pandas DataFrame, one row per annotation, indexed by ``id``."""
        import pandas as pd

        asked = self.ids if ids is None else ids
        return pd.DataFrame(self.read(asked), index=pd.Index(asked, name="id"))

    def to_anndata(self, ids=None):
        """Return an AnnData: embeddings as X, the annotation table as obs."""
        anndata = require("anndata", extra="convert", purpose="conversion to AnnData")
        table = self._table(ids)
        observations = table.to_frame()
        observations.index = observations.index.astype(str)
        about = {"provenance": self.provenance.to_json()}
        return anndata.AnnData(self.read(table.ids), obs=observations, uns=about)

    def to_xarray(self, ids=None):
        """Return an xarray DataArray (annotation, feature) with the table's columns along it."""
        xarray = require("xarray", extra="convert", purpose="conversion to xarray")
        table = self._table(ids)
        along = {"id": table.ids, "label": table.labels, **table.columns}
        coordinates = {name: ("annotation", values) for name, values in along.items()}
        return xarray.DataArray(
            self.read(table.ids),
            dims=("annotation", "feature"),
            coords=coordinates,
            name=self.model,
            attrs={"encoder_digest": self.digest},
        )

    def _table(self, ids):
        table = self._store.annotations(self.dataset)
        return table if ids is None else table.take(ids)


def _plain(*names):
    return all(name and Path(name).name == name and name[0] != "." for name in names)
