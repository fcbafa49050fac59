"""Parts of an embedding that are stored side by side, and the views that are made of them.

A stored row is all parts of an embedding, such as class token and patch mean. What is read is a
view of it: by default the parts that the encoder's pooling names. Nothing here reads a file, and
what a file says of parts chooses no column before it is known to make sense.
"""

import reprlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from featstore.store.layout import KEY

__all__ = ["StoredRow", "View", "listed"]


@dataclass(frozen=True)
class View:
    """Which columns of a stored row an embedding is, and in which order.

    Parameters
    ----------
    pooling : str
        Names of parts, joined by '+'.
    runs : tuple of (start, stop)
        Columns of the stored row; parts that stand side by side are one run.
    parts : dict of str to (start, stop)
        Named slices of the view itself, in order.

    Examples
    --------
    >>> row = StoredRow({"class": (0, 2), "mean": (2, 4), "registers": (4, 6)}, "class", 2)
    >>> view = row.view("registers+class")
    >>> view.runs, view.parts, view.dim
    (((4, 6), (0, 2)), {'registers': (0, 2), 'class': (2, 4)}, 4)
    >>> view.taken_from(np.arange(6)[None, view.span])
    array([[4, 5, 0, 1]])
    """

    pooling: str
    runs: tuple
    parts: dict

    @property
    def dim(self):
        """Length of an embedding."""
        return sum(stop - start for start, stop in self.runs)

    @property
    def span(self):
        """The columns that hold all of it: what is read, once, wherever the store is."""
        return slice(min(start for start, _ in self.runs), max(stop for _, stop in self.runs))

    def taken_from(self, spanned):
        """Bring the columns of the span into the order of the view; shape (n, dim)."""
        if len(self.runs) == 1:
            return spanned
        first = self.span.start
        return np.concatenate([spanned[:, a - first : b - first] for a, b in self.runs], axis=1)


@dataclass(frozen=True)
class StoredRow:
    """All that is stored of an embedding, and which of it is read by default.

    Parameters
    ----------
    parts : dict of str to (start, stop)
        Named slices; empty where the parts of an embedding are not known.
    pooling : str
        That of the encoder, which names the parts of the default view, joined by '+'.
    dim : int
        That of the encoder: the length of the default view.

    Examples
    --------
    >>> row = StoredRow({"class": (0, 2), "mean": (2, 4)}, "class", 2)
    >>> row.width, row.default.dim, row.whole.pooling
    (4, 2, 'class+mean')
    >>> row.view("mean").runs, row.view("registers")
    (((2, 4),), None)
    >>> StoredRow({"class": (0, 2), "mean": (2, 4)}, "class", 4).problem
    "its default view 'class' is 2 long, its encoder says 4"
    """

    parts: dict
    pooling: str
    dim: int

    @property
    def width(self):
        """Number of columns."""
        return max((stop for _, stop in self.parts.values()), default=self.dim)

    @cached_property
    def problem(self):
        """Why no view can be made of it, in a few words; None where all is well."""
        if type(self.dim) is not int or self.dim < 1 or not isinstance(self.pooling, str):
            found = f"dim {reprlib.repr(self.dim)} and pooling {reprlib.repr(self.pooling)}"
            return f"its encoder has {found}"
        problem = self._slice_problem()
        if problem is None and self.default.dim != self.dim:
            return (
                f"its default view {self.pooling!r} is {self.default.dim} long, its encoder says "
                f"{self.dim}"
            )
        return problem

    def _slice_problem(self):
        """Name the first part that is no slice, or not where the one before it ends."""
        for name, ends in self.parts.items():
            if not KEY.fullmatch(name):
                return f"its part {reprlib.repr(name)} has a name that is not allowed"
            if len(ends) != 2 or any(type(end) is not int for end in ends):
                return f"its part {name!r} is {reprlib.repr(ends)}, not a start and a stop"
        free = 0
        for name, (start, stop) in self.ordered.items():
            if start != free or stop <= start:
                return f"its part {name!r} is {start} to {stop}, and {free} is where it must start"
            free = stop
        return None

    @property
    def ordered(self):
        """The parts in the order in which they stand."""
        return dict(sorted(self.parts.items(), key=lambda part: tuple(part[1])))

    @property
    def names_parts(self):
        """Whether the pooling names parts that are there, each once."""
        return self._of_parts(self.pooling) is not None

    @property
    def default(self):
        """The view that the encoder's pooling names; all of the row where it names no parts."""
        return self._of_parts(self.pooling) or View(self.pooling, ((0, self.width),), self.ordered)

    @property
    def whole(self):
        """The view of every column, as they stand."""
        return self.view("+".join(self.ordered) or self.pooling)

    def view(self, pooling):
        """Make the view of some parts; None where one of them is not there, or named twice."""
        return self.default if pooling == self.pooling else self._of_parts(pooling)

    def _of_parts(self, pooling):
        names = pooling.split("+")
        if not set(names) <= set(self.parts) or len(set(names)) < len(names):
            return None
        runs, parts, dim = [], {}, 0
        for name in names:
            start, stop = self.parts[name]
            parts[name] = dim, dim + stop - start
            dim += stop - start
            if runs and runs[-1][1] == start:
                start, _ = runs.pop()
            runs.append((start, stop))
        return View(pooling, tuple(runs), parts)


def listed(parts, *, as_slices=False):
    """Name parts in a line.

    Parameters
    ----------
    parts : dict of str to (start, stop)
        In the order wanted.
    as_slices : bool
        Say as well where they are.

    Examples
    --------
    >>> parts = {"class": (0, 2), "mean": (2, 4)}
    >>> listed(parts), listed(parts, as_slices=True), listed({})
    ('class, mean', 'class 0:2, mean 2:4', 'none')
    """
    texts = [f"{name} {a}:{b}" if as_slices else name for name, (a, b) in parts.items()]
    return ", ".join(texts) or "none"
