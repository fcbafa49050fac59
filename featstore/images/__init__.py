"""Images: regions of pixels by position, with um per pixel and where that number comes from.

What lies outside of an image is white, as glass is. An open image has no position in its file, so
threads and forked processes may read from one at the same time.

::

    folder       where the images of a dataset are
    image        what all images share: levels, windows, what lies outside
    tiff         TIFF, BigTIFF, OME-TIFF, Aperio SVS, Hamamatsu NDPI, tile by tile
    raster       PNG and JPEG, decoded whole
    vendor       everything else, through OpenSlide where it is installed
    resolution   um per pixel, out of each format's own tags
    opening      which of these a file is
"""

from featstore.images.folder import ImageFolder
from featstore.images.image import OUTSIDE_VALUE, Image, Level
from featstore.images.opening import open_image

__all__ = ["OUTSIDE_VALUE", "Image", "ImageFolder", "Level", "open_image"]
