"""Read a store: what it holds, annotations, and embeddings by annotation ID."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from featstore.errors import NotInStoreError, StoreError, require
from featstore.ids import IdIndex
from featstore.images import ImageFolder
from featstore.store.chunks import ChunkFiles
from featstore.store.index import read_ids, read_table
from featstore.store.layout import is_remote, local_path, members, metadata_of, open_root
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
        self._root = open_root(path, storage_options=storage_options)

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

    def image_folder(self, dataset):
        """Where the images of a dataset were when it was added.

        Returns
        -------
        ImageFolder or None
            None where it was added without images, or the store is on another machine.
        """
        images = self._attributes(dataset).get("images")
        if images is None or is_remote(self.path):
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
        name = f"embeddings/{model}/{dataset}"
        if not _plain(model, dataset) or metadata_of(self._root, f"{name}/values") is None:
            raise NotInStoreError(
                f"no embeddings '{model}/{dataset}' in {self.path}; {self._held(self._arrays)}"
            )
        return Embeddings(self, model, dataset)

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


class Embeddings:
    """Embeddings of one model on one dataset, or one part of them.

    Made by :meth:`Store.embeddings`; a source of rows for probes.
    """

    def __init__(self, store, model, dataset, part=None):
        self.model = model if part is None else f"{model}:{part}"
        self.dataset = dataset
        self.name = f"embeddings/{model}/{dataset}"
        self._store = store
        self._part = part

    def __repr__(self):
        return f"<featstore.Embeddings {self.model}/{self.dataset} {self.shape}>"

    @cached_property
    def _metadata(self):
        return metadata_of(self._store._root, f"{self.name}/values")

    @cached_property
    def _values(self):
        return self._store._root[f"{self.name}/values"]

    @cached_property
    def _files(self):
        """The chunk files, where they can be mapped into memory or fetched; else None."""
        if is_remote(self._store.path):
            from featstore.store.remote import RemoteChunks

            return RemoteChunks.of(self._values.store_path, self._values)
        folder = getattr(self._store._root.store, "root", None)
        return ChunkFiles.of(Path(folder) / self.name / "values", self._values) if folder else None

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
        n, dim = self._metadata["shape"]
        rows = min(self._n_chunks_there * self._rows_per_chunk, n) - self._n_stale
        asked = self._store._attributes(self.dataset)["rows"]
        dtype = self._metadata["data_type"]
        return EmbeddingInfo(self.model, self.dataset, rows, dim, dtype, rows == asked)

    @property
    def _rows_per_chunk(self):
        return self._metadata["chunk_grid"]["configuration"]["chunk_shape"][0]

    @property
    def _n_stale(self):
        """Rows of a grown array whose chunk still ends where the table once did."""
        n, embedded = self._metadata["shape"][0], self.provenance.dataset_rows
        last_of_chunk = min(n, -(-embedded // self._rows_per_chunk) * self._rows_per_chunk)
        return max(last_of_chunk - embedded, 0)

    @property
    def _n_chunks_there(self):
        folder = getattr(self._store._root.store, "root", None)
        if is_remote(self._store.path):
            return len(members(self._store._root, f"{self.name}/values/c"))
        if folder is None:
            return self._values.nchunks_initialized
        chunks = Path(folder) / self.name / "values" / "c"
        return sum((chunk / "0").exists() for chunk in chunks.iterdir()) if chunks.exists() else 0

    @cached_property
    def provenance(self):
        """How these embeddings were made."""
        try:
            attributes = metadata_of(self._store._root, self.name)["attributes"]
            return Provenance.from_json(attributes["provenance"])
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{self.name!r} has no readable provenance: {error}") from error

    @property
    def digest(self):
        """Digest of the encoder's specification."""
        return self.provenance.digest

    @cached_property
    def _index(self):
        ids = read_ids(self._store._root[f"annotations/{self.dataset}"])
        return IdIndex(ids, f"'{self.model}/{self.dataset}'")

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
        values = self._gathered(rows, np.dtype(self._values.dtype if dtype is None else dtype))
        missing = np.isnan(values[:, :1]).any(axis=1)
        if missing.any():
            first = self.ids[rows[missing]].tolist()[0]
            raise NotInStoreError(
                f"{missing.sum()} of {len(rows)} embeddings asked for are not in "
                f"'{self.model}/{self.dataset}' yet (first: ID {first!r}); run "
                "'featstore extract' again to go on"
            )
        return values

    def _gathered(self, rows, dtype):
        """Rows, with NaN where there is none yet."""
        columns = slice(*self._columns)
        there = rows < self._values.shape[0]  # a table that has grown is longer
        if not there.all():
            values = np.full((len(rows), columns.stop - columns.start), np.nan, dtype)
            values[there] = self._gathered(rows[there], dtype)
            return values
        if self._files is not None:
            return self._files.read(rows, columns, dtype, check=self._store.check)
        return self._through_zarr(rows, columns).astype(dtype, copy=False)

    def _through_zarr(self, rows, columns):
        """Read each row once, whole runs as slices."""
        if rows.size == 0:
            return np.empty((0, columns.stop - columns.start), self._values.dtype)
        distinct, place = np.unique(rows, return_inverse=True)
        first, last = distinct[0], distinct[-1]
        if last - first + 1 == len(distinct):
            values = self._values[first : last + 1, columns]
        else:
            values = self._values.get_orthogonal_selection((distinct, columns))
        return values[place]

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
