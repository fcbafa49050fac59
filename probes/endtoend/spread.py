"""Trainings on several devices: a process for each, which does one training after another.

What a process found goes back through its pipe to the one that started it, which alone writes. A
process that is gone loses the training it was at, and no other.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import wait

import torch

from probes.errors import ProbesError

__all__ = ["DeadProcess", "spread"]

# To end by itself before it is killed. One at work does not: what it lost, its checkpoint has.
GRACE_S = 1


@dataclass(frozen=True)
class DeadProcess:
    """In place of an outcome: the process that had the job is gone.

    ``device`` is '' where no process was left to take the job.
    """

    device: str = ""
    exit_code: int | None = None

    def __str__(self):
        if not self.device:
            return "no process was left for it"
        return f"the process on {self.device} ended with exit code {self.exit_code}"


@dataclass(frozen=True, eq=False)
class _Hand:
    """A process, and our end of the pipe to it."""

    device: str
    process: object
    pipe: object


def spread(jobs, devices, work, shared):
    """Do jobs on several devices, and give each as it is done.

    Parameters
    ----------
    jobs
        What is to be done; each is sent to one process.
    devices
        Names of torch devices; one may be named more than once.
    work
        Called in a process as ``work(job, device, *shared)``; a function of a module.
    shared
        Sent to each process once.

    Yields
    ------
    (job, outcome)
        As they end, in any order. The outcome is what ``work`` returned, or a ``DeadProcess``.

    Raises
    ------
    ProbesError
        If something cannot be sent to a process.

    Notes
    -----
    Processes are spawned, as CUDA needs it: a script that calls this keeps what it does under
    ``if __name__ == "__main__":``.
    """
    left = deque(jobs)
    with contextlib.ExitStack() as stack:
        hands = [
            stack.enter_context(_started(device, devices.count(device)))
            for device in devices[: len(left)]
        ]
        for hand in hands:  # all are started: what is sent may wait until it is read
            _give(hand, (work, shared))
        at_work = {hand.pipe: (hand, _give(hand, left.popleft())) for hand in hands}
        while at_work:
            for pipe in wait(list(at_work)):
                hand, job = at_work.pop(pipe)
                outcome = _received(hand)
                if left and not isinstance(outcome, DeadProcess):
                    at_work[pipe] = hand, _give(hand, left.popleft())
                yield job, outcome
    for job in left:
        yield job, DeadProcess()


@contextlib.contextmanager
def _started(device, n_same):
    """Start a process that waits for jobs, and leave it behind in no case."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_hand, args=(device, n_same, theirs), name=device)
    # It begins with Ctrl-C blocked, which its whole group is told: it would die while it starts.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # ours alone is left: when the process is gone, reading ends
    try:
        yield _Hand(device, process, pipe)
    finally:
        pipe.close()
        process.join(GRACE_S)
        process.kill()
        process.join()


def _give(hand, job):
    """Send a job; a process that is gone is noticed when it is read from."""
    try:
        hand.pipe.send(job)
    except OSError:
        return job
    except Exception as error:  # pickle raises many kinds
        raise ProbesError(
            f"several devices need patches and annotations that can be pickled: {error}; give one "
            "device"
        ) from error
    return job


def _received(hand):
    try:
        return hand.pipe.recv()
    except (EOFError, OSError):
        hand.process.join()
        return DeadProcess(hand.device, hand.process.exitcode)


def _hand(device, n_same, pipe):
    """Do the jobs of one device, in a process of its own, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and ends this
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if torch.device(device).type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // n_same))
    with contextlib.suppress(EOFError, OSError):  # the pipe is closed: there are no more jobs
        work, shared = pipe.recv()
        while True:
            job = pipe.recv()
            pipe.send(work(job, device, *shared))


def _end_with_parent():
    """End this process when its parent is gone, which nobody else would do."""
    multiprocessing.parent_process().join()
    os._exit(1)
