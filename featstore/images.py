"""Regions of images, with microns per pixel and where that number comes from.

TIFF and Aperio SVS are read tile by tile through tifffile; PNG and JPEG files whole, through
Pillow. What lies outside of an image is white, as glass is.
"""

import re
import weakref
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from featstore.errors import ImageError, require

__all__ = ["OUTSIDE_VALUE", "ImageFolder", "RasterImage", "TiffImage", "open_image"]

OUTSIDE_VALUE = 255
TIFF_SUFFIXES = (".tif", ".tiff", ".svs")
TILES_KEPT = 64  # 256 px tiles: 12 MiB, a row of patches across one region
UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}  # TIFF 6.0, ResolutionUnit: inch, centimetre


@dataclass(frozen=True)
class ImageFolder:
    """Where the images of a dataset are, and what an annotation's image is.

    Parameters
    ----------
    root : str
        Folder that the table's ``image`` column is relative to.
    whole : bool
        True where each image is one cropped patch, False where patches are cut around centres.
    """

    root: str
    whole: bool = False

    def path(self, image):
        """Path of one image, which must lie within the folder.

        Examples
        --------
        >>> ImageFolder("midog").path("001.tiff").as_posix()
        'midog/001.tiff'
        """
        if Path(image).is_absolute() or ".." in Path(image).parts:
            raise ImageError(f"image {str(image)!r} is not a path within {self.root}")
        return Path(self.root) / str(image)


