"""TIFF in its kinds (BigTIFF, OME-TIFF, Aperio SVS, Hamamatsu NDPI), decoded tile by tile.

tifffile reads the tags and imagecodecs decodes; what is read of the file is this module's, so that
nothing but the tiles of a patch is touched. Tiles that are not compressed are mapped into memory.
"""

import itertools
import logging
import mmap
import os
import threading
import weakref
from collections import defaultdict
from contextlib import contextmanager

import numpy as np

from featstore.errors import ImageError, require
from featstore.images.image import Image, Level, downsample_of, reason_of
from featstore.images.resolution import of_tiff

__all__ = ["TiffImage"]

LARGEST_TILE_PX = 2**28  # 768 MiB decoded: more than any tile or strip of a real region
MOST_PAGES = 64  # a slide has about ten; a file of thousands is a stack, of which the first is read
GREY = ("MINISBLACK", "MINISWHITE")
COLOUR = ("RGB", "YCBCR")
# Compressions whose decoder makes RGB of YCbCr: the JPEGs, and Aperio's 33005, which is RGB
# whatever the tag says (https://openslide.org/formats/aperio/).
DECODED_TO_RGB = (6, 7, 33005, 33007, 34892)
APERIO_YCBCR = 33003  # JPEG 2000 of YCbCr under a tag that says RGB; same source
UNCOMPRESSED = 1
SMALLEST_DOWNSAMPLE = 1.5  # pages nearer in size are other planes of the same level
NDPI_OBJECTIVE = 65421  # negative for the pictures of label and whole glass


class TiffImage(Image):
    """A TIFF slide or region, with the levels of its pyramid.

    Parameters
    ----------
    path : path-like
        File as :func:`featstore.images.open_image` takes it.

    Attributes
    ----------
    n_decoded : int
        Tiles that were decoded so far.
    """

    reader = "tifffile"

    def __init__(self, path):
        tifffile = require("tifffile", extra="extract", purpose="reading TIFF")
        self.path = path
        self.n_decoded = 0
        try:
            # one file alone: OME-XML may name others, anywhere on this machine
            with _quiet_tifffile(), tifffile.TiffFile(path, _multifile=False) as file:
                self._take(file)
            self._file = _OpenFile(path)
        except ImageError:
            raise
        except Exception as error:  # tifffile lets through whatever a broken tag leads to
            raise ImageError(
                f"image {path} is not a readable TIFF: {reason_of(error)}; copy it again"
            ) from error

    def _take(self, file):
        """Take from the file all that reading needs, so that tifffile's handle can be closed."""
        finest = file.pages[0]
        _check_kind(self.path, file, finest)
        _check_first_is_finest(self.path, file, finest)
        resolution = of_tiff(finest)
        self._state(resolution)
        file_bytes = file.filehandle.size
        found = [(_TiffPage(self.path, finest, file_bytes), 1.0), *_coarser(self, file, finest)]
        self._pages = [page for page, _ in found]
        self.levels = tuple(Level(page.width_px, page.height_px, down) for page, down in found)

    def _copy(self, parts, level):
        page = self._pages[level]
        if page.is_mapped:
            _copy_mapped(page.mapped(self._file), parts, page.tiles_per_row)
            return
        for (row, column), pieces in sorted(_by_tile(page, parts).items()):
            self._copy_from(page, row * page.tiles_per_row + column, pieces)

    def _copy_from(self, page, index, pieces):
        """Copy from one tile, and let go of it: the next is decoded into the same memory.

        Measured: where the tile before is still held, decoding takes a seventh longer.
        """
        self.n_decoded += 1
        tile = page.decoded(self._file, index)
        for target, place, source in pieces:
            target[place] = tile[source]


class _OpenFile:
    """An open file without a position: forked workers share a descriptor, and its position."""

    def __init__(self, path):
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._mapped = None

    def read(self, offset, n_bytes):
        return os.pread(self._descriptor, n_bytes, offset)

    def mapped(self):
        """Return the whole file as bytes in memory that are read when they are touched.

        Raises
        ------
        ImageError
            If the file has been cut since: to touch what is gone would end the process.
        """
        if self._mapped is None:
            self._mapped = mmap.mmap(self._descriptor, 0, prot=mmap.PROT_READ)
        if os.fstat(self._descriptor).st_size < len(self._mapped):
            raise ImageError(f"image {self._path} was changed while it was read; copy it again")
        return self._mapped


