"""Embeddings out to other tools' files, and in from them.

What goes out is whole or not there at all. What comes in is checked whole before anything is
written, and then goes the way that extraction goes: through :mod:`featstore.store.writer`.
"""

import os
import re
import shutil
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.encoders.spec import EncoderSpec
from featstore.errors import AlreadyInStoreError, NotInStoreError, StoreError
from featstore.ids import IdIndex
from featstore.store.hdf5 import read_hdf5, write_hdf5
from featstore.store.layout import check_key, sync_tree
from featstore.store.npy import read_npy, write_npy
from featstore.store.parcel import Parcel, Rows
from featstore.store.parquet import read_parquet, write_parquet
from featstore.store.parts import StoredRow
from featstore.store.plainzarr import is_zarr, read_zarr
from featstore.store.reader import Store
from featstore.store.untrusted import sha256_of
from featstore.store.writer import EmbeddingWriter, add_annotations

__all__ = ["LAYOUTS_IN", "LAYOUTS_OUT", "Exported", "export_embeddings", "import_embeddings"]

WRITERS = {"hdf5": write_hdf5, "parquet": write_parquet, "npy": write_npy}
READERS = {"hdf5": read_hdf5, "parquet": read_parquet, "npy": read_npy, "zarr": read_zarr}
LAYOUTS_OUT = tuple(WRITERS)
LAYOUTS_IN = tuple(READERS)
# What CLAM and TRIDENT write, and expect.
DTYPES = {"hdf5": "float32"}
SLIDE_COLUMNS = ("slide", "slide_id")


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Parameters
    ----------
    path : pathlib.Path
        File or folder.
    shape : tuple of int
        (n, dim).
    dtype : str
        Type of the embeddings there.
    n_files : int
        Number of files.
    terms : str
        Licence and gating of the encoder's weights, which bind the embeddings too; may be empty.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    n_files: int
    terms: str


def export_embeddings(store, model, dataset, path, *, layout, dtype=None):
    """Write embeddings, IDs, labels, columns and provenance as files of other tools.

    Parameters
    ----------
    store : Store
        Where they are.
    model, dataset : str
        Names in the store; 'MODEL:POOLING', such as 'uni:class+mean', for a view of its own.
    path : path-like
        File ('parquet') or folder (else) to make.
    layout : {'hdf5', 'parquet', 'npy'}
        See docs/exchange.md.
    dtype : {'float16', 'float32'}, optional
        Type in the files; by default float32 for 'hdf5', else the one in the store.

    Returns
    -------
    Exported

    Raises
    ------
    AlreadyInStoreError
        If there is something at ``path``.
    NotInStoreError
        If the store has no such embeddings, or not yet all of them.

    Examples
    --------
    >>> import tempfile, featstore
    >>> home = Path(tempfile.mkdtemp())
    >>> _ = featstore.create(home / "lab.zarr")
    >>> np.save(home / "cells.npy", np.eye(3, dtype="float32"))
    >>> _ = import_embeddings(home / "cells.npy", home / "lab.zarr", dataset="cells",
    ...                       model="theirs", label="unknown")
    >>> export_embeddings(featstore.open(home / "lab.zarr"), "theirs", "cells", home / "out",
    ...                   layout="npy").shape
    (3, 3)
    """
    if layout not in WRITERS:
        raise StoreError(f"no layout {layout!r} to export to; there are {', '.join(WRITERS)}")
    parcel = _packed(store, model, dataset)
    dtype = np.dtype(dtype or DTYPES.get(layout) or parcel.rows.dtype)
    if dtype not in (np.float16, np.float32):
        raise StoreError(f"embeddings are exported as float16 or float32, not as {dtype}")
    with _whole_or_not_at_all(path) as partial:
        WRITERS[layout](_rounding_recorded(parcel, dtype), partial, dtype=dtype)
    files = 1 if Path(path).is_file() else sum(file.is_file() for file in Path(path).rglob("*"))
    terms = parcel.provenance["encoder"]["terms"]
    return Exported(Path(path), parcel.rows.shape, str(dtype), files, terms)


