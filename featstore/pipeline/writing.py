"""Chunks on their way to the disk: written by a thread, while the next ones are computed."""

import queue
import threading

__all__ = ["WriterThread"]

CHUNKS_AHEAD = 2  # that wait for the disk, before the encoder waits too


class WriterThread:
    """Writes chunks in the order they come; a chunk begun is always ended.

    Parameters
    ----------
    spent : Spent
        Where the time is counted.

    Raises
    ------
    FeatstoreError
        What writing raised, at the next chunk or at the end; nothing is written after it.
    """

    def __init__(self, spent):
        self._spent = spent
        self._due = queue.Queue(maxsize=CHUNKS_AHEAD)
        self._problem = None
        self._thread = threading.Thread(target=self._write_all, name="writer")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, problem, *details):
        with self._spent.on("stall_s"):
            self._due.put(None)
            self._thread.join()
        if problem is None:
            self._raise()

    def write(self, writer, chunk, values):
        """Hand a chunk over; waits where more than two are on their way already."""
        self._raise()
        with self._spent.on("stall_s"):
            self._due.put((writer, chunk, values))

    def _write_all(self):
        while (due := self._due.get()) is not None:
            if self._problem is not None:
                continue
            writer, chunk, values = due
            try:
                with self._spent.on("write_s"):
                    writer.write(chunk, values)
            except BaseException as problem:
                self._problem = problem

    def _raise(self):
        if self._problem is not None:
            raise self._problem
