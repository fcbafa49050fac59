"""Random changes to a training patch, and the centre crop that every patch goes through.

What is drawn depends on a seed, the epoch and the sample, never on the batch, the worker or the
order, and the caller's random state is left as found. No change brings in black corners: patches
are turned while they are larger than the network's input, or by quarter turns.

Shape suffixes: C channels (3), H height, W width.
"""

import contextlib
import functools
import math

import numpy as np
import torch
from torchvision.transforms import InterpolationMode, v2

from probes.errors import ProbesError

__all__ = ["augment", "centre_crop", "source_px"]

# Ganz et al. name the kinds; these strengths and chances are those of their later code.
JITTER = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1}
JITTER_CHANCE = 0.5
BLUR_KERNEL_PX = 5
BLUR_SIGMA_PX = (0.1, 1.0)
BLUR_CHANCE = 0.1
FLIP_CHANCE = 0.5
ROTATION_DEGREES = 180
ROTATION_CHANCE = 0.5


def source_px(patch_px: int) -> int:
    """Tell how large to cut patches that are turned by any angle, then cropped.

    Parameters
    ----------
    patch_px
        Side of the network's input in pixels.

    Returns
    -------
    int
        Side of the patch to cut, in pixels: the diagonal of the input, rounded up to an even
        number where the input is even, so that its centre is what is cut at the input's own size.

    Examples
    --------
    >>> source_px(224), source_px(33)
    (318, 47)
    """
    diagonal_px = math.ceil(patch_px * math.sqrt(2))
    return diagonal_px + (diagonal_px - patch_px) % 2


def centre_crop(pixels, patch_px: int):
    """Cut out the centre, keeping pixel ``px // 2`` of the source at ``patch_px // 2``.

    A patch that was cut ``px // 2`` pixels left of its annotation and then cropped is therefore
    the same as one cut at ``patch_px`` directly, for even and odd sizes.

    Parameters
    ----------
    pixels
        Array or tensor, square in its axes 1 and 2: (n, px, px, 3) or (3, px, px).
    patch_px
        Side to keep, in pixels; at most px.

    Raises
    ------
    ProbesError
        If the source is smaller than the crop.

    Examples
    --------
    >>> centre_crop(np.zeros((2, 9, 9, 3), np.uint8), 4).shape
    (2, 4, 4, 3)
    """
    px = pixels.shape[1]
    if px < patch_px:
        raise ProbesError(
            f"patch_px={patch_px} is asked and the patches are {px} px wide; "
            f"cut larger patches or give patch_px={px}"
        )
    start = px // 2 - patch_px // 2
    return pixels[:, start : start + patch_px, start : start + patch_px]


def augment(pixels_CHW: torch.Tensor, patch_px: int, *, seed: int, epoch: int, sample: int):
    """Change one training patch at random: turn, crop, flip, colour jitter, blur.

    Parameters
    ----------
    pixels_CHW
        uint8 (3, px, px). From ``source_px(patch_px)`` on, turns are by any angle; smaller
        sources have no margin for that and take quarter turns.
    patch_px
        Side of the result in pixels.
    seed, epoch, sample
        Non-negative; together they decide what is drawn.

    Returns
    -------
    torch.Tensor
        uint8 (3, patch_px, patch_px).

    Notes
    -----
    The transforms of torchvision draw from torch's CPU generator; its state is put back. Only that
    generator is seeded: ``torch.manual_seed`` would also reset the dropout of a GPU.

    Examples
    --------
    >>> white = torch.full((3, 100, 100), 255, dtype=torch.uint8)
    >>> augment(white, 64, seed=0, epoch=3, sample=7).shape
    torch.Size([3, 64, 64])
    """
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.default_generator.manual_seed(_sample_seed(seed, epoch, sample))
        turned_CHW = _rotation(pixels_CHW.shape[1] >= source_px(patch_px))(pixels_CHW)
        return _flips_and_colour()(centre_crop(turned_CHW, patch_px))


def _sample_seed(seed, epoch, sample):
    """Mix three numbers into one, so that neighbours share nothing."""
    return int(np.random.SeedSequence((seed, epoch, sample)).generate_state(1, np.uint64)[0])


@contextlib.contextmanager
def _one_thread():
    """Compute on one thread, as the workers of a data loader do.

    More threads sum a mean in another order; the last bit of a float can flip a rounding to uint8,
    and 0 and 2 workers would no longer train the same network.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _rotation(any_angle):
    """Build the random turn: by any angle where the patch has the margin, else quarter turns."""
    if not any_angle:
        quarters = [v2.RandomRotation((degrees, degrees)) for degrees in (0, 90, 180, 270)]
        return v2.RandomApply([v2.RandomChoice(quarters)], p=ROTATION_CHANCE)
    turn = v2.RandomRotation(ROTATION_DEGREES, interpolation=InterpolationMode.BILINEAR)
    # One repeated pixel all round: a crop from an odd margin is half a pixel off the turn's centre.
    return v2.RandomApply([v2.Pad(1, padding_mode="edge"), turn], p=ROTATION_CHANCE)


@functools.cache
def _flips_and_colour():
    """Build what follows the crop."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(FLIP_CHANCE),
            v2.RandomVerticalFlip(FLIP_CHANCE),
            v2.RandomApply([v2.ColorJitter(**JITTER)], p=JITTER_CHANCE),
            v2.RandomApply([v2.GaussianBlur(BLUR_KERNEL_PX, BLUR_SIGMA_PX)], p=BLUR_CHANCE),
        ]
    )