def _packed(store, model, dataset):
    """Take embeddings from a store, rows to be read when they are written."""
    embeddings, table = store.embeddings(model, dataset), store.annotations(dataset)
    if not embeddings.info.complete:
        raise NotInStoreError(
            f"{embeddings.info.rows} of {len(table)} embeddings of '{model}/{dataset}' are in "
            f"{store.path}; run 'featstore extract' again to have all before they are exported"
        )
    dtype = np.dtype(embeddings.info.dtype)
    rows = Rows(embeddings.shape, dtype, lambda a, b: embeddings.read(table.ids[a:b], dtype=dtype))
    provenance = embeddings.provenance.to_json()
    return Parcel(table.ids, rows, table.labels, table.columns, provenance)


def _rounding_recorded(parcel, dtype):
    """Say in the provenance where the file holds fewer digits than the store."""
    if dtype.itemsize >= parcel.rows.dtype.itemsize:
        return parcel
    run = {**parcel.provenance["run"], "rounded_to": str(dtype)}
    return replace(parcel, provenance={**parcel.provenance, "run": run})


@contextmanager
def _whole_or_not_at_all(path):
    """Give a name beside ``path``; what is there takes the path when the block ends well."""
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise AlreadyInStoreError(f"{path} is there already; choose another place or remove it")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"the folder {path.absolute().parent} does not exist; make it first")
    partial = path.absolute().with_name(f".partial-{uuid.uuid4().hex}")
    try:
        yield partial
        sync_tree(partial)
        os.rename(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def import_embeddings(
    path,
    store,
    *,
    dataset,
    model,
    layout=None,
    ids=None,
    values=None,
    label=None,
    labels=None,
    patch_px=None,
):
    """Bring embeddings of another tool, or an export of ours, into a store.

    Parameters
    ----------
    path : path-like
        File or folder.
    store : path-like
        A local store. The dataset is added where it is not there yet; where it is, its IDs must be
        those of the files.
    dataset, model : str
        Names in the store.
    layout : {'hdf5', 'parquet', 'npy', 'zarr'}, optional
        Guessed from the files by default.
    ids, values : str, optional
        Names of the IDs and the embeddings in the files, where they are not those that we write.
    label : str, optional
        Label of every row; by default the files' own.
    labels : path-like, optional
        CSV with a column ``label`` and one of ``slide``, ``slide_id`` or ``id``.
    patch_px : float, optional
        Side of a patch in level-0 pixels, where HDF5 files do not say.

    Returns
    -------
    Embeddings
        As they are in the store now.

    Raises
    ------
    StoreError
        If a file is damaged or hostile, or what it holds does not fit; the store is as it was.
    DigestError
        If the store has embeddings of that name by another encoder.

    Notes
    -----
    Where the provenance travelled with the files, the encoder stays what it was. Else its
    specification is unknown: its weights are 'imported:' and the SHA-256 of the files, so that
    embeddings from other files are never taken for the same.
    """
    path = Path(path)
    _check_names(model, dataset)
    if not path.exists():
        raise StoreError(f"{path} does not exist; give the file or folder to import")
    layout = _guessed(path) if layout is None else layout
    if layout not in READERS:
        raise StoreError(f"no layout {layout!r} to import; there are {', '.join(READERS)}")
    sha256 = sha256_of(path)
    parcel = READERS[layout](path, ids=ids, values=values, patch_px=patch_px)
    with closing(parcel.rows):
        spec, parts, run = _origin(parcel, model, path, sha256)
        _check_finite(parcel, path)
        source = {"file": path.name, "sha256": sha256, "reader": layout}
        _settle_dataset(parcel, store, dataset, source=source, label=label, labels=labels)
        _write(parcel, store, dataset, spec, parts=parts, run=run)
    return Store(store).embeddings(model, dataset)


def _check_names(model, dataset):
    if ":" in model:
        raise StoreError(
            f"model name {model!r} is that of a view; import it under a name of its own, such as "
            f"{re.sub('[:+]', '-', model)!r}"
        )
    check_key("model", model)
    check_key("dataset", dataset)


def _guessed(path):
    """Layout of files, by their names."""
    if path.suffix in (".h5", ".hdf5"):
        return "hdf5"
    if path.suffix in (".parquet", ".npy") and path.is_file():
        return path.suffix[1:]
    if is_zarr(path):
        return "zarr"
    if (path / "values.npy").is_file():
        return "npy"
    if path.is_dir() and any(file.suffix in (".h5", ".hdf5") for file in path.iterdir()):
        return "hdf5"
    raise StoreError(
        f"{path} is none of {', '.join(READERS)} as far as its name tells; give --layout"
    )


def _origin(parcel, model, path, sha256):
    """Specification, parts and run of an import."""
    imported = {"file": path.name, "sha256": sha256}
    dim = parcel.rows.shape[1]
    if parcel.provenance is None:
        precision = "float16" if parcel.rows.dtype == np.float16 else "float32"
        spec = EncoderSpec(
            model,
            "unknown",
            pooling="unknown",
            weights=f"imported:{sha256}",
            dim=dim,
            mpp=None,
            precision=precision,
        )
        return spec, {}, {"imported": imported}
    spec, parts, run = _travelled(parcel.provenance, path)
    row = StoredRow(parts, spec.pooling, spec.dim)
    if row.problem is not None:
        raise StoreError(f"{path} has a provenance that makes no sense ({row.problem})")
    if row.width != dim:
        raise StoreError(f"{path} holds embeddings of {dim}, its provenance says {row.width}")
    for key in ("created", "versions", "dataset", "dataset_digest"):
        imported[key] = parcel.provenance.get(key)
    # Rounded values are not those of the encoder in full precision, and must not pass for them.
    precision = run.get("rounded_to", spec.precision)
    return spec.at(key=model, precision=precision), parts, {**run, "imported": imported}


def _travelled(provenance, path):
    """Read a provenance, and compare its digest with its content."""
    try:
        spec = EncoderSpec.from_json(provenance["encoder"])
        parts = {name: tuple(slice_) for name, slice_ in provenance["parts"].items()}
        run, digest, found = dict(provenance["run"]), provenance["digest"], spec.digest
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} has a provenance that cannot be read: {error!r}") from error
    if digest != found:
        raise StoreError(
            f"the provenance in {path} was changed: it says {digest}, its encoder has {found}"
        )
    return spec, parts, run


