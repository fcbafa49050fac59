"""Files of strangers: what they declare is checked before memory is taken or a link is followed."""

import hashlib
import json
import math

import numpy as np

from featstore.errors import StoreError

__all__ = [
    "check_embedding_type",
    "check_fits",
    "counted_ids",
    "load_json",
    "plain_files",
    "sha256_of",
]

# Below this no declaration can do harm; above it, embeddings compress by 5 to 8 %, zeros by more.
HARMLESS_BYTES = 64 * 2**20
MOST_EXPANSION = 100
MOST_JSON_BYTES = 2**20


def check_fits(what, shape, itemsize, stored_bytes):
    """Refuse a shape that the bytes in the file cannot fill.

    Parameters
    ----------
    what : str
        What declares the shape, as errors name it.
    shape : tuple of int
        Declared shape.
    itemsize : int
        Bytes of one value.
    stored_bytes : int
        Bytes that are there for it, compressed or not.

    Raises
    ------
    StoreError
        If it is over 64 MiB and over 100 times what is stored.

    Examples
    --------
    >>> check_fits("array X", (40, 6), 4, 960)
    >>> check_fits("array X", (10**12, 6), 4, 960)
    Traceback (most recent call last):
    ...
    featstore.errors.StoreError: array X declares the shape (1000000000000, 6), ...
    """
    declared_bytes = math.prod(shape) * itemsize
    if declared_bytes > max(HARMLESS_BYTES, MOST_EXPANSION * stored_bytes):
        raise StoreError(
            f"{what} declares the shape {tuple(shape)}, {declared_bytes:,} bytes, and holds "
            f"{stored_bytes:,}; it is damaged or made to fill the memory, get it again"
        )


def check_embedding_type(what, shape, dtype):
    """Refuse what is no matrix of numbers that float32 can hold.

    Raises
    ------
    StoreError
        If the shape is not (n, dim) with rows, or the type is neither float nor a short integer.

    Examples
    --------
    >>> check_embedding_type("array X", (3, 2), np.dtype("float16"))
    >>> check_embedding_type("array X", (3, 2), np.dtype("int64"))
    Traceback (most recent call last):
    ...
    featstore.errors.StoreError: array X is int64 (3, 2); embeddings are float16, float32, ...
    """
    numeric = dtype.kind in "fiu" and (np.can_cast(dtype, np.float32) or dtype == np.float64)
    if len(shape) != 2 or 0 in shape or not numeric:
        raise StoreError(
            f"{what} is {dtype} {tuple(shape)}; embeddings are float16, float32, float64 or "
            "integers of at most 16 bits, shape (n, dim); name another with --values"
        )


def plain_files(folder, pattern):
    """Files in a folder, sorted by name.

    Raises
    ------
    StoreError
        If one of them is a link: it could lead anywhere on this machine.
    """
    files = sorted(file for file in folder.glob(pattern) if not file.is_dir())
    linked = next((file for file in files if file.is_symlink()), None)
    if linked is not None:
        raise StoreError(f"{linked} is a link; put the file itself there")
    return files


def load_json(what, content):
    """Parse a JSON object of at most 1 MiB.

    Raises
    ------
    StoreError
        If it is none.
    """
    try:
        if len(content) > MOST_JSON_BYTES:
            raise ValueError("over 1 MiB")
        values = json.loads(content)
        if not isinstance(values, dict):
            raise ValueError(f"a {type(values).__name__}")
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what} is not a JSON object ({error}); get it again") from error
    return values


def counted_ids(stem, n):
    """IDs for rows that have none.

    Examples
    --------
    >>> counted_ids("slide1", 2)
    array(['slide1-0', 'slide1-1'], dtype='<U8')
    """
    return np.array([f"{stem}-{row}" for row in range(n)], dtype=str)


def sha256_of(path):
    """SHA-256 of a file, or of the names and sums of all files in a folder, as sha256sum lists."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    listing = "".join(
        f"{sha256_of(file)}  {file.relative_to(path).as_posix()}\n"
        for file in plain_files(path, "**/*")
    )
    return hashlib.sha256(listing.encode()).hexdigest()
