"""Checkpoints of one training in a folder: the last, and the one before should that be broken.

A checkpoint is written beside its place and then moved there, so a kill at any instant leaves a
whole one. It holds tensors and plain values only and is read without running code.
"""

import contextlib
import logging
import os
import zipfile
from pathlib import Path

import torch

from probes.endtoend.devices import one_line
from probes.errors import CheckpointError

__all__ = ["Checkpoints"]

logger = logging.getLogger(__name__)

FORMAT = "featstore-probes/checkpoint/1"
SHOWN = 60  # characters of what two trainings differ in
HELD = {"step", "ended", "history", "network", "best", "optimiser", "schedule", "identity"}


class Checkpoints:
    """The checkpoints of a training.

    Parameters
    ----------
    folder
        Made where it is missing. It is one training's own.
    identity
        What the training is, by name: texts. A checkpoint with another identity is refused.

    Raises
    ------
    CheckpointError
        If the folder cannot be made.
    """

    def __init__(self, folder, identity: dict):
        self.folder = Path(folder)
        self._identity = identity
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"checkpoints={folder} is no folder: {one_line(error)}"
            ) from error

    @property
    def last(self):
        """Where the newest checkpoint is."""
        return self.folder / "last.ckpt"

    @property
    def before(self):
        """Where the one before it is."""
        return self.folder / "before.ckpt"

    @property
    def best(self):
        """Where the network with the best weights is, once the training has ended."""
        return self.folder / "best.safetensors"

    @contextlib.contextmanager
    def held(self):
        """Keep other programs from training here; where files cannot be locked, do nothing.

        The lock is the process's, not the open file's: a worker that outlives a killed training by
        seconds does not keep the next one out.

        Raises
        ------
        CheckpointError
            If another program has it.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        with self._lock_file() as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise CheckpointError(
                    f"another program is training in {self.folder}; wait for it, or give another "
                    "folder"
                ) from error
            except OSError as error:
                logger.info("%s is not locked: %s", self.folder, error.strerror)
            yield

    def _lock_file(self):
        try:
            return open(self.folder / "lock", "ab")
        except OSError as error:
            raise CheckpointError(
                f"cannot write into checkpoints={self.folder}: {error.strerror}"
            ) from error

    def write(self, state: dict) -> None:
        """Keep a state, and the one that was last until now.

        Raises
        ------
        CheckpointError
            If the disk is full, for instance; what was kept before stays.
        """
        partial = self.folder / "last.ckpt.partial"
        try:
            with open(partial, "wb") as file:
                torch.save(state | {"format": FORMAT, "identity": self._identity}, file)
                file.flush()
                os.fsync(file.fileno())
            if self.last.exists():
                os.replace(self.last, self.before)
            os.replace(partial, self.last)
        except (OSError, RuntimeError) as error:  # of a full disk torch raises the second
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise CheckpointError(
                f"cannot write the checkpoint {self.last} ({one_line(error)}); make room and start "
                "again: it goes on from the one before"
            ) from error

    def read(self) -> dict | None:
        """Return the newest state that can be read; None where there is none.

        Raises
        ------
        CheckpointError
            If none of those that are there can be read, or they are of another training.
        """
        there = [path for path in (self.last, self.before) if path.exists()]
        for path in there:
            state = _read(path)
            if state is not None:
                self._check(state.pop("identity"))
                return state
        if there:
            raise CheckpointError(
                f"none of {', '.join(map(str, there))} can be read; delete them to start afresh"
            )
        return None

    @contextlib.contextmanager
    def used(self):
        """Say in one line where what was read turns out to be no state of this training.

        Raises
        ------
        CheckpointError
            In place of what tensors and values of other shapes and kinds raise.
        """
        try:
            yield
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(
                f"the checkpoints in {self.folder} hold no state of this training "
                f"({one_line(error)}); delete them to start afresh"
            ) from error

    def _check(self, found):
        for name, asked in self._identity.items():
            if found.get(name) != asked:
                raise CheckpointError(
                    f"the checkpoints in {self.folder} are of another training: its {name} is "
                    f"{str(found.get(name))[:SHOWN]!r}, asked is {str(asked)[:SHOWN]!r}; give "
                    "another folder, or delete that one"
                )


def _read(path):
    """Read a checkpoint; None, and a line in the log, where it is broken or no checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch writes a checksum per tensor and does not look at it
        if broken is not None:
            raise ValueError(f"{broken} has another checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT:
            raise ValueError(f"its format is {state['format']!r}, not {FORMAT}")
        missing = HELD - state.keys()
        if missing or not isinstance(state["identity"], dict):
            raise ValueError(f"it lacks {', '.join(sorted(missing)) or 'an identity'}")
        return state
    except Exception as error:  # torch raises many kinds for damaged files
        logger.warning("checkpoint %s cannot be read (%s)", path, one_line(error))
        return None
