"""Squares that patches cover on their images, and which of them share pixels.

Positions, sides and um per pixel are read from columns; no image is opened. What a patch covers is
what featstore cuts of the finest level of an image. Where it cuts a coarser level as it is, its
corner lies on a pixel of that level, and its side is within 1 % of what is said here.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from probes.errors import AuditError, PositionError

__all__ = ["Windows", "column_of", "unnamed"]

# Two resolutions this near count as one, and whole pixels are cut (featstore.windows).
SAME_MPP = 0.01
MOST_CELLS = 2**62  # of the grid, whose cells are numbered in int64


@dataclass(frozen=True, eq=False)
class Windows:
    """One square per annotation, in pixels of its image; arrays of shape (n,).

    Parameters
    ----------
    images : ndarray of int64
        Number of the image, from 0.
    x, y : ndarray of float64
        Centres of the annotations.
    lefts, tops : ndarray of float64
        Upper left corners.
    sides : ndarray of float64
        Width and height, above 0 and the same for all windows of an image.
    n_assumed : int
        Annotations whose image has no known um per pixel: it is taken to be that of the patches.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> columns = {"image": np.array(["1", "1", "2"]), "x": np.array([9.5, 13, 9.5]),
    ...            "y": np.array([9, 9, 9])}
    >>> table = SimpleNamespace(name="toy", ids=np.array([7, 8, 9]), column=columns.__getitem__)
    >>> windows = Windows.of(table, patch_px=4, mpp=0.25)
    >>> windows.lefts, windows.tops, windows.n_assumed
    (array([ 8., 11.,  8.]), array([7., 7., 7.]), 3)
    >>> [(rows.tolist(), others.tolist()) for rows, others in windows.pairs()]
    [([0, 1], [1, 0])]
    """

    images: np.ndarray
    x: np.ndarray
    y: np.ndarray
    lefts: np.ndarray
    tops: np.ndarray
    sides: np.ndarray
    n_assumed: int

    @classmethod
    def of(cls, annotations, *, patch_px, mpp, image=None):
        """Place the patches of all annotations.

        Parameters
        ----------
        annotations : LabelTable
            With ``x`` and ``y`` (centres in pixels of the image), and ``mpp`` (um per pixel of the
            image) where it is known.
        patch_px : int
            Width of a patch in pixels, at least 1.
        mpp : float
            Um per pixel of a patch, above 0.
        image : str, optional
            Column that tells which image positions are on; ``image``, or ``slide`` where there is
            no such column.

        Raises
        ------
        PositionError
            If a position, an image or their column is missing, or an image has two resolutions.
        AuditError
            If ``patch_px`` or ``mpp`` is not a size.
        """
        if not (1 <= patch_px < np.inf and patch_px % 1 == 0 and 0 < mpp < np.inf):
            raise AuditError(
                f"{patch_px} px at {mpp} um/px is no patch; give 1, 2, ... px at a number above 0"
            )
        x, y = (_positions(annotations, name) for name in ("x", "y"))
        images = _images(annotations, image)
        of_images = _resolutions(annotations, images)
        unknown = np.isnan(of_images)
        asked = np.where(unknown, 1.0, mpp / of_images)
        whole_pixels = np.abs(asked - 1) <= SAME_MPP
        sides = patch_px * np.where(whole_pixels, 1.0, asked)
        corners = (
            np.where(whole_pixels, np.floor(centre - sides / 2 + 0.5), centre - sides / 2)
            for centre in (x, y)
        )
        return cls(images, x, y, *corners, sides, int(unknown.sum()))

    def pairs(self, at_once=2**20):
        """Yield rows and others whose windows share area, each pair both ways.

        Parameters
        ----------
        at_once : int
            Pairs of nearby windows that are looked at together.

        Yields
        ------
        rows, others : ndarray of int64, shape (m,)
            ``rows`` ascend, and no row is in two of the blocks.
        """
        for rows, others in self._nearby(at_once):
            apart_x = np.abs(self.lefts[rows] - self.lefts[others])
            apart_y = np.abs(self.tops[rows] - self.tops[others])
            shared = (np.maximum(apart_x, apart_y) < self.sides[rows]) & (rows != others)
            if shared.any():
                yield rows[shared], others[shared]

    def hold(self, rows, others):
        """Whether the window of each row holds the centre of the other; shape (m,)."""
        into_x = self.x[others] - self.lefts[rows]
        into_y = self.y[others] - self.tops[rows]
        return (np.minimum(into_x, into_y) >= 0) & (np.maximum(into_x, into_y) < self.sides[rows])

    @cached_property
    def _cells(self):
        """Number of the grid cell of each corner, and how many cells stand on one another.

        A cell is as wide as a window, so a window shares area with windows of its own cell and the
        eight around it only. Cells of a column of the grid follow each other, and a free cell lies
        between two columns and between two images.
        """
        n_images = int(self.images.max(initial=-1)) + 1
        columns, across = _grid_lines(self.lefts, self.sides, self.images, n_images)
        lines, down = _grid_lines(self.tops, self.sides, self.images, n_images)
        if n_images * across * down > MOST_CELLS:
            raise PositionError(
                f"positions reach from {min(self.x.min(), self.y.min()):g} to "
                f"{max(self.x.max(), self.y.max()):g} px, which is no image; check them"
            )
        cells = (self.images * int(across) + columns.astype(np.int64)) * int(down)
        return cells + lines.astype(np.int64), int(down)

    def _nearby(self, at_once):
        """Yield rows, in order, and all others whose corner is in the cells around theirs."""
        cells, down = self._cells
        order = np.argsort(cells, kind="stable")
        ordered = cells[order]
        middles = cells[:, None] + down * np.arange(-1, 2)
        starts = np.searchsorted(ordered, middles - 1, side="left")
        lengths = np.searchsorted(ordered, middles + 1, side="right") - starts
        for first, stop in _blocks(lengths.sum(axis=1), at_once):
            begin, length = starts[first:stop].ravel(), lengths[first:stop].ravel()
            places = np.arange(length.sum()) + np.repeat(begin - _before(length), length)
            yield np.repeat(np.repeat(np.arange(first, stop), 3), length), order[places]


def column_of(annotations, name):
    """One column of a table, or None where it has none of that name.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> table = SimpleNamespace(column={"slide": ["a", "b"]}.__getitem__)
    >>> column_of(table, "slide"), column_of(table, "case")
    (array(['a', 'b'], dtype='<U1'), None)
    """
    try:
        values = np.asarray(annotations.column(name))
    except (LookupError, ValueError):  # a mapping's KeyError, featstore's AnnotationError
        return None
    return values if values.dtype.kind in "iufbU" else _texts(values)


def _texts(values):
    """Turn what pandas and StringDType hold into texts, None and NaN into empty ones.

    Examples
    --------
    >>> _texts(np.array(["a", None, np.nan, 7], object))
    array(['a', '', '', '7'], dtype='<U1')
    """
    plain = values.tolist()
    return np.array(["" if each is None or each != each else str(each) for each in plain], str)


def _numbers(annotations, name):
    """Read a column as float64, or None where there is none."""
    values = column_of(annotations, name)
    if values is not None and values.dtype.kind not in "iufb":
        raise PositionError(
            f"column {name!r} of {annotations.name!r} holds text; numbers of pixels or um are "
            "needed"
        )
    return None if values is None else values.astype(float)


def _positions(annotations, name):
    values = _numbers(annotations, name)
    if values is None:
        raise PositionError(
            f"{annotations.name!r} has no column {name!r}; where patches lie is not known"
        )
    lost = np.flatnonzero(~np.isfinite(values))
    if lost.size:
        raise PositionError(
            f"{lost.size} of {len(values)} annotations of {annotations.name!r} have no position "
            f"(first: ID {annotations.ids[lost].tolist()[0]!r}); give it, or leave these out"
        )
    return values


def _images(annotations, name):
    """Give each annotation the number of its image."""
    names = (name,) if name else ("image", "slide")
    found = [column_of(annotations, each) for each in names]
    values = next((each for each in found if each is not None), None)
    if values is None:
        raise PositionError(
            f"{annotations.name!r} has no column {' or '.join(map(repr, names))}; which image a "
            "position is on is not known"
        )
    lost = unnamed(values)
    if lost.any():
        raise PositionError(
            f"{lost.sum()} of {len(values)} annotations of {annotations.name!r} have no image "
            f"(first: ID {annotations.ids[lost].tolist()[0]!r}); name it, or leave these out"
        )
    return np.unique(values, return_inverse=True)[1]


def unnamed(values):
    """Where a column says nothing: an empty text, or NaN.

    Examples
    --------
    >>> unnamed(np.array(["a", ""])), unnamed(np.array([1.0, np.nan])), unnamed(np.array([0]))
    (array([False,  True]), array([False,  True]), array([False]))
    """
    return np.isnan(values) if values.dtype.kind == "f" else values.astype(str) == ""


def _resolutions(annotations, images):
    """Um per pixel of the image of each annotation, NaN where it is not known."""
    values = _numbers(annotations, "mpp")
    if values is None:
        return np.full(len(images), np.nan)
    wrong = np.flatnonzero((values <= 0) | np.isinf(values))
    if wrong.size:
        raise PositionError(
            f"column 'mpp' of {annotations.name!r} holds {values[wrong[0]]:g} (ID "
            f"{annotations.ids[wrong].tolist()[0]!r}); um per pixel above 0 are needed"
        )
    first_of_image = np.unique(images, return_index=True)[1][images]
    same = (values == values[first_of_image]) | (
        np.isnan(values) & np.isnan(values[first_of_image])
    )
    if not same.all():
        row = np.flatnonzero(~same)[0]
        raise PositionError(
            f"annotations {annotations.ids[[first_of_image[row], row]].tolist()} of "
            f"{annotations.name!r} lie on one image and give it {values[first_of_image[row]]:g} "
            f"and {values[row]:g} um per pixel; an image has one"
        )
    return values


def _grid_lines(corners, sides, images, n_images):
    """Line of the grid of each corner, from 0 in each image; how many there are, the last free."""
    lines = np.floor(corners / sides)
    lowest = np.full(n_images, np.inf)
    np.minimum.at(lowest, images, lines)
    lines -= lowest[images]
    return lines, lines.max(initial=0) + 2


def _before(lengths):
    return np.cumsum(lengths) - lengths


def _blocks(counts, at_once):
    """Yield first and stop of runs of rows that add up to ``at_once``, or are one row.

    Examples
    --------
    >>> list(_blocks(np.array([2, 2, 9, 1]), at_once=4))
    [(0, 2), (2, 3), (3, 4)]
    """
    total, first = np.cumsum(counts), 0
    while first < len(counts):
        done = total[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(total, done + at_once, side="right")))
        yield first, stop
        first = stop
