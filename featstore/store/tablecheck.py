"""The check of a table in a store: its columns, and what they hold together."""

from dataclasses import dataclass

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import AnnotationError
from featstore.ids import IdIndex, as_ids
from featstore.store.examination import beside, printable
from featstore.store.gridcheck import chunk_bytes, chunk_shape, chunks_of

__all__ = ["AGAIN", "Table", "check_table", "chosen"]

# What to do about a table, by the folder it is in.
AGAIN = {
    "annotations": "copy the dataset again from where it came, or add it anew to a new store",
    "patches": "'featstore cut' makes the windows again",
}


def _again(place):
    return AGAIN[place.partition("/")[0]]


@dataclass(frozen=True)
class Table:
    """What is known of the rows of a table.

    Parameters
    ----------
    names : tuple
        Annotation IDs to name rows by, as far as they can be read; they may be damaged.
    table : AnnotationTable or None
        IDs and labels, where both are as they were written.
    listed : tuple or None
        Names of its columns, as its attributes list them; None where these cannot be read.
    """

    names: tuple
    table: AnnotationTable | None
    listed: tuple | None = None


def check_table(exam, place, name):
    """Check a table, IDs first: they name the rows of all that comes after.

    Parameters
    ----------
    exam : Examination
        Takes the findings.
    place : str
        Folder of the table, relative to the store.
    name : str
        Name of the dataset.

    Returns
    -------
    Table
    """
    folders, files = exam.scan(place)
    exam.unknown(place, beside(files, "zarr.json"))
    group = exam.metadata(place, "dataset").document
    attributes = {} if group is None else group["attributes"]
    _check_listed(exam, place, folders, attributes)
    names = None  # until the column of IDs is read
    columns = {}
    for column in sorted(folders, key=lambda folder: folder != "id"):
        if exam.is_named_well(place, "column", column):
            here = f"{place}/{column}"
            layout = _column_layout(exam, here, attributes.get("rows"))
            data, intact = _column_data(exam, here, layout, names)
            if column == "id":
                names = _names(layout, data)
            columns[column] = _decoded(exam, here, layout, data, names) if intact else None
    table = _checked_table(exam, place, name, columns, attributes.get("digest"))
    return Table(names or (), table, attributes.get("columns"))


def _check_listed(exam, place, folders, attributes):
    listed = attributes.get("columns", ["id", "label"])
    for column in beside(listed, *folders):
        exam.add("M11", f"{place}/{column}", f"the column is not there; {_again(place)}")
    if "columns" in attributes:
        what = "is not among the columns that the dataset lists; readers leave it aside"
        exam.unknown(place, beside(folders, *listed), what=what)


def _column_layout(exam, place, rows):
    """Metadata of a column, where its chunk can be told from it; else None."""
    exam.n_arrays += 1
    layout = exam.metadata(place, "column").document
    if layout is None:
        return None
    n_rows = layout["shape"][0]
    if rows is not None and n_rows != rows:
        exam.add("M12", place, f"has {n_rows:,} rows, its dataset {rows:,}; {_again(place)}")
    if chunk_shape(layout) != layout["shape"]:
        exam.add("M12", place, f"is not one chunk of all {n_rows:,} rows; {_again(place)}")
        return None
    return layout


def _column_data(exam, place, layout, names):
    """Bytes of a column (None where they cannot be read), and whether all is well with them."""
    data, intact, n_there = None, layout is not None, 0
    for number, file in chunks_of(exam, place, layout):
        if layout is not None and number is None:
            exam.add("M10", file, "is outside of the chunk grid; remove it")
            continue
        n_there += 1
        data, problem = exam.payload(file, None if layout is None else chunk_bytes(layout))
        if problem is not None:
            intact = False
            ids = _names(layout, data) if names is None else names
            exam.add(problem[0], place, f"{problem[1]}; {_again(place)}", chunk=number, ids=ids)
    if layout is not None and n_there == 0:
        intact = False
        exam.add("M11", place, f"its chunk is not there; {_again(place)}", chunk=0, ids=names or ())
    return data, intact


def _names(layout, data):
    """IDs as they can be read, damaged or not."""
    if layout is None or data is None:
        return ()
    values = _raw(layout, data)
    if values.ndim == 1:
        return tuple(values.tolist())
    return tuple(text.decode("utf-8", "replace") for text in _texts(values).tolist())


def _raw(layout, data):
    dtype = np.dtype(layout["data_type"]).newbyteorder("<")
    return data.view(dtype).reshape(layout["shape"])


def _texts(matrix):
    """UTF-8 of each row, without the zeros at its end."""
    return np.ascontiguousarray(matrix).view(f"S{matrix.shape[1]}").ravel()


def _decoded(exam, place, layout, data, names):
    """Values of a column; None where they are not what the format allows."""
    values, attributes = _raw(layout, data), layout["attributes"]
    if "categories" in attributes:
        return _of_categories(exam, place, values, attributes["categories"], names)
    if "encoding" in attributes:
        return _of_utf8(exam, place, _texts(values), names)
    if place.endswith(("/id", "/label")) and values.dtype != np.int64:
        exam.add("M13", place, f"is {values.dtype}; IDs are int64 or text, labels are text")
        return None
    return values


def _of_categories(exam, place, codes, categories, names):
    beyond = np.flatnonzero(codes >= len(categories))
    if beyond.size == 0:
        return np.array(categories, dtype=str)[codes]
    message = f"holds codes without a category (there are {len(categories)}); {_again(place)}"
    exam.add("M13", place, message, chunk=0, ids=chosen(names, beyond))
    return None


def _of_utf8(exam, place, texts, names):
    try:
        return np.char.decode(texts, "utf-8")
    except UnicodeDecodeError:
        bad = [row for row, text in enumerate(texts.tolist()) if not _is_utf8(text)]
        message = f"holds text that is not UTF-8; {_again(place)}"
        exam.add("M13", place, message, chunk=0, ids=chosen(names, bad))
        return None


def _is_utf8(text):
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def chosen(names, rows):
    """IDs of some rows, as far as they can be read."""
    return tuple(names[row] for row in rows if row < len(names))


def _checked_table(exam, place, name, columns, digest):
    """IDs and labels as a table, where both are good and their digest holds; else None."""
    ids, labels = columns.get("id"), columns.get("label")
    if ids is None or labels is None or len(ids) != len(labels):
        return None  # a finding already
    try:
        twice = IdIndex(as_ids(ids), name).duplicates()
        if twice.size:
            message = f"{twice.size} annotation IDs stand more than once; {_again(place)}"
            exam.add("M14", f"{place}/id", message, ids=twice.tolist())
            return None
        table = AnnotationTable(name, ids, labels)
    except AnnotationError as error:
        exam.add("M14", place, f"{printable(error)}; {_again(place)}")
        return None
    if digest is not None and table.digest != digest:
        exam.add("M15", place, f"its IDs and labels are not those of its digest; {_again(place)}")
        return None
    return table
