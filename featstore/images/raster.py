"""PNG and JPEG files, decoded whole through Pillow."""

import threading
import warnings

import numpy as np

from featstore.errors import ImageError, require
from featstore.images.image import OUTSIDE_VALUE, Image, Level, reason_of
from featstore.images.resolution import NO_TAGS, Resolution, of_density

__all__ = ["RasterImage"]

PILLOW_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
UM_PER_INCH = 25_400.0
CATCHING = threading.Lock()  # catching warnings is not for several threads at once


class RasterImage(Image):
    """A PNG or JPEG, decoded whole.

    Parameters
    ----------
    path : path-like
        File as :func:`featstore.images.open_image` takes it.
    """

    reader = "Pillow"

    def __init__(self, path):
        image_module = require("PIL.Image", extra="extract", purpose="reading PNG and JPEG")
        self.path = path
        too_large = (image_module.DecompressionBombWarning, image_module.DecompressionBombError)
        try:
            with CATCHING, warnings.catch_warnings():
                warnings.simplefilter("error", image_module.DecompressionBombWarning)
                self._pixels, resolution = _decoded(image_module, path)
        except ImageError:
            raise
        except too_large as error:
            raise ImageError(
                f"image {path} is over {image_module.MAX_IMAGE_PIXELS} px, too large to be decoded "
                "whole; save it as a tiled TIFF"
            ) from error
        except Exception as error:  # decoders raise errors of their own
            raise ImageError(
                f"image {path} is not a readable PNG or JPEG: {reason_of(error)}; copy it again"
            ) from error
        self._state(resolution)
        height, width = self._pixels.shape[:2]
        self.levels = (Level(width, height, 1.0),)

    def _copy(self, parts, level):
        for target, x, y in parts:
            height, width = target.shape[:2]
            target[...] = self._pixels[y : y + height, x : x + width]


def _decoded(image_module, path):
    """Decode a PNG or JPEG into uint8 (height, width, 3), what is transparent onto white."""
    with image_module.open(path, formats=("PNG", "JPEG")) as image:
        if image.mode not in PILLOW_MODES or _is_deep_png(path):
            raise ImageError(
                f"image {path} holds {'16-bit' if _is_deep_png(path) else image.mode} pixels; "
                "8-bit grey, palette, RGB or RGBA is needed"
            )
        return _on_white(image_module, image), _resolution(image)


def _on_white(image_module, image):
    if not ("A" in image.mode or "transparency" in image.info):
        return np.asarray(image.convert("RGB"))
    white = image_module.new("RGBA", image.size, (OUTSIDE_VALUE,) * 4)
    over = image_module.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(over.convert("RGB"))


def _resolution(image):
    """Resolution in PNG's pHYs, which Pillow gives per inch.

    JPEG's density has 16 bits: 0.25 um/px, 101,600 per inch, wraps around to 0.7 um/px.
    """
    per_inch = [float(value) for value in image.info.get("dpi", ())]
    if image.format != "PNG" or len(per_inch) != 2 or min(per_inch) <= 0:
        return Resolution(None, found=NO_TAGS)
    return of_density(*(UM_PER_INCH / value for value in per_inch), "PNG pHYs")


def _is_deep_png(path):
    """Whether a PNG has 16 bits per sample (byte 24, of IHDR), of which Pillow may drop 8."""
    with open(path, "rb") as file:
        start = file.read(25)
    return start.startswith(PNG_SIGNATURE) and start[24:] == b"\x10"
