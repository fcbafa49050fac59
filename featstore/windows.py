"""What a patch covers: from a centre, a size and um/px to pixels of an image, without reading any.

Positions have one rule. Pixel k of an image covers [k, k + 1). Where patch and image have the same
um/px, the patch of ``p`` pixels around centre c starts at floor(c - p/2 + 1/2), so that a centre
halfway between two pixels goes up. Where they differ, the patch covers exactly ``p * factor``
pixels around c, fractions kept, and is resampled.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields

import numpy as np

from featstore.annotations import MITOTIC_FIGURE
from featstore.errors import AnnotationError, ImageError

__all__ = ["SAME_MPP", "CutSpec", "Windows", "neighbours", "windows_in"]

# Two resolutions this near count as one: 224 px then cover within 1.2 px of what was asked for.
SAME_MPP = 0.01
LARGEST_PATCH_PX = 4_096  # 48 MiB each: no encoder takes more
LOWEST_MPP, HIGHEST_MPP = 0.01, 100.0  # far beyond any objective, and any encoder
LARGEST_WINDOW_PX = 8_192  # of one level, read at once: 192 MiB


@dataclass(frozen=True)
class CutSpec:
    """How patches are cut; two caches of one specification hold the same bytes.

    Parameters
    ----------
    patch_px : int
        Width and height of a patch in pixels, at least 1.
    mpp : float or None
        Um per pixel of a patch. None takes whole patch files at any resolution and resizes them.
    resampling : str
        How a patch of another resolution than its image is made.
    outside : str
        What is filled in where a patch reaches outside its image.

    Raises
    ------
    AnnotationError
        If ``patch_px`` is not 1 to 4,096, or ``mpp`` not 0.01 to 100.

    Examples
    --------
    >>> spec = CutSpec(224, 0.25)
    >>> CutSpec.from_json(spec.to_json()) == spec, spec.digest[:15]
    (True, 'sha256:57d9e2e9')
    >>> spec.differences(CutSpec(224, 0.5))
    ['mpp 0.25 and 0.5']
    """

    patch_px: int
    mpp: float | None
    resampling: str = "bicubic, anti-aliased (Pillow)"
    outside: str = "white"

    def __post_init__(self):
        if not 1 <= self.patch_px <= LARGEST_PATCH_PX:
            raise AnnotationError(
                f"patches of {self.patch_px} px were asked for; give 1 to {LARGEST_PATCH_PX:,} px"
            )
        if self.mpp is not None and not LOWEST_MPP <= self.mpp <= HIGHEST_MPP:
            raise AnnotationError(
                f"patches at {self.mpp:g} um/px were asked for; give {LOWEST_MPP:g} to "
                f"{HIGHEST_MPP:g} um/px (0.25 is a scan at 40x)"
            )

    @property
    def digest(self):
        """SHA-256 over all fields."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def to_json(self):
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values):
        """Read what :meth:`to_json` gave; fields that only a newer version knows are left aside."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def differences(self, other):
        """Name the fields in which two specifications differ, with both values."""
        here, there = self.to_json(), other.to_json()
        return [f"{key} {here[key]} and {there[key]}" for key in here if here[key] != there[key]]


@dataclass(frozen=True, eq=False)
class Windows:
    """Where patches lie on one level of their image; arrays of shape (n,).

    Parameters
    ----------
    levels : ndarray of int64
        Level that is read: the smallest one that need not be enlarged.
    lefts, tops : ndarray of float64
        Upper left corner in pixels of that level; whole numbers where ``factors`` is 1.
    sizes : ndarray of float64
        Width and height in pixels of that level.
    factors : ndarray of float64
        Pixels of that level per pixel of the patch, exactly 1 where they are taken as they are.
    padded : ndarray of float64
        Share of the patch that lies outside of the image, 0 to 1.
    """

    levels: np.ndarray
    lefts: np.ndarray
    tops: np.ndarray
    sizes: np.ndarray
    factors: np.ndarray
    padded: np.ndarray


def windows_in(image, x, y, mpp, cut):
    """Place patches in one image.

    Parameters
    ----------
    image : object with ``levels``
        Each with ``width_px``, ``height_px`` and ``downsample``, the finest first.
    x, y : ndarray of shape (n,)
        Centres in pixels of the finest level.
    mpp : ndarray of shape (n,)
        Um per pixel of the finest level.
    cut : CutSpec
        With an ``mpp``.

    Returns
    -------
    Windows

    Raises
    ------
    ImageError
        If a patch is over 8,192 px of the smallest level that need not be enlarged.

    Examples
    --------
    >>> from types import SimpleNamespace as Level
    >>> image = Level(levels=[Level(width_px=4000, height_px=4000, downsample=1.0),
    ...                       Level(width_px=1000, height_px=1000, downsample=4.0)])
    >>> centre, mpp = np.array([400.0]), np.array([0.25])
    >>> for asked in (0.25, 0.5, 1.0):
    ...     w = windows_in(image, centre, centre, mpp, CutSpec(224, asked))
    ...     print(w.levels[0], w.lefts[0], w.sizes[0], w.factors[0], round(w.padded[0], 3))
    0 288.0 224.0 1.0 0.0
    0 176.0 448.0 2.0 0.0
    1 -12.0 224.0 1.0 0.104
    """
    downsamples = np.array([level.downsample for level in image.levels])
    extents = np.array([(level.width_px, level.height_px) for level in image.levels])
    asked = cut.mpp / np.asarray(mpp, float)
    not_enlarged = downsamples <= asked[:, None] * (1 + SAME_MPP)
    levels = np.where(not_enlarged, downsamples, 0).argmax(axis=1)
    factors = asked / downsamples[levels]
    as_they_are = np.abs(factors - 1) <= SAME_MPP
    factors = np.where(as_they_are, 1.0, factors)
    sizes = cut.patch_px * factors
    if sizes.size and sizes.max() > LARGEST_WINDOW_PX:
        raise ImageError(
            f"a patch of {cut.patch_px} px at {cut.mpp:g} um/px is {sizes.max():,.0f} px of an "
            f"image of {np.min(mpp):g} um/px; at most {LARGEST_WINDOW_PX:,} are read: ask for a "
            "finer --mpp or fewer px"
        )
    corners = [
        _first_pixels(np.asarray(centre, float) / downsamples[levels], sizes, as_they_are)
        for centre in (x, y)
    ]
    shares = [_share_inside(first, sizes, extents[levels, k]) for k, first in enumerate(corners)]
    padded = 1 - shares[0] * shares[1]
    return Windows(levels, *corners, sizes, factors, padded)


def _first_pixels(centres, sizes, as_they_are):
    return np.where(as_they_are, np.floor(centres - sizes / 2 + 0.5), centres - sizes / 2)


def _share_inside(first, sizes, extent):
    """Share of each window, along one axis, that lies on the image; 1 where all of it does."""
    last = first + sizes
    length = np.clip(np.minimum(last, extent) - np.maximum(first, 0), 0, sizes)
    return np.where((first >= 0) & (last <= extent), 1.0, length / sizes)


def neighbours(windows, downsamples, x, y, labels):
    """Count the annotations of one image that lie in each other's windows.

    Parameters
    ----------
    windows : Windows
        Of all annotations of an image.
    downsamples : sequence of float
        Of the image's levels.
    x, y : ndarray of shape (n,)
        Their centres in pixels of the finest level.
    labels : ndarray of shape (n,)
        Their labels.

    Returns
    -------
    n_others : ndarray of int64, shape (n,)
        Centres of other annotations in the window.
    with_mitotic_figure : ndarray of bool, shape (n,)
        Whether one of these is a mitotic figure.

    Examples
    --------
    >>> from types import SimpleNamespace as Level
    >>> image = Level(levels=[Level(width_px=4000, height_px=4000, downsample=1.0)])
    >>> x, y = np.array([400.0, 511.5, 512.0]), np.array([400.0, 400.0, 400.0])
    >>> windows = windows_in(image, x, y, np.full(3, 0.25), CutSpec(224, 0.25))
    >>> labels = np.array(["look-alike", "mitotic figure", "look-alike"])
    >>> n_others, with_mitotic_figure = neighbours(windows, [1.0], x, y, labels)
    >>> n_others.tolist(), with_mitotic_figure.tolist()
    ([1, 2, 2], [True, False, True])
    """
    scale = np.asarray(downsamples, float)[windows.levels]
    left, top, size = windows.lefts * scale, windows.tops * scale, windows.sizes * scale
    n_others, with_mitotic_figure = np.zeros(len(x), np.int64), np.zeros(len(x), bool)
    by_x = np.argsort(x, kind="stable")
    starts = np.searchsorted(x[by_x], left, side="left")
    stops = np.searchsorted(x[by_x], left + size, side="left")
    for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        near = by_x[start:stop]
        near = near[(y[near] >= top[row]) & (y[near] < top[row] + size[row]) & (near != row)]
        n_others[row] = len(near)
        with_mitotic_figure[row] = (labels[near] == MITOTIC_FIGURE).any()
    return n_others, with_mitotic_figure
