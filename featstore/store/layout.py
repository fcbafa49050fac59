"""What lies where in a store, and the rules for names, chunks and new groups.

::

    mitosis.zarr/
        annotations/<dataset>/          id, label, x, y, ...: one array per column
        embeddings/<model>/<dataset>/   values (n, width), provenance in the attributes
        patches/<dataset>/              pixels (n, px, px, 3) and windows/, a table; provenance

A chunk file is there exactly when all of its rows are: chunks are written whole, under a name of
their own, and renamed.
"""

import errno
import json
import os
import re
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from featstore.errors import AlreadyInStoreError, NotInStoreError, StoreError
from featstore.store.chunks import blank
from featstore.store.inside import refuse_outside
from featstore.store.seal import ensure_group, seal

__all__ = [
    "FORMAT",
    "KEY",
    "check_key",
    "create_root",
    "fetch",
    "file_budget",
    "finish_all_swaps",
    "is_remote",
    "local_path",
    "members",
    "metadata_of",
    "new_array",
    "new_group",
    "open_root",
    "remove_group",
    "replaced_group",
    "rows_per_chunk",
]

FORMAT = "1.0"
KEY = re.compile(r"[a-z0-9][a-z0-9._-]*")
NOT_KEYS = ("zarr.json",)  # what Zarr calls its own file
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
    if not KEY.fullmatch(key) or key in NOT_KEYS:
        raise StoreError(
            f"{kind} name {key!r} is not allowed; use lower-case letters, digits, '.', '_' and "
            "'-', a letter or digit first"
        )


def create_root(path):
    """Make an empty store at a place where nothing is; return its root group."""
    import zarr

    if is_remote(path):
        raise StoreError(f"{path} is on another machine; make the store in a local folder")
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise AlreadyInStoreError(f"{path} is there already; open it, or choose another place")
    root = zarr.open_group(path, mode="w-" if not path.exists() else "w", zarr_format=3)
    root.attrs["featstore"] = {"format": FORMAT}
    for name in ("annotations", "embeddings"):
        root.create_group(name)
        seal(path / name)
    seal(path)
    return open_root(path, mode="r+")


def is_remote(path):
    """Whether a place is a URL.

    Examples
    --------
    >>> is_remote("s3://bucket/lab.zarr"), is_remote("folder/lab.zarr")
    (True, False)
    """
    return "://" in str(path)


