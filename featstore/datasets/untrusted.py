"""Content of annotation files from strangers, looked at before it is believed.

What is read here is plain: JSON that parses, texts of one line, numbers that are finite, columns
that fit the memory. Everything else is one AnnotationError that names the file.
"""

import json
import re
import reprlib
from pathlib import Path

import numpy as np

from featstore.errors import AnnotationError

__all__ = [
    "as_line",
    "check_nonempty",
    "finite",
    "id_column",
    "is_id",
    "load_json",
    "one_line",
    "short",
    "text_column",
]

LARGEST_PX = 2**53
LONGEST_NAME = 1_000  # characters; file systems allow 255 bytes to a name
MOST_CHARACTERS = 2**28  # of a text column, all texts as wide as the longest: 1 GiB in NumPy
# Control characters, line ends of Unicode, halves of surrogate pairs: no part of a name, and
# a terminal, a path or UTF-8 cannot hold them.
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def load_json(path):
    """Parse a JSON file.

    Parameters
    ----------
    path : path-like
        File in UTF-8, with or without a byte order mark.

    Returns
    -------
    object
        Whatever the file holds; NaN, infinite and very large numbers are for the caller to refuse.

    Raises
    ------
    AnnotationError
        If the file cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path} is not JSON: {as_line(error)}") from error


def short(value):
    """Write any value in few characters and in one line."""
    return reprlib.repr(value)


def as_line(text):
    r"""Write a text that quotes a file in one line, what a terminal would act on spelt out.

    Examples
    --------
    >>> print(as_line("unknown token: \x1b[2J"))
    unknown token: \x1b[2J
    """
    return UNFIT.sub(lambda found: repr(found[0])[1:-1], str(text))


def is_id(value):
    """Whether a value can be an ID: a whole number or a text, and not true, false or ''.

    Examples
    --------
    >>> is_id(7), is_id("7"), is_id(True), is_id(7.0), is_id(None)
    (True, True, False, False, False)
    """
    return isinstance(value, (int, str)) and not isinstance(value, bool) and value != ""


def finite(value):
    """Give a number of pixels as float, or None where it is none.

    True, NaN and infinity are none, and neither is anything beyond 2**53, where float64 leaves
    whole pixels out.

    Examples
    --------
    >>> finite(3), finite(0.5), finite(True), finite("3"), finite(float("nan")), finite(10**400)
    (3.0, 0.5, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= LARGEST_PX else None


def one_line(value, what, path):
    """Give a name as it stands, or refuse it.

    Parameters
    ----------
    value : object
        Should be a text with something in it.
    what : str
        What it is the name of, as the error says it.
    path : path-like
        File it is from.

    Returns
    -------
    str

    Raises
    ------
    AnnotationError
        If it is no text, empty, longer than 1,000 characters or holds a control character.

    Examples
    --------
    >>> one_line("001.tiff", "file name of the image 1", "m.json")
    '001.tiff'
    """
    if not isinstance(value, str) or not value.strip():
        raise AnnotationError(f"{path} has {short(value)} as {what}; a text is needed")
    if len(value) > LONGEST_NAME:
        raise AnnotationError(
            f"{path} has {short(value)} as {what}, {len(value):,} characters; at most "
            f"{LONGEST_NAME:,} make a name"
        )
    if UNFIT.search(value):
        raise AnnotationError(
            f"{path} has {short(value)} as {what}, with a control character; rename it"
        )
    return value


def text_column(texts, what, path):
    """Make an array of texts, unless one long text would make it fill the memory.

    Parameters
    ----------
    texts : sequence of str, shape (n,)
        Values.
    what : str
        Name of the column.
    path : path-like
        File it is from.

    Returns
    -------
    ndarray of str, shape (n,)

    Raises
    ------
    AnnotationError
        If all texts as wide as the longest are more than 1 GiB, or one holds a NUL.
    """
    _check_texts(texts, what, path)
    return np.array(texts, dtype=str)


def id_column(ids, path):
    """Give IDs as a table takes them: whole numbers where all are, else texts.

    Parameters
    ----------
    ids : list of int or str, shape (n,)
        As :func:`is_id` has them.
    path : path-like
        File they are from.

    Returns
    -------
    list of int or str, shape (n,)

    Raises
    ------
    AnnotationError
        As in :func:`text_column`.
    """
    if all(isinstance(value, int) for value in ids):
        return ids
    texts = [str(value) for value in ids]
    _check_texts(texts, "id", path)
    return texts


def _check_texts(texts, what, path):
    """Refuse texts that an array of NumPy could not hold, or not as they are."""
    longest = max(map(len, texts), default=0)
    if longest * len(texts) > MOST_CHARACTERS:
        raise AnnotationError(
            f"column {what!r} of {path} holds a text of {longest:,} characters, too long for one "
            f"of {len(texts):,} rows; shorten it or take the column out"
        )
    if any("\0" in text for text in texts):  # NumPy would drop one at the end
        raise AnnotationError(f"column {what!r} of {path} holds a NUL character; take it out")


def check_nonempty(rows, path, found):
    """Refuse a file of which nothing is left.

    Parameters
    ----------
    rows : sequence
        What was kept.
    path : path-like
        File.
    found : str
        What the file holds instead, as the error says it.
    """
    if not len(rows):
        raise AnnotationError(
            f"{path} has no annotation to keep: {found}; name labels with --map-label"
        )
