"""Several devices of one machine: a process for each, which embeds whole chunks.

Chunks come back to the one process that holds the store's lock and writes them, so that a chunk has
one owner on the way and one writer in the end.
"""

import contextlib
import os
import queue
import signal
import threading

from featstore.errors import EncoderError, FeatstoreError, require
from featstore.pipeline.clock import Spent
from featstore.pipeline.forward import Forward
from featstore.pipeline.lanes import EmbeddedChunk, embedded_chunks
from featstore.pipeline.plan import shares

multiprocessing = require("torch.multiprocessing", extra="extract", purpose="extraction")

__all__ = ["embedded_on"]

CHUNKS_AHEAD = 2  # of each device, before it waits for the disk
LOOK_AFTER_S = 5  # seconds of silence after which the processes are looked at


def embedded_on(devices, encoders, lanes, patches, ids, *, spent, on_rows, stopping, **settings):
    """Yield chunks as the devices have done them, in any order.

    Parameters
    ----------
    devices : list of str
        Names of torch devices; more than one may be 'cpu'.
    encoders : list of Encoder
        Prepared, on the CPU.
    lanes, patches, ids, spent, on_rows
        As for :func:`featstore.pipeline.lanes.embedded_chunks`.
    stopping : callable
        Asked now and then; once it says True, each device ends after the chunk it is at.
    settings : dict
        ``batch_size``, ``workers``, ``compiled`` (for each encoder) and ``exact``.

    Yields
    ------
    EmbeddedChunk

    Raises
    ------
    EncoderError
        If a process ends before its work is done.
    FeatstoreError
        What was raised in one of them.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue(maxsize=CHUNKS_AHEAD * len(devices))
    stop = context.Event()
    processes = [
        context.Process(
            target=_work,
            args=(device, encoders, share, patches, ids, settings, results, stop),
            name=device,
        )
        for device, share in zip(devices, shares(lanes, len(devices)), strict=False)
    ]
    with _running(processes, stop):
        at_work = len(processes)
        while at_work:
            if stopping():
                stop.set()
            result = _next_result(results, processes)
            if isinstance(result, Spent):
                spent.add(result)
                at_work -= 1
            elif isinstance(result, EmbeddedChunk):
                yield result
            elif isinstance(result, int):
                on_rows(result)
            else:
                raise result


@contextlib.contextmanager
def _running(processes, stop):
    """Start processes, and leave none behind."""
    for process in processes:
        process.start()
    try:
        yield
        for process in processes:
            process.join()
    finally:
        stop.set()
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def _next_result(results, processes):
    while True:
        try:
            return results.get(timeout=LOOK_AFTER_S)
        except queue.Empty:
            for process in processes:
                if process.exitcode not in (None, 0):
                    raise EncoderError(
                        f"the process of device {process.name} ended with exit code "
                        f"{process.exitcode}; what was written is whole, the same command goes on"
                    ) from None


def _work(device, encoders, lanes, patches, ids, settings, results, stop):
    """Embed the lanes of one device, in a process of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent is told too, and says when to stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    spent = Spent()
    try:
        forwards = _forwards(device, encoders, settings)
        for chunk in embedded_chunks(
            forwards,
            lanes,
            patches,
            ids,
            batch_size=settings["batch_size"],
            workers=settings["workers"],
            spent=spent,
            on_rows=results.put,
        ):
            with spent.on("stall_s"):
                results.put(chunk)
            if stop.is_set():
                break
        results.put(spent)
    except FeatstoreError as error:
        results.put(error)
    except Exception as error:  # of any library, and to be said by the parent
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        results.put(EncoderError(f"device {device} failed: {reason}"))


def _forwards(device, encoders, settings):
    return [
        Forward(
            encoder.to(device),
            batch_size=settings["batch_size"],
            compiled=compiled,
            exact=settings["exact"],
        )
        for encoder, compiled in zip(encoders, settings["compiled"], strict=True)
    ]


def _end_with_parent():
    """End this process when its parent is gone, which nobody else would do."""
    multiprocessing.parent_process().join()
    os._exit(1)
