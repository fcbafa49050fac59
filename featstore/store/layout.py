"""What lies where in a store, and the rules for names, chunks and new groups.

::

    mitosis.zarr/
        annotations/<dataset>/          id, label, x, y, ...: one array per column
        embeddings/<model>/<dataset>/   values (n, dim), provenance in the attributes

A chunk file is there exactly when all of its rows are: chunks are written whole, under a name of
their own, and renamed.
"""

import os
import re
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from featstore.errors import AlreadyInStoreError, NotInStoreError, StoreError

__all__ = [
    "FORMAT",
    "check_key",
    "create_root",
    "new_array",
    "new_group",
    "open_root",
    "rows_per_chunk",
]

FORMAT = "1.0"
KEY = re.compile(r"[a-z0-9][a-z0-9._-]*")
CHUNK_BYTES = 8 * 2**20  # few files, and still little to lose (docs/decisions/chunks.md)
FEWEST_ROWS = 256  # smaller chunks make many files of a small dataset
CHUNKS_AT_LEAST = 16  # so that an interrupted run of a small dataset has something to go on from


def check_key(kind, key):
    """Refuse names that would not be plain folder names.

    Examples
    --------
    >>> check_key("model", "h-optimus-0")
    >>> check_key("model", "../up")
    Traceback (most recent call last):
    ...
    featstore.errors.StoreError: model name '../up' is not allowed; use lower-case letters, ...
    """
    if not KEY.fullmatch(key):
        raise StoreError(
            f"{kind} name {key!r} is not allowed; use lower-case letters, digits, '.', '_' and "
            "'-', a letter or digit first"
        )


def create_root(path):
    """Make an empty store at a place where nothing is; return its root group."""
    import zarr

    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise AlreadyInStoreError(f"{path} is there already; open it, or choose another place")
    root = zarr.open_group(path, mode="w-" if not path.exists() else "w", zarr_format=3)
    root.attrs["featstore"] = {"format": FORMAT}
    for name in ("annotations", "embeddings"):
        root.create_group(name)
    return root


def open_root(path, *, mode="r"):
    """Open the root group of a store.

    Raises
    ------
    StoreError
        If there is no store, or one of a newer format.
    """
    import zarr

    if "://" not in str(path) and not Path(path).exists():
        raise NotInStoreError(f"no store at {path}; 'featstore add' or featstore.create makes one")
    try:
        root = zarr.open_group(path, mode=mode)
        version = root.attrs["featstore"]["format"]
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path} is not a featstore store ({_reason(error)}); make one with 'featstore add'"
        ) from error
    if int(str(version).split(".")[0]) > int(FORMAT.split(".")[0]):
        raise StoreError(
            f"{path} has the format {version}, this installation reads up to {FORMAT}; "
            "pip install --upgrade featstore-probes"
        )
    return root


def _reason(error):
    if isinstance(error, KeyError):
        return f"its attributes have no {error}"
    return "no Zarr group there"


def rows_per_chunk(rows, dim, dtype):
    """Rows in one chunk: about 8 MiB, fewer for small datasets, never under 256.

    Examples
    --------
    >>> rows_per_chunk(72_845, 2_560, "float16"), rows_per_chunk(1_292, 1_280, "float32")
    (1638, 256)
    """
    by_size = CHUNK_BYTES // (dim * np.dtype(dtype).itemsize)
    by_count = max(FEWEST_ROWS, -(-rows // CHUNKS_AT_LEAST))
    return max(1, min(by_size, by_count, rows))


def new_array(group, name, *, shape, chunk_shape, dtype, dimension_names):
    """Create an uncompressed array with a checksum on every chunk.

    Compression saves 5 to 8 % on embeddings and costs half of the reading speed. The fill value
    of floats is NaN, which no embedding may hold: a row that was never written is seen.
    """
    from zarr.codecs import Crc32cCodec

    dtype = np.dtype(dtype)
    return group.create_array(
        name,
        shape=shape,
        chunks=chunk_shape,
        dtype=dtype,
        compressors=[Crc32cCodec()],
        fill_value=np.nan if dtype.kind == "f" else 0,
        dimension_names=dimension_names,
        config={"write_empty_chunks": True},
    )


@contextmanager
def new_group(root, name):
    """Make a group that appears whole or not at all.

    Parameters
    ----------
    root : zarr.Group
        Root of a local store.
    name : str
        Path of the group in the store, for instance ``annotations/midog2022``.

    Yields
    ------
    zarr.Group
        To be filled; it takes its name when the block ends well, and vanishes otherwise.
    """
    import zarr

    home = local_path(root)
    if (home / name).exists():
        raise AlreadyInStoreError(f"{name!r} is in {home} already; nothing was changed")
    partial = home / f".partial-{uuid.uuid4().hex}"
    try:
        yield zarr.open_group(partial, mode="w-", zarr_format=3)
        root.require_group(Path(name).parent.as_posix())
        os.rename(partial, home / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def local_path(root):
    """Folder of a local store.

    Raises
    ------
    StoreError
        If the store is not on a local disk.
    """
    folder = getattr(root.store, "root", None)
    if folder is None:
        raise StoreError(
            f"{root.store} is not on a local disk; only local stores can be written to"
        )
    return Path(folder)
