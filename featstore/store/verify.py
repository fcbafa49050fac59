"""Hold a store against every MUST of docs/store-format.md, and drop what can be made again.

Every byte is read once, one chunk at a time. What is wrong is named: array, chunk, annotation IDs.
Annotation tables and attributes are never changed here.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.encoders.spec import EncoderSpec
from featstore.errors import AnnotationError, NotInStoreError, StoreError
from featstore.ids import IdIndex, as_ids
from featstore.store.examination import COPY_AGAIN, Examination, Finding, printable
from featstore.store.layout import FORMAT, check_key, finish_swaps
from featstore.store.manifest import MANIFEST

__all__ = ["Finding", "examine", "verify"]

UPGRADE = "pip install --upgrade featstore-probes"
ADD_AGAIN = "copy the dataset again from where it came, or add it anew to a new store"


def verify(path, *, repair=False):
    """Check a local store.

    Parameters
    ----------
    path : path-like
        Folder of the store.
    repair : bool
        Drop bad chunks of embeddings, so that extraction makes them again, and leftovers of dead
        runs. Nothing else is touched.

    Returns
    -------
    list of Finding
        Empty where all is well.

    Raises
    ------
    StoreError
        If there is no store, or not on a local disk.

    Examples
    --------
    >>> import tempfile, featstore
    >>> store = featstore.create(tempfile.mkdtemp())
    >>> _ = (Path(store.path) / "notes.txt").write_text("ours")
    >>> [str(finding) for finding in verify(store.path) if finding.rule == "S1"]
    ['note S1 notes.txt: is not part of the format and was not checked']
    """
    return examine(path, repair=repair).findings


def examine(path, *, repair=False):
    """Check a local store; return findings and counts, as an :class:`Examination`."""
    exam = Examination(_folder_of(path), repair=repair)
    if not _check_root(exam):
        return exam
    if repair and not (exam.root / "annotations").is_symlink():
        finish_swaps(exam.root / "annotations")
    datasets = _members(exam, "annotations", "dataset")
    tables = {name: _check_dataset(exam, name) for name in datasets}
    for model in _members(exam, "embeddings", "model"):
        for dataset in _members(exam, f"embeddings/{model}", "dataset"):
            _check_embeddings(exam, f"embeddings/{model}/{dataset}", dataset, tables)
    return exam


def _folder_of(path):
    if "://" in str(path):
        raise StoreError(
            f"{path} is not on a local disk; 'featstore copy' it, then verify the copy"
        )
    folder = Path(path)
    if not folder.exists():
        raise NotInStoreError(f"no store at {path}")
    if not any((folder / name).exists() for name in ("zarr.json", "annotations", "embeddings")):
        raise StoreError(f"{path} is not a featstore store: no zarr.json, no annotations in it")
    return folder


def _check_root(exam):
    """Check the root; whether its format can be checked here."""
    folders, files = exam.scan(".")
    others = _beside(folders, "annotations", "embeddings")
    exam.unknown(".", [*others, *_beside(files, "zarr.json", MANIFEST)])
    claimed = exam.metadata(".", "root").claimed
    try:
        version = [int(part) for part in claimed["attributes"]["featstore"]["format"].split(".")]
    except (AttributeError, KeyError, TypeError, ValueError):
        return True  # the schema, the seal or the missing file was a finding already
    return _can_be_checked(exam, version)


def _can_be_checked(exam, version):
    here, there = [int(part) for part in FORMAT.split(".")], ".".join(map(str, version))
    if version[0] > here[0]:
        message = f"has the format {there}, this installation checks up to {FORMAT}; {UPGRADE}"
        exam.add("M1", ".", message)
    elif version > here:
        message = f"has the format {there}: what is newer than {FORMAT} was not checked; {UPGRADE}"
        exam.add("M1", ".", message, severity="note")
    return version[0] <= here[0]


def _beside(names, *known):
    return [name for name in names if name not in known]


def _members(exam, place, kind):
    """Check a group that only holds others; return their names."""
    if not (exam.root / place).is_dir() or (exam.root / place).is_symlink():
        exam.add("M4", place, "is not there; copy the store again from where it came")
        return []
    folders, files = exam.scan(place)
    exam.unknown(place, _beside(files, "zarr.json"))
    exam.metadata(place, "group")
    return [name for name in folders if _is_named_well(exam, place, kind, name)]


def _is_named_well(exam, place, kind, name):
    try:
        check_key(kind, name)
    except StoreError as error:
        exam.add("M2", f"{place}/{name}", f"{printable(error)}; it was not checked")
        return False
    return True


@dataclass(frozen=True)
class _Table:
    """What is known of a dataset.

    Parameters
    ----------
    names : tuple
        Annotation IDs to name rows by, as far as they can be read; they may be damaged.
    table : AnnotationTable or None
        IDs and labels, where both are as they were written.
    """

    names: tuple
    table: AnnotationTable | None


def _check_dataset(exam, name):
    """Check a dataset, IDs first: they name the rows of all that comes after."""
    place = f"annotations/{name}"
    folders, files = exam.scan(place)
    exam.unknown(place, _beside(files, "zarr.json"))
    group = exam.metadata(place, "dataset").document
    attributes = {} if group is None else group["attributes"]
    _check_listed(exam, place, folders, attributes)
    names = None  # until the column of IDs is read
    columns = {}
    for column in sorted(folders, key=lambda folder: folder != "id"):
        if _is_named_well(exam, place, "column", column):
            here = f"{place}/{column}"
            layout = _column_layout(exam, here, attributes.get("rows"))
            data, intact = _column_data(exam, here, layout, names)
            if column == "id":
                names = _names(layout, data)
            columns[column] = _decoded(exam, here, layout, data, names) if intact else None
    table = _checked_table(exam, name, columns, attributes.get("digest"))
    return _Table(names or (), table)


def _check_listed(exam, place, folders, attributes):
    listed = attributes.get("columns", ["id", "label"])
    for column in _beside(listed, *folders):
        exam.add("M11", f"{place}/{column}", f"the column is not there; {ADD_AGAIN}")
    if "columns" in attributes:
        what = "is not among the columns that the dataset lists; readers leave it aside"
        exam.unknown(place, _beside(folders, *listed), what=what)


def _column_layout(exam, place, rows):
    """Metadata of a column, where its chunk can be told from it; else None."""
    exam.n_arrays += 1
    layout = exam.metadata(place, "column").document
    if layout is None:
        return None
    n_rows = layout["shape"][0]
    if rows is not None and n_rows != rows:
        exam.add("M12", place, f"has {n_rows:,} rows, its dataset {rows:,}; {ADD_AGAIN}")
    if _chunk_shape(layout) != layout["shape"]:
        exam.add("M12", place, f"is not one chunk of all {n_rows:,} rows; {ADD_AGAIN}")
        return None
    return layout


def _column_data(exam, place, layout, names):
    """Bytes of a column (None where they cannot be read), and whether all is well with them."""
    data, intact, n_there = None, layout is not None, 0
    for number, file in _chunks(exam, place, layout):
        if layout is not None and number is None:
            exam.add("M10", file, "is outside of the chunk grid; remove it")
            continue
        n_there += 1
        data, problem = exam.payload(file, None if layout is None else _chunk_bytes(layout))
        if problem is not None:
            intact = False
            ids = _names(layout, data) if names is None else names
            exam.add(problem[0], place, f"{problem[1]}; {ADD_AGAIN}", chunk=number, ids=ids)
    if layout is not None and n_there == 0:
        intact = False
        exam.add("M11", place, f"its chunk is not there; {ADD_AGAIN}", chunk=0, ids=names or ())
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
    message = f"holds codes without a category (there are {len(categories)}); {ADD_AGAIN}"
    exam.add("M13", place, message, chunk=0, ids=_chosen(names, beyond))
    return None


def _of_utf8(exam, place, texts, names):
    try:
        return np.char.decode(texts, "utf-8")
    except UnicodeDecodeError:
        bad = [row for row, text in enumerate(texts.tolist()) if not _is_utf8(text)]
        message = f"holds text that is not UTF-8; {ADD_AGAIN}"
        exam.add("M13", place, message, chunk=0, ids=_chosen(names, bad))
        return None


def _is_utf8(text):
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _chosen(names, rows):
    return tuple(names[row] for row in rows if row < len(names))


def _checked_table(exam, name, columns, digest):
    """IDs and labels as a table, where both are good and their digest holds; else None."""
    ids, labels = columns.get("id"), columns.get("label")
    place = f"annotations/{name}"
    if ids is None or labels is None or len(ids) != len(labels):
        return None  # a finding already
    try:
        twice = IdIndex(as_ids(ids), name).duplicates()
        if twice.size:
            message = f"{twice.size} annotation IDs stand more than once; {ADD_AGAIN}"
            exam.add("M14", f"{place}/id", message, ids=twice.tolist())
            return None
        table = AnnotationTable(name, ids, labels)
    except AnnotationError as error:
        exam.add("M14", place, f"{printable(error)}; {ADD_AGAIN}")
        return None
    if digest is not None and table.digest != digest:
        exam.add("M15", place, f"its IDs and labels are not those of its digest; {ADD_AGAIN}")
        return None
    return table


def _chunk_shape(layout):
    return layout["chunk_grid"]["configuration"]["chunk_shape"]


def _chunk_bytes(layout):
    n_values = 1
    for size in _chunk_shape(layout):
        n_values *= size  # Python's integers: a shape that overflows is only a wrong size
    return n_values * np.dtype(layout["data_type"]).itemsize


def _chunks(exam, place, layout):
    """Yield number and file of each chunk; None as number where it is not in the grid."""
    folders, files = exam.scan(place)
    exam.unknown(place, [*_beside(folders, "c"), *_beside(files, "zarr.json")])
    if "c" not in folders:
        return
    grid = None
    if layout is not None:
        sizes = zip(layout["shape"], _chunk_shape(layout), strict=True)
        grid = [-(-size // of_chunk) for size, of_chunk in sizes]
    for key, file in _files_below(exam, f"{place}/c"):
        yield _number(key, grid), file


def _files_below(exam, place, key=()):
    folders, files = exam.scan(place)
    for name in files:
        yield (*key, name), f"{place}/{name}"
    for name in folders:
        yield from _files_below(exam, f"{place}/{name}", (*key, name))


def _number(key, grid):
    """First part of a chunk key as a number, where the key is in the grid; else None."""
    if grid is None or len(key) != len(grid):
        return None
    numbers = [int(part) if part.isascii() and part.isdigit() else -1 for part in key]
    inside = all(0 <= number < size for number, size in zip(numbers, grid, strict=True))
    return numbers[0] if inside and [str(number) for number in numbers] == list(key) else None


def _check_embeddings(exam, place, dataset, tables):
    """Check one array of embeddings and where it came from."""
    folders, files = exam.scan(place)
    exam.unknown(place, [*_beside(folders, "values"), *_beside(files, "zarr.json")])
    group = exam.metadata(place, "embeddings")
    provenance = None if group.document is None else group.document["attributes"]["provenance"]
    if dataset not in tables:
        message = f"there is no dataset {printable(dataset)} in the store; copy it here as well"
        exam.add("M16", place, message)
    table = tables.get(dataset, _Table((), None))
    if provenance is not None:
        _check_provenance(exam, place, provenance, dataset, table.table)
    if "values" not in folders:
        exam.add("M4", f"{place}/values", "is not there; copy it again from where it came")
        return
    _check_values(exam, f"{place}/values", provenance, table, group_sealed=group.sealed)


def _check_provenance(exam, place, provenance, dataset, table):
    if provenance["dataset"] != dataset:
        message = f"its provenance is of the dataset {printable(provenance['dataset'])}"
        exam.add("M16", place, message)
    if provenance["digest"] != _encoder_digest(provenance["encoder"]):
        message = f"its digest is not that of its encoder's specification; {COPY_AGAIN}"
        exam.add("M17", place, message)
    for part, (start, stop) in provenance["parts"].items():
        if not start <= stop <= provenance["encoder"]["dim"]:
            exam.add("M18", place, f"its part {printable(part)} is not in an embedding")
    if table is None:
        return
    n_rows = provenance["dataset_rows"]
    if n_rows > len(table) or table.digest_of_first(n_rows) != provenance["dataset_digest"]:
        message = f"was made of other annotations than the first {n_rows:,} of {dataset}"
        exam.add("M19", place, message)


def _encoder_digest(encoder):
    """Digest of a specification, with fields that only a newer version knows."""
    left_out = EncoderSpec.NOT_IDENTITY
    identity = {key: value for key, value in encoder.items() if key not in left_out}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _check_values(exam, place, provenance, table, *, group_sealed):
    """Check every chunk of an array of embeddings, then note what is not there yet."""
    exam.n_arrays += 1
    metadata = exam.metadata(place, "values")
    layout = _values_layout(exam, place, metadata.document, provenance, table)
    may_drop = layout is not None and metadata.sealed and group_sealed
    n_settled = provenance["dataset_rows"] if provenance else layout and layout["shape"][0]
    embedded = np.zeros(len(table.names), bool)
    for number, file in _chunks(exam, place, layout):
        rows, problem, bad = _check_chunk(exam, file, number, layout, n_settled)
        if problem is not None:
            ids = _chosen(table.names, bad)
            exam.bad_chunk(problem, place, file, chunk=number, ids=ids, may_drop=may_drop)
        embedded[rows[rows < len(embedded)]] = True
    if layout is not None and not embedded.all():
        _note_missing(exam, place, _chosen(table.names, np.flatnonzero(~embedded)))


def _note_missing(exam, place, missing):
    message = f"{len(missing):,} annotations are not embedded yet; 'featstore extract' goes on"
    exam.add("S3", place, message, ids=missing, severity="note")


def _values_layout(exam, place, layout, provenance, table):
    """Metadata of the array, where its chunks are whole rows; else None."""
    if layout is None:
        return None
    n_rows, dim = layout["shape"]
    n_there = len(table.names)
    if n_there and n_rows > n_there:
        exam.add("M19", place, f"has {n_rows:,} rows, its dataset {n_there:,}; {COPY_AGAIN}")
    if provenance is not None:
        n_settled, dim_made = provenance["dataset_rows"], provenance["encoder"]["dim"]
        if n_settled > n_rows:
            message = f"has {n_rows:,} rows, its provenance is of {n_settled:,}; {COPY_AGAIN}"
            exam.add("M19", place, message)
        if dim != dim_made:
            message = f"has {dim:,} features, its encoder makes {dim_made:,}; {COPY_AGAIN}"
            exam.add("M18", place, message)
    if _chunk_shape(layout)[1] != dim:
        exam.add("M18", place, f"its chunks are not of whole rows; {COPY_AGAIN}")
        return None
    return layout


def _check_chunk(exam, file, number, layout, n_settled):
    """Check one chunk of embeddings.

    Returns
    -------
    rows : ndarray of int64
        Rows of the array that the chunk holds, bad or not; rows to be topped up are left out.
    problem : (rule, message) or None
        What is wrong.
    bad : ndarray of int64
        Rows concerned.
    """
    none = np.arange(0)
    if number is None and layout is not None:
        return none, ("M10", f"{printable(file)} is outside of the chunk grid"), none
    data, problem = exam.payload(file, None if layout is None else _chunk_bytes(layout))
    if layout is None:
        return none, problem, none
    n_per_chunk = _chunk_shape(layout)[0]
    start = number * n_per_chunk
    rows = np.arange(start, min(start + n_per_chunk, layout["shape"][0]))
    if problem is not None:
        return rows, problem, rows
    values = data.view(np.dtype(layout["data_type"]).newbyteorder("<")).reshape(n_per_chunk, -1)
    return _check_rows(values, rows, n_settled)


def _finite(values):
    """Tell from the exponents whether all of a row is finite; NumPy itself is slow on float16.

    Examples
    --------
    >>> _finite(np.array([[1, 65_504], [np.inf, 0], [np.nan, 0]], "<f2"))
    array([ True, False, False])
    """
    exponent = {2: 0x7C00, 4: 0x7F80_0000}[values.itemsize]
    bits = values.view(f"<u{values.itemsize}") & exponent
    if bits.size == 0 or bits.max() < exponent:
        return np.ones(len(values), bool)
    return (bits < exponent).all(axis=1)


def _check_rows(values, rows, n_settled):
    """Every row is finite, but those to be topped up; behind the last one is NaN only."""
    inside, padding = values[: len(rows)], values[len(rows) :]
    bad = ~_finite(inside)
    if bad.any() and rows[0] < n_settled:
        blank = (rows >= n_settled) & np.isnan(inside).all(axis=1)
        rows, bad = rows[~blank], bad[~blank]
    if bad.any():
        problem = ("M20", f"{bad.sum():,} of its rows are not finite")
    elif not np.isnan(padding).all():
        problem = ("M20", "holds values behind the last row of the array")
    else:
        problem = None
    return rows, problem, rows[bad]
