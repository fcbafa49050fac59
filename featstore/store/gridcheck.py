"""The chunk files of an array under examination: which are there, and how large they must be."""

import numpy as np

from featstore.store.examination import beside

__all__ = ["chunk_bytes", "chunk_shape", "chunks_of"]


def chunk_shape(layout):
    """Shape of a chunk, as the metadata of its array say."""
    return layout["chunk_grid"]["configuration"]["chunk_shape"]


def chunk_bytes(layout):
    """Size of a chunk without its checksum."""
    n_values = 1
    for size in chunk_shape(layout):
        n_values *= size  # Python's integers: a shape that overflows is only a wrong size
    return n_values * np.dtype(layout["data_type"]).itemsize


def chunks_of(exam, place, layout):
    """Yield number and file of each chunk; None as number where it is not in the grid."""
    folders, files = exam.scan(place)
    exam.unknown(place, [*beside(folders, "c"), *beside(files, "zarr.json")])
    if "c" not in folders:
        return
    grid = None
    if layout is not None:
        sizes = zip(layout["shape"], chunk_shape(layout), strict=True)
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
