"""Embeddings as NumPy files: ``values.npy``, ``ids.npy`` and what else is known, in a folder.

::

    folder/
        values.npy          (n, dim)
        ids.npy             (n,) int64 or text
        labels.npy          (n,) text
        columns/x.npy ...   (n,) one file per further column
        provenance.json

Nothing is pickled, on the way out or in.
"""

import json
import math

import numpy as np

from featstore.errors import StoreError
from featstore.ids import as_ids
from featstore.store.parcel import Parcel, Rows
from featstore.store.untrusted import (
    MOST_JSON_BYTES,
    check_embedding_type,
    counted_ids,
    load_json,
    plain_files,
)

__all__ = ["read_npy", "write_npy"]


def write_npy(parcel, folder, *, dtype):
    """Write a parcel into a new folder.

    Parameters
    ----------
    parcel : Parcel
        With labels and provenance.
    folder : Path
        Where nothing is.
    dtype : dtype
        Type of the embeddings in the file.
    """
    (folder / "columns").mkdir(parents=True)
    values = np.lib.format.open_memmap(
        folder / "values.npy", mode="w+", dtype=dtype, shape=parcel.rows.shape
    )
    for start, rows in parcel.rows.batches():
        values[start : start + len(rows)] = rows
    values.flush()
    np.save(folder / "ids.npy", parcel.ids, allow_pickle=False)
    np.save(folder / "labels.npy", parcel.labels, allow_pickle=False)
    for name, column in parcel.columns.items():
        np.save(folder / "columns" / f"{name}.npy", column, allow_pickle=False)
    (folder / "provenance.json").write_text(json.dumps(parcel.provenance, indent=1) + "\n")


def read_npy(path, *, ids=None, values=None, patch_px=None):
    """Read what :func:`write_npy` wrote, or a single ``.npy`` file of another tool.

    Parameters
    ----------
    path : Path
        Folder, or file.
    ids, values : str, optional
        File names in the folder, in place of ``ids.npy`` and ``values.npy``.
    patch_px : None
        Not used here.

    Returns
    -------
    Parcel

    Raises
    ------
    StoreError
        If a file is missing, damaged, pickled, or shorter than it declares.
    """
    folder = path if path.is_dir() else path.parent
    files = {file.name: file for file in plain_files(folder, "*") if folder == path}
    file = files.get(values or "values.npy") if path.is_dir() else path
    matrix = _load(file, f"{values or 'values.npy'} in {path}")
    check_embedding_type(str(file), matrix.shape, matrix.dtype)
    rows = Rows(matrix.shape, matrix.dtype, lambda start, stop: matrix[start:stop])
    names = files.get(ids or "ids.npy")
    if names is None and (ids is not None or path.is_dir()):
        raise StoreError(f"{path} has no {ids or 'ids.npy'}; name the file of IDs with --ids")
    labels = _column(files["labels.npy"], len(matrix)) if "labels.npy" in files else None
    columns = plain_files(folder / "columns", "*.npy") if folder == path else []
    return Parcel(
        counted_ids(path.stem, len(matrix))
        if names is None
        else as_ids(_column(names, len(matrix))),
        rows,
        labels,
        {column.stem: _column(column, len(matrix)) for column in columns},
        _provenance(files.get("provenance.json")),
    )


def _load(file, what):
    """Map an array into memory, once its file is known to be as long as its header says."""
    if file is None:
        raise StoreError(f"{what} is not there; name the file of embeddings with --values")
    try:
        _check_length(file)
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).split("\n")[0]
        raise StoreError(f"{file} cannot be read as a plain .npy file ({reason})") from error


def _check_length(file):
    with file.open("rb") as content:
        version = np.lib.format.read_magic(content)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(content)
        else:
            header = np.lib.format.read_array_header_2_0(content)
        shape, _, dtype = header
        needed, there = math.prod(shape) * dtype.itemsize, file.stat().st_size - content.tell()
    if min(shape, default=0) < 0 or needed > there:
        raise ValueError(f"it declares the shape {shape} and holds {there:,} bytes")


def _column(file, n):
    array = _load(file, file.name)
    if array.shape != (n,) or array.dtype.kind not in "iufbU":
        raise StoreError(
            f"{file} is {array.dtype} {array.shape}; one plain value per row is needed"
        )
    return np.array(array)


def _provenance(file):
    if file is None:
        return None
    with file.open("rb") as content:
        return load_json(str(file), content.read(MOST_JSON_BYTES + 1))
