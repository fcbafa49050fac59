"""Patches into the store's cache: cut once, in threads, chunk by chunk, and resumable.

Threads suffice, since decoding leaves Python. Neighbouring chunks are cut together, so that the
tiles they share are decoded once, and written one by one, each whole or not at all.
"""

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from featstore.errors import require
from featstore.store.reader import Store
from featstore.store.writer import PatchWriter, remove_patches

__all__ = ["Cutting", "cut"]

# Cut together by a thread: four MIDOG regions, a third of a second. Measured: twice as much costs a
# tenth of the speed, for memory that the processor has not at hand.
UNIT_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Cutting:
    """What a run of :func:`cut` did.

    Parameters
    ----------
    dataset : str
        Name in the store.
    rows_before : int
        Patches that were there already.
    rows_new : int
        Patches cut now.
    wall_s : float
        Seconds from the first patch asked for to the last chunk written.
    """

    dataset: str
    rows_before: int
    rows_new: int
    wall_s: float

    @property
    def patches_per_s(self):
        """Patches per second of this run."""
        return self.rows_new / self.wall_s if self.wall_s else 0.0


def cut(path, patches, *, workers=None, replace=False, progress=False, on_start=None):
    """Cut all patches of a dataset that are not in the store's cache yet.

    Parameters
    ----------
    path : path-like
        A local store that holds the dataset.
    patches : Patches
        What to cut: all annotations of a dataset of the store.
    workers : int, optional
        Threads; as many as there are processors by default.
    replace : bool
        Take away patches of the dataset that were cut in another way, once all images have been
        opened.
    progress : bool
        Draw a bar with patches/s on stderr.
    on_start : callable, optional
        Called with (rows there already, rows of the dataset) before the first patch.

    Returns
    -------
    Cutting

    Raises
    ------
    DigestError
        If the store has patches of the dataset that were cut in another way, and ``replace`` is
        not given.
    ImageError
        If an image is missing or damaged; chunks that were whole before are kept.
    """
    tqdm = require("tqdm", extra="extract", purpose="cutting patches").tqdm
    windows = patches.windows()
    if replace and _is_cut_otherwise(Store(path), patches):
        remove_patches(path, windows.name)
    with PatchWriter(path, windows, patches.cut, run={}) as writer:
        chunks = writer.pending()
        rows_new, rows = sum(len(chunk.ids) for chunk in chunks), len(windows)
        if on_start is not None:
            on_start(rows - rows_new, rows)
        started_s = time.perf_counter()
        with tqdm(total=rows, initial=rows - rows_new, unit="patch", disable=not progress) as bar:
            for chunk, pixels in _cut_ahead(patches, chunks, workers or os.cpu_count() or 1):
                writer.write(chunk, pixels)
                bar.update(len(pixels))
        wall_s = time.perf_counter() - started_s
    return Cutting(patches.annotations.name, rows - rows_new, rows_new, wall_s)


def _is_cut_otherwise(store, patches):
    dataset = patches.annotations.name
    return dataset in store.cached_datasets() and store.patches(dataset).cut != patches.cut


def _cut_ahead(patches, chunks, workers):
    """Yield chunks in order with their pixels, while the threads are at the next units."""
    with ThreadPoolExecutor(workers) as pool:
        units = iter(_units(chunks, patches.patch_px))
        begun = deque()
        try:
            for unit in units:
                begun.append((unit, pool.submit(_cut_unit, patches, unit)))
                if len(begun) > workers:
                    yield from _cut_chunks(*begun.popleft())
            while begun:
                yield from _cut_chunks(*begun.popleft())
        finally:
            for _, pending in begun:
                pending.cancel()


def _units(chunks, patch_px):
    """Gather consecutive chunks up to 32 MiB."""
    unit, n_bytes = [], 0
    for chunk in chunks:
        size = len(chunk.ids) * patch_px**2 * 3
        if unit and n_bytes + size > UNIT_BYTES:
            yield unit
            unit, n_bytes = [], 0
        unit.append(chunk)
        n_bytes += size
    if unit:
        yield unit


def _cut_unit(patches, unit):
    return patches.read(np.concatenate([chunk.ids for chunk in unit]))


def _cut_chunks(unit, pending):
    """Yield the chunks of a unit with their pixels."""
    pixels, start = pending.result(), 0
    for chunk in unit:
        yield chunk, pixels[start : start + len(chunk.ids)]
        start += len(chunk.ids)
