"""Golden patches: the same painted cells on every machine, to compare an encoder with itself."""

import numpy as np

from featstore.datasets.demo import ImageLayout
from featstore.datasets.tissue import DOMAINS, paint

__all__ = ["golden_patches"]

SEED = 20_550  # any, but never changed: figures in docs and notes are of these patches
CELLS_APART_PX = 56


def golden_patches(patch_px, n=8):
    """Paint patches of tissue around mitotic figures and look-alikes, in turn, in five stains.

    Parameters
    ----------
    patch_px : int
        Width and height in pixels.
    n : int
        How many.

    Returns
    -------
    ndarray of uint8, shape (n, patch_px, patch_px, 3)
        RGB; the first patches are the same for any ``n``.

    Examples
    --------
    >>> golden_patches(64, 2).shape
    (2, 64, 64, 3)
    """
    return np.stack([_patch(number, patch_px) for number in range(n)])


def _patch(number, patch_px):
    rng = np.random.default_rng((SEED, number))
    places = np.arange(CELLS_APART_PX // 2, patch_px, CELLS_APART_PX)
    grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    others = grid + rng.uniform(-12, 12, grid.shape)
    middle = np.full(2, patch_px / 2)
    others = others[np.linalg.norm(others - middle, axis=1) > CELLS_APART_PX / 2]
    layout = ImageLayout(
        number=number + 1,
        domain=DOMAINS[number % len(DOMAINS)],
        image_px=(patch_px, patch_px),
        centres=middle[None],
        mitotic=np.array([number % 2 == 0]),
        others=np.clip(others, 0, patch_px - 1),
    )
    return paint(layout, rng)