def open_image(path):
    """Open an image for reading regions.

    Parameters
    ----------
    path : path-like
        TIFF, SVS, PNG or JPEG.

    Returns
    -------
    TiffImage or RasterImage
        Both have ``width_px``, ``height_px``, ``mpp`` (um per pixel, None where the file does not
        say), ``mpp_source`` and ``read(x, y, width_px, height_px)``.

    Raises
    ------
    ImageError
        If the file is missing, unreadable, or not 8-bit grey or colour.

    Examples
    --------
    >>> import tempfile, pathlib, tifffile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "grey.tiff"
    >>> tifffile.imwrite(file, np.zeros((40, 60, 3), np.uint8), tile=(16, 16), photometric="rgb",
    ...                  resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    >>> image = open_image(file)
    >>> image.width_px, image.height_px, image.mpp, image.mpp_source
    (60, 40, 0.25, 'TIFF resolution tags')
    >>> image.read(-1, 0, 2, 1)[0, :, 0]
    array([255,   0], dtype=uint8)
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"image {path} is missing; check the folder given with --images")
    return TiffImage(path) if path.suffix.lower() in TIFF_SUFFIXES else RasterImage(path)


class _Image:
    """What all images share: cutting a region that may reach outside."""

    def read(self, x, y, width_px, height_px):
        """Cut a region; what lies outside the image is white.

        Parameters
        ----------
        x, y : int
            Upper left corner in pixels; may be negative.
        width_px, height_px : int
            Size of the region in pixels.

        Returns
        -------
        ndarray of uint8, shape (height_px, width_px, 3)
        """
        region = np.full((height_px, width_px, 3), OUTSIDE_VALUE, np.uint8)
        left, right = max(x, 0), min(x + width_px, self.width_px)
        top, bottom = max(y, 0), min(y + height_px, self.height_px)
        if left < right and top < bottom:
            inside = region[top - y : bottom - y, left - x : right - x]
            self._copy_inside(inside, left, top)
        return region


class TiffImage(_Image):
    """The first page of a TIFF, decoded tile by tile (or strip by strip).

    Parameters
    ----------
    path : path-like
        File as :func:`open_image` takes it.
    """

    def __init__(self, path):
        tifffile = require("tifffile", extra="extract", purpose="reading TIFF")
        self.path = path
        try:
            self._file = tifffile.TiffFile(path)
            weakref.finalize(self, self._file.close)
            self._page = self._file.pages[0]
        except (tifffile.TiffFileError, OSError, ValueError, IndexError) as error:
            raise ImageError(f"image {path} is not a readable TIFF: {error}") from error
        self._check_kind()
        self.width_px, self.height_px = self._page.imagewidth, self._page.imagelength
        self.mpp, self.mpp_source = _mpp_of(self._page)
        decode = weakref.WeakMethod(self._decode)  # no cycle: a dropped image closes at once
        self._segment = lru_cache(maxsize=TILES_KEPT)(lambda index: decode()(index))

    def _check_kind(self):
        page = self._page
        if page.dtype != np.uint8 or page.samplesperpixel not in (1, 3, 4) or page.ndim > 3:
            raise ImageError(
                f"image {self.path} holds {page.dtype} of shape {page.shape}; 8-bit grey, RGB or "
                "RGBA is needed"
            )
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            raise ImageError(
                f"image {self.path} keeps its colours in separate planes; save it with them "
                "interleaved (planar configuration 1)"
            )

    def _copy_inside(self, target, x, y):
        height, width = target.shape[:2]
        tile_h, tile_w = self._segment_shape()
        per_row = -(-self.width_px // tile_w)
        for row in range(y // tile_h, (y + height - 1) // tile_h + 1):
            for column in range(x // tile_w, (x + width - 1) // tile_w + 1):
                tile = self._segment(row * per_row + column)
                _paste(target, tile, column * tile_w - x, row * tile_h - y)

    def _segment_shape(self):
        page = self._page
        if page.is_tiled:
            return page.tilelength, page.tilewidth
        return min(page.rowsperstrip, self.height_px), self.width_px

    def _decode(self, index):
        page = self._page
        try:
            handle = self._file.filehandle
            handle.seek(page.dataoffsets[index])
            encoded = handle.read(page.databytecounts[index])
            pixels = page.decode(encoded, index, jpegtables=page.jpegtables)[0]
        except Exception as error:  # codecs raise errors of their own
            raise ImageError(f"image {self.path}: tile {index} cannot be read: {error}") from error
        if pixels is None:
            raise ImageError(f"image {self.path}: tile {index} is missing")
        return _as_rgb(pixels[0])


class RasterImage(_Image):
    """A PNG or JPEG, decoded whole; such files say nothing reliable of their resolution.

    Parameters
    ----------
    path : path-like
        File as :func:`open_image` takes it.
    """

    mpp = None
    mpp_source = "none"

    def __init__(self, path):
        image_module = require("PIL.Image", extra="extract", purpose="reading PNG and JPEG")
        try:
            with image_module.open(path, formats=("PNG", "JPEG")) as image:
                self._pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageError(f"image {path} is not a readable PNG or JPEG: {error}") from error
        self.height_px, self.width_px = self._pixels.shape[:2]

    def _copy_inside(self, target, x, y):
        height, width = target.shape[:2]
        target[:] = self._pixels[y : y + height, x : x + width]


def _paste(target, tile, left, top):
    """Copy the part of ``tile`` that falls on ``target``, its corner at (left, top)."""
    height, width = target.shape[:2]
    rows = slice(max(top, 0), min(top + tile.shape[0], height))
    columns = slice(max(left, 0), min(left + tile.shape[1], width))
    target[rows, columns] = tile[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]


def _as_rgb(pixels):
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]


def _mpp_of(page):
    """Um per pixel of a TIFF page and its source; (None, 'none') where the file does not say."""
    stated = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", page.description or "")
    if stated and float(stated[1]) > 0:
        return float(stated[1]), "Aperio MPP"
    unit = page.tags.valueof("ResolutionUnit", default=1)
    numerator, denominator = page.tags.valueof("XResolution", default=(0, 1))
    if int(unit) not in UM_PER_UNIT or not numerator or not denominator:
        return None, "none"
    return UM_PER_UNIT[int(unit)] * denominator / numerator, "TIFF resolution tags"
