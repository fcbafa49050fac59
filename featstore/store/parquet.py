"""Embeddings as one Parquet file: a row per annotation, the embedding as a fixed-size list.

The columns are ``id``, ``label``, what else is known, and ``embedding``; the provenance is in the
file's metadata under ``featstore``. One list column, not a column per feature: with 1,536 of those
the file is a third larger and takes ten times as long to write, and every reader has to put the
matrix together again. pandas gives an array per row, polars an Array, DuckDB a list.
"""

import json
from functools import lru_cache

import numpy as np

from featstore.errors import StoreError, require
from featstore.ids import as_ids
from featstore.store.parcel import Parcel, Rows
from featstore.store.untrusted import check_embedding_type, check_fits, counted_ids, load_json

__all__ = ["read_parquet", "write_parquet"]

EXTRA = "exchange"
ROWS_PER_GROUP = 4_096
RESERVED = ("id", "label", "embedding")
LARGEST_COLUMNS = """
import json, sys
import pyarrow.parquet
metadata = pyarrow.parquet.read_metadata(sys.argv[1])
groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
columns = [group.column(number) for group in groups for number in range(group.num_columns)]
sizes = ("num_values", "total_compressed_size", "total_uncompressed_size")
print(json.dumps({size: max((getattr(c, size) for c in columns), default=0) for size in sizes}))
"""


def write_parquet(parcel, path, *, dtype):
    """Write a parcel into a new file.

    Parameters
    ----------
    parcel : Parcel
        With labels and provenance.
    path : Path
        Where nothing is.
    dtype : dtype
        Type of the embeddings in the file.

    Raises
    ------
    StoreError
        If a column has the name of one that the layout itself writes.
    """
    pq = require("pyarrow.parquet", extra=EXTRA, purpose="Parquet")
    taken = [name for name in parcel.columns if name in RESERVED]
    if taken:
        raise StoreError(f"column {taken[0]!r} has a name that the layout 'parquet' itself uses")
    texts = [name for name in ("id", "label", *parcel.columns) if name != "embedding"]
    schema = _batch(parcel, 0, np.empty((0, parcel.rows.shape[1]), dtype)).schema
    with pq.ParquetWriter(path, schema, use_dictionary=texts, compression="none") as writer:
        for first in range(0, len(parcel.ids), ROWS_PER_GROUP):
            rows = parcel.rows.run(first, min(first + ROWS_PER_GROUP, len(parcel.ids)))
            writer.write_table(_batch(parcel, first, rows.astype(dtype)))


def _batch(parcel, first, rows):
    """Arrow table of the rows from ``first`` on."""
    pa = require("pyarrow", extra=EXTRA, purpose="Parquet")
    flat = pa.array(np.ascontiguousarray(rows).ravel())
    columns = {"id": parcel.ids, "label": parcel.labels, **parcel.columns}
    arrays = {name: pa.array(column[first : first + len(rows)]) for name, column in columns.items()}
    arrays["embedding"] = pa.FixedSizeListArray.from_arrays(flat, parcel.rows.shape[1])
    metadata = {"featstore": json.dumps(parcel.provenance)}
    return pa.table(arrays).replace_schema_metadata(metadata)


def read_parquet(path, *, ids=None, values=None, patch_px=None):
    """Read what :func:`write_parquet` wrote, or another tool's file with a list column.

    Parameters
    ----------
    path : Path
        File.
    ids, values : str, optional
        Names of the columns, in place of ``id`` and ``embedding``.
    patch_px : None
        Not used here.

    Returns
    -------
    Parcel

    Raises
    ------
    StoreError
        If the file is damaged, has no such columns, or declares more than it holds.
    """
    pa = require("pyarrow", extra=EXTRA, purpose="Parquet")
    pq = require("pyarrow.parquet", extra=EXTRA, purpose="Parquet")
    try:
        file = pq.ParquetFile(path, read_dictionary=_text_columns(pq.read_schema(path)))
        _check_groups(path, file.metadata)
        rows = _rows(path, file, values or "embedding")
        columns = _columns(path, file, beside=values or "embedding")
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        raise StoreError(f"{path} cannot be read as Parquet ({_first_line(error)})") from error
    if ids is not None and ids not in columns:
        raise StoreError(f"{path} has no column {ids!r} of IDs; it has {', '.join(columns)}")
    found = columns.pop(ids or "id", None)
    named = as_ids(found) if found is not None else counted_ids(path.stem, rows.shape[0])
    metadata = file.schema_arrow.metadata or {}
    provenance = metadata.get(b"featstore")
    return Parcel(
        named,
        rows,
        columns.pop("label", None),
        columns,
        None if provenance is None else load_json(f"metadata of {path}", provenance),
    )


