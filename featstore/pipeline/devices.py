"""Several devices of one machine: a process for each, which embeds whole chunks.

Chunks come back to the one process that holds the store's lock and writes them, so that a chunk has
one owner on the way and one writer in the end. Each process has a pipe of its own, whose other end
is closed as soon as it is gone, wherever it was.
"""

import contextlib
import os
import resource
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import wait

from featstore.errors import EncoderError, FeatstoreError, require
from featstore.pipeline.clock import Spent
from featstore.pipeline.forward import arithmetic, forwards_for
from featstore.pipeline.lanes import EmbeddedChunk, embedded_chunks
from featstore.pipeline.plan import shares

multiprocessing = require("torch.multiprocessing", extra="extract", purpose="extraction")

__all__ = ["embedded_on"]

LOOK_EVERY_S = 1  # seconds after which somebody is asked whether to stop
GRACE_S = 5  # to end by itself, and clean up, before it is killed
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, eq=False)
class _Worker:
    """A process, and the ends of its two pipes that are ours."""

    process: object
    job: object
    results: object


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
        Asked every second; once it says True, each device ends after the chunk it is at.
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
    stop = multiprocessing.get_context("spawn").Event()
    divided = shares(lanes, len(devices))
    _allow_open_files()
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(_started(device, stop))
            for device, _ in zip(devices, divided, strict=False)
        ]
        for worker, share in zip(workers, divided, strict=True):
            _hand_over(worker, (encoders, share, patches, ids, settings))
        at_work = {worker.results: worker for worker in workers}
        while at_work:
            if stopping():
                stop.set()
            for results in wait(list(at_work), LOOK_EVERY_S):
                result = _received(at_work[results])
                if isinstance(result, Spent):
                    spent.add(result)
                    del at_work[results]
                elif isinstance(result, EmbeddedChunk):
                    yield result
                elif isinstance(result, int):
                    on_rows(result)
                else:
                    raise result
        for worker in workers:
            worker.process.join()


@contextlib.contextmanager
def _started(device, stop):
    """Start a process that waits for its job, and leave it behind in no case."""
    context = multiprocessing.get_context("spawn")
    (their_job, job), (results, their_results) = (context.Pipe(duplex=False) for _ in range(2))
    process = context.Process(
        target=_work, args=(device, their_job, their_results, stop), name=device
    )
    # It begins with signals blocked: told with its whole group, it would else die while it starts.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    their_job.close()
    their_results.close()  # ours alone is left: when the process is gone, reading ends
    try:
        yield _Worker(process, job, results)
    finally:
        job.close()
        results.close()  # a process at work ends at its next word to us
        process.join(GRACE_S)
        process.kill()
        process.join()


def _allow_open_files():
    """Allow as many open files as the system does: each weight that is shared is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _hand_over(worker, job):
    try:
        worker.job.send(job)
    except OSError as error:
        raise _gone(worker) from error


def _received(worker):
    try:
        return worker.results.recv()
    except (EOFError, OSError) as error:
        raise _gone(worker) from error


def _gone(worker):
    worker.process.join()
    return EncoderError(
        f"the process of device {worker.process.name} ended with exit code "
        f"{worker.process.exitcode}; what was written is whole, the same command goes on"
    )


def _work(device, job, results, stop):
    """Embed the lanes of one device, in a process of its own."""
    for number in SIGNALS:  # the parent is told too, and says when to stop
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone
        results.send(_outcome(device, job.recv(), results, stop))


def _outcome(device, job, results, stop):
    """Embed, sending chunks and counts of rows; return what ends the work."""
    encoders, lanes, patches, ids, settings = job
    spent = Spent()
    try:
        with arithmetic(exact=settings["exact"]):
            chunks = embedded_chunks(
                forwards_for(
                    [encoder.to(device) for encoder in encoders],
                    lanes,
                    batch_size=settings["batch_size"],
                    compiled=settings["compiled"],
                    exact=settings["exact"],
                ),
                lanes,
                patches,
                ids,
                batch_size=settings["batch_size"],
                workers=settings["workers"],
                spent=spent,
                on_rows=results.send,
                stopping=stop.is_set,
            )
            for chunk in chunks:
                with spent.on("stall_s"):
                    results.send(chunk)
        return spent
    except FeatstoreError as error:
        return error
    except BrokenPipeError:
        raise
    except Exception as error:  # of any library, and to be said by the parent
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return EncoderError(f"device {device} failed: {reason}")


def _end_with_parent():
    """End this process when its parent is gone, which nobody else would do."""
    multiprocessing.parent_process().join()
    os._exit(1)
