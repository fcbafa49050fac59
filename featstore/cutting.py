"""Patches into the store's cache: cut once, in threads, chunk by chunk, and resumable.

Neighbouring chunks are cut together and written one by one, each whole or not at all.
"""

import os
import time
from dataclasses import dataclass

from featstore.ahead import read_ahead
from featstore.errors import require
from featstore.store.reader import Store
from featstore.store.writer import PatchWriter, remove_patches

__all__ = ["Cutting", "cut"]


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
            threads = workers or os.cpu_count() or 1
            ahead = read_ahead(patches, [chunk.ids for chunk in chunks], threads=threads)
            for chunk, pixels in zip(chunks, ahead, strict=True):
                writer.write(chunk, pixels)
                bar.update(len(pixels))
        wall_s = time.perf_counter() - started_s
    return Cutting(patches.annotations.name, rows - rows_new, rows_new, wall_s)


def _is_cut_otherwise(store, patches):
    dataset = patches.annotations.name
    return dataset in store.cached_datasets() and store.patches(dataset).cut != patches.cut
