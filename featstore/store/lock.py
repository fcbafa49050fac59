"""One writer per array: a lock file that names its owner and outlives a crash harmlessly.

The file ``.lock`` in the array's folder holds the owner's host, process number and start time. An
owner on this host that no longer runs (or whose number another process has since been given) is
dead, and its lock is taken over. Of an owner on another host nobody here can tell, so that one is
named and left alone.
"""

import contextlib
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from featstore.errors import LockedError

__all__ = ["writer_lock"]

NAME = ".lock"


@contextlib.contextmanager
def writer_lock(folder):
    """Hold the only right to write to an array.

    Parameters
    ----------
    folder : path-like
        Folder of the array.

    Raises
    ------
    LockedError
        If a living process, or one on another host, holds it; or if the folder is gone, which a
        process that had begun to write has taken away.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, writer_lock(folder):
    ...     print(sorted(json.loads((Path(folder) / ".lock").read_text())))
    ['host', 'pid', 'since', 'started']
    """
    path = Path(folder) / NAME
    with _opened(path) as file:
        _take(file, path)
        try:
            yield
        finally:
            with _exclusive(file):
                file.truncate(0)


def _opened(path):
    """Open the lock file; what is opened stays the same file where its folder is renamed."""
    try:
        handle = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666
        )  # never through a link
    except FileNotFoundError as error:
        raise LockedError(
            f"{path.parent} was being written to by another process, which has taken it away "
            "again; start once more"
        ) from error
    return os.fdopen(handle, "r+", encoding="utf-8")


def _take(file, path):
    with _exclusive(file):
        owner = _owner(file.read())
        if owner is not None and _may_live(owner):
            raise LockedError(
                f"{path.parent} is being written to by process {owner['pid']} on {owner['host']} "
                f"since {owner['since']}; wait for it, or delete {path} if you know it is dead"
            )
        file.seek(0)
        file.truncate()
        json.dump(_ourselves(), file)


@contextlib.contextmanager
def _exclusive(file):
    """Read and change the lock file while no other process does; the system ends it on a crash."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        file.seek(0)
        yield
        file.flush()
        os.fsync(file.fileno())
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _owner(text):
    """Who wrote the lock; None for nobody, or for a file cut short by a crash."""
    try:
        owner = json.loads(text)
        return owner if {"host", "pid", "started", "since"} <= set(owner) else None
    except (ValueError, TypeError):
        return None


def _may_live(owner):
    if owner["host"] != socket.gethostname():
        return True
    return _started(owner["pid"]) == owner["started"]


def _ourselves():
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _started(pid):
    """When a process began, in whatever unit the system counts; None for one that is not there."""
    try:
        status = Path(f"/proc/{int(pid)}/stat").read_text()
        return status.rsplit(")", 1)[1].split()[19]  # proc(5): field 22, starttime
    except FileNotFoundError:
        return _started_without_proc(pid)


def _started_without_proc(pid):
    """Ask ``ps`` on systems without /proc, such as macOS."""
    import subprocess

    if Path("/proc/self/stat").exists():
        return None
    asked = ["ps", "-o", "lstart=", "-p", str(int(pid))]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip() or None  # noqa: S603
