"""Patches around annotations: centre, size in px and um/px to uint8 pixels.

Where a patch lies is decided in :mod:`featstore.windows`; here it is read, and resampled where it
must be. Within one call, annotations of one image are cut together, so that each tile is decoded
once.
"""

import itertools
import warnings
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import AnnotationError, ImageError, UpsampledPatchesWarning, require
from featstore.images import ImageFolder
from featstore.survey import check_against_images, opened
from featstore.windows import SAME_MPP, CutSpec, neighbours, windows_in

__all__ = ["Patches", "patches_of"]

IMAGES_OPEN = 32
READ_BYTES = 64 * 2**20  # windows that are read together before they are resampled
LARGEST_SQUEEZE = 0.05  # of a whole patch that is not square
KERNEL_REACH_PX = 2  # bicubic, per pixel of the coarser of the two grids


def patches_of(store, dataset, *, patch_px, mpp=0.25, images=None):
    """Patches of a dataset, out of the store's cache where that has the same bytes, else cut anew.

    Parameters
    ----------
    store, dataset, patch_px, mpp, images
        As for :meth:`Patches.of`. With ``images``, patches are cut from these.

    Returns
    -------
    Patches or CachedPatches
        Both have ``ids``, ``patch_px``, ``mpp`` and ``read(ids)``.
    """
    if images is None and dataset in store.cached_datasets():
        cached = store.patches(dataset)
        if cached.info.complete and cached.serves(CutSpec(patch_px, mpp)):
            return cached.cropped(patch_px)
    return Patches.of(store, dataset, patch_px=patch_px, mpp=mpp, images=images)


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
        Um per pixel of a patch as returned. It is cut from the smallest level of its image that
        need not be enlarged: as it is where the two are within 1 %, resampled (bicubic,
        anti-aliased) otherwise. None takes whole patch files at any resolution and resizes them
        to ``patch_px``.

    Raises
    ------
    AnnotationError
        If ``mpp`` is None for images that are not whole patches, or is asked for where the
        resolution is unknown.

    Warns
    -----
    UpsampledPatchesWarning
        If ``mpp`` is finer than that of an image.

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
        if self.mpp is not None:
            self._check_resolution(np.asarray(self.annotations.column("mpp"), float))

    def _check_resolution(self, of_images):
        if np.isnan(of_images).any():
            raise AnnotationError(
                f"{self.mpp} um/px was asked for and the resolution of {self.annotations.name!r} "
                "is unknown; add the dataset with --mpp, or extract without"
            )
        coarser = of_images * (1 - SAME_MPP) > self.mpp
        if coarser.any():
            warnings.warn(
                f"{self.mpp:g} um/px was asked for and the images of {coarser.sum():,} of "
                f"{len(coarser):,} annotations of {self.annotations.name!r} have up to "
                f"{of_images.max():g}: their patches are enlarged up to "
                f"{of_images.max() / self.mpp:.3g} times and show no more than the image does",
                UpsampledPatchesWarning,
                stacklevel=4,
            )

    @classmethod
    def of(cls, store, dataset, *, patch_px, mpp=0.25, images=None):
        """Patches of a dataset in a store, cut from its images.

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
            folder = ImageFolder(str(images), whole=store.has_whole_patches(dataset))
        if folder is None:
            raise ImageError(
                f"the store does not know where the images of {dataset!r} are; give --images"
            )
        annotations = store.annotations(dataset)
        if mpp is not None and "mpp" not in annotations.columns:
            annotations = check_against_images(annotations, folder, outside="keep")
        return cls(annotations, folder, patch_px, mpp)

    @property
    def ids(self):
        """Annotation IDs, shape (n,)."""
        return self.annotations.ids

    @property
    def cut(self):
        """How these patches are cut, as a :class:`featstore.windows.CutSpec`."""
        return CutSpec(self.patch_px, self.mpp)

    @cached_property
    def _open(self):
        return lru_cache(maxsize=IMAGES_OPEN)(lambda file: opened(self.folder, file))

    @cached_property
    def _images(self):
        """Names of the images, sorted, and the number of its image for each row."""
        return np.unique(self.annotations.images, return_inverse=True)

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
        for image, rows_of_image, places in self._by_image(rows):
            into = [patches[place] for place in places.tolist()]
            if self.mpp is None:
                self._cut_whole(image, into)
            else:
                self._cut(image, rows_of_image, into)
        return patches

    def windows(self):
        """Where every patch lies, and who else is in it.

        Returns
        -------
        AnnotationTable
            One row per annotation. ``native_mpp``: um/px of its image; ``read_level``: level that
            is read, 0 the finest; ``resample_factor``: pixels of that level per pixel of the patch,
            1 where they are taken as they are; ``padded_fraction``: share of the patch outside of
            the image; ``others_in_window``: other annotations whose centre is in the patch;
            ``mitotic_figure_in_window``: whether a mitotic figure is among these.
        """
        n = len(self.annotations)
        columns = {
            "native_mpp": self._native_mpp(),
            "read_level": np.zeros(n, np.int64),
            "resample_factor": np.ones(n),
            "padded_fraction": np.zeros(n),
            "others_in_window": np.zeros(n, np.int64),
            "mitotic_figure_in_window": np.zeros(n, bool),
        }
        for image, rows, _ in self._by_image(np.arange(n)):
            for name, values in self._windows_of(image, rows).items():
                columns[name][rows] = values
        return AnnotationTable(self.annotations.name, self.ids, self.annotations.labels, columns)

    def _native_mpp(self):
        if "mpp" not in self.annotations.columns:
            return np.full(len(self.annotations), np.nan)
        return np.asarray(self.annotations.column("mpp"), float)

    def _windows_of(self, image, rows):
        """Columns of :meth:`windows` of the annotations of one image."""
        if self.mpp is None:
            return {"resample_factor": image.width_px / self.patch_px}
        windows = self._placed(image, rows)
        columns = {
            "read_level": windows.levels,
            "resample_factor": windows.factors,
            "padded_fraction": windows.padded,
        }
        if self.folder.whole:
            return columns
        downsamples = [level.downsample for level in image.levels]
        x, y = self._centres(image, rows)
        labels = self.annotations.labels[rows]
        counted = neighbours(windows, downsamples, x, y, labels)
        names = ("others_in_window", "mitotic_figure_in_window")
        return columns | dict(zip(names, counted, strict=True))

    def _by_image(self, rows):
        """Yield each image with those of the rows that lie on it, and their places among all."""
        files, image_of_row = self._images
        images = image_of_row[rows]
        order = np.argsort(images, kind="stable")
        for start, stop in _runs(images[order, None]):
            places = order[start:stop]
            image = self._open(files[images[places[0]]])
            self._check_same(image, rows[places[0]])
            yield image, rows[places], places

    def _check_same(self, image, row):
        """Refuse an image of another size than when the dataset was added."""
        if "image_width_px" not in self.annotations.columns:
            return
        names = ("image_width_px", "image_height_px")
        known = tuple(int(self.annotations.column(name)[row]) for name in names)
        if known != (image.width_px, image.height_px):
            raise ImageError(
                f"image {image.path} is {image.width_px} x {image.height_px} px and was {known[0]} "
                f"x {known[1]} px when the dataset was added; put that file back, or add the "
                "dataset anew"
            )

    def _cut_whole(self, image, into):
        width, height = image.width_px, image.height_px
        if abs(width - height) > LARGEST_SQUEEZE * min(width, height):
            raise ImageError(
                f"image {image.path} is {width} x {height} px and would be squeezed into a square; "
                "crop it, or give --mpp, at which its middle is cut"
            )
        box = (0, 0, width, height)
        pixels = image.read(0, 0, image.width_px, image.height_px)
        for patch in into:
            patch[...] = _resized(pixels, self.patch_px, box=box)

    def _cut(self, image, rows, into):
        windows = self._placed(image, rows)
        as_they_are = windows.factors == 1
        for level in np.unique(windows.levels).tolist():
            here = np.flatnonzero((windows.levels == level) & as_they_are)
            if here.size:
                targets = [into[place] for place in here]
                image.read_windows(windows.lefts[here], windows.tops[here], targets, level=level)
        for places in _read_together(windows, ~as_they_are):
            resampled = _resampled(image, windows, places, self.patch_px)
            for place, patch in zip(places.tolist(), resampled, strict=True):
                into[place][...] = patch

    def _placed(self, image, rows):
        mpp = np.asarray(self.annotations.column("mpp"), float)[rows]
        return windows_in(image, *self._centres(image, rows), mpp, self.cut)

    def _centres(self, image, rows):
        if self.folder.whole:
            return np.full(len(rows), image.width_px / 2), np.full(len(rows), image.height_px / 2)
        return self.annotations.x[rows], self.annotations.y[rows]


def _read_together(windows, chosen):
    """Yield places of windows of one level and size, neighbours first, up to 64 MiB at a time."""
    places = np.flatnonzero(chosen)
    keys = (windows.lefts, windows.tops // windows.sizes, windows.sizes, windows.levels)
    places = places[np.lexsort([key[places] for key in keys])]
    kinds = np.stack([windows.levels[places], windows.sizes[places]], axis=1)
    for start, stop in _runs(kinds):
        n = max(1, int(READ_BYTES // (3 * windows.sizes[places[start]] ** 2)))
        for first in range(start, stop, n):
            yield places[first : min(first + n, stop)]


def _runs(rows):
    """Yield start and stop of each run of equal rows.

    Examples
    --------
    >>> list(_runs(np.array([[7, 1], [7, 1], [7, 2]]))), list(_runs(np.empty((0, 2))))
    ([(0, 2), (2, 3)], [])
    """
    borders = np.flatnonzero((np.diff(rows, axis=0) != 0).any(axis=1)) + 1
    edges = [0, *borders.tolist(), len(rows)] if len(rows) else [0]
    yield from itertools.pairwise(edges)


def _resampled(image, windows, places, patch_px):
    """Yield windows of one level and size, read with what the kernel reaches beyond them."""
    size, level = windows.sizes[places[0]], int(windows.levels[places[0]])
    margin = int(np.ceil(KERNEL_REACH_PX * max(windows.factors[places[0]], 1)))
    side = int(np.ceil(size)) + 2 * margin + 1
    lefts, tops = windows.lefts[places], windows.tops[places]
    firsts_x, firsts_y = (np.floor(corners) - margin for corners in (lefts, tops))
    pixels = np.empty((len(places), side, side, 3), np.uint8)
    image.read_windows(firsts_x, firsts_y, pixels, level=level)
    offsets = zip((lefts - firsts_x).tolist(), (tops - firsts_y).tolist(), strict=True)
    for region, (x, y) in zip(pixels, offsets, strict=True):
        yield _resized(region, patch_px, box=(x, y, x + size, y + size))


def _resized(pixels, patch_px, *, box):
    """Resample ``box`` (left, top, right, bottom; fractions of pixels allowed) to a square."""
    if pixels.shape[:2] == (patch_px, patch_px) and box == (0, 0, patch_px, patch_px):
        return pixels
    image_module = require("PIL.Image", extra="extract", purpose="resampling patches")
    bicubic = image_module.Resampling.BICUBIC
    return np.asarray(image_module.fromarray(pixels).resize((patch_px, patch_px), bicubic, box=box))
