"""Regions of images, with microns per pixel and where that number comes from.

TIFF and Aperio SVS are read tile by tile through tifffile; PNG and JPEG files whole, through
Pillow. What lies outside of an image is white, as glass is. An open image has no position in its
file, so threads and forked processes may read from one at the same time.
"""

import logging
import os
import re
import threading
import warnings
import weakref
from contextlib import contextmanager
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
# A 100x oil objective gives about 0.05, a 1x overview 10; 72 dpi, the default of many programs, is
# 352.8.
LOWEST_MPP, HIGHEST_MPP = 0.05, 10.0
SQUARE_PIXELS = 0.01  # largest relative difference of width and height that counts as none
NO_TAGS = "no resolution tags"
LARGEST_TILE_PX = 2**28  # 768 MiB decoded: more than any tile or strip of a real region
GREY = ("MINISBLACK", "MINISWHITE")
COLOUR = ("RGB", "YCBCR")
# Compressions whose decoder makes RGB of YCbCr: the JPEGs, and Aperio's 33005, which is RGB
# whatever the tag says (https://openslide.org/formats/aperio/).
DECODED_TO_RGB = (6, 7, 33005, 33007, 34892)
APERIO_YCBCR = 33003  # JPEG 2000 of YCbCr under a tag that says RGB; same source
PILLOW_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
        say), ``mpp_source``, ``mpp_found`` (what is there in place of an ``mpp``) and
        ``read(x, y, width_px, height_px)``.

    Raises
    ------
    ImageError
        If the file is missing, unreadable, cut short, too large to decode, or not 8-bit grey or
        colour.

    Notes
    -----
    Resolution tags outside 0.05 to 10 um per pixel, or with pixels that are not square within
    1 %, count as none: they are what a program wrote that did not know. Aperio's MPP goes before
    the tags where it is a number in that range. Of colours, grey and RGB are read (and YCbCr in
    JPEG); a TIFF whose white is 0 is inverted. A TIFF's alpha is left out; a PNG is put on white.

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
            with _quiet_tifffile(), tifffile.TiffFile(path) as file:
                self._take(file.pages[0], file.filehandle.size)
            self._descriptor = os.open(path, os.O_RDONLY)
        except ImageError:
            raise
        except Exception as error:  # tifffile lets through whatever a broken tag leads to
            raise ImageError(
                f"image {path} is not a readable TIFF: {_one_line(error)}; copy it again"
            ) from error
        weakref.finalize(self, os.close, self._descriptor)
        decode = weakref.WeakMethod(self._decode)  # no cycle: a dropped image closes at once
        self._segment = lru_cache(maxsize=TILES_KEPT)(lambda index: decode()(index))

    def _take(self, page, file_bytes):
        """Take from the page all that reading needs, so that tifffile's handle can be closed."""
        self._check_kind(page)
        self._check_colours(page)
        self.width_px, self.height_px = page.imagewidth, page.imagelength
        self.mpp, self.mpp_source, self.mpp_found = _mpp_of(page)
        self._tile_h, self._tile_w = self._tile_shape(page)
        self._offsets, self._byte_counts = page.dataoffsets, page.databytecounts
        self._check_extent(file_bytes)
        self._inverted = page.photometric.name == "MINISWHITE"
        self._jpeg_tables, self._decode_tile = page.jpegtables, page.decode

    def _check_kind(self, page):
        eight_bit = page.dtype == np.uint8 and page.bitspersample == 8
        if not eight_bit or page.samplesperpixel not in (1, 3, 4) or page.ndim > 3:
            raise ImageError(
                f"image {self.path} holds {page.dtype} of shape {page.shape} and "
                f"{page.bitspersample} bits; 8-bit grey, RGB or RGBA is needed"
            )
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            raise ImageError(
                f"image {self.path} keeps its colours in separate planes; save it with them "
                "interleaved (planar configuration 1)"
            )

    def _check_colours(self, page):
        stated = "PhotometricInterpretation" in page.tags
        name = getattr(page.photometric, "name", str(page.photometric)) if stated else "none"
        known = name in (GREY if page.samplesperpixel == 1 else COLOUR)
        undecoded = name == "YCBCR" and page.compression not in DECODED_TO_RGB
        if not known or undecoded or page.compression == APERIO_YCBCR:
            raise ImageError(
                f"image {self.path} has the colours {name} in {page.samplesperpixel} samples "
                f"(compression {int(page.compression)}); save it as RGB or 8-bit grey"
            )

    def _tile_shape(self, page):
        height, width = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, self.height_px), self.width_px)
        )
        if min(height, width, self.height_px, self.width_px) < 1:
            raise ImageError(
                f"image {self.path} says it is {self.width_px} x {self.height_px} px in tiles of "
                f"{width} x {height} px; it is damaged, copy it again"
            )
        if height * width > LARGEST_TILE_PX:
            raise ImageError(
                f"image {self.path} keeps tiles of {width} x {height} px, which are too large to "
                "decode; save it in smaller ones, such as 256 x 256 px"
            )
        return height, width

    def _check_extent(self, file_bytes):
        n_tiles = -(-self.height_px // self._tile_h) * -(-self.width_px // self._tile_w)
        n_found = min(len(self._offsets), len(self._byte_counts))
        if n_found < n_tiles:
            raise ImageError(
                f"image {self.path} lists {n_found} of the {n_tiles} tiles of its "
                f"{self.width_px} x {self.height_px} px; it is damaged, copy it again"
            )
        extents = zip(self._offsets, self._byte_counts, strict=False)
        end = max(offset + count for offset, count in extents)
        if end > file_bytes:
            raise ImageError(
                f"image {self.path} is cut short: it has {file_bytes} bytes and its tiles reach to "
                f"byte {end}; copy it again"
            )

    def _copy_inside(self, target, x, y):
        height, width = target.shape[:2]
        tile_h, tile_w = self._tile_h, self._tile_w
        per_row = -(-self.width_px // tile_w)
        for row in range(y // tile_h, (y + height - 1) // tile_h + 1):
            for column in range(x // tile_w, (x + width - 1) // tile_w + 1):
                tile = self._segment(row * per_row + column)
                _paste(target, tile, column * tile_w - x, row * tile_h - y)

    def _decode(self, index):
        offset, n_bytes = self._offsets[index], self._byte_counts[index]
        if n_bytes == 0:
            raise ImageError(f"image {self.path}: tile {index} is missing; copy the file again")
        try:
            # pread: a forked worker shares the descriptor, and with it any position in the file
            encoded = os.pread(self._descriptor, n_bytes, offset)
            pixels = self._decode_tile(encoded, index, jpegtables=self._jpeg_tables)[0]
        except Exception as error:  # codecs raise errors of their own
            raise ImageError(
                f"image {self.path}: tile {index} cannot be read: {_one_line(error)}; copy it again"
            ) from error
        return _as_rgb(255 - pixels[0] if self._inverted else pixels[0])


class RasterImage(_Image):
    """A PNG or JPEG, decoded whole; such files say nothing reliable of their resolution.

    Parameters
    ----------
    path : path-like
        File as :func:`open_image` takes it.
    """

    mpp = None
    mpp_source = "none"
    mpp_found = NO_TAGS

    def __init__(self, path):
        image_module = require("PIL.Image", extra="extract", purpose="reading PNG and JPEG")
        too_large = (image_module.DecompressionBombWarning, image_module.DecompressionBombError)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", image_module.DecompressionBombWarning)
                self._pixels = _pillow_rgb(image_module, path)
        except ImageError:
            raise
        except too_large as error:
            raise ImageError(
                f"image {path} is over {image_module.MAX_IMAGE_PIXELS} px, too large to be decoded "
                "whole; save it as a tiled TIFF"
            ) from error
        except Exception as error:  # decoders raise errors of their own
            raise ImageError(
                f"image {path} is not a readable PNG or JPEG: {_one_line(error)}; copy it again"
            ) from error
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


def _pillow_rgb(image_module, path):
    """Decode a PNG or JPEG into uint8 (height, width, 3), what is transparent onto white."""
    with image_module.open(path, formats=("PNG", "JPEG")) as image:
        if image.mode not in PILLOW_MODES or _is_deep_png(path):
            raise ImageError(
                f"image {path} holds {'16-bit' if _is_deep_png(path) else image.mode} pixels; "
                "8-bit grey, palette, RGB or RGBA is needed"
            )
        if not ("A" in image.mode or "transparency" in image.info):
            return np.asarray(image.convert("RGB"))
        white = image_module.new("RGBA", image.size, (OUTSIDE_VALUE,) * 4)
        over = image_module.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(over.convert("RGB"))


def _is_deep_png(path):
    """Whether a PNG has 16 bits per sample (byte 24, of IHDR), of which Pillow may drop 8."""
    with open(path, "rb") as file:
        start = file.read(25)
    return start.startswith(PNG_SIGNATURE) and start[24:] == b"\x10"


@contextmanager
def _quiet_tifffile():
    """Keep tifffile from logging, in this thread, what the error raised here says already."""
    here, logger = threading.get_ident(), logging.getLogger("tifffile")

    def is_from_elsewhere(record):
        return record.thread != here

    logger.addFilter(is_from_elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(is_from_elsewhere)


def _one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


def _mpp_of(page):
    """Um per pixel of a TIFF page, its source, and where there is none (None) what was found."""
    stated = _aperio_mpp(page.description or "")
    if stated is not None:
        return stated, "Aperio MPP", ""
    across, down = _um_per_px(page, "XResolution"), _um_per_px(page, "YResolution")
    across, down = across or down, down or across
    if across is None:
        return None, "none", NO_TAGS
    if abs(across - down) > SQUARE_PIXELS * min(across, down):
        found = f"resolution tags of {across:.4g} x {down:.4g} um/px, which differ"
        return None, "none", found
    if not LOWEST_MPP <= across <= HIGHEST_MPP:
        found = f"resolution tags of {across:.4g} um/px, outside {LOWEST_MPP:g} to {HIGHEST_MPP:g}"
        return None, "none", found
    return across, "TIFF resolution tags", ""


def _aperio_mpp(description):
    """Um per pixel in an Aperio description, None where it has none that can be.

    Examples
    --------
    >>> _aperio_mpp("Aperio |AppMag = 20|MPP = 0.4990"), _aperio_mpp("Aperio |MPP = 0,4990")
    (0.499, None)
    """
    stated = re.search(r"\|\s*MPP\s*=([^|]*)", description)
    number = re.fullmatch(r"[0-9]+(\.[0-9]+)?", stated[1].strip()) if stated else None
    mpp = float(number[0]) if number else 0.0
    return mpp if LOWEST_MPP <= mpp <= HIGHEST_MPP else None


def _um_per_px(page, tag):
    """Um per pixel along one axis, None where the tags do not say."""
    unit = page.tags.valueof("ResolutionUnit", default=1)
    resolution = page.tags.valueof(tag, default=(0, 1))
    try:
        numerator, denominator = resolution
        return (UM_PER_UNIT[int(unit)] * denominator / numerator) or None
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
