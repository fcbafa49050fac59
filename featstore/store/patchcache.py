"""The patch cache of a store: patches that were cut once, read by annotation ID.

A patch is there when its chunk is: pixels have no value that could mean "not yet". The cache is
optional, and holds what cutting again would give, byte for byte.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from featstore.errors import AnnotationError, StoreError
from featstore.store.chunks import CHECKSUM_BYTES
from featstore.store.index import read_table
from featstore.store.rowarray import RowArray

__all__ = ["UNKNOWN_LEVEL", "WINDOW_COLUMNS", "CachedPatches", "PatchesInfo", "check_windows"]

# What is kept of each patch's window, see docs/store-format.md.
WINDOW_COLUMNS = (
    "native_mpp",
    "read_level",
    "resample_factor",
    "padded_fraction",
    "others_in_window",
    "mitotic_figure_in_window",
)
UNKNOWN_LEVEL = -1  # of patches that nobody has placed yet: annotations that a merge brought


def check_windows(windows):
    """Refuse a table that is not of windows: one without a column of them, or with text in it.

    Raises
    ------
    AnnotationError
        Naming the column.
    """
    for name in WINDOW_COLUMNS:
        if windows.column(name).dtype.kind == "U":
            raise AnnotationError(
                f"the column {name!r} of the windows of {windows.name!r} holds text such as "
                f"{windows.column(name).tolist()[0]!r}; numbers are needed"
            )


@dataclass(frozen=True)
class PatchesInfo:
    """What there is of the cached patches of one dataset.

    Parameters
    ----------
    dataset : str
        Name in the store.
    rows : int
        Patches that are there.
    patch_px : int
        Width and height of a patch in pixels.
    mpp : float or None
        Um per pixel of a patch; None where whole patch files were taken as they are.
    n_bytes : int
        Size of the chunk files that are there.
    complete : bool
        Whether every annotation has its patch.
    """

    dataset: str
    rows: int
    patch_px: int
    mpp: float | None
    n_bytes: int
    complete: bool


class CachedPatches(RowArray):
    """Patches of one dataset, or the centre of each of them.

    Made by :meth:`Store.patches`. May be handed to worker processes, forked or spawned.
    """

    _plural = "patches"

    def __init__(self, store, dataset, patch_px=None):
        super().__init__(store, f"patches/{dataset}", "pixels", dataset)
        self._cropped_px = patch_px

    def __repr__(self):
        return f"<featstore.CachedPatches {self.dataset} {self.shape}>"

    @property
    def cut(self):
        """How the patches are cut, as a :class:`featstore.windows.CutSpec`."""
        cut = self.provenance.spec
        return cut if self._cropped_px is None else replace(cut, patch_px=self._cropped_px)

    @property
    def patch_px(self):
        """Width and height of a patch in pixels."""
        return self._whole_px if self._cropped_px is None else self._cropped_px

    @property
    def _whole_px(self):
        return self._metadata["shape"][1]

    @property
    def mpp(self):
        """Um per pixel of a patch; None where whole patch files were taken as they are."""
        return self.cut.mpp

    @property
    def shape(self):
        """(n, patch_px, patch_px, 3): rows of the dataset and shape of a patch."""
        return len(self.ids), self.patch_px, self.patch_px, 3

    @cached_property
    def windows(self):
        """Where each patch was cut, as an AnnotationTable; a crop has the windows of the whole.

        The table is shorter than the dataset where annotations were added since.

        Raises
        ------
        StoreError
            If the table is damaged.
        """
        name = f"{self.name}/windows"
        try:
            group = self._store._root[name]
        except KeyError as error:
            raise StoreError(
                f"{name!r} is not in {self._store.path}; 'featstore cut' makes it again"
            ) from error
        return read_table(group, self.dataset, what="windows of patches of")

    @property
    def info(self):
        """How much is there, as a :class:`PatchesInfo`."""
        asked = self._store._attributes(self.dataset)["rows"]
        chunk_bytes, rows = math.prod(self._chunk_shape) + CHECKSUM_BYTES, self._n_there
        return PatchesInfo(
            dataset=self.dataset,
            rows=rows,
            patch_px=self.patch_px,
            mpp=self.mpp,
            n_bytes=len(self._chunks_there) * chunk_bytes,
            complete=rows == asked,
        )

    def read(self, ids):
        """Read patches by annotation ID.

        Parameters
        ----------
        ids : array-like of shape (m,)
            Annotation IDs, in any order, duplicates allowed.

        Returns
        -------
        ndarray of uint8, shape (m, patch_px, patch_px, 3)
            RGB, in the order asked.

        Raises
        ------
        NotInStoreError
            If an ID is not in the dataset, or its patch not cut yet.
        DamagedChunkError
            If a chunk is not what was written; checksums are compared on local disks only where
            the store was opened with ``check=True``.
        """
        rows = self._index.positions(ids)
        pixels, there = self._gathered(rows, self._centre, np.dtype(np.uint8))
        awaited = self.provenance.awaited(rows, self._chunk_shape[0])
        self._refuse_missing(rows, there & ~awaited)
        return pixels

    @property
    def _centre(self):
        """Rows and columns of a cached patch that are read."""
        first = (self._whole_px - self.patch_px) // 2
        return (slice(first, first + self.patch_px),) * 2

    def serves(self, cut):
        """Whether these patches, or their centres, are what cutting anew would give.

        Parameters
        ----------
        cut : CutSpec
            How patches are asked for.

        Returns
        -------
        bool
            True for the same specification; and for a smaller ``patch_px``, an even number of
            pixels less, where no patch was resampled: then ``cropped`` gives the same bytes.
        """
        if cut == self.cut:
            return True
        same = replace(cut, patch_px=self.patch_px) == self.cut and cut.mpp is not None
        return same and self._holds_centre(cut.patch_px) and not self._resampled

    def _holds_centre(self, patch_px):
        return 0 < patch_px <= self.patch_px and (self.patch_px - patch_px) % 2 == 0

    @cached_property
    def _resampled(self):
        """Whether a cached patch has another resolution than its image."""
        known = self.windows.column("read_level") != UNKNOWN_LEVEL
        return bool((self.windows.column("resample_factor")[known] != 1).any())

    def cropped(self, patch_px):
        """Return the centres of the patches, as patches of their own.

        Parameters
        ----------
        patch_px : int
            Width and height in pixels: those of the patches, or an even number less.

        Returns
        -------
        CachedPatches

        Raises
        ------
        StoreError
            If the patches have no centre of that size on whole pixels.
        """
        if not self._holds_centre(patch_px):
            raise StoreError(
                f"patches of {self.dataset!r} have {self.patch_px} px, of which {patch_px} px are "
                f"no centre; ask for {self.patch_px} px or an even number less"
            )
        return CachedPatches(self._store, self.dataset, patch_px)
