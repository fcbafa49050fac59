"""A look at every image of a dataset, once: is it there, readable, of known resolution.

What is found is written into the annotation table, so that nothing later has to ask a file again.
"""

from dataclasses import dataclass

import numpy as np

from featstore.errors import AnnotationError, ImageError
from featstore.images import open_image

__all__ = ["check_against_images", "opened"]

LARGEST_WHOLE_PX = 2**28  # a cropped patch is decoded whole: 768 MiB, more than any is meant to be
LOOKED_AT_PX = 64  # around each annotation: the tiles that its patch will surely need


def check_against_images(
    annotations, folder, *, mpp=None, outside="error", on_bad=None, on_image=None
):
    """Look at every image once: is it there, readable, of known resolution, with its cells inside.

    Parameters
    ----------
    annotations : AnnotationTable
        With the column ``image`` and, unless the folder holds whole patches, ``x`` and ``y``.
    folder : ImageFolder
        Where the images are.
    mpp : float, optional
        Um per pixel of all images, in place of what the files and the table say.
    outside : {'error', 'drop', 'keep'}
        What to do with annotations whose centre lies outside their image: refuse, leave them out,
        or keep them (their patches are padded with white).
    on_bad : callable, optional
        Called with (image, number of its annotations, ImageError) for each image that is missing,
        unreadable or without resolution, whose annotations are then left out. The pixels around
        each annotation are decoded as well, to find tiles that are damaged. Without it, the first
        such image is an error, and no pixels are looked at.
    on_image : callable, optional
        Called with each image that is good.

    Returns
    -------
    AnnotationTable
        With the column ``mpp``: um per pixel of the annotation's image, as the file says or, where
        it says nothing, as a column ``mpp`` of ``annotations`` does. Whole patches of unknown
        resolution have NaN there. Unless images are whole patches, also with ``image_width_px``
        and ``image_height_px``, by which an image that was exchanged since is noticed.

    Raises
    ------
    ImageError
        If an image is missing, unreadable or (unless it is a whole patch) without resolution, or
        a whole patch is too large to be one; with ``on_bad``, if all images are bad.
    AnnotationError
        If an annotation lies outside its image and ``outside`` is 'error', or ``mpp`` or the
        column ``mpp`` of ``annotations`` holds something else than finite numbers above 0.
    """
    if mpp is not None and not 0 < mpp < np.inf:
        raise AnnotationError(f"images of {mpp} um per pixel were asked for; give a number above 0")
    look = _Look(annotations, folder, mpp, on_bad, on_image)
    good = annotations if on_bad is None else annotations.take(annotations.ids[look.is_good])
    if len(good) == 0:
        raise ImageError(
            f"none of the {len(look.files)} images of {annotations.name!r} in {folder.root} can be "
            "used; check the folder given with --images"
        )
    checked = good.with_columns(mpp=look.mpp_of_rows[look.is_good])
    if folder.whole:
        return checked
    width, height = look.sizes_of_rows.astype(np.int64).T
    checked = checked.with_columns(image_width_px=width, image_height_px=height)
    return _settle_outside(checked, look.sizes_of_rows, outside)


def opened(folder, file):
    """Open an image of a dataset; one that is to be a patch must be small enough to be one."""
    image = open_image(folder.path(file))
    if folder.whole and image.width_px * image.height_px > LARGEST_WHOLE_PX:
        raise ImageError(
            f"image {folder.path(file)} of {image.width_px} x {image.height_px} px is too large to "
            "be a cropped patch; add it with --annotations, which say where to cut"
        )
    return image


@dataclass(frozen=True)
class _Facts:
    """What is kept of an image that has been closed again; all NaN of a bad one."""

    width_px: float
    height_px: float
    mpp: float  # NaN where it is not known


BAD = _Facts(np.nan, np.nan, np.nan)


