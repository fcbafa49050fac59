"""Embeddings as HDF5 files, one per slide, as users of CLAM and TRIDENT have them.

::

    folder/slide1.h5
        features         (n, dim) float32
        coords           (n, 2) int64: upper left corner of the patch, x and y, in level-0 pixels;
                         attributes patch_size, patch_level, patch_size_level0,
                         level0_magnification, target_magnification, overlap, name
        annotation_ids   (n,)
        labels           (n,)
        order            (n,) place of the row in the dataset: slides may alternate there
        columns/x ...    (n,) what else is known of each annotation
        attribute provenance: JSON

Text is UTF-8 of fixed length. CLAM and TRIDENT themselves write ``features`` and ``coords`` only.
No link is followed and no type is read that could lead out of a file.
"""

import json
import math
import re
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from featstore.errors import StoreError
from featstore.ids import as_ids
from featstore.store.parcel import Parcel, Rows
from featstore.store.untrusted import (
    check_embedding_type,
    check_fits,
    counted_ids,
    load_json,
    plain_files,
)

__all__ = ["read_hdf5", "write_hdf5"]

SUFFIXES = (".h5", ".hdf5")
# TRIDENT's own steps from um per pixel to magnification (WSI._fetch_magnification).
MAGNIFICATIONS = ((0.16, 80), (0.2, 60), (0.3, 40), (0.6, 20), (1.2, 10), (2.4, 5))
# Filters that the HDF5 library itself has, and h5py's LZF; others would load a plugin.
KNOWN_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 6: "scale-offset", 32000: "lzf"}


def write_hdf5(parcel, folder, *, dtype):
    """Write a parcel into a new folder, one file per slide.

    Parameters
    ----------
    parcel : Parcel
        With labels and provenance.
    folder : Path
        Where nothing is.
    dtype : dtype
        Type of ``features``.
    """
    folder.mkdir()
    taken = set()
    for slide, positions in _by_slide(parcel).items():
        name = _free_name(slide, taken)
        with _h5py().File(folder / f"{name}.h5", "w-") as file:
            file.attrs["provenance"] = json.dumps(parcel.provenance)
            file["features"] = parcel.rows.take(positions).astype(dtype, copy=False)
            _write_coords(file, parcel, positions, slide)
            _write_column(file, "annotation_ids", parcel.ids[positions])
            _write_column(file, "labels", parcel.labels[positions])
            _write_column(file, "order", positions)
            for column, values in parcel.columns.items():
                _write_column(file, f"columns/{column}", values[positions])


def _h5py():
    import h5py

    return h5py


def _by_slide(parcel):
    """Row positions by slide; by image where positions count from the corner of an image."""
    columns = parcel.columns
    column = columns.get("slide", columns.get("image"))
    if column is None:
        return {parcel.provenance["dataset"]: np.arange(len(parcel.ids))}
    if {"x", "y", "image"} <= set(columns) and _several(columns["image"], column):
        column = columns["image"]
    names, slide_of_row = np.unique(column.astype(str), return_inverse=True)
    return {name: np.flatnonzero(slide_of_row == k) for k, name in enumerate(names.tolist())}


def _several(images, slides):
    pairs = {*zip(images.tolist(), slides.tolist(), strict=True)}
    return len(pairs) > len({slide for _, slide in pairs})


def _free_name(slide, taken):
    """Give a plain file name that no other slide has, whatever the slide is called.

    Examples
    --------
    >>> taken = set()
    >>> _free_name("lab/a b.tiff", taken), _free_name("a_b", taken), _free_name("..", taken)
    ('a_b', 'a_b-2', 'slide')
    """
    stem = Path(slide).name
    stem = Path(stem).stem if "." in stem[1:] else stem
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).lstrip("._")[:150] or "slide"
    name, number = plain, 1
    while name.lower() in taken:  # some file systems do not tell A from a
        number += 1
        name = f"{plain}-{number}"
    taken.add(name.lower())
    return name