class _TiffPage:
    """One page, decoded tile by tile (or strip by strip).

    Parameters
    ----------
    path : path-like
        The file, as errors name it.
    page : tifffile.TiffPage
        Its tags and its decoder.
    file_bytes : int
        Size of the file.
    """

    def __init__(self, path, page, file_bytes):
        self.path = path
        self.width_px, self.height_px = page.imagewidth, page.imagelength
        _check_colours(path, page)
        self._offsets, self._byte_counts = page.dataoffsets, page.databytecounts
        self.tile_h, self.tile_w = self._tile_shape(page)
        self._inverted = page.photometric.name == "MINISWHITE"
        self._n_samples = page.samplesperpixel
        self.is_mapped = self._can_be_mapped(page)
        self._check_tile_size()
        self._check_extent(file_bytes)
        self.tiles_per_row = -(-self.width_px // self.tile_w)
        self._decode = page.decode
        self._jpeg = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}

    def _tile_shape(self, page):
        is_tiled = page.is_tiled or page.jpegheader is not None  # NDPI: between restart markers
        height, width = (
            (page.tilelength, page.tilewidth)
            if is_tiled
            else (min(page.rowsperstrip, self.height_px), self.width_px)
        )
        if min(height, width, self.height_px, self.width_px) < 1:
            raise ImageError(
                f"image {self.path} says it is {self.width_px} x {self.height_px} px in tiles of "
                f"{width} x {height} px; it is damaged, copy it again"
            )
        return height, width

    def _can_be_mapped(self, page):
        """Whether tiles lie in the file as they are, in order; strips in order are one tile."""
        plain = page.compression == UNCOMPRESSED and page.predictor == 1 and page.fillorder == 1
        if not plain or self._n_samples not in (3, 4):
            return False
        if page.is_tiled:
            full = self.tile_h * self.tile_w * self._n_samples
            follow = all(b - a == full for a, b in itertools.pairwise(self._offsets))
            return follow and all(count == full for count in self._byte_counts)
        return self._join_strips()

    def _join_strips(self):
        ends = [
            start + count for start, count in zip(self._offsets, self._byte_counts, strict=False)
        ]
        n_bytes = self.width_px * self.height_px * self._n_samples
        if ends[:-1] != list(self._offsets[1:]) or sum(self._byte_counts) != n_bytes:
            return False
        self._offsets, self._byte_counts = self._offsets[:1], (n_bytes,)
        self.tile_h = self.height_px
        return True

    def _check_tile_size(self):
        if not self.is_mapped and self.tile_h * self.tile_w > LARGEST_TILE_PX:
            raise ImageError(
                f"image {self.path} keeps tiles of {self.tile_w} x {self.tile_h} px, which are too "
                "large to decode; save it in smaller ones, such as 256 x 256 px"
            )

    def _check_extent(self, file_bytes):
        n_tiles = -(-self.height_px // self.tile_h) * -(-self.width_px // self.tile_w)
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

    def mapped(self, file):
        """View of all tiles, which lie in the file as they are; shape (n, tile_h, tile_w, 3)."""
        shape = (len(self._offsets), self.tile_h, self.tile_w, self._n_samples)
        return np.ndarray(shape, np.uint8, file.mapped(), self._offsets[0])[..., :3]

    def decoded(self, file, index):
        """Decode a tile, shape (tile_h, tile_w, 3), less at the lower and right edge."""
        offset, n_bytes = self._offsets[index], self._byte_counts[index]
        if n_bytes == 0:
            raise ImageError(f"image {self.path}: tile {index} is missing; copy the file again")
        try:
            pixels = self._decode(file.read(offset, n_bytes), index, **self._jpeg)[0][0]
        except Exception as error:  # codecs raise errors of their own
            raise ImageError(
                f"image {self.path}: tile {index} cannot be read: {reason_of(error)}; copy it again"
            ) from error
        return _as_rgb(255 - pixels if self._inverted else pixels)


def _coarser(image, file, finest):
    """Yield the other levels of the pyramid, the finer first, each with its downsample."""
    base = finest.imagewidth, finest.imagelength
    found = {}
    for page in _candidates(file, finest):
        downsample = downsample_of(base, (page.imagewidth, page.imagelength))
        if downsample is not None and downsample >= SMALLEST_DOWNSAMPLE:
            found.setdefault(downsample, page)
    for downsample in sorted(found):
        yield _TiffPage(image.path, found[downsample], file.filehandle.size), downsample


def _candidates(file, finest):
    """Pages that may show the same picture smaller: kept in the same way, never a thumbnail.

    OME-TIFF keeps levels as pages below the first; other writers as pages that say of themselves
    to be reduced. Aperio and Hamamatsu do not say it, and keep no tiles but of the slide.
    """
    further = [page for page in itertools.islice(file.pages, 1, MOST_PAGES) if _is_page(page)]
    below = [page for page in itertools.islice(finest.pages or (), MOST_PAGES) if _is_page(page)]
    is_slide = finest.is_svs or finest.is_ndpi
    chosen = [] if finest.is_ome else [page for page in further if is_slide or page.is_reduced]
    return [page for page in [*chosen, *below] if _is_alike(finest, page)]


def _is_page(page):
    return hasattr(page, "tags") and min(page.imagewidth, page.imagelength) > 0


def _is_alike(finest, page):
    objective = page.tags.valueof(NDPI_OBJECTIVE)
    if isinstance(objective, float) and objective < 0:
        return False
    kinds = [
        (one.is_tiled, one.jpegheader is not None, one.dtype, one.samplesperpixel, one.photometric)
        for one in (finest, page)
    ]
    return kinds[0] == kinds[1] and page.planarconfig == finest.planarconfig


def _check_kind(path, file, page):
    if page.is_scn or page.is_bif:
        raise ImageError(
            f"image {path} is of a scanner whose TIFF holds several regions; give it the ending "
            f"{'.scn' if page.is_scn else '.bif'}, by which it is read through OpenSlide"
        )
    eight_bit = page.dtype == np.uint8 and page.bitspersample == 8
    if not eight_bit or page.samplesperpixel not in (1, 3, 4) or page.ndim > 3:
        raise ImageError(
            f"image {path} holds {page.dtype} of shape {page.shape} and "
            f"{page.bitspersample} bits; 8-bit grey, RGB or RGBA is needed"
        )
    if (page.planarconfig == 2 and page.samplesperpixel > 1) or _has_a_page_per_colour(file, page):
        raise ImageError(
            f"image {path} keeps its colours in separate planes; save it with them "
            "interleaved (planar configuration 1)"
        )


def _check_first_is_finest(path, file, finest):
    """Refuse a file that keeps a thumbnail first, or several pictures of which one is larger."""
    pages = [page for page in itertools.islice(file.pages, 1, MOST_PAGES) if _is_page(page)]
    larger = [
        page
        for page in pages
        if page.imagewidth > finest.imagewidth and page.imagelength > finest.imagelength
    ]
    if larger or finest.is_reduced:
        size = f"{finest.imagewidth} x {finest.imagelength}"
        raise ImageError(
            f"image {path} has {size} px on its first page, which is not its finest; save it with "
            "the full resolution first"
        )


def _has_a_page_per_colour(file, page):
    """Whether an OME-TIFF has red, green and blue on pages of their own, each a grey picture."""
    alike = [
        one.shape == page.shape for one in itertools.islice(file.pages, 3) if hasattr(one, "tags")
    ]
    return page.is_ome and page.samplesperpixel == 1 and len(alike) == 3 and all(alike)


def _check_colours(path, page):
    stated = "PhotometricInterpretation" in page.tags
    name = getattr(page.photometric, "name", str(page.photometric)) if stated else "none"
    known = name in (GREY if page.samplesperpixel == 1 else COLOUR)
    undecoded = name == "YCBCR" and page.compression not in DECODED_TO_RGB
    if not known or undecoded or page.compression == APERIO_YCBCR:
        raise ImageError(
            f"image {path} has the colours {name} in {page.samplesperpixel} samples "
            f"(compression {int(page.compression)}); save it as RGB or 8-bit grey"
        )


def _by_tile(page, parts):
    """Sort regions by the tiles that they touch.

    Returns
    -------
    dict of (row, column) to list of (target, place, source)
        What to copy from each tile: ``target[place] = tile[source]``.
    """
    pieces = defaultdict(list)
    for target, x, y in parts:
        across = _spans(x, target.shape[1], page.tile_w)
        for row, place_y, source_y in _spans(y, target.shape[0], page.tile_h):
            for column, place_x, source_x in across:
                pieces[row, column].append((target, (place_y, place_x), (source_y, source_x)))
    return pieces


def _copy_mapped(tiles, parts, tiles_per_row):
    """Copy regions out of tiles that need no decoding, one region after another."""
    tile_h, tile_w = tiles.shape[1:3]
    for target, x, y in parts:
        across = _spans(x, target.shape[1], tile_w)
        for row, place_y, source_y in _spans(y, target.shape[0], tile_h):
            first = row * tiles_per_row
            for column, place_x, source_x in across:
                target[place_y, place_x] = tiles[first + column, source_y, source_x]


def _spans(first, n, tile_px):
    """Part a run of pixels at the borders of tiles: number, place in the run, place in the tile.

    Examples
    --------
    >>> _spans(250, 10, 256)
    [(0, slice(0, 6, None), slice(250, 256, None)), (1, slice(6, 10, None), slice(0, 4, None))]
    """
    spans = []
    for number in range(first // tile_px, (first + n - 1) // tile_px + 1):
        start = number * tile_px
        begin, end = max(first, start), min(first + n, start + tile_px)
        spans.append((number, slice(begin - first, end - first), slice(begin - start, end - start)))
    return spans


def _as_rgb(pixels):
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]


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
