"""Patches around annotations: centre, size in px and um/px to uint8 pixels.

One rule for positions: pixel k of an image covers [k, k + 1), and the patch of ``p`` source pixels
around centre c starts at floor(c - p/2 + 1/2), so a centre halfway between two pixels goes up.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import AnnotationError, ImageError, require
from featstore.images import ImageFolder, open_image

__all__ = ["SAME_MPP", "Patches", "check_against_images"]

# Two resolutions this near count as one: 224 px then cover within 1.2 px of what was asked for.
SAME_MPP = 0.01
IMAGES_OPEN = 8
LARGEST_WHOLE_PX = 2**28  # a cropped patch is decoded whole: 768 MiB, more than any is meant to be


def check_against_images(annotations, folder, *, mpp=None, outside="error"):
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

    Returns
    -------
    AnnotationTable
        With the column ``mpp``: um per pixel of the annotation's image, as the file says or, where
        it says nothing, as a column ``mpp`` of ``annotations`` does. Whole patches of unknown
        resolution have NaN there.

    Raises
    ------
    ImageError
        If an image is missing, unreadable or (unless it is a whole patch) without resolution, or
        a whole patch is too large to be one.
    AnnotationError
        If an annotation lies outside its image and ``outside`` is 'error', or the column ``mpp``
        of ``annotations`` holds something else than numbers above 0.
    """
    files, image_of_row = np.unique(annotations.images, return_inverse=True)
    facts = [_facts(folder, file) for file in files]
    sizes = np.array([(fact.width_px, fact.height_px) for fact in facts]).reshape(-1, 2)
    if mpp is None:
        mpp_of_row = _settle_mpp(annotations, folder, [facts[place] for place in image_of_row])
    else:
        mpp_of_row = np.full(len(annotations), float(mpp))
    checked = annotations.with_columns(mpp=mpp_of_row)
    return checked if folder.whole else _settle_outside(checked, sizes[image_of_row], outside)


@dataclass(frozen=True)
class _Facts:
    """What :func:`check_against_images` keeps of an image it has closed again."""

    width_px: int
    height_px: int
    mpp: float  # NaN where the file does not say
    mpp_found: str


def _facts(folder, file):
    image = _opened(folder, file)
    mpp = np.nan if image.mpp is None else image.mpp
    return _Facts(image.width_px, image.height_px, mpp, image.mpp_found)


def _opened(folder, file):
    image = open_image(folder.path(file))
    if folder.whole and image.width_px * image.height_px > LARGEST_WHOLE_PX:
        raise ImageError(
            f"image {folder.path(file)} of {image.width_px} x {image.height_px} px is too large to "
            "be a cropped patch; add it with --annotations, which say where to cut"
        )
    return image


def _settle_mpp(annotations, folder, facts):
    """Um per pixel by row: of the file, else of the table's own column, else NaN."""
    of_files = np.array([fact.mpp for fact in facts], dtype=float)
    settled = np.where(np.isnan(of_files), _mpp_of_table(annotations), of_files)
    unknown = np.flatnonzero(np.isnan(settled))
    if unknown.size and not folder.whole:
        row = unknown[0]
        raise ImageError(
            f"image {folder.path(annotations.images[row])} has {facts[row].mpp_found}; give its um "
            "per pixel with --mpp to 'featstore add'"
        )
    return settled


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


