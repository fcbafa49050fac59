"""The annotation table on disk: one array per column, text in a form every Zarr library opens.

Text is either integer codes with their categories in the attributes (few values), or UTF-8 bytes
padded with zeros to a common width, uint8 (n, width). Zarr's own variable-length strings are read
by few libraries.
"""

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import StoreError
from featstore.store.chunks import CHECKSUM_BYTES
from featstore.store.layout import new_array

__all__ = ["read_ids", "read_table", "write_table"]

MOST_CATEGORIES = 1_024


def write_table(group, annotations):
    """Write all columns of a table into an empty group."""
    columns = {"id": annotations.ids, "label": annotations.labels, **annotations.columns}
    for name, values in columns.items():
        _write_column(group, name, values)
    group.attrs["rows"] = len(annotations)
    group.attrs["columns"] = list(columns)
    group.attrs["digest"] = annotations.digest


def read_table(group, name, *, what="annotations"):
    """Read a table that :func:`write_table` wrote.

    Parameters
    ----------
    group : zarr.Group
        Where it is.
    name : str
        Name of the dataset.
    what : str
        What its rows are, as errors name them.

    Raises
    ------
    StoreError
        If the group is damaged.
    """
    try:
        columns = {column: _read_column(group[column]) for column in group.attrs["columns"]}
        ids, labels = columns.pop("id"), columns.pop("label")
        digest = group.attrs["digest"]
    except StoreError:
        raise
    except (KeyError, ValueError, IndexError) as error:
        raise StoreError(f"{what} {name!r} are damaged: {error}") from error
    table = AnnotationTable(name, ids, labels, columns)
    if table.digest != digest:
        raise StoreError(
            f"{what} {name!r} are damaged: their IDs and labels are not those that were written"
        )
    return table


def read_ids(group):
    """Read the IDs alone.

    Raises
    ------
    StoreError
        If they are not there, or damaged.
    """
    try:
        return _read_column(group["id"])
    except StoreError:
        raise
    except (KeyError, ValueError) as error:
        raise StoreError(f"the IDs of {group.path!r} are damaged: {error}") from error


def _write_column(group, name, values):
    if values.dtype.kind != "U":
        _fill(group, name, values)
        return
    categories, codes = np.unique(values, return_inverse=True)
    if name != "id" and len(categories) <= min(MOST_CATEGORIES, max(len(values) // 2, 1)):
        array = _fill(group, name, codes.astype(np.min_scalar_type(len(categories))))
        array.attrs["categories"] = categories.tolist()
    else:
        array = _fill(group, name, _encoded(values))
        array.attrs["encoding"] = "utf-8"


def _fill(group, name, values):
    """Create an array of one chunk."""
    dimensions = ("annotation", "byte")[: values.ndim]
    array = new_array(
        group,
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunk_shape=tuple(max(size, 1) for size in values.shape),
        dimension_names=dimensions,
    )
    array[...] = values
    return array


def _read_column(array):
    remote = hasattr(array.store, "listable")  # says itself what is missing, and may not list
    if array.size and not remote:
        _check_there(array)
    values = array[...]
    if "categories" in array.attrs:
        return np.array(array.attrs["categories"], dtype=str)[values]
    return _decoded(values) if array.attrs.get("encoding") == "utf-8" else values


def _check_there(array):
    """Refuse a column whose one chunk is missing, or not of the size that the array declares."""
    from zarr.core.sync import sync

    place = array.metadata.encode_chunk_key((0,) * array.ndim)
    key = f"{array.path}/{place}"
    if array.nchunks != 1 or not sync(array.store.exists(key)):
        raise ValueError(f"the values of {array.basename!r} are missing")
    n_bytes = sync(array.store.getsize(key))
    if n_bytes != array.nbytes + CHECKSUM_BYTES:
        raise ValueError(
            f"{array.basename!r} declares {array.nbytes} bytes and holds {n_bytes - CHECKSUM_BYTES}"
        )


def _encoded(texts):
    """UTF-8 bytes, padded with zeros: uint8 (n, width).

    Examples
    --------
    >>> _encoded(np.array(["ab", "c"]))
    array([[97, 98],
           [99,  0]], dtype=uint8)
    """
    encoded = np.char.encode(texts, "utf-8")
    width = max(encoded.dtype.itemsize, 1)
    return np.frombuffer(encoded.astype(f"S{width}").tobytes(), np.uint8).reshape(-1, width)


def _decoded(matrix):
    """Undo :func:`_encoded`.

    Examples
    --------
    >>> _decoded(_encoded(np.array(["näher", "c", ""])))
    array(['näher', 'c', ''], dtype='<U5')
    """
    width = matrix.shape[1]
    return np.char.decode(np.ascontiguousarray(matrix).view(f"S{width}").ravel(), "utf-8")