def open_root(path, *, mode="r", storage_options=None):
    """Open the root group of a store.

    Raises
    ------
    StoreError
        If there is no store, or one of a newer format.
    """
    import zarr

    place = _place(path, mode, storage_options)
    try:
        root = zarr.open_group(place, mode=mode, zarr_format=3, use_consolidated=False)
        version = root.attrs["featstore"]["format"]
    except StoreError:
        raise
    except (
        FileNotFoundError,
        FileExistsError,
        NotADirectoryError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise StoreError(
            f"{path} is not a featstore store ({_reason(error)}); make one with 'featstore add'"
        ) from error
    if not str(version).split(".")[0].isdecimal():
        raise StoreError(f"{path} has the format {version!r}, which is no version; copy it again")
    if int(str(version).split(".")[0]) > int(FORMAT.split(".")[0]):
        raise StoreError(
            f"{path} has the format {version}, this installation reads up to {FORMAT}; "
            "pip install --upgrade featstore-probes"
        )
    if mode != "r":
        finish_all_swaps(local_path(root))
    return root


def _place(path, mode, storage_options):
    """Find what Zarr opens: a folder, or the store behind a URL or in a zip."""
    if is_remote(path):
        return _remote_place(path, mode, storage_options)
    if not Path(path).exists():
        raise NotInStoreError(f"no store at {path}; 'featstore add' or featstore.create makes one")
    if Path(path).is_file() and Path(path).suffix == ".zip":
        return _zipped_place(path, mode)
    return _folder_place(path, mode) if Path(path).is_dir() else Path(path)


def _folder_place(path, mode):
    from featstore.store.folder import FolderStore

    return FolderStore(path, read_only=mode == "r")


def _zipped_place(path, mode):
    from featstore.store.archive import open_zip

    if mode != "r":
        raise StoreError(f"{path} is a zip, which is only read; 'featstore copy' unpacks it")
    return open_zip(path)


def _remote_place(url, mode, storage_options):
    from featstore.store.remote import open_remote

    if mode != "r":
        raise StoreError(
            f"{url} is on another machine; only local stores can be written to, 'featstore copy' "
            "makes one of it"
        )
    return open_remote(url, storage_options)


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


def file_budget(rows, dim, dtype):
    """Bytes and files that an array of embeddings will take, its metadata included.

    Examples
    --------
    >>> file_budget(72_845, 2_560, "float16")
    (377395380, 49)
    """
    chunk_rows = rows_per_chunk(rows, dim, dtype)
    n_chunks = -(-rows // chunk_rows)
    n_bytes = n_chunks * (chunk_rows * dim * np.dtype(dtype).itemsize + 4)
    return n_bytes, n_chunks + 4  # three zarr.json and the lock


def new_array(group, name, *, shape, chunk_shape, dtype, dimension_names):
    """Create an uncompressed array with a checksum on every chunk.

    Compression saves 5 to 8 % on embeddings, 7 % on sharp patches, and costs half of the reading
    speed. The fill value of floats is NaN, which no embedding may hold: a row that was never
    written is seen.
    """
    from zarr.codecs import Crc32cCodec

    dtype = np.dtype(dtype)
    return group.create_array(
        name,
        shape=shape,
        chunks=chunk_shape,
        dtype=dtype,
        compressors=[Crc32cCodec()],
        fill_value=blank(dtype),
        dimension_names=dimension_names,
        config={"write_empty_chunks": True},
    )


def metadata_of(root, name=""):
    """Content of one ``zarr.json``, whatever the store is on; None where there is none.

    Read as it is, without building Zarr's objects: a listing of a hundred arrays takes
    milliseconds.
    """
    key = f"{name}/zarr.json".lstrip("/")
    folder = getattr(root.store, "root", None)
    try:
        raw = fetch(root, key) if folder is None else _read(folder, key)
    except FileNotFoundError:
        return None
    try:
        return None if raw is None else json.loads(raw)
    except ValueError as error:
        raise StoreError(f"{key} of {root.store} is not JSON: {error}") from error


def _read(folder, key):
    refuse_outside(folder, key)
    return (Path(folder) / key).read_bytes()


def fetch(root, key, *, n_last=None):
    """Fetch one file of a store, or its last bytes.

    Parameters
    ----------
    root : zarr.Group
        Root of a store, wherever it is.
    key : str
        Path in the store.
    n_last : int, optional
        How many bytes of its end; all by default.

    Returns
    -------
    bytes or None
        None where there is no such file.
    """
    from zarr.abc.store import SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    part = SuffixByteRequest(n_last) if n_last else None
    fetched = sync(root.store.get(key, default_buffer_prototype(), part))
    return None if fetched is None else fetched.to_bytes()


def members(root, name):
    """Names of the groups and arrays in a group, sorted; names with a dot first are not any."""
    folder = getattr(root.store, "root", None)
    if folder is None:
        return _folders_below(root.store, name)
    try:
        return sorted(
            entry.name
            for entry in os.scandir(Path(folder) / name)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except FileNotFoundError:
        return []


def _folders_below(store, name):
    """Names of the folders in a folder of a zip or on another machine, without opening each."""
    from zarr.core.sync import sync

    start = f"{name.strip('/')}/"
    below = [key.removeprefix(start) for key in sync(_listed(store.list_prefix(start)))]
    folders = {key.partition("/")[0] for key in below if "/" in key}
    return sorted(folder for folder in folders if KEY.fullmatch(folder))


async def _listed(keys):
    return [key async for key in keys]


@contextmanager
def replaced_group(root, name):
    """Make a group that takes the place of another, whole, when the block ends well.

    The new group is brought to the disk beside the old one (``.NAME.next``), which steps aside
    (``.NAME.previous``). A crash between the two renames is mended by :func:`finish_swaps`.

    Yields
    ------
    zarr.Group
        To be filled.
    """
    import zarr

    place = local_path(root) / name
    following = place.with_name(f".{place.name}.next")
    shutil.rmtree(following, ignore_errors=True)
    try:
        yield zarr.open_group(following, mode="w-", zarr_format=3)
        seal(following)
        sync_tree(following)
    except BaseException:
        shutil.rmtree(following, ignore_errors=True)
        raise
    os.rename(place, place.with_name(f".{place.name}.previous"))
    finish_swaps(place.parent)


def finish_all_swaps(home):
    """End the swaps of tables anywhere in a local store; no link is followed."""
    homes = Path(home) / "annotations", Path(home) / "patches"
    for folder in (homes[0], *homes[1].glob("*")):
        if not any(place.is_symlink() for place in (*homes, folder)):
            finish_swaps(folder)


def finish_swaps(folder):
    """End what a crash left between the two renames of :func:`replaced_group`."""
    for previous in Path(folder).glob(".*.previous"):
        name = previous.name.removeprefix(".").removesuffix(".previous")
        following, place = previous.with_name(f".{name}.next"), previous.with_name(name)
        if not place.exists():
            os.rename(following if following.exists() else previous, place)
        shutil.rmtree(previous, ignore_errors=True)


def sync_tree(folder):
    """Bring every file below a folder to the disk."""
    for path in [*Path(folder).rglob("*"), Path(folder)]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _take_place(partial, place):
    """Rename a folder to a name that another process may have been quicker to take."""
    try:
        os.rename(partial, place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise AlreadyInStoreError(f"{place} was made by another process meanwhile") from error


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
        seal(partial)
        sync_tree(partial)
        ensure_group((home / name).parent)
        _take_place(partial, home / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_group(root, name):
    """Take a group of a local store away: under another name first, so that no half of it shows."""
    place = local_path(root) / name
    aside = place.with_name(f".{place.name}.partial-{uuid.uuid4().hex}")
    os.rename(place, aside)
    shutil.rmtree(aside)


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