def _write_coords(file, parcel, positions, slide):
    """Write corners, where centres are known, and what they count in."""
    if not {"x", "y"} <= set(parcel.columns):
        return
    encoder = parcel.provenance["encoder"]
    sizes = _level0_px(encoder, parcel.columns, positions)
    known = np.full(len(positions), encoder["input_px"]) if sizes is None else sizes
    centres = np.stack([parcel.columns[axis][positions] for axis in "xy"], axis=1)
    # The rule of featstore.patches: a centre halfway between two pixels goes up.
    corners = np.floor(centres - known[:, None] / 2 + 0.5).astype(np.int64)
    file["coords"] = corners
    attributes = {"name": slide, "patch_size": encoder["input_px"], "patch_level": 0, "overlap": 0}
    if sizes is not None and len(np.unique(sizes)) == 1:
        mpp = float(parcel.columns["mpp"][positions[0]])
        attributes["patch_size_level0"] = round(sizes[0])
        attributes["level0_magnification"] = _magnification(mpp)
        attributes["target_magnification"] = _magnification(encoder["mpp"])
    for key, value in attributes.items():
        if value is not None:
            file["coords"].attrs[key] = value


def _level0_px(encoder, columns, positions):
    """Side of each patch in pixels of its slide, shape (n,); None where it is not known."""
    if encoder["mpp"] is None or "mpp" not in columns:
        return None
    sizes = encoder["input_px"] * encoder["mpp"] / columns["mpp"][positions]
    return sizes if np.isfinite(sizes).all() else None


def _magnification(mpp):
    """Objective magnification that TRIDENT takes a resolution for; None above 2.4 um/px.

    Examples
    --------
    >>> _magnification(0.25), _magnification(0.5), _magnification(3)
    (40, 20, None)
    """
    return next((power for limit, power in MAGNIFICATIONS if mpp < limit), None)


def _write_column(file, name, values):
    if values.dtype.kind != "U":
        file[name] = values
        return
    encoded = np.char.encode(values, "utf-8")
    width = max(encoded.dtype.itemsize, 1)
    text = _h5py().string_dtype("utf-8", width)
    file.create_dataset(name, data=encoded.astype(text))


def read_hdf5(path, *, ids=None, values=None, patch_px=None):
    """Read what :func:`write_hdf5`, CLAM or TRIDENT wrote.

    Parameters
    ----------
    path : Path
        A file, or a folder of them.
    ids, values : str, optional
        Names of the datasets, in place of ``annotation_ids`` and ``features``.
    patch_px : float, optional
        Side of a patch in level-0 pixels, where the files do not say; it takes corners to centres.

    Returns
    -------
    Parcel
        Rows without IDs are called by file and row. Without a known side of the patch, positions
        are the columns ``corner_x`` and ``corner_y``, never ``x`` and ``y``.

    Raises
    ------
    StoreError
        If a file is damaged, leads out of itself, declares more than it holds, or if the files do
        not belong together.
    """
    found = [path] if path.is_file() else [f for s in SUFFIXES for f in plain_files(path, f"*{s}")]
    if not found:
        raise StoreError(f"no .h5 or .hdf5 file in {path}; give the folder that holds them")
    slides = [_read_slide(file, ids, values or "features", patch_px) for file in sorted(found)]
    _check_alike(slides)
    order = _order(slides)
    columns = {key: _joined(slides, key)[order] for key in slides[0]["columns"]}
    return Parcel(
        as_ids(_joined(slides, "ids")[order]),
        _rows(slides, order, values or "features"),
        None if slides[0]["labels"] is None else _joined(slides, "labels")[order],
        columns,
        slides[0]["provenance"],
    )


def _joined(slides, key):
    return np.concatenate([slide["columns"].get(key, slide.get(key)) for slide in slides])


def _check_alike(slides):
    """Refuse files of different encoders or layouts."""
    first = slides[0]
    for slide in slides[1:]:
        for key in ("dim", "dtype", "provenance"):
            if slide[key] != first[key]:
                raise StoreError(
                    f"{slide['path']} and {first['path']} differ in {key}; import files of "
                    "one encoder at a time"
                )
        if _kinds(slide) != _kinds(first):
            raise StoreError(
                f"{slide['path']} and {first['path']} do not hold the same columns; where some "
                "lack the size of a patch give --patch-px, else import them apart"
            )


