"""What all images share: levels, and windows that may reach outside of the image."""

from dataclasses import dataclass

import numpy as np

__all__ = ["OUTSIDE_VALUE", "Image", "Level", "downsample_of", "reason_of"]

OUTSIDE_VALUE = 255


@dataclass(frozen=True)
class Level:
    """One resolution of an image.

    Parameters
    ----------
    width_px, height_px : int
        Its size.
    downsample : float
        Pixels of the finest level per pixel of this one, along one axis.
    """

    width_px: int
    height_px: int
    downsample: float


def reason_of(error):
    """Say in one line what a library raised.

    Examples
    --------
    >>> reason_of(ValueError("broken\\n  header")), reason_of(KeyError())
    ('broken header', 'KeyError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def downsample_of(finest, size):
    """Pixels of the finest level per pixel of a level, a whole number where that explains both.

    Parameters
    ----------
    finest, size : (int, int)
        Width and height of the finest level and of the level.

    Returns
    -------
    float or None
        None where the two sizes are not of the same picture.

    Notes
    -----
    Scanners drop the pixels that do not fill a whole block: 100,003 px become 25,000 at a quarter,
    and the ratio of the two widths would put centres at the far end three pixels off.

    Examples
    --------
    >>> downsample_of((100_003, 60_001), (25_000, 15_000)), downsample_of((2220, 2967), (387, 463))
    (4.0, None)
    """
    across, down = (whole / part for whole, part in zip(finest, size, strict=True))
    for factor in (float(round(across)), (across + down) / 2):
        if factor >= 1 and all(
            abs(part - whole / factor) < 1 for whole, part in zip(finest, size, strict=True)
        ):
            return factor
    return None


class Image:
    """An image that is open for reading.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    reader : str
        Library that reads it.
    levels : tuple of Level
        The finest first.
    mpp : float or None
        Um per pixel of the finest level; None where the file does not say.
    mpp_source : str
        Where that number stands.
    mpp_found : str
        What is there in place of an ``mpp``.
    """

    reader = ""

    def _state(self, resolution):
        self.mpp, self.mpp_source = resolution.mpp, resolution.source
        self.mpp_found = resolution.found

    @property
    def width_px(self):
        """Width of the finest level."""
        return self.levels[0].width_px

    @property
    def height_px(self):
        """Height of the finest level."""
        return self.levels[0].height_px

    def read(self, x, y, width_px, height_px, *, level=0):
        """Cut a region; what lies outside the image is white.

        Parameters
        ----------
        x, y : int
            Upper left corner in pixels of the level; may be negative.
        width_px, height_px : int
            Size of the region in pixels of the level.
        level : int
            Which of ``levels``.

        Returns
        -------
        ndarray of uint8, shape (height_px, width_px, 3)
        """
        region = np.empty((1, height_px, width_px, 3), np.uint8)
        self.read_windows([x], [y], region, level=level)
        return region[0]

    def read_windows(self, lefts, tops, into, *, level=0):
        """Cut regions of one level; what they share is decoded once.

        Parameters
        ----------
        lefts, tops : sequence of int, length n
            Upper left corners in pixels of the level; may be negative.
        into : sequence of ndarray of uint8, shape (height_px, width_px, 3), length n
            Where the regions go.
        level : int
            Which of ``levels``.
        """
        corners = zip(*(np.asarray(axis, np.int64).tolist() for axis in (lefts, tops)), strict=True)
        parts = [
            self._inside(region, x, y, self.levels[level])
            for region, (x, y) in zip(into, corners, strict=True)
        ]
        self._copy([part for part in parts if part is not None], level)

    @staticmethod
    def _inside(region, x, y, level):
        """Fill what lies outside; return the rest, with its corner, or None where there is none."""
        height, width = region.shape[:2]
        left, right = max(x, 0), min(x + width, level.width_px)
        top, bottom = max(y, 0), min(y + height, level.height_px)
        if right - left == width and bottom - top == height:
            return region, x, y
        region[...] = OUTSIDE_VALUE
        if left >= right or top >= bottom:
            return None
        return region[top - y : bottom - y, left - x : right - x], left, top

    def _copy(self, parts, level):
        """Copy regions that lie inside of a level, each given as (target, x, y)."""
        raise NotImplementedError
