"""Embeddings in Zarr arrays of other tools, format 2 or 3, in a folder or a zip file.

The array's own metadata is read first, as text: no codec is looked up, and nothing is decoded,
before its type, codecs and chunks are known to be harmless and there.
"""

import itertools
import json
import math
import re
import stat
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from featstore.errors import StoreError
from featstore.ids import as_ids
from featstore.store.parcel import Parcel, Rows
from featstore.store.untrusted import check_embedding_type, check_fits, counted_ids, load_json

__all__ = ["is_zarr", "read_zarr"]

NUMBER = re.compile(r"[<>|][iuf][1248]|[<>]U[0-9]{1,4}|u?int(8|16|32|64)|float(16|32|64)")
METADATA = ("zarr.json", ".zarray", ".zgroup")
# Codecs that only unpack bytes. Format 2 calls them compressor and filters.
CODECS_V2 = {None, "blosc", "zstd", "gzip", "zlib", "bz2", "lz4", "lzma", "vlen-utf8"}
CODECS_V3 = {
    "bytes",
    "blosc",
    "zstd",
    "gzip",
    "crc32c",
    "transpose",
    "sharding_indexed",
    "vlen-utf8",
}


def is_zarr(path):
    """Whether a folder is called ``.zarr`` or has Zarr metadata at its root, or a file is a zip.

    Examples
    --------
    >>> is_zarr(Path("nowhere"))
    False
    """
    if path.is_file() and path.suffix == ".zip":
        return True
    named = path.is_dir() and path.suffix == ".zarr"
    return named or any((path / name).is_file() for name in METADATA)


def read_zarr(path, *, ids=None, values=None, patch_px=None):
    """Read an array (n, dim), and an array of IDs where one is named.

    Parameters
    ----------
    path : Path
        Folder or zip file of a Zarr array or hierarchy.
    ids : str, optional
        Path of the array of IDs in it; without, rows are called by file and row.
    values : str, optional
        Path of the array of embeddings; not needed where there is only one matrix.
    patch_px : None
        Not used here.

    Returns
    -------
    Parcel

    Raises
    ------
    StoreError
        If an array is missing, holds objects, needs a codec that is not known to be harmless,
        declares more than is there, or leads out of the folder.
    """
    tree = _Tree.of(path)
    name = _only_matrix(tree) if values is None else values.strip("/")
    array = _checked_array(tree, name)
    check_embedding_type(f"array {name!r} of {path}", array.shape, np.dtype(array.dtype))
    rows = Rows(
        array.shape,
        np.dtype(array.dtype),
        lambda start, stop: _decoded(array, tree, slice(start, stop)),
        close=tree.close,
    )
    if ids is None:
        return Parcel(counted_ids(path.name.split(".")[0], array.shape[0]), rows)
    named = _checked_array(tree, ids.strip("/"))
    if named.shape != array.shape[:1]:
        raise StoreError(
            f"{ids!r} of {path} has the shape {named.shape}; one ID for each of "
            f"{array.shape[0]} rows of {name!r} is needed"
        )
    texts = np.asarray(_decoded(named, tree, slice(None)))
    return Parcel(as_ids(texts if texts.dtype.kind in "iu" else texts.tolist()), rows)


@dataclass(frozen=True)
class _Tree:
    """Files of a hierarchy by their keys, with their sizes on disk; nothing outside of it."""

    path: Path
    sizes: dict
    archive: zipfile.ZipFile | None = None
    open_stores: list = field(default_factory=list)

    @classmethod
    def of(cls, path):
        if path.is_dir():
            return cls(path, {key: file.stat().st_size for key, file in _files(path)})
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise StoreError(f"{path} cannot be read as a zip file ({error})") from error
        return cls(path, {key: entry.compress_size for key, entry in _entries(archive)}, archive)

    def text(self, key):
        """Read a metadata file, at most 1 MiB of it and a byte."""
        opened = self.archive.open(key) if self.archive else (self.path / key).open("rb")
        with opened as file:
            return file.read(2**20 + 1)

    def metadata(self, name):
        """Metadata of an array or group as (format, dict); None where there is none."""
        for file, version in (("zarr.json", 3), (".zarray", 2), (".zgroup", 2)):
            key = f"{name}/{file}" if name else file
            if key in self.sizes:
                return version, load_json(f"{key} of {self.path}", self.text(key))
        return None

    def open_array(self, name, version):
        import zarr

        store = self.path
        if self.archive is not None:
            store = zarr.storage.ZipStore(self.path, mode="r")
            self.open_stores.append(store)
        return zarr.open_array(store, path=name, mode="r", zarr_format=version)

    def close(self):
        for opened in [*self.open_stores, *filter(None, [self.archive])]:
            opened.close()


def _files(folder):
    for file in folder.rglob("*"):
        if file.is_symlink():
            raise StoreError(f"{file} is a link; links are not followed, put the files there")
        if file.is_file():
            yield file.relative_to(folder).as_posix(), file


def _entries(archive):
    for entry in archive.infolist():
        key = PurePosixPath(entry.filename)
        linked = stat.S_ISLNK(entry.external_attr >> 16)
        if key.is_absolute() or ".." in key.parts or "\\" in entry.filename or linked:
            raise StoreError(
                f"{archive.filename} has the entry {entry.filename!r}, a link or a path out of "
                "the archive; it is not read"
            )
        if not entry.is_dir():
            check_fits(f"entry {key}", (entry.file_size,), 1, entry.compress_size)
            yield entry.filename, entry