def _check_finite(parcel, path):
    """Read every row once before anything is written."""
    for start, rows in parcel.rows.batches():
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(rows.astype(np.float32, copy=False)).all(axis=1)
        if bad.any():
            first = parcel.ids[start + int(np.argmax(bad))].item()
            raise StoreError(
                f"the embedding of {first!r} in {path} is not finite as float32; nothing was "
                "imported, correct it or leave it out"
            )


def _settle_dataset(parcel, store, dataset, *, source, label, labels):
    """Add the dataset, or see that the store has the same cells under that name."""
    opened = Store(store)
    named = _labels(parcel, label, labels)
    if dataset in opened.datasets():
        _check_same_cells(replace(parcel, labels=named), opened.annotations(dataset))
        return
    if named is None:
        raise StoreError(
            f"the files carry no labels and the store has no dataset {dataset!r} yet; give "
            "--label TEXT for all rows, or --labels CSV by slide or ID"
        )
    table = AnnotationTable(dataset, parcel.ids, named, _named_for_a_store(parcel.columns))
    add_annotations(store, table, source=source)


def _check_same_cells(parcel, table):
    index = IdIndex(parcel.ids, "the files")
    if index.duplicates().size:
        raise StoreError(f"ID {index.duplicates()[0].item()!r} stands more than once in the files")
    same_kind = parcel.ids.dtype.kind == table.ids.dtype.kind
    missing = np.setdiff1d(table.ids, parcel.ids) if same_kind else table.ids
    strange = np.setdiff1d(parcel.ids, table.ids) if same_kind else parcel.ids
    if missing.size or strange.size:
        example = (strange if strange.size else missing)[0].item()
        raise StoreError(
            f"the store's dataset {table.name!r} holds other annotations than the files: "
            f"{strange.size} IDs are only in the files, {missing.size} only in the store (such as "
            f"{example!r}); import under another --dataset"
        )
    if parcel.labels is not None:
        _check_same_labels(parcel, table)


