"""Pixels and class codes of the parts of a split, held in memory or read as they are needed.

Shape suffixes: N patches of a part, B patches of a batch, H height, W width, C channels (3).
"""

import logging
import math

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from probes.endtoend.augment import centre_crop, change, draw, move, source_px, unchanged
from probes.endtoend.devices import one_line
from probes.endtoend.sampling import Steps
from probes.errors import ProbesError
from probes.protocols import positions

__all__ = ["HeldPixels", "SourcePixels", "TrainPart", "ValPart", "checked_pixels", "pixels_of"]

logger = logging.getLogger(__name__)

READ_BLOCK = 256  # patches asked of a source at once
GIB = 2**30


def checked_pixels(pixels) -> np.ndarray:
    """Return the pixels as they are, or refuse what is not uint8 (n, px, px, 3).

    Raises
    ------
    ProbesError
        Naming type and shape.
    """
    pixels = np.asarray(pixels)
    square = pixels.ndim == 4 and pixels.shape[1] == pixels.shape[2] and pixels.shape[3] == 3
    if pixels.dtype != np.uint8 or not square:
        raise ProbesError(
            f"patches are {pixels.dtype} {pixels.shape}; give square RGB patches, "
            "uint8 (n, px, px, 3)"
        )
    return pixels


def pixels_of(patches, parts, *, memory_gib):
    """Hold the pixels of the parts of a split in memory, where they fit.

    Parameters
    ----------
    patches
        Source of pixels.
    parts
        Pairs of IDs and of the side to keep of their patches, in pixels.
    memory_gib
        What all of them together may take.

    Returns
    -------
    list
        ``HeldPixels`` or ``SourcePixels``, one per part.
    """
    needed_gib = sum(3 * len(ids) * px**2 for ids, px in parts) / GIB
    held = needed_gib <= memory_gib
    logger.info(
        "%d patches take %.2f GiB and are %s",
        sum(len(ids) for ids, _ in parts),
        needed_gib,
        "held in memory" if held else f"read as needed (more than memory_gib={memory_gib:g})",
    )
    kind = HeldPixels if held else SourcePixels
    return [kind(patches, ids, px) for ids, px in parts]


class SourcePixels:
    """Patches that are read when they are asked for.

    Parameters
    ----------
    patches
        Source of pixels.
    ids : ndarray of shape (N,)
        Annotations of the part.
    px : int
        What is kept of a patch, in pixels.
    """

    def __init__(self, patches, ids, px):
        self._patches, self._ids, self._px = patches, ids, px

    def __len__(self):
        return len(self._ids)

    def read(self, positions_B):
        """Return the pixels (n, px, px, 3) of some positions of the part."""
        read_BHWC = checked_pixels(self._patches.read(self._ids[positions_B]))
        return torch.tensor(np.ascontiguousarray(centre_crop(read_BHWC, self._px)))


class HeldPixels:
    """Patches of a part, read once in the order of the source.

    Parameters are those of :class:`SourcePixels`.
    """

    def __init__(self, patches, ids, px):
        self._pixels_NHWC = torch.empty((len(ids), px, px, 3), dtype=torch.uint8)
        into = self._pixels_NHWC.numpy()
        # A source reads neighbours together: a tile, or a chunk, is then decoded once.
        order = np.argsort(positions(np.asarray(patches.ids), ids), kind="stable")
        for places in np.array_split(order, max(1, math.ceil(len(ids) / READ_BLOCK))):
            if len(places):
                into[places] = centre_crop(checked_pixels(patches.read(ids[places])), px)

    def __len__(self):
        return len(self._pixels_NHWC)

    def read(self, positions_B):
        """Return the pixels (n, px, px, 3) of some positions of the part."""
        return self._pixels_NHWC[torch.as_tensor(positions_B)]


class TrainPart(Dataset):
    """The training part; an index is a whole :class:`probes.endtoend.sampling.Batch`.

    What a worker draws therefore depends on nothing that it knows by itself.

    Parameters
    ----------
    pixels
        ``HeldPixels`` or ``SourcePixels``.
    codes_N
        Class codes.
    recipe
        Says what is changed.
    augment_here
        Whether patches are changed when they are read, or left to the device.
    """

    def __init__(self, pixels, codes_N, recipe, *, augment_here):
        self._pixels = pixels
        self._codes_N = codes_N
        self._recipe = recipe
        self._augment_here = augment_here

    def __getitem__(self, batch):
        """Return pixels, what is left to do, codes, size of the batch; or why it is unread."""
        try:
            pixels_BHWC = self._pixels.read(batch.positions)
        except Exception as error:  # of any source, in a worker: said in one line by the trainer
            return ProbesError(f"patches cannot be read: {one_line(error)}")
        codes_B = self._codes_N[torch.as_tensor(batch.positions)]
        drawn_BD = self._drawn(batch, pixels_BHWC.shape[1])
        if self._augment_here:
            return (
                change(pixels_BHWC, drawn_BD, self._recipe.patch_px),
                None,
                codes_B,
                batch.n_whole,
            )
        return pixels_BHWC, torch.from_numpy(drawn_BD), codes_B, batch.n_whole

    def _drawn(self, batch, px):
        recipe = self._recipe
        drawn_BD = unchanged(len(batch.numbers))
        if recipe.augmentation != "none":
            any_angle = px >= source_px(recipe.patch_px)
            drawn_BD = draw(batch.numbers, any_angle=any_angle, seed=recipe.seed, epoch=batch.epoch)
        if recipe.jitter_px:
            move(drawn_BD, recipe.jitter_px, batch.numbers, seed=recipe.seed, epoch=batch.epoch)
        return drawn_BD

    def loader(self, plan, *, first, rank, n_processes, workers, pinned):
        """Load the batches of a plan from a step on."""
        return DataLoader(
            self,
            sampler=Steps(plan, first=first, rank=rank, n_processes=n_processes),
            batch_size=None,  # the sampler gives whole batches
            num_workers=workers,
            pin_memory=pinned,
            generator=torch.Generator().manual_seed(0),  # seeds workers, which draw nothing of it
        )


class ValPart(Dataset):
    """The validation part; an index is an array of positions."""

    def __init__(self, pixels, codes_N):
        self._pixels = pixels
        self._codes_N = codes_N

    def __len__(self):
        return len(self._codes_N)

    def __getitem__(self, positions_B):
        """Return pixels and codes; or why they cannot be read."""
        try:
            return self._pixels.read(positions_B), self._codes_N[torch.as_tensor(positions_B)]
        except Exception as error:  # as in a training part
            return ProbesError(f"patches cannot be read: {one_line(error)}")

    def loader(self, *, batch_size, rank, n_processes, workers):
        """Load one process's share, in its own order."""
        mine_N = np.arange(len(self))[rank::n_processes]
        n_batches = math.ceil(len(mine_N) / batch_size)
        workers = workers if isinstance(self._pixels, SourcePixels) else 0
        return DataLoader(
            self,
            sampler=np.array_split(mine_N, n_batches) if n_batches else [],
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