@dataclass(frozen=True, eq=False)
class Patches:
    """Pixels by annotation ID, cut when they are read.

    Parameters
    ----------
    annotations : AnnotationTable
        With ``image`` and ``mpp``, and ``x`` and ``y`` unless the folder holds whole patches.
    folder : ImageFolder
        Where the images are.
    patch_px : int
        Width and height of a patch in pixels, as returned.
    mpp : float, optional
        Um per pixel of a patch as returned. Images within 1 % of it are cut as they are, others
        are resampled (bicubic, anti-aliased). None takes whole patch files at any resolution and
        resizes them to ``patch_px``.

    Raises
    ------
    AnnotationError
        If ``mpp`` is None for images that are not whole patches, or is asked for where the
        resolution is unknown.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from PIL import Image
    >>> from featstore.images import ImageFolder
    >>> folder = ImageFolder(tempfile.mkdtemp(), whole=True)
    >>> Image.new("RGB", (128, 128), (200, 0, 0)).save(folder.path("7.png"))
    >>> cells = AnnotationTable("lab", [7], ["normal"], {"image": ["7.png"], "mpp": [np.nan]})
    >>> Patches(cells, folder, patch_px=64, mpp=None).read([7]).shape
    (1, 64, 64, 3)
    """

    annotations: AnnotationTable
    folder: ImageFolder
    patch_px: int
    mpp: float | None = 0.25

    def __post_init__(self):
        if self.mpp is None and not self.folder.whole:
            raise AnnotationError(
                f"patches of {self.annotations.name!r} are cut from larger images; give the um per "
                "pixel they should have"
            )
        if self.mpp is not None and np.isnan(self.annotations.column("mpp")).any():
            raise AnnotationError(
                f"{self.mpp} um/px was asked for and the resolution of {self.annotations.name!r} "
                "is unknown; add the dataset with --mpp, or extract without"
            )

    @classmethod
    def of(cls, store, dataset, *, patch_px, mpp=0.25, images=None):
        """Patches of a dataset in a store.

        Parameters
        ----------
        store : Store
            Gives the annotations and says where the images are.
        dataset : str
            Name of the dataset.
        patch_px, mpp
            As for :class:`Patches`.
        images : path-like, optional
            Folder of the images, where it is not the one that the dataset was added with. A dataset
            that was added without images gets its um per pixel from these.

        Returns
        -------
        Patches

        Raises
        ------
        ImageError
            If there is no folder, or an image that has to be looked at is missing, unreadable or
            without resolution.
        """
        folder = store.image_folder(dataset)
        if images is not None:
            folder = ImageFolder(str(images), whole=folder is not None and folder.whole)
        if folder is None:
            raise ImageError(f"dataset {dataset!r} was added without images; give --images")
        annotations = store.annotations(dataset)
        if mpp is not None and "mpp" not in annotations.columns:
            annotations = check_against_images(annotations, folder, outside="keep")
        return cls(annotations, folder, patch_px, mpp)

    @property
    def ids(self):
        """Annotation IDs, shape (n,)."""
        return self.annotations.ids

    @cached_property
    def _open(self):
        return lru_cache(maxsize=IMAGES_OPEN)(lambda file: _opened(self.folder, file))

    def __getstate__(self):
        """Leave open files behind: a worker process opens its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def read(self, ids):
        """Cut the patches of these annotations.

        Parameters
        ----------
        ids : array-like of shape (m,)
            Annotation IDs, in any order, duplicates allowed.

        Returns
        -------
        ndarray of uint8, shape (m, patch_px, patch_px, 3)
            RGB, in the order asked; white where a patch reaches outside its image.
        """
        rows = self.annotations.positions(ids)
        patches = np.empty((len(rows), self.patch_px, self.patch_px, 3), np.uint8)
        for place, row in enumerate(rows):
            patches[place] = self._whole(row) if self.mpp is None else self._around_centre(row)
        return patches

    def _whole(self, row):
        image = self._open(self.annotations.images[row])
        pixels = image.read(0, 0, image.width_px, image.height_px)
        return _resize(pixels, self.patch_px, box=(0, 0, image.width_px, image.height_px))

    def _around_centre(self, row):
        image = self._open(self.annotations.images[row])
        x, y = self._centre(row, image)
        factor = self.mpp / self.annotations.column("mpp")[row]
        if abs(factor - 1) <= SAME_MPP:
            left, top = (_first_pixel(centre, self.patch_px) for centre in (x, y))
            return image.read(left, top, self.patch_px, self.patch_px)
        return _resampled(image, x, y, self.patch_px, factor)

    def _centre(self, row, image):
        if self.folder.whole:
            return image.width_px / 2, image.height_px / 2
        return self.annotations.x[row], self.annotations.y[row]


def _first_pixel(centre, patch_px):
    return int(np.floor(centre - patch_px / 2 + 0.5))


def _resampled(image, x, y, patch_px, factor):
    """Cut ``patch_px * factor`` source pixels around a centre and bring them to ``patch_px``."""
    half = patch_px * factor / 2
    margin = int(np.ceil(2 * max(factor, 1)))  # reach of the bicubic kernel
    left, top = (int(np.floor(centre - half)) - margin for centre in (x, y))
    size = int(np.ceil(2 * half)) + 2 * margin + 1
    pixels = image.read(left, top, size, size)
    return _resize(
        pixels, patch_px, box=(x - half - left, y - half - top, x + half - left, y + half - top)
    )


def _resize(pixels, patch_px, *, box):
    """Resample ``box`` (left, top, right, bottom; fractions of pixels allowed) to a square."""
    if pixels.shape[:2] == (patch_px, patch_px) and box == (0, 0, patch_px, patch_px):
        return pixels
    image_module = require("PIL.Image", extra="extract", purpose="resampling patches")
    bicubic = image_module.Resampling.BICUBIC
    return np.asarray(image_module.fromarray(pixels).resize((patch_px, patch_px), bicubic, box=box))
