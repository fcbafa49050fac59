"""Patches through an encoder into a store: batched, ahead of the encoder, and resumable.

Worker processes cut patches while the encoder runs. Batches never cross a chunk; a chunk is
written as soon as its last batch is done, in order, so that an interrupted run has lost at most
the chunk at work.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from featstore.errors import EncoderError, FeatstoreError, require
from featstore.store.writer import EmbeddingWriter

torch = require("torch", extra="extract", purpose="extraction")
tqdm = require("tqdm", extra="extract", purpose="extraction").tqdm

__all__ = ["Extraction", "extract"]


@dataclass(frozen=True)
class Extraction:
    """What a run of :func:`extract` did.

    Parameters
    ----------
    model, dataset : str
        Names in the store.
    rows_before : int
        Embeddings that were there already.
    rows_new : int
        Embeddings made now.
    rows : int
        Annotations of the dataset.
    wall_s : float
        Seconds from the first batch asked for to the last chunk written.
    wait_s, encode_s, stall_s : float
        Seconds of these in which the encoder waited for patches, was at work, and waited for a
        chunk to reach the disk.
    """

    model: str
    dataset: str
    rows_before: int
    rows_new: int
    rows: int
    wall_s: float
    wait_s: float
    encode_s: float
    stall_s: float

    @property
    def complete(self):
        """Whether every annotation has its embedding."""
        return self.rows_before + self.rows_new == self.rows

    def share(self, seconds):
        """Share of the time that a part of it is, 0 to 1."""
        return seconds / self.wall_s if self.wall_s else 0.0

    @property
    def patches_per_s(self):
        """Patches per second of this run."""
        return self.rows_new / self.wall_s if self.wall_s else 0.0


def extract(
    path,
    dataset,
    encoder,
    patches,
    *,
    batch_size=64,
    workers=0,
    progress=False,
    on_start=None,
    on_chunk=None,
    should_stop=None,
):
    """Embed all annotations of a dataset that are not embedded yet.

    Parameters
    ----------
    path : path-like
        A local store.
    dataset : str
        Name of the dataset.
    encoder : featstore.encoders.build.Encoder
        What to embed with; on its device.
    patches : Patches
        Pixels by annotation ID, at the encoder's input size and um/px.
    batch_size : int
        Patches in one forward pass.
    workers : int
        Processes that cut patches; 0 cuts them in this one.
    progress : bool
        Draw a bar with patches/s on stderr.
    on_start : callable, optional
        Called with (rows there already, rows of the dataset) before the first batch.
    on_chunk : callable, optional
        Called with the :class:`Extraction` so far when a chunk has been handed over for writing.
    should_stop : callable, optional
        Asked after each chunk; where it says True, the run ends there, as if that were all.

    Returns
    -------
    Extraction

    Raises
    ------
    DigestError
        If the store has embeddings of that name by another encoder.
    EncoderError
        If patches and encoder do not fit, or an embedding is not finite.
    """
    _check_fit(patches, encoder)
    run = {"device": str(encoder.device), "batch_size": batch_size}
    with EmbeddingWriter(path, dataset, encoder.spec, parts=encoder.parts, run=run) as writer:
        chunks = writer.pending()
        rows_due, rows = sum(len(chunk.ids) for chunk in chunks), len(writer.annotations)
        before = rows - rows_due
        if on_start is not None:
            on_start(before, rows)
        clock = _Clock()
        with (
            tqdm(total=rows, initial=before, unit="patch", disable=not progress) as bar,
            _WriterThread(writer, clock) as thread,
        ):
            batches = _embedded_batches(encoder, patches, chunks, batch_size, workers, clock)
            done = clock.so_far(encoder.spec.key, dataset, before, 0, rows)
            for chunk in chunks:
                thread.write(chunk, _collect(batches, len(chunk.ids), bar))
                rows_new = done.rows_new + len(chunk.ids)
                done = clock.so_far(encoder.spec.key, dataset, before, rows_new, rows)
                if on_chunk is not None:
                    on_chunk(done)
                if should_stop is not None and should_stop():
                    break
            batches.close()
        return clock.so_far(encoder.spec.key, dataset, before, done.rows_new, rows)


class _Clock:
    """Where the time of a run goes."""

    def __init__(self):
        self.started_s = time.perf_counter()
        self.spent_s = {"wait_s": 0.0, "encode_s": 0.0, "stall_s": 0.0}

    @contextmanager
    def spending(self, part):
        """Count the time of a block."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s[part] += time.perf_counter() - started_s

    def so_far(self, model, dataset, before, rows_new, rows):
        wall_s = time.perf_counter() - self.started_s
        return Extraction(model, dataset, before, rows_new, rows, wall_s, **self.spent_s)


def _check_fit(patches, encoder):
    spec = encoder.spec
    if (patches.patch_px, patches.mpp) != (spec.input_px, spec.mpp):
        raise EncoderError(
            f"{spec.key!r} takes {spec.input_px} px at {spec.mpp} um/px and the patches are "
            f"{patches.patch_px} px at {patches.mpp} um/px; cut them as its specification says"
        )


class _Batches(torch.utils.data.Dataset):
    """Whole batches as items, so that a worker cuts neighbouring patches together."""

    def __init__(self, patches, batches_of_ids):
        self.patches = patches
        self.batches_of_ids = batches_of_ids

    def __len__(self):
        return len(self.batches_of_ids)

    def __getitem__(self, number):
        """Cut one batch; an error travels as a value, for torch would wrap it in a traceback."""
        try:
            return torch.from_numpy(self.patches.read(self.batches_of_ids[number]))
        except FeatstoreError as error:
            return error


class _WriterThread:
    """Writes one chunk while the encoder is at the next; a chunk begun is always ended."""

    def __init__(self, writer, clock):
        self._clock = clock
        self._writer = writer
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._begun = None

    def __enter__(self):
        return self

    def __exit__(self, problem, *details):
        with self._pool:
            if problem is None:
                with self._clock.spending("stall_s"):
                    self._end()

    def write(self, chunk, values):
        """Begin to write a chunk, once the one before is on the disk."""
        with self._clock.spending("stall_s"):
            self._end()
        self._begun = self._pool.submit(self._writer.write, chunk, values)

    def _end(self):
        if self._begun is not None:
            self._begun.result()
            self._begun = None


def _embedded_batches(encoder, patches, chunks, batch_size, workers, clock):
    """Yield embeddings batch by batch, in the order of the chunks."""
    batches_of_ids = [
        chunk.ids[start : start + batch_size]
        for chunk in chunks
        for start in range(0, len(chunk.ids), batch_size)
    ]
    loader = torch.utils.data.DataLoader(
        _Batches(patches, batches_of_ids),
        batch_size=None,
        num_workers=min(workers, len(batches_of_ids)),
        pin_memory=encoder.device.type == "cuda",
        collate_fn=_as_it_is,
    )
    loaded = iter(loader)
    for _ in batches_of_ids:
        with clock.spending("wait_s"):
            batch = next(loaded)
        if isinstance(batch, FeatstoreError):
            raise batch
        with clock.spending("encode_s"):
            embeddings = encoder.embed(batch).cpu().numpy()
        yield embeddings


def _as_it_is(batch):
    return batch


def _collect(batches, n_rows, bar):
    """Gather the batches of one chunk; shape (n_rows, dim)."""
    gathered, there = [], 0
    while there < n_rows:
        embeddings = next(batches)
        gathered.append(embeddings)
        there += len(embeddings)
        bar.update(len(embeddings))
    return np.concatenate(gathered)