def _only_matrix(tree):
    """Name the one two-dimensional array of numbers in a hierarchy."""
    names = sorted(_parent(key) for key in tree.sizes if key.endswith(("zarr.json", ".zarray")))
    found = [name for name in dict.fromkeys(names) if _is_matrix(tree.metadata(name)[1])]
    if len(found) != 1:
        listed = ", ".join(name or "/" for name in found) or "none"
        raise StoreError(
            f"{tree.path} has {len(found)} arrays that could be embeddings ({listed}); "
            "name one with --values"
        )
    return found[0]


def _parent(key):
    return key.rpartition("/")[0]


def _is_matrix(metadata):
    return isinstance(metadata.get("shape"), list) and len(metadata["shape"]) == 2


def _checked_array(tree, name):
    """Open an array whose type, codecs and chunks are known to be harmless and there."""
    what = f"array {name!r} of {tree.path}"
    found = tree.metadata(name)
    if found is None or "shape" not in found[1]:
        raise StoreError(f"there is no {what}; name one with --values or --ids")
    version, metadata = found
    try:
        shape, chunk_shape = metadata["shape"], _chunk_shape(version, metadata)
        _check_kind(what, version, metadata)
        _check_codecs(what, version, metadata)
        check_fits(f"a chunk of {what}", chunk_shape, 8, sum(tree.sizes.values()))
        _check_keys(tree, what, name, version, metadata, shape, chunk_shape)
        return tree.open_array(name, version)
    except StoreError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"metadata of {what} cannot be read ({error!r}); get it again") from error


def _chunk_shape(version, metadata):
    if version == 2:
        return _sizes(metadata["chunks"])
    if metadata["chunk_grid"]["name"] != "regular":
        raise ValueError("its chunk grid is not regular")
    return _sizes(metadata["chunk_grid"]["configuration"]["chunk_shape"])


def _sizes(values):
    if not all(isinstance(size, int) and size > 0 for size in values):
        raise ValueError(f"chunk shape {values}")
    return values


def _check_kind(what, version, metadata):
    """Refuse types that hold objects; text of variable length is the one exception."""
    kind = metadata["dtype"] if version == 2 else metadata["data_type"]
    filters = [entry.get("id") for entry in metadata.get("filters") or []] if version == 2 else []
    text = (kind == "|O" and filters == ["vlen-utf8"]) or kind == "string"
    number = isinstance(kind, str) and NUMBER.fullmatch(kind)
    if not (text or number):
        raise StoreError(f"{what} holds {kind}, not numbers or text; objects are never decoded")


def _check_codecs(what, version, metadata):
    if version == 2:
        entries = [metadata.get("compressor"), *(metadata.get("filters") or [])]
        names, known = [entry and entry["id"] for entry in entries], CODECS_V2
    else:
        names, known = list(_codec_names(metadata["codecs"])), CODECS_V3
        if metadata.get("storage_transformers"):
            raise StoreError(f"{what} has storage transformers, which are not read")
    unknown = [name for name in names if name not in known]
    if unknown:
        listed = ", ".join(sorted(name for name in known if name))
        raise StoreError(f"{what} needs the codec {unknown[0]!r}; read are {listed}")


def _codec_names(codecs):
    for codec in codecs:
        yield codec["name"] if isinstance(codec, dict) else codec
        inner = codec.get("configuration", {}) if isinstance(codec, dict) else {}
        for place in ("codecs", "index_codecs"):
            yield from _codec_names(inner.get(place, []))


def _check_keys(tree, what, name, version, metadata, shape, chunk_shape):
    """Find every chunk that the shape declares, before any memory is taken for it."""
    counts = [-(-n // chunk) for n, chunk in zip(shape, chunk_shape, strict=True)]
    below = f"{name}/" if name else ""
    there = sum(key.startswith(below) for key in tree.sizes)
    expected = math.prod(counts)
    keys = (
        set(_chunk_keys(below, version, metadata, counts)) if expected <= there else {"not there"}
    )
    missing = len(keys - tree.sizes.keys()) if expected <= there else expected - there
    if missing:
        raise StoreError(
            f"{what} declares the shape {tuple(shape)}, and {missing:,} of its {expected:,} chunks "
            "are not there; it was not written whole, or is made to fill the memory"
        )
    stored = sum(tree.sizes[key] for key in keys)
    check_fits(what, shape, _itemsize(version, metadata), stored)


def _itemsize(version, metadata):
    kind = metadata["dtype"] if version == 2 else metadata["data_type"]
    return 8 if kind in ("|O", "string") else np.dtype(kind).itemsize


def _chunk_keys(below, version, metadata, counts):
    encoding = metadata.get("chunk_key_encoding", {}) if version == 3 else {}
    default = version == 3 and encoding.get("name", "default") == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
    if version == 2:
        separator = metadata.get("dimension_separator", ".")
    for place in itertools.product(*map(range, counts)):
        key = separator.join(map(str, place))
        yield f"{below}c{separator}{key}" if default else f"{below}{key}"


def _decoded(array, tree, selection):
    """Read rows; what does not decode is an error in one line."""
    try:
        return array[selection]
    except (OSError, ValueError, RuntimeError, MemoryError, json.JSONDecodeError) as error:
        raise StoreError(f"chunks of {tree.path} do not decode ({error}); get it again") from error