class _Look:
    """Facts of all images, by row of the table."""

    def __init__(self, annotations, folder, mpp, on_bad, on_image):
        self._annotations, self._folder = annotations, folder
        self._stated = _mpp_of_table(annotations) if mpp is None else None
        self._mpp, self._on_bad, self._on_image = mpp, on_bad, on_image
        self.files, self._image_of_row = np.unique(annotations.images, return_inverse=True)
        facts = [self._facts(number) for number in range(len(self.files))]
        of_rows = [facts[number] for number in self._image_of_row]
        self.is_good = np.array([fact is not BAD for fact in of_rows], bool)
        self.mpp_of_rows = self._settled([fact.mpp for fact in of_rows])
        sizes = np.array([(fact.width_px, fact.height_px) for fact in of_rows]).reshape(-1, 2)
        self.sizes_of_rows = sizes[self.is_good]

    def _settled(self, of_files):
        of_files = np.array(of_files, float)
        if self._stated is None:
            return np.full(len(of_files), float(self._mpp))
        return np.where(np.isnan(of_files), self._stated, of_files)

    def _facts(self, number):
        file = self.files[number]
        rows = np.flatnonzero(self._image_of_row == number)
        if self._on_bad is None:
            return self._looked_at(file, rows)
        try:
            return self._looked_at(file, rows, pixels=True)
        except ImageError as error:
            self._on_bad(str(file), len(rows), error)
            return BAD

    def _looked_at(self, file, rows, *, pixels=False):
        image = opened(self._folder, file)
        if not self._folder.whole:
            self._check_resolution(file, rows, image)
            if pixels:
                self._decode_around(image, rows)
        if self._on_image is not None:
            self._on_image(image)
        mpp = np.nan if image.mpp is None else image.mpp
        return _Facts(image.width_px, image.height_px, mpp)

    def _check_resolution(self, file, rows, image):
        if self._stated is None or image.mpp is not None:
            return
        if np.isnan(self._stated[rows]).any():
            raise ImageError(
                f"image {self._folder.path(file)} has {image.mpp_found}; give its um per pixel "
                "with --mpp to 'featstore add'"
            )

    def _decode_around(self, image, rows):
        half = LOOKED_AT_PX // 2
        lefts, tops = (
            np.floor(axis[rows]).astype(np.int64) - half
            for axis in (self._annotations.x, self._annotations.y)
        )
        region = np.empty((LOOKED_AT_PX, LOOKED_AT_PX, 3), np.uint8)
        image.read_windows(lefts, tops, [region] * len(rows))


def _mpp_of_table(annotations):
    """Um per pixel in the column ``mpp`` of a table, NaN where it is empty or not there."""
    if "mpp" not in annotations.columns:
        return np.full(len(annotations), np.nan)
    stated = annotations.column("mpp").tolist()
    mpp = np.array([_number_or_minus_one(value) for value in stated])
    wrong = np.flatnonzero((mpp <= 0) | np.isinf(mpp))
    if wrong.size:
        raise AnnotationError(
            f"{wrong.size} values of the column mpp of {annotations.name!r} are not um per pixel "
            f"(first: {stated[wrong[0]]!r} at ID {annotations.ids.tolist()[wrong[0]]!r}); give "
            "numbers above 0, or --mpp"
        )
    return mpp


def _number_or_minus_one(value):
    try:
        return float(value) if value != "" else np.nan
    except ValueError:
        return -1.0


def _settle_outside(annotations, sizes, outside):
    inside = (annotations.x >= 0) & (annotations.y >= 0)
    inside &= (annotations.x < sizes[:, 0]) & (annotations.y < sizes[:, 1])
    if inside.all() or outside == "keep":
        return annotations
    if outside == "drop":
        return annotations.take(annotations.ids[inside])
    row = np.flatnonzero(~inside)[0]
    raise AnnotationError(
        f"{np.sum(~inside)} of {len(annotations)} annotations lie outside their image (first: ID "
        f"{annotations.ids[row]} at ({annotations.x[row]:g}, {annotations.y[row]:g}) in "
        f"{annotations.images[row]}, {sizes[row, 0]:.0f} x {sizes[row, 1]:.0f} px); correct them "
        "or pass --outside drop or --outside keep"
    )
