"""Chunk files of any store, as they are: of a folder, of a zip or on another machine.

Each is checked against its size and its CRC-32C on the way. Everything goes through
Zarr's stores, one chunk at a time, so that one way serves them all.
"""

import itertools

import numpy as np

from featstore.errors import DamagedChunkError, StoreError
from featstore.store.chunks import CHECKSUM_BYTES, blank, checksum
from featstore.store.layout import fetch
from featstore.store.seal import SEAL, parse, seal_of

__all__ = ["SourceChunks", "check_chunk", "check_seal"]

CACHED_CHUNKS = 8  # of about 8 MiB: two tables in other orders jump between chunks


def check_chunk(data, name):
    """Refuse a chunk that does not end in the CRC-32C of what is before it.

    Raises
    ------
    DamagedChunkError
        Naming the chunk.

    Examples
    --------
    >>> check_chunk(b"123456789" + bytes.fromhex("839206e3"), "x/c/0")
    >>> check_chunk(b"123456780" + bytes.fromhex("839206e3"), "x/c/0")
    Traceback (most recent call last):
    ...
    featstore.errors.DamagedChunkError: x/c/0 does not fit its checksum; ...
    """
    # A NumPy view: google_crc32c takes no memoryview, and a slice of bytes would be a copy.
    if checksum(np.frombuffer(data, np.uint8)[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:]:
        raise DamagedChunkError(
            f"{name} does not fit its checksum; get it again, or drop it with 'featstore verify "
            "--repair'"
        )


def check_seal(data, name):
    """Refuse the content of a ``zarr.json`` that is not what was sealed; none at all is fine.

    Raises
    ------
    StoreError
        Naming the file.
    """
    try:
        metadata = parse(data)
        attributes = metadata.get("attributes", {})
        damaged = SEAL in attributes and attributes[SEAL] != seal_of(metadata)
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{name} cannot be read ({error}); get it again") from error
    if damaged:
        raise StoreError(f"{name} is not what was sealed; get it again")


class SourceChunks:
    """The chunks of one array of the source, checked as they are read.

    Parameters
    ----------
    root : zarr.Group
        Root of the source.
    name : str
        Path of the array.
    """

    def __init__(self, root, name):
        self.root, self.name, self.array = root, name, root[name]
        self._cached = {}
        check_seal(fetch(root, f"{name}/zarr.json"), f"{name}/zarr.json of {root.store}")
        self._check_form()

    def _check_form(self):
        metadata, zeros = self.array.metadata, (0,) * self.array.ndim
        codecs = [codec.to_dict() for codec in metadata.codecs]
        plain = [codec["name"] for codec in codecs] == ["bytes", "crc32c"]
        little = plain and codecs[0].get("configuration", {}).get("endian", "little") == "little"
        key = "/".join(["c", *map(str, zeros)])
        if not little or metadata.encode_chunk_key(zeros) != key:
            raise StoreError(
                f"{self.name!r} of {self.root.store} is not laid out as a store's arrays are "
                f"(codecs {', '.join(codec['name'] for codec in codecs)}); import it instead"
            )

    @property
    def n_bytes(self):
        """Size of one chunk file."""
        return int(np.prod(self.array.chunks)) * self.array.dtype.itemsize + CHECKSUM_BYTES

    def places(self):
        """Place of every chunk in the grid, in order."""
        grid = zip(self.array.shape, self.array.chunks, strict=True)
        return itertools.product(*(range(-(-size // chunk)) for size, chunk in grid))

    def raw(self, place):
        """Content of one chunk file, checked; None where there is no such chunk."""
        key = self._key(place)
        data = fetch(self.root, key)
        if data is not None:
            if len(data) != self.n_bytes:
                raise DamagedChunkError(
                    f"{key} of {self.root.store} has {len(data)} bytes instead of {self.n_bytes}; "
                    "get it again, or drop it with 'featstore verify --repair'"
                )
            check_chunk(data, f"{key} of {self.root.store}")
        return data

    def checksum(self, place):
        """Fetch the 4 bytes that one chunk file ends in; None where there is no such chunk."""
        return fetch(self.root, self._key(place), n_last=CHECKSUM_BYTES)

    def _key(self, place):
        return "/".join([self.name, "c", *map(str, place)])

    def rows(self, positions):
        """Gather rows of embeddings or patches.

        Parameters
        ----------
        positions : ndarray of int64, shape (m,)
            Rows of the source's table; -1 where it has no such annotation.

        Returns
        -------
        gathered : ndarray of shape (m, ...)
            Blank where a row is not there.
        there : ndarray of bool, shape (m,)
            Whether its chunk is there.
        """
        height, dtype = self.array.chunks[0], self.array.dtype
        gathered = np.full((len(positions), *self.array.shape[1:]), blank(dtype), dtype)
        there = np.zeros(len(positions), bool)
        known = (positions >= 0) & (positions < self.array.shape[0])
        for number in np.unique(positions[known] // height).tolist():
            here = np.flatnonzero(known & (positions // height == number))
            rows = self._decoded(number)
            if rows is not None:
                gathered[here], there[here] = rows[positions[here] % height], True
        return gathered, there

    def _decoded(self, number):
        """Rows of one chunk, the last few of them kept; None where there is no such chunk."""
        if number not in self._cached:
            while len(self._cached) >= CACHED_CHUNKS:
                self._cached.pop(next(iter(self._cached)))
            self._cached[number] = self._rows_of(self.raw((number, *[0] * (self.array.ndim - 1))))
        return self._cached[number]

    def _rows_of(self, data):
        if data is None:
            return None
        dtype = self.array.dtype.newbyteorder("<")
        return np.frombuffer(data[:-CHECKSUM_BYTES], dtype).reshape(self.array.chunks)