def _check_same_labels(parcel, table):
    there = table.labels_of(parcel.ids)
    differing = np.flatnonzero(there != parcel.labels)
    if differing.size:
        first = differing[0]
        raise StoreError(
            f"{differing.size} annotations have other labels in the files than in dataset "
            f"{table.name!r} (first: ID {parcel.ids[first].item()!r}, {parcel.labels[first]!r} and "
            f"{there[first]!r}); import under another --dataset"
        )


def _labels(parcel, label, labels):
    """Labels as they are given, else the files' own, else None."""
    if label is not None and labels is not None:
        raise StoreError("labels were given twice; give either --label or --labels")
    if labels is not None:
        return _labels_of_csv(parcel, labels)
    return parcel.labels if label is None else np.full(len(parcel.ids), label)


def _labels_of_csv(parcel, path):
    """Labels by slide, or by ID where the CSV has a column of IDs."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as a CSV of labels: {error}") from error
    key = next((name for name in ("id", *SLIDE_COLUMNS) if name in frame), None)
    if key is None or "label" not in frame:
        raise StoreError(
            f"{path} has the columns {', '.join(map(str, frame))}; 'label' and one of 'id', "
            "'slide' or 'slide_id' are needed"
        )
    if frame[key].duplicated().any():
        twice = frame[key][frame[key].duplicated()].iloc[0]
        raise StoreError(f"{path} has {twice!r} more than once; one label each is needed")
    return _looked_up(parcel, key, dict(zip(frame[key], frame["label"], strict=True)), path)


def _looked_up(parcel, key, label_of, path):
    if key != "id" and "slide" not in parcel.columns:
        raise StoreError(f"the files name no slides, and {path} has labels by slide; give 'id'")
    asked = (parcel.ids if key == "id" else parcel.columns["slide"]).astype(str).tolist()
    missing = next((name for name in asked if name not in label_of), None)
    if missing is not None:
        raise StoreError(f"{path} has no label for {key} {missing!r}; add a row for it")
    return np.array([label_of[name] for name in asked], dtype=str)


def _named_for_a_store(columns):
    """Bring column names of other tools into the store's form.

    Examples
    --------
    >>> list(_named_for_a_store({"x": 0, "Patient ID": 1, "id": 2}))
    ['x', 'patient_id', 'original_id']
    """
    named = {}
    for name, column in columns.items():
        key = re.sub(r"[^a-z0-9._-]+", "_", str(name).lower()).strip("._-") or "column"
        key = f"original_{key}" if key in ("id", "label") else key
        if key in named:
            raise StoreError(f"columns of the files are both called {key!r} in a store; rename one")
        named[key] = column
    return named


def _write(parcel, store, dataset, spec, *, parts, run):
    """Write every row under its ID, chunk by chunk, as an extraction would."""
    index = IdIndex(parcel.ids, "the files")
    with EmbeddingWriter(store, dataset, spec, parts=parts, run=run) as writer:
        for chunk in writer.pending():
            writer.write(chunk, parcel.rows.take(index.positions(chunk.ids)))
