"""Read a store: what it holds, annotations, and embeddings and patches by annotation ID."""

import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from featstore.encoders.spec import EncoderSpec
from featstore.errors import NotInStoreError, StoreError, require
from featstore.images import ImageFolder
from featstore.store.index import read_table
from featstore.store.layout import is_remote, local_path, members, metadata_of, open_root
from featstore.store.parts import StoredRow, listed
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
        Length of an embedding, as it is read without asking for a view.
    dtype : str
        Type on disk.
    complete : bool
        Whether every annotation has its embedding.
    parts : tuple of str
        Names of the parts that are stored side by side, in order; any of them can be read as
        'MODEL:PART', and several as 'MODEL:PART+PART'. Empty where they are not known.
    """

    model: str
    dataset: str
    rows: int
    dim: int
    dtype: str
    complete: bool
    parts: tuple = ()


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

        Parameters
        ----------
        model : str
            A name in the store, which gives the encoder's own pooling; or 'MODEL:POOLING', such as
            'uni:mean' or 'uni:class+mean', for another view of what is stored.
        dataset : str
            Name of the dataset.

        Returns
        -------
        Embeddings

        Raises
        ------
        NotInStoreError
            If the store has no such embeddings, or they have no such parts.

        Examples
        --------
        >>> import tempfile, featstore
        >>> from featstore.store.writer import EmbeddingWriter, add_annotations
        >>> path = tempfile.mkdtemp()
        >>> store = featstore.create(path)
        >>> add_annotations(path, featstore.AnnotationTable("cells", [7, 8], ["a", "b"]))
        >>> vit = featstore.EncoderSpec("vit", "none", pooling="class", dim=2)
        >>> parts = {"class": (0, 2), "mean": (2, 4)}
        >>> with EmbeddingWriter(path, "cells", vit, parts=parts, run={}) as writer:
        ...     for chunk in writer.pending():
        ...         writer.write(chunk, np.array([[1, 2, 3, 4], [5, 6, 7, 8]]))
        >>> store.embeddings("vit", "cells").read([8])
        array([[5., 6.]], dtype=float32)
        >>> store.embeddings("vit:mean", "cells").read([8])
        array([[7., 8.]], dtype=float32)
        """
        key, colon, pooling = str(model).partition(":")
        name = f"embeddings/{key}/{dataset}"
        if not _plain(key, dataset) or metadata_of(self._root, f"{name}/values") is None:
            raise NotInStoreError(
                f"no embeddings '{key}/{dataset}' in {self.path}; {self._held(self._arrays)}"
            )
        embeddings = Embeddings(self, key, dataset)
        return embeddings.view(pooling) if colon else embeddings

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
    """Embeddings of one model on one dataset: the default view of what is stored, or another one.

    Made by :meth:`Store.embeddings`; a source of rows for probes.

    Attributes
    ----------
    model : str
        Name in the store, with ':' and the pooling where that is not the encoder's own.
    dataset : str
        Name of the dataset.
    """

    _plural = "embeddings"

    def __init__(self, store, key, dataset, pooling=None):
        super().__init__(store, f"embeddings/{key}/{dataset}", "values", dataset)
        self.model = key if pooling is None else f"{key}:{pooling}"
        self._key, self._pooling = key, pooling

    def __repr__(self):
        return f"<featstore.Embeddings {self.model}/{self.dataset} {self.shape}>"

    @property
    def _shown(self):
        return f"'{self.model}/{self.dataset}'"

    @property
    def shape(self):
        """(n, dim): rows of the dataset and length of what :meth:`read` gives."""
        return len(self.ids), self._view.dim

    @cached_property
    def stored_provenance(self):
        """How all that is stored was made: every part, and the pooling of the default view."""
        return self._read_provenance()

    @cached_property
    def provenance(self):
        """How what :meth:`read` gives was made: with the pooling, length and parts of this view."""
        return self.stored_provenance.of_view(self._view)

    @property
    def parts(self):
        """Named slices of what is stored, as {name: (start, stop)}, in order; see :meth:`view`."""
        return self._row.ordered

    @cached_property
    def _row(self):
        """What is stored of an embedding, once it is known to make sense."""
        spec, shape = self.stored_provenance.spec, self._metadata["shape"]
        if not isinstance(spec, EncoderSpec):
            raise StoreError(f"{self.name!r} has no readable provenance: it is not of an encoder")
        row = StoredRow(self.stored_provenance.parts, spec.pooling, spec.dim)
        problem = row.problem
        if problem is None and shape[1:] != [row.width]:
            problem = f"its array has the shape {shape}, its parts make rows of {row.width}"
        if problem is not None:
            raise StoreError(
                f"{self.name!r} of {self._store.path} cannot be read by its parts ({problem}); "
                "get the store again, or ask whoever wrote it"
            )
        return row

    @cached_property
    def _view(self):
        return self._row.default if self._pooling is None else self._row.view(self._pooling)

    def view(self, pooling):
        """Return some of the stored parts as embeddings of their own.

        Parameters
        ----------
        pooling : str
            Names of :attr:`parts`, joined by '+', in the order wanted: 'mean', 'class+mean'. The
            encoder's own gives the default view again.

        Returns
        -------
        Embeddings
            With a digest of their own: a probe on one view is not one on another.

        Raises
        ------
        NotInStoreError
            If one of the parts is not there.
        StoreError
            If what the store says of its parts makes no sense.
        """
        if pooling == self._row.pooling:
            return Embeddings(self._store, self._key, self.dataset)
        if self._row.view(pooling) is None:
            raise NotInStoreError(
                f"'{self._key}/{self.dataset}' has no view {pooling!r}; its parts are "
                f"{listed(self.parts)}: name some of them, each once, joined by '+'"
            )
        return Embeddings(self._store, self._key, self.dataset, pooling)

    @property
    def whole(self):
        """All that is stored, every part of it, as embeddings of their own."""
        return self.view(self._row.whole.pooling)

    @property
    def info(self):
        """The line of :meth:`Store.list` for this array; of a view, with its name and length."""
        asked = self._store._attributes(self.dataset)["rows"]
        rows, dtype, parts = self._n_there, self._metadata["data_type"], tuple(self.parts)
        complete = rows == asked
        return EmbeddingInfo(self.model, self.dataset, rows, self._view.dim, dtype, complete, parts)

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
        rows, view = self._index.positions(ids), self._view
        dtype = np.dtype(self._array.dtype if dtype is None else dtype)
        values, there = self._gathered(rows, (view.span,), dtype)
        self._refuse_missing(rows, there & ~np.isnan(values[:, :1]).any(axis=1))
        return view.taken_from(values)

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
            name=self.model.replace(":", "-"),  # becomes a folder where xarray writes Zarr
            attrs={"encoder_digest": self.digest},
        )

    def _table(self, ids):
        table = self._store.annotations(self.dataset)
        return table if ids is None else table.take(ids)


def _plain(*names):
    return all(name and Path(name).name == name and name[0] != "." for name in names)