def _first_line(error):
    return str(error).split("\n")[0]


def _check_groups(path, metadata):
    """Compare the rows and values that the footer declares with the bytes in the file."""
    size = path.stat().st_size
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise StoreError(f"{path} declares {metadata.num_rows} rows and its row groups hold others")
    largest = _largest_columns(path)
    if largest["total_compressed_size"] > size:
        raise StoreError(f"{path} declares columns that are larger than the file; get it again")
    check_fits(f"a column of {path}", (largest["num_values"],), 8, size)
    check_fits(f"a column of {path}", (largest["total_uncompressed_size"],), 1, size)


def _largest_columns(path):
    """Read the largest sizes that the footer declares for a column, in a process of its own.

    pyarrow ends the process over a column whose entry in the footer is damaged.
    """
    import subprocess
    import sys

    asked = [sys.executable, "-c", LARGEST_COLUMNS, str(path)]
    done = subprocess.run(asked, capture_output=True, text=True)  # noqa: S603
    if done.returncode != 0:
        raise StoreError(f"{path} cannot be read as Parquet (its footer is damaged); get it again")
    return json.loads(done.stdout)


def _text_columns(schema):
    """Names of text columns: as dictionaries, a long text repeated does not fill the memory."""
    return [field.name for field in schema if _is_text(field.type)]


def _is_text(kind):
    types = require("pyarrow.types", extra=EXTRA, purpose="Parquet")
    return types.is_string(kind) or types.is_large_string(kind)


def _is_list(kind):
    types = require("pyarrow.types", extra=EXTRA, purpose="Parquet")
    return types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)


def _rows(path, file, name):
    """Embeddings of the list column ``name``, decoded a row group at a time."""
    fields = file.schema_arrow
    kind = fields.field(name).type if name in fields.names else None
    if kind is None or not _is_list(kind):
        raise StoreError(
            f"{path} has no list column {name!r} of embeddings; it has {', '.join(fields.names)}: "
            "name one with --values"
        )
    counts = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)

    @lru_cache(maxsize=1)
    def group(number):
        return _matrix(path, file.read_row_group(number, columns=[name])[name])

    def run(start, stop):
        first, last = np.searchsorted(starts, [start, stop - 1], side="right") - 1
        parts = [
            group(n)[max(start - starts[n], 0) : stop - starts[n]] for n in range(first, last + 1)
        ]
        return np.concatenate(parts)

    sample = group(0) if counts else np.empty((0, 0))
    check_embedding_type(f"column {name!r} of {path}", (starts[-1], sample.shape[1]), sample.dtype)
    return Rows((int(starts[-1]), sample.shape[1]), sample.dtype, run)


def _matrix(path, column):
    """(n, dim) of a list column whose lists are all of one length and have no gaps."""
    lists = column.combine_chunks()
    if len(lists) == 0:
        raise StoreError(f"{path} has a row group without rows; write it anew without")
    flat = lists.flatten()
    if lists.null_count or flat.null_count or (len(lists) and len(flat) % len(lists)):
        raise StoreError(f"embeddings of {path} have gaps or differ in length; fill them first")
    matrix = flat.to_numpy(zero_copy_only=False).reshape(len(lists), -1)
    lengths = np.asarray(lists.value_lengths())
    if (lengths != matrix.shape[1]).any():
        raise StoreError(f"embeddings of {path} differ in length; they cannot be one array")
    return matrix


def _columns(path, file, *, beside):
    """All columns but the embeddings and other lists."""
    names = [
        field.name
        for field in file.schema_arrow
        if field.name != beside and not _is_list(field.type)
    ]
    table = file.read(columns=names)
    table.validate(full=True)  # places outside of a dictionary
    return {name: _plain(path, name, table[name]) for name in names}


def _plain(path, name, column):
    """Numbers as they are, all else as text with missing values as ''."""
    types = require("pyarrow.types", extra=EXTRA, purpose="Parquet")
    if types.is_dictionary(column.type):
        _check_texts(path, name, column)
        column = column.cast(column.type.value_type)
    array = column.to_numpy(zero_copy_only=False)
    if array.dtype.kind in "iufb":
        return array
    return np.array(["" if value is None else str(value) for value in column.to_pylist()], str)


def _check_texts(path, name, column):
    """Compare what the texts take in memory, all as wide as the longest, with the file."""
    compute = require("pyarrow.compute", extra=EXTRA, purpose="Parquet")
    if _is_text(column.type.value_type):
        longest = [
            compute.max(compute.binary_length(chunk.dictionary)).as_py() or 0
            for chunk in column.chunks
        ]
        shape = (len(column), max(longest, default=0))
        check_fits(f"column {name!r} of {path}", shape, 4, path.stat().st_size)
