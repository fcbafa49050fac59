"""Slides of other vendors, read through OpenSlide where it is installed."""

from pathlib import Path

import numpy as np

from featstore.errors import ImageError, require
from featstore.images.image import OUTSIDE_VALUE, Image, Level, reason_of
from featstore.images.resolution import NO_TAGS, Resolution, stated

__all__ = ["SUFFIXES", "OpenSlideImage", "compare_readers"]

# https://openslide.org/formats: 3DHISTECH, Hamamatsu VMS, Leica, Sakura, Ventana, Zeiss, DICOM
SUFFIXES = (".mrxs", ".vms", ".vmu", ".scn", ".svslide", ".bif", ".czi", ".dcm")
COMPARED_PX = 512


class OpenSlideImage(Image):
    """A slide that OpenSlide reads.

    Parameters
    ----------
    path : path-like
        File as :func:`featstore.images.open_image` takes it.

    Notes
    -----
    OpenSlide addresses every level in pixels of the finest one: a window of another level may be
    off by a part of a pixel. What has no pixels on the slide is white.
    """

    reader = "OpenSlide"

    def __init__(self, path):
        openslide = require("openslide", extra="openslide", purpose=f"reading {path.suffix} slides")
        self.path = path
        try:
            self._slide = openslide.OpenSlide(path)
            self._take(self._slide)
        except ImageError:
            raise
        except Exception as error:  # OpenSlide's own, and those of what lies below it
            raise ImageError(
                f"image {path} is not a slide that OpenSlide reads: {reason_of(error)}; copy it "
                "again"
            ) from error

    def _take(self, slide):
        sizes = zip(slide.level_dimensions, slide.level_downsamples, strict=True)
        self.levels = tuple(Level(*size, float(downsample)) for size, downsample in sizes)
        resolution = _resolution(slide.properties)
        self._state(resolution)

    def _copy(self, parts, level):
        for target, x, y in parts:
            self._copy_one(target, x, y, level)

    def _copy_one(self, target, x, y, level):
        height, width = target.shape[:2]
        downsample = self.levels[level].downsample
        corner = round(x * downsample), round(y * downsample)
        try:
            region = np.asarray(self._slide.read_region(corner, level, (width, height)))
        except Exception as error:
            raise ImageError(
                f"image {self.path} cannot be read at ({corner[0]}, {corner[1]}): "
                f"{reason_of(error)}; copy it again"
            ) from error
        target[...] = region[..., :3]
        target[region[..., 3] == 0] = OUTSIDE_VALUE


def compare_readers(path, *, seed=0, n_regions=16):
    """Compare what OpenSlide reads of a slide with what this library reads.

    Parameters
    ----------
    path : path-like
        A slide that both can read.
    seed : int
        Decides which regions.
    n_regions : int
        How many, of 512 px at the finest level.

    Returns
    -------
    int
        Largest difference of two values; 0 where both are the same to the last bit.

    Raises
    ------
    ImageError
        If one of them cannot read it.
    """
    from featstore.images.opening import open_image

    path = Path(path)
    ours, theirs = open_image(path), OpenSlideImage(path)
    if (ours.width_px, ours.height_px) != (theirs.width_px, theirs.height_px):
        raise ImageError(
            f"image {path} is {ours.width_px} x {ours.height_px} px, and through OpenSlide "
            f"{theirs.width_px} x {theirs.height_px} px"
        )
    rng = np.random.default_rng(seed)
    width, height = min(COMPARED_PX, ours.width_px), min(COMPARED_PX, ours.height_px)
    corners = rng.integers(
        (0, 0), (ours.width_px - width + 1, ours.height_px - height + 1), (n_regions, 2)
    )
    return max(
        _largest_difference(*(image.read(x, y, width, height) for image in (ours, theirs)))
        for x, y in corners.tolist()
    )


def _largest_difference(here, there):
    return int(np.abs(here.astype(int) - there).max())


def _resolution(properties):
    try:
        across = float(properties["openslide.mpp-x"])
        down = float(properties.get("openslide.mpp-y", across))
        objective = float(properties.get("openslide.objective-power", 0))
    except (KeyError, ValueError):
        return Resolution(None, found=NO_TAGS)
    return stated(across, down, "OpenSlide mpp-x", objective)
