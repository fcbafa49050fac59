"""Write to a store: datasets whole or not at all, embeddings chunk by chunk in order."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featstore.errors import DigestError, EncoderError, StoreError
from featstore.store.index import write_table
from featstore.store.layout import (
    check_key,
    local_path,
    new_array,
    new_group,
    open_root,
    rows_per_chunk,
)
from featstore.store.provenance import Provenance
from featstore.store.reader import Store

__all__ = ["EmbeddingWriter", "PendingChunk", "add_annotations"]


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
    check_key("dataset", annotations.name)
    for column in annotations.columns:
        check_key("column", column)
    if len(annotations) == 0:
        raise StoreError(f"dataset {annotations.name!r} has no annotations; nothing to add")
    root = open_root(path, mode="r+")
    with new_group(root, f"annotations/{annotations.name}") as group:
        write_table(group, annotations)
        group.attrs["source"] = source or {}
        if folder is not None:
            home = local_path(root).absolute().parent
            relative = Path(os.path.relpath(Path(folder.root).absolute(), home)).as_posix()
            group.attrs["images"] = {"root": relative, "whole": folder.whole}


@dataclass(frozen=True)
class PendingChunk:
    """A chunk that is not there yet.

    Parameters
    ----------
    number : int
        Place in the array.
    ids : ndarray
        Annotation IDs of its rows, in order.
    """

    number: int
    ids: np.ndarray


class EmbeddingWriter:
    """The one writer of an array of embeddings.

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
    """

    def __init__(self, path, dataset, spec, *, parts, run):
        check_key("model", spec.key)
        self.annotations = Store(path).annotations(dataset)
        self.name = f"embeddings/{spec.key}/{dataset}"
        self._root = open_root(path, mode="r+")
        if self._root.get(self.name) is None:
            self._create(Provenance.now(spec, parts, self.annotations, run))
        self._values = self._root[f"{self.name}/values"]
        self._check_same(Provenance.from_json(self._root[self.name].attrs["provenance"]), spec)

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

    def _check_same(self, there, spec):
        if there.digest != spec.digest:
            differing = "; ".join(there.encoder.differences(spec))
            raise DigestError(
                f"{self.name!r} was made by another encoder than is asked for ({differing}); "
                "give the new one another --name"
            )
        if there.dataset_digest != self.annotations.digest:
            raise DigestError(f"{self.name!r} was made of other annotations than the dataset holds")

    def pending(self):
        """Chunks still to be written, in order."""
        rows = self._values.chunks[0]
        folder = local_path(self._root) / self.name / "values" / "c"
        return [
            PendingChunk(number, self.annotations.ids[number * rows : (number + 1) * rows])
            for number in range(self._values.nchunks)
            if not (folder / str(number) / "0").exists()
        ]

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
        """
        with np.errstate(over="ignore"):  # an overflow becomes infinity, refused below
            rows = np.asarray(values).astype(self._values.dtype)
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            first = chunk.ids[bad].tolist()[0]
            raise EncoderError(
                f"the embedding of annotation {first!r} is not finite as {rows.dtype} "
                f"({bad.sum()} in this chunk); extract with --precision float32, or look at the "
                "annotation with 'featstore show'"
            )
        start = chunk.number * self._values.chunks[0]
        self._values[start : start + len(rows)] = rows