def _kinds(slide):
    kind = slide["ids"].dtype.kind
    return list(slide["columns"]), slide["labels"] is None, slide["order"] is None, kind


def _order(slides):
    """Rows in the order of the dataset they came from, or as they lie in the files."""
    n = sum(len(slide["ids"]) for slide in slides)
    if any(slide["order"] is None for slide in slides):
        return np.arange(n)
    return np.argsort(_joined(slides, "order"), kind="stable")


def _rows(slides, order, name):
    """Rows over all files, each opened when it is needed and the last one kept open."""
    starts = np.cumsum([0, *(len(slide["ids"]) for slide in slides)])

    @lru_cache(maxsize=1)
    def matrix(number):
        file = _open(slides[number]["path"])
        return _dataset(file, name)

    def run(start, stop):
        first, last = np.searchsorted(starts, [start, stop - 1], side="right") - 1
        return np.concatenate(
            [
                _slice(matrix(k), max(start - starts[k], 0), min(stop, starts[k + 1]) - starts[k])
                for k in range(first, last + 1)
            ]
        )

    shape, dtype = (int(starts[-1]), slides[0]["dim"]), slides[0]["dtype"]
    plain = Rows(shape, dtype, partial(_readable, run), close=matrix.cache_clear)
    if (order == np.arange(len(order))).all():
        return plain
    return replace(plain, run=lambda start, stop: plain.take(order[start:stop]))


def _slice(matrix, start, stop):
    return matrix[0, start:stop] if matrix.ndim == 3 else matrix[start:stop]


def _readable(run, start, stop):
    try:
        return run(start, stop)
    except OSError as error:  # a chunk that does not decode, a failed checksum
        raise StoreError(f"rows {start} to {stop} cannot be read: {error}") from error


def _open(path):
    try:
        return _h5py().File(path, "r")
    except OSError as error:
        raise StoreError(f"{path} cannot be read as HDF5 ({error}); get it again") from error


def _read_slide(path, ids, values, patch_px):
    """Read all of a file but its embeddings, which are only looked at."""
    with _open(path) as file:
        matrix = _dataset(file, values)
        shape = matrix.shape[1:] if matrix.ndim == 3 and matrix.shape[0] == 1 else matrix.shape
        check_embedding_type(f"{values!r} of {path}", shape, matrix.dtype)
        read = partial(_column, file, n=shape[0])
        named = read(ids or "annotation_ids", needed=ids is not None)
        provenance = _text_attribute(file, "provenance")
        return {
            "path": path,
            "dim": shape[1],
            "dtype": matrix.dtype,
            "ids": counted_ids(path.stem, shape[0]) if named is None else named,
            "labels": read("labels"),
            "order": read("order"),
            "columns": _columns(file, path.stem, shape[0], patch_px),
            "provenance": provenance and load_json(f"provenance of {path}", provenance),
        }


def _columns(file, stem, n, patch_px):
    """Our own columns, or what CLAM and TRIDENT know: slide and position."""
    if _has(file, "columns"):
        _check_hard_link(file, "columns")
        return {name: _column(file, f"columns/{name}", n=n) for name in file["columns"]}
    columns = {"slide": np.full(n, stem)}
    if not _has(file, "coords"):
        return columns
    coords = _dataset(file, "coords")
    if coords.shape[-2:] != (n, 2) or coords.ndim > 3 or coords.dtype.kind not in "iuf":
        raise StoreError(
            f"'coords' of {file.filename} is {coords.dtype} {coords.shape}; "
            f"one x and y for each of {n} rows is needed"
        )
    corners = coords[...].reshape(n, 2)
    side = _patch_level0_px(coords.attrs) if patch_px is None else patch_px
    prefix, shift = ("corner_", 0) if side is None else ("", side / 2)
    for axis, name in enumerate("xy"):
        columns[prefix + name] = corners[:, axis] + shift
    return columns


def _patch_level0_px(attributes):
    """Side of a patch in level-0 pixels, as TRIDENT (or CLAM, at level 0) says; else None."""
    side = _number(attributes, "patch_size_level0")
    if side is None and _number(attributes, "patch_level") == 0:
        side = _number(attributes, "patch_size")
    return side if side is not None and 0 < side < math.inf else None


