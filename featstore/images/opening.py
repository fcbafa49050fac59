"""Which reader an image file is for."""

from pathlib import Path

from featstore.errors import ImageError
from featstore.images import vendor
from featstore.images.raster import RasterImage
from featstore.images.tiff import TiffImage

__all__ = ["open_image"]

TIFF_SUFFIXES = (".tif", ".tiff", ".svs", ".ndpi", ".btf", ".tf8")
RASTER_SUFFIXES = (".png", ".jpg", ".jpeg")
FEWEST_PX = 8  # a nucleus is 5 um wide, 8 px at the coarsest resolution at which one can be seen
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF 6.0, and BigTIFF


def open_image(path):
    """Open an image for reading regions.

    Parameters
    ----------
    path : path-like
        TIFF (BigTIFF, OME-TIFF, Aperio SVS, Hamamatsu NDPI), PNG or JPEG; slides of other vendors
        where OpenSlide is installed.

    Returns
    -------
    Image

    Raises
    ------
    ImageError
        If the file is missing, unreadable, cut short, too small to show a cell, too large to
        decode, or not 8-bit grey or colour.
    MissingExtraError
        If it needs OpenSlide, and that is not installed.

    Notes
    -----
    Um per pixel come from Aperio's MPP, OME-XML's PhysicalSize, TIFF's resolution tags (NDPI's
    too), PNG's pHYs, or from OpenSlide; ``mpp_source`` says which. A number that
    no scanner of cells has counts as none: outside 0.05 to 10 where it is stated in um, outside 0.1
    to 1.2 where it is dots per inch or centimetre, of pixels that are not square within 1 %, or
    far from what the objective gives that the file names. Of colours, grey and RGB are read (and
    YCbCr in JPEG); a TIFF whose white is 0 is inverted. A TIFF's alpha is left out; a PNG is put on
    white.

    Examples
    --------
    >>> import tempfile, pathlib, tifffile, numpy as np
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "grey.tiff"
    >>> tifffile.imwrite(file, np.zeros((40, 60, 3), np.uint8), tile=(16, 16), photometric="rgb",
    ...                  resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    >>> image = open_image(file)
    >>> image.width_px, image.height_px, image.mpp, image.mpp_source
    (60, 40, 0.25, 'resolution tags')
    >>> image.read(-1, 0, 2, 1)[0, :, 0]
    array([255,   0], dtype=uint8)
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"image {path} is missing; check the folder given with --images")
    image = _opened(path)
    if min(image.width_px, image.height_px) < FEWEST_PX:
        raise ImageError(
            f"image {path} is {image.width_px} x {image.height_px} px, too small to show a cell; "
            "check whether it is the right file"
        )
    return image


def _opened(path):
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return TiffImage(path)
    if suffix in RASTER_SUFFIXES:
        return RasterImage(path)
    if suffix in vendor.SUFFIXES:
        return vendor.OpenSlideImage(path)
    return TiffImage(path) if _is_tiff(path) else RasterImage(path)


def _is_tiff(path):
    with open(path, "rb") as file:
        return file.read(4) in TIFF_SIGNATURES
