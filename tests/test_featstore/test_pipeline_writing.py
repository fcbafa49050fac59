import threading

import pytest

from featstore.errors import StoreError
from featstore.pipeline.clock import Spent
from featstore.pipeline.writing import CHUNKS_AHEAD, WriterThread


class Disk:
    """A writer that keeps what it is given, waits when told to, and fails at one chunk."""

    def __init__(self, full_at=None):
        self.full_at = full_at
        self.written = []
        self.free = threading.Event()
        self.free.set()

    def write(self, chunk, values):
        self.free.wait(timeout=30)
        if chunk == self.full_at:
            raise StoreError("the disk is full")
        self.written.append((chunk, values))


def write(disk, n_chunks, *, spent=None, interrupted=False):
    """Write chunks as a run does."""
    with WriterThread(spent or Spent()) as writing:
        for chunk in range(n_chunks):
            writing.write(disk, chunk, chunk**2)
        if interrupted:
            raise KeyboardInterrupt


def test_chunks_are_written_in_order_and_all_are_there_at_the_end():
    disk, spent = Disk(), Spent()
    write(disk, 9, spent=spent)
    assert disk.written == [(chunk, chunk**2) for chunk in range(9)]
    assert spent.write_s > 0


def test_what_is_whole_is_written_when_the_run_is_interrupted():
    disk = Disk()
    with pytest.raises(KeyboardInterrupt):
        write(disk, 2, interrupted=True)
    assert disk.written == [(0, 0), (1, 1)]


@pytest.mark.parametrize("n_chunks", [2, 50])  # noticed at the end, and on the way
def test_an_error_of_the_disk_is_raised_and_nothing_is_written_after_it(n_chunks):
    disk = Disk(full_at=1)
    with pytest.raises(StoreError, match="full"):
        write(disk, n_chunks)
    assert disk.written == [(0, 0)]


def test_a_slow_disk_holds_the_encoder_back_rather_than_fill_the_memory():
    disk, handed_over = Disk(), []
    disk.free.clear()

    def hand_over():
        with WriterThread(Spent()) as writing:
            for chunk in range(9):
                writing.write(disk, chunk, None)
                handed_over.append(chunk)

    thread = threading.Thread(target=hand_over)
    thread.start()
    thread.join(timeout=0.5)
    assert len(handed_over) <= CHUNKS_AHEAD + 1  # one is being written
    disk.free.set()
    thread.join(timeout=30)
    assert len(disk.written) == 9
