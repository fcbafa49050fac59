"""Several encoders over one stream of patches, and the chunks that they fill.

Each patch is read once, and each encoder has batches of its own.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from featstore.errors import FeatstoreError, require
from featstore.pipeline.loading import loaded
from featstore.pipeline.plan import requested_rows

torch = require("torch", extra="extract", purpose="extraction")

__all__ = ["EmbeddedChunk", "embedded_chunks"]

PASSES_AHEAD = 2  # begun on a device before the first of them is waited for


@dataclass(frozen=True, eq=False)
class EmbeddedChunk:
    """A chunk whose rows are all embedded.

    Parameters
    ----------
    place : int
        Number of the encoder in the run.
    number : int
        Which chunk of that encoder's it is.
    values : ndarray of float32, shape (rows, D)
        Embeddings, all parts.
    """

    place: int
    number: int
    values: np.ndarray


def embedded_chunks(
    forwards, lanes, patches, ids, *, batch_size, workers, spent, on_rows, stopping
):
    """Yield chunks as they are done, in the order of their rows.

    Parameters
    ----------
    forwards : list of Forward
        One for each encoder of the run, on one device.
    lanes : list of Lane
        What is to be done here.
    patches : Patches or CachedPatches
        Where pixels come from.
    ids : ndarray
        Annotation IDs of the dataset, by row.
    batch_size : int
        Patches in a batch.
    workers : int
        Processes that read patches; 0 reads in a thread.
    spent : Spent
        Where the time is counted.
    on_rows : callable
        Called with the number of embeddings that were made since.
    stopping : callable
        Asked after each chunk; once it says True, that was the last.

    Yields
    ------
    EmbeddedChunk
    """
    at_work = [_LaneAtWork(lane, forwards[lane.place], batch_size, spent) for lane in lanes]
    requests = requested_rows(lanes, batch_size)
    pixels = loaded(
        patches,
        [ids[rows] for rows in requests],
        workers=workers,
        pinned=forwards[0].encoder.device.type == "cuda",
        on_read=spent.count_decoding,
    )
    window = _Window()
    try:
        for rows in requests:
            with spent.on("wait_s"):
                window.add(rows, next(pixels))
            for lane in at_work:
                for chunk in lane.advance(window, on_rows):
                    yield chunk
                    if stopping():
                        return
            window.forget_before(min(lane.next_row for lane in at_work))
    except FeatstoreError:  # of an image: what is computed by now is kept
        for lane in at_work:
            yield from lane.rest(on_rows)
        raise
    for lane in at_work:
        yield from lane.rest(on_rows)


class _Window:
    """Patches that were read and are still needed, by row."""

    def __init__(self):
        self._portions = deque()

    @property
    def last_row(self):
        """Last row that was read."""
        return self._portions[-1][0][-1]

    def add(self, rows, pixels):
        """Take in the next portion."""
        self._portions.append((rows, pixels))

    def take(self, wanted):
        """Pixels of ascending rows that are all here: a view where one portion is just these."""
        pieces = []
        for rows, pixels in self._portions:
            first, last = np.searchsorted(rows, [wanted[0], wanted[-1] + 1])
            if first == last:
                continue
            here = np.isin(rows[first:last], wanted)
            pieces.append(pixels[first:last] if here.all() else pixels[first:last][here])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def forget_before(self, row):
        """Let go of portions that nobody needs any more."""
        while self._portions and self._portions[0][0][-1] < row:
            self._portions.popleft()


class _LaneAtWork:
    """One encoder, the batches it has before it, and the chunk that it is filling."""

    def __init__(self, lane, forward, batch_size, spent):
        self._forward = forward
        self._spent = spent
        self._place = lane.place
        self._chunks = deque(zip(lane.numbers, map(len, lane.chunks), strict=True))
        self._batches = deque(lane.batches(batch_size))
        self._begun = deque()
        self._gathered = []

    @property
    def next_row(self):
        """First row of the batch that comes next; beyond all rows where none does."""
        return self._batches[0][0] if self._batches else np.iinfo(np.int64).max

    def advance(self, window, on_rows):
        """Begin all batches whose patches are there; yield chunks that are done."""
        while self._batches and self._batches[0][-1] <= window.last_row:
            with self._spent.on("encode_s"):
                self._begun.append(self._forward.begin(window.take(self._batches.popleft())))
            if len(self._begun) >= PASSES_AHEAD:
                yield from self._ended(on_rows)

    def rest(self, on_rows):
        """Yield the chunks of the passes that are still at work."""
        while self._begun:
            yield from self._ended(on_rows)

    def _ended(self, on_rows):
        """End the pass that was begun first; yield its chunk where that is whole now."""
        with self._spent.on("encode_s"):
            rows = self._forward.finish(self._begun.popleft())
        self._gathered.append(rows)
        on_rows(len(rows))
        number, n_rows = self._chunks[0]
        if sum(map(len, self._gathered)) == n_rows:
            self._chunks.popleft()
            values, self._gathered = np.concatenate(self._gathered), []
            yield EmbeddedChunk(self._place, number, values)
