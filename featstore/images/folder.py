"""Where the images of a dataset are."""

from dataclasses import dataclass
from pathlib import Path

from featstore.errors import ImageError

__all__ = ["ImageFolder"]


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
