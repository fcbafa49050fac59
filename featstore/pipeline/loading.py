"""Patches on their way to the device: read ahead by a thread of this process, or by others."""

import signal

from featstore.ahead import as_it_is, read_ahead, split, timed_read, units_of
from featstore.errors import EncoderError, FeatstoreError, require

torch = require("torch", extra="extract", purpose="extraction")

__all__ = ["loaded"]


def loaded(patches, requests, *, workers, pinned, on_read):
    """Yield the pixels of each request in order, ready for the device.

    Parameters
    ----------
    patches : Patches or CachedPatches
        Where pixels come from.
    requests : list of ndarray
        Annotation IDs, request by request.
    workers : int
        Processes that read and decode; 0 reads in a thread of this one, which suffices for cached
        patches.
    pinned : bool
        Put pixels where a GPU can fetch them by itself.
    on_read : callable
        Called with the seconds that reading took, whenever they are known.

    Yields
    ------
    torch.Tensor of uint8, shape (m, patch_px, patch_px, 3)

    Raises
    ------
    FeatstoreError
        What reading raised, wherever it was done.
    """
    if not workers:
        prepare = _pinned if pinned else torch.from_numpy
        return read_ahead(patches, requests, threads=1, prepare=prepare, on_read=on_read)
    return _from_processes(patches, requests, workers, pinned, on_read)


def _pinned(pixels):
    return torch.from_numpy(pixels).pin_memory()


def _from_processes(patches, requests, workers, pinned, on_read):
    units = units_of(requests, patches.patch_px)
    loader = torch.utils.data.DataLoader(
        _Units(patches, units),
        batch_size=None,
        num_workers=min(workers, len(units)),
        pin_memory=pinned,
        collate_fn=as_it_is,
        worker_init_fn=_end_when_told,
    )
    for unit, item in zip(units, _as_long_as_workers_live(loader), strict=True):
        if isinstance(item, FeatstoreError):
            raise item
        pixels, read_s = item
        on_read(read_s)
        yield from split(unit, pixels)


def _as_long_as_workers_live(loader):
    """Yield what a loader gives; that a worker was ended, by the system or for memory, is said."""
    try:
        yield from loader
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise EncoderError(
            f"a process that reads patches has ended ({reason}); what was written is whole, go on "
            "with fewer --workers, or with --workers 0"
        ) from error


def _end_when_told(_):
    """Let SIGTERM end a worker, whatever its parent does on it; else torch waits for ever."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Units(torch.utils.data.Dataset):
    """Whole units as items, so that a worker reads neighbouring patches together."""

    def __init__(self, patches, units):
        self._patches = patches
        self._units = units

    def __len__(self):
        return len(self._units)

    def __getitem__(self, number):
        """Read one unit; an error travels as a value, for torch would wrap it in a traceback."""
        try:
            return timed_read(self._patches, self._units[number], torch.from_numpy)
        except FeatstoreError as error:
            return error