def _number(attributes, name):
    if name not in attributes:
        return None
    held = attributes.get_id(name)
    return float(attributes[name]) if held.shape == () and held.dtype.kind in "iuf" else None


def _text_attribute(file, name):
    if name not in file.attrs:
        return None
    held = file.attrs.get_id(name)
    if held.shape != () or _h5py().check_string_dtype(held.dtype) is None:
        raise StoreError(f"attribute {name!r} of {file.filename} is no text; get the file again")
    return file.attrs[name]


def _column(file, name, *, n, needed=False):
    """Read one value per row; None where there is no such dataset."""
    if not needed and not _has(file, name):
        return None
    dataset = _dataset(file, name)
    if dataset.shape != (n,) or dataset.dtype.kind not in "iufbS":
        raise StoreError(
            f"{name!r} of {file.filename} is {dataset.dtype} {dataset.shape}; one number or text "
            f"of fixed length for each of {n} rows is needed"
        )
    values = dataset[...]
    if values.dtype.kind != "S":
        return values
    try:
        return np.char.decode(values, "utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(f"{name!r} of {file.filename} is not UTF-8 text: {error}") from error


def _dataset(file, name):
    """Give a dataset whose bytes all lie in this file, and are there.

    Raises
    ------
    StoreError
        If it is missing, a link, a view of other files, or declares more than the file holds.
    """
    _check_hard_link(file, name)
    dataset = file[name]
    what = f"{name!r} of {file.filename}"
    if not isinstance(dataset, _h5py().Dataset) or dataset.shape is None:
        raise StoreError(f"{what} is not a dataset with rows")
    if dataset.is_virtual or dataset.external:
        raise StoreError(f"{what} keeps its values in other files; such datasets are not read")
    if dataset.dtype.kind not in "iufbS":
        raise StoreError(f"{what} holds {dataset.dtype}; only numbers and plain text are read")
    _check_filters(dataset, what)
    _check_stored(dataset, what)
    return dataset


def _has(file, name):
    """Whether there is something of that name; unlike ``in``, without following a link."""
    return file.get(name, getlink=True) is not None


def _check_hard_link(file, name):
    """Walk to a name by hard links only: others may lead to any file of this machine."""
    parts = name.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        place = "/".join(parts[:depth])
        link = file.get(place, getlink=True)
        if link is None:
            held = ", ".join(file) or "nothing"
            raise StoreError(f"{file.filename} has no dataset {name!r}; it holds {held}")
        if not isinstance(link, _h5py().HardLink):
            raise StoreError(
                f"{place!r} of {file.filename} is a link to somewhere else; links are not followed"
            )


def _check_filters(dataset, what):
    settings = dataset.id.get_create_plist()
    filters = {settings.get_filter(number)[0] for number in range(settings.get_nfilters())}
    unknown = filters - set(KNOWN_FILTERS)
    if unknown:
        raise StoreError(
            f"{what} needs the HDF5 filter {min(unknown)}, a plugin; known are "
            f"{', '.join(KNOWN_FILTERS.values())}"
        )


def _check_stored(dataset, what):
    """Compare the declared shape with the chunks and bytes that are there."""
    stored = dataset.id.get_storage_size()
    size = Path(dataset.file.filename).stat().st_size
    needed = dataset.size * dataset.dtype.itemsize
    if dataset.chunks is None:
        if stored > size or stored < needed:
            raise StoreError(
                f"{what} declares the shape {dataset.shape}, {needed:,} bytes, and {stored:,} of "
                f"them are in a file of {size:,}; it is damaged, get it again"
            )
        return
    expected = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    there = dataset.id.get_num_chunks()
    if there != expected:
        raise StoreError(f"{what} has {there:,} of {expected:,} chunks; it was not written whole")
    check_fits(what, dataset.shape, dataset.dtype.itemsize, min(stored, size))
    check_fits(f"a chunk of {what}", dataset.chunks, dataset.dtype.itemsize, min(stored, size))
