"""Chunk files of whole rows and a checksum, written to stay and read through memory.

A row is what belongs to one annotation: an embedding, or a patch. A chunk file is the rows of one
chunk in C order, little-endian, padded to the full chunk with NaN (pixels: with 0), and a CRC-32C
of all that in 4 bytes: what Zarr's codecs ``bytes`` and ``crc32c`` give. It is written under
another name, brought to the disk, and renamed: a file of that name is whole.
"""

import itertools
import math
import mmap
import os
import struct
import uuid

import numpy as np

from featstore.errors import DamagedChunkError, StoreError
from featstore.store.inside import refuse_outside

__all__ = ["MADE_BY", "ChunkFiles", "blank", "chunk_key", "write_file"]

CHECKSUM_BYTES = 4
MADE_BY = {"values": "featstore extract", "pixels": "featstore cut"}  # what fills an array again
# Rows at least this large are copied straight to their places: a step of Python (about 0.5 us)
# then costs less than NumPy's second copy of what it gathers. Embeddings are below, patches above.
LARGE_ROW_BYTES = 2**14
LITTLE_ENDIAN = ({"name": "bytes", "configuration": {"endian": "little"}}, {"name": "bytes"})


def write_file(path, *pieces):
    """Write a file that is there whole, and on the disk, or not at all.

    Parameters
    ----------
    path : pathlib.Path
        Its folder is made where it is missing.
    *pieces : bytes-like
        What the file holds, one after another.

    Raises
    ------
    StoreError
        If the disk is full or gone; nothing is left of the attempt.
    """
    partial = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {path}: {error.strerror}; what was written before is kept, make room or "
            "mount the disk again and run the same command"
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sync_folder(folder):
    """Bring a rename to the disk; file systems without folder handles have nothing to bring."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(data):
    """CRC-32C of bytes, as 4 bytes, little-endian.

    Examples
    --------
    >>> checksum(b"123456789").hex()  # the check value of RFC 3720 is e3069283
    '839206e3'
    """
    import google_crc32c

    return struct.pack("<I", google_crc32c.value(data))


def blank(dtype):
    """Give the value that stands where no row was written: NaN, or 0 in a type without it.

    Examples
    --------
    >>> blank("float16"), blank("uint8")
    (nan, 0)
    """
    return math.nan if np.dtype(dtype).kind == "f" else 0


def chunk_key(number, n_axes):
    """Path of a chunk of whole rows in its array.

    Examples
    --------
    >>> chunk_key(3, n_axes=2), chunk_key(3, n_axes=4)
    ('c/3/0', 'c/3/0/0/0')
    """
    return "/".join(["c", str(number), *"0" * (n_axes - 1)])


class ChunkFiles:
    """The chunk files of one local array of rows.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the array.
    name : str
        Name of the array.
    shape : tuple of int
        Shape of a chunk, (rows_per_chunk, ...).
    dtype : dtype
        Type on disk.
    store : pathlib.Path or None
        Folder of a local store, which no chunk may lead out of.
    """

    def __init__(self, folder, name, shape, dtype, *, store):
        self.folder = folder
        self.name = name
        self.store = store
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self._mapped = {}

    @classmethod
    def of(cls, folder, array):
        """Chunk files of a Zarr array, or None where it is laid out in another way."""
        codecs = [type(codec).__name__ for codec in array.metadata.codecs]
        plain = codecs == ["BytesCodec", "Crc32cCodec"] and array.chunks[1:] == array.shape[1:]
        plain = plain and array.metadata.codecs[0].to_dict() in LITTLE_ENDIAN
        first = array.metadata.encode_chunk_key((0,) * array.ndim)
        if not plain or first != chunk_key(0, array.ndim):
            return None
        store = getattr(array.store, "root", None)
        return cls(folder, array.basename, array.chunks, array.dtype, store=store)

    def path(self, number):
        """Path of one chunk's file."""
        return self.folder / chunk_key(number, len(self.shape))

    @property
    def n_bytes(self):
        """Size of a chunk's file."""
        return math.prod(self.shape) * self.dtype.itemsize + CHECKSUM_BYTES

    def write(self, number, rows):
        """Write a chunk of up to ``rows_per_chunk`` rows."""
        data = self._padded(rows).view(np.uint8).reshape(-1)
        write_file(self.path(number), data, checksum(data))
        self._mapped.pop(number, None)

    def _padded(self, rows):
        if len(rows) == self.shape[0]:
            return np.ascontiguousarray(rows, self.dtype)
        full = np.full(self.shape, blank(self.dtype), self.dtype)
        full[: len(rows)] = rows
        return full

    def map(self, number, *, check=False):
        """Map a chunk into memory, read-only.

        Parameters
        ----------
        number : int
            Which chunk.
        check : bool
            Compare the checksum first.

        Returns
        -------
        ndarray of shape (rows_per_chunk, ...), or None where there is no such file

        Raises
        ------
        DamagedChunkError
            If the file has another size or, when asked, another checksum.
        """
        try:
            handle = os.open(self.path(number), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(handle)
            if status.st_size != self.n_bytes:
                raise DamagedChunkError(self._problem(number, f"has {status.st_size} bytes"))
            identity = (status.st_ino, status.st_mtime_ns)
            if check or self._mapped.get(number, (None,))[0] != identity:
                refuse_outside(self.store, self.path(number).relative_to(self.store))
                buffer = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
                self._mapped[number] = identity, self._rows(number, buffer, check)
        finally:
            os.close(handle)
        return self._mapped[number][1]

    def _rows(self, number, buffer, check):
        data = np.frombuffer(buffer, np.uint8)
        if check and checksum(data[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:].tobytes():
            raise DamagedChunkError(self._problem(number, "does not fit its checksum"))
        return data[:-CHECKSUM_BYTES].view(self.dtype).reshape(self.shape)

    def _problem(self, number, what):
        return (
            f"chunk {number} of {self.folder} {what} (expected {self.n_bytes} bytes); "
            f"'featstore verify --repair' drops it, '{MADE_BY.get(self.name)}' makes it again"
        )

    def read(self, rows, within, dtype, *, check=False):
        """Gather rows.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            In any order, duplicates allowed.
        within : tuple of slice
            Part of each row, by axis; axes behind the last one are taken whole.
        dtype : dtype
            Type of the result.
        check : bool
            Compare checksums of the chunks that are read.

        Returns
        -------
        gathered : ndarray of shape (m, ...)
            Blank where a chunk is not there.
        there : ndarray of bool, shape (m,)
            Whether it is.
        """
        if len(rows):
            self.map(int(rows[0]) // self.shape[0])  # refuses a false shape before memory is taken
        gathered = np.empty((len(rows), *self._shape_of(within)), dtype)
        there = np.ones(len(rows), bool)
        in_order = bool((rows[1:] >= rows[:-1]).all())
        order = None if in_order else np.argsort(rows, kind="stable")
        ascending = rows if in_order else rows[order]
        numbers = np.unique(ascending // self.shape[0])
        starts = np.searchsorted(ascending, numbers * self.shape[0])
        stops = np.searchsorted(ascending, (numbers + 1) * self.shape[0])
        for number, start, stop in zip(numbers, starts, stops, strict=True):
            target = slice(start, stop) if in_order else order[start:stop]
            local = ascending[start:stop] - number * self.shape[0]
            chunk = self.map(int(number), check=check)
            if chunk is None:
                gathered[target], there[target] = blank(dtype), False
            else:
                _put(gathered, target, chunk[(slice(None), *within)], local)
        return gathered, there

    def _shape_of(self, within):
        """Shape of a part of a row."""
        axes = itertools.zip_longest(self.shape[1:], within, fillvalue=slice(None))
        return [len(range(*part.indices(size))) for size, part in axes]


def _put(gathered, target, chunk, local):
    """Bring rows of a chunk to their places: a run as a slice, large rows one by one."""
    first, last = local[0], local[-1]
    if last - first + 1 == len(local) and (local[1:] > local[:-1]).all():
        chunk, local = chunk[first : last + 1], slice(None)
    elif gathered.nbytes >= LARGE_ROW_BYTES * len(gathered):
        places = range(target.start, target.stop) if isinstance(target, slice) else target
        for place, row in zip(places, local, strict=True):
            gathered[place] = chunk[row]
        return
    gathered[target] = chunk[local]
