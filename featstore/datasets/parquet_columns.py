"""Columns of a Parquet file: numbers keep their type, all else is text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featstore.datasets.untrusted import MOST_CHARACTERS, as_line, short, text_column
from featstore.errors import AnnotationError, require

__all__ = ["PARQUET_MAGIC", "ParquetColumn", "read_parquet_columns"]

PARQUET_MAGIC = b"PAR1"
EXTRA = "exchange"
# What a file may unfold into: anything below the first, and no more than so many times its size.
HARMLESS_BYTES = 64 * 2**20
MOST_EXPANSION = 100
EXACT_IN_FLOAT = 2**53  # every smaller integer comes back from float64 as it was


@dataclass(frozen=True)
class ParquetColumn:
    """Values of one column, as the file has them.

    Parameters
    ----------
    name : str
        Name of the column.
    values : pyarrow.ChunkedArray of length n
        Texts as dictionaries, all else as it is.
    path : path-like
        The file.
    """

    name: str
    values: object
    path: object

    def texts(self):
        """Values as texts without blanks at their ends, '' where there is none."""
        return ["" if value is None else str(value).strip() for value in self._plain()]

    def ids(self):
        """IDs: integers as they are, texts as texts."""
        types = _types()
        if types.is_integer(self.values.type):
            return np.array(self._plain(), dtype=object)
        if not types.is_dictionary(self.values.type):
            raise AnnotationError(
                f"column {self.name!r} of {self.path} holds {self.values.type}; IDs are integers "
                "or texts: write it as one of them"
            )
        return text_column(self.texts(), self.name, self.path)

    def array(self):
        """Numbers as they are, NaN where there is none; else text, '' where there is none."""
        types, kind = _types(), self.values.type
        complete = self.values.null_count == 0
        if types.is_floating(kind) or (complete and (types.is_integer(kind) or _is_bool(kind))):
            array = self.values.to_numpy(zero_copy_only=False)
            return array.astype(np.float32) if array.dtype == np.float16 else array
        if types.is_integer(kind) and self._fits_float():
            return self.values.to_numpy(zero_copy_only=False).astype(np.float64)
        return text_column(self.texts(), self.name, self.path)

    def _fits_float(self):
        return all(abs(value) <= EXACT_IN_FLOAT for value in self._plain() if value is not None)

    def _plain(self):
        """Values as Python has them, None where there is none."""
        try:
            if not _types().is_dictionary(self.values.type):
                return self.values.to_pylist()
            return [value for chunk in self.values.chunks for value in _looked_up(chunk)]
        except (ValueError, OverflowError, ImportError) as error:
            raise AnnotationError(
                f"column {self.name!r} of {self.path} cannot be read ({short(str(error))}); write "
                "it as text"
            ) from error


def _looked_up(chunk):
    """Values of a dictionary array; a text that stands often is one object."""
    texts = chunk.dictionary.to_pylist()
    return [None if place is None else texts[place] for place in chunk.indices.to_pylist()]


def _types():
    return require("pyarrow.types", extra=EXTRA, purpose="Parquet")


def _is_bool(kind):
    return _types().is_boolean(kind)


def read_parquet_columns(path, *, needed):
    """Read a Parquet file.

    Parameters
    ----------
    path : path-like
        File.
    needed : set of str
        Not used: a Parquet file leaves no doubt of its columns.

    Returns
    -------
    columns : dict of str to ParquetColumn
        By name, in the file's order.
    left_out : list of str
        Names of columns that hold lists, records or bytes.

    Raises
    ------
    AnnotationError
        If the file is damaged, has no rows, two columns of one name, or unfolds into far more
        than it holds.
    MissingExtraError
        If pyarrow is not installed.
    """
    pa = require("pyarrow", extra=EXTRA, purpose="Parquet")
    pq = require("pyarrow.parquet", extra=EXTRA, purpose="Parquet")
    try:
        flat, texts, nested = _kinds(pq.read_schema(path), path)
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            _check_sizes(file.metadata, path)
            table = file.read(columns=flat)
        table.validate(full=True)  # places outside of a dictionary, bytes that are no UTF-8
        columns = {name: ParquetColumn(name, table[name], path) for name in flat}
        _check_texts(pa, columns, path)
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        line = as_line(str(error).split("\n")[0])
        raise AnnotationError(f"{path} cannot be read as Parquet ({line})") from error
    return {name or f"unnamed_{place}": columns[name] for place, name in enumerate(flat)}, nested


def _kinds(schema, path):
    """Names of the columns with one value per row, of the texts among them, and of the others."""
    types = _types()
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        raise AnnotationError(f"{path} has two columns {twice[0]!r}; rename one")
    nested = [
        field.name
        for field in schema
        if types.is_nested(field.type) or types.is_binary(field.type) or _is_bytes(field.type)
    ]
    flat = [name for name in schema.names if name not in nested]
    return flat, [name for name in flat if _is_text(schema.field(name).type)], nested


def _is_bytes(kind):
    types = _types()
    return types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _is_text(kind):
    types = _types()
    return types.is_string(kind) or types.is_large_string(kind)


def _check_sizes(metadata, path):
    """Refuse a footer that declares far more than the file can hold."""
    if metadata.num_rows == 0:
        raise AnnotationError(f"{path} holds no rows; one row per annotation is needed")
    # Not of the single columns: pyarrow ends the process over one whose entry is damaged.
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    declared = max(metadata.num_rows * 8, sum(group.total_byte_size for group in groups))
    _check_bytes(declared, "the footer", path)


def _check_bytes(n_bytes, what, path):
    if n_bytes > max(HARMLESS_BYTES, MOST_EXPANSION * Path(path).stat().st_size):
        raise AnnotationError(
            f"{what} of {path} declares {n_bytes:,} bytes, far more than the file holds; get it "
            "again, or write it anew without the column"
        )


def _check_texts(pa, columns, path):
    """Bring all texts into dictionaries, and refuse one that is too long for so many rows."""
    compute = require("pyarrow.compute", extra=EXTRA, purpose="Parquet")
    for name, column in columns.items():
        values = column.values
        if _is_text(values.type):
            values = values.dictionary_encode()
        elif not _types().is_dictionary(values.type):
            continue
        if not _is_text(values.type.value_type):
            columns[name] = ParquetColumn(name, values.cast(values.type.value_type), path)
            continue
        lengths = [compute.max(compute.binary_length(chunk.dictionary)) for chunk in values.chunks]
        longest = max((length.as_py() or 0 for length in lengths), default=0)
        if longest * len(values) > MOST_CHARACTERS:
            raise AnnotationError(
                f"column {name!r} of {path} holds a text of {longest:,} bytes, too long for one of "
                f"{len(values):,} rows; shorten it or take the column out"
            )
        columns[name] = ParquetColumn(name, values, path)
