"""Chunk files of embeddings: whole rows and a checksum, written to stay and read through memory.

A chunk file is the rows of one chunk in C order, little-endian, padded with NaN to the full
chunk, and a CRC-32C of all that in 4 bytes: what Zarr's codecs ``bytes`` and ``crc32c`` give. It
is written under another name, brought to the disk, and renamed: a file of that name is whole.
"""

import mmap
import os
import struct
import uuid

import numpy as np

from featstore.errors import DamagedChunkError, StoreError
from featstore.store.inside import refuse_outside

__all__ = ["ChunkFiles", "write_file"]

CHECKSUM_BYTES = 4
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


class ChunkFiles:
    """The chunk files of one local array of embeddings.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the array.
    rows_per_chunk, dim : int
        Shape of a chunk.
    dtype : dtype
        Type on disk.
    store : pathlib.Path or None
        Folder of a local store, which no chunk may lead out of.
    """

    def __init__(self, folder, rows_per_chunk, dim, dtype, *, store):
        self.folder = folder
        self.store = store
        self.shape = (rows_per_chunk, dim)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self._mapped = {}

    @classmethod
    def of(cls, folder, array):
        """Chunk files of a Zarr array, or None where it is laid out in another way."""
        codecs = [type(codec).__name__ for codec in array.metadata.codecs]
        plain = codecs == ["BytesCodec", "Crc32cCodec"] and array.chunks[1:] == array.shape[1:]
        plain = plain and array.metadata.codecs[0].to_dict() in LITTLE_ENDIAN
        if not plain or array.metadata.encode_chunk_key((0, 0)) != "c/0/0":
            return None
        return cls(folder, *array.chunks, array.dtype, store=getattr(array.store, "root", None))

    def path(self, number):
        """Path of one chunk's file."""
        return self.folder / "c" / str(number) / "0"

    @property
    def n_bytes(self):
        """Size of a chunk's file."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize + CHECKSUM_BYTES

    def write(self, number, rows):
        """Write a chunk of up to ``rows_per_chunk`` rows."""
        data = self._padded(rows).view(np.uint8).reshape(-1)
        write_file(self.path(number), data, checksum(data))
        self._mapped.pop(number, None)

    def _padded(self, rows):
        if len(rows) == self.shape[0]:
            return np.ascontiguousarray(rows, self.dtype)
        full = np.full(self.shape, np.nan, self.dtype)
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
        ndarray of shape (rows_per_chunk, dim), or None where there is no such file

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
            "'featstore verify --repair' drops it, 'featstore extract' makes it again"
        )

    def read(self, rows, columns, dtype, *, check=False):
        """Gather rows.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            In any order, duplicates allowed.
        columns : slice
            Part of an embedding.
        dtype : dtype
            Type of the result.
        check : bool
            Compare checksums of the chunks that are read.

        Returns
        -------
        ndarray of shape (m, width)
            NaN where a chunk is not there.
        """
        width = len(range(*columns.indices(self.shape[1])))
        if len(rows):
            self.map(int(rows[0]) // self.shape[0])  # refuses a false shape before memory is taken
        gathered = np.empty((len(rows), width), dtype)
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
            gathered[target] = np.nan if chunk is None else _taken(chunk[:, columns], local)
        return gathered


def _taken(chunk, local):
    """Rows of a chunk: a view where they are a run, else a copy."""
    first, last = local[0], local[-1]
    if last - first + 1 == len(local) and (local[1:] > local[:-1]).all():
        return chunk[first : last + 1]
    return chunk[local]
