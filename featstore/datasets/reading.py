"""What reading an annotation file gave: the table, what was left out and why, and notes.

No reader drops an annotation in silence: each one is in the table or counted in ``left_out``.
"""

from collections import Counter
from dataclasses import dataclass

from featstore.annotations import AnnotationTable

__all__ = ["LeftOut", "Reading", "left_out_by"]

N_SHOWN = 3  # first ones that a line of what was left out names
MOST_REASONS = 20  # kept apart; a file may name any number of classes


@dataclass(frozen=True)
class LeftOut:
    """Annotations or images that a reader left out for one reason.

    Parameters
    ----------
    reason : str
        Why, as it stands behind what was left out: "without annotations".
    n : int
        How many.
    unit : str
        What: 'annotations', 'images', 'slides' or 'columns'.
    first : tuple of str
        The first of them, by ID or name; at most three are kept.

    Examples
    --------
    >>> print(LeftOut("without annotations", 50, "images", ("151.tiff", "152.tiff", "153.tiff")))
    50 images without annotations (151.tiff, 152.tiff, 153.tiff, ...)
    """

    reason: str
    n: int
    unit: str = "annotations"
    first: tuple = ()

    def __post_init__(self):
        object.__setattr__(self, "first", tuple(map(str, self.first[:N_SHOWN])))

    def __str__(self):
        line = f"{self.n:,} {self.unit} {self.reason}"
        shown = [*self.first, *(["..."] if self.n > len(self.first) else [])]
        return f"{line} ({', '.join(shown)})" if self.first else line

    def to_json(self):
        """Give what a store keeps of it."""
        return {"reason": self.reason, "n": self.n, "unit": self.unit, "first": list(self.first)}


@dataclass(frozen=True, eq=False)
class Reading:
    """One annotation file, read.

    Parameters
    ----------
    table : AnnotationTable
        What was kept.
    left_out : tuple of LeftOut
        What was not, by reason.
    notes : tuple of str
        What else a person should know, a line each.

    Examples
    --------
    >>> cells = AnnotationTable("demo", [1, 2, 3], ["look-alike", "mitotic figure", "look-alike"],
    ...                         {"image": ["a.tiff", "a.tiff", "b.tiff"]})
    >>> Reading(cells).counts()
      domain   image           label  annotations
    0    all  a.tiff      look-alike            1
    1    all  a.tiff  mitotic figure            1
    2    all  b.tiff      look-alike            1
    """

    table: AnnotationTable
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def counts(self):
        """Count annotations per domain, image and label.

        Returns
        -------
        DataFrame
            ``domain`` ('all' where the table has none), ``image``, ``label``, ``annotations``:
            a row per combination that occurs, sorted.
        """
        frame = self.table.to_frame()
        if "domain" not in frame:
            frame["domain"] = "all"
        if "image" not in frame:
            frame["image"] = "-"
        by = ["domain", "image", "label"]
        return frame.groupby(by).size().rename("annotations").reset_index()

    def lines(self):
        """Give what a person is told beside the counts: what was left out, then the notes."""
        return [*(f"left out: {part}" for part in self.left_out), *self.notes]


def left_out_by(reasons, unit="annotations"):
    """Count what was left out by reason, the most frequent first.

    Parameters
    ----------
    reasons : iterable of (str, object)
        Reason and ID or name of each.
    unit : str
        What was left out.

    Returns
    -------
    tuple of LeftOut
        At most 20; rarer reasons are counted together.

    Examples
    --------
    >>> for part in left_out_by([("deleted", 7), ("of class 'other'", 8), ("deleted", 9)]):
    ...     print(part)
    2 annotations deleted (7, 9)
    1 annotations of class 'other' (8)
    """
    counts, first = Counter(), {}
    for reason, who in reasons:
        counts[reason] += 1
        if counts[reason] <= N_SHOWN:
            first.setdefault(reason, []).append(who)
    frequent = counts.most_common(MOST_REASONS)
    parts = [LeftOut(reason, n, unit, tuple(first[reason])) for reason, n in frequent]
    n_rest = counts.total() - sum(part.n for part in parts)
    if n_rest:
        parts.append(LeftOut(f"for {len(counts) - MOST_REASONS} other reasons", n_rest, unit))
    return tuple(parts)
