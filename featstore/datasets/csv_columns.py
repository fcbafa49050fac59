"""Columns of a CSV: texts by their headers, numbers only where that loses nothing."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featstore.datasets.untrusted import as_line, text_column
from featstore.errors import AnnotationError

__all__ = ["CsvColumn", "read_csv_columns"]

SEPARATORS = (",", ";", "\t")
DIGITS_KEPT = 15  # decimal digits that every float64 gives back unchanged


@dataclass(frozen=True)
class CsvColumn:
    """Values of one column, as the file has them.

    Parameters
    ----------
    name : str
        Header.
    values : tuple of str, shape (n,)
        Values without blanks at their ends.
    path : path-like
        The file.

    Examples
    --------
    >>> CsvColumn("x", ("7", "12"), "a.csv").array(), CsvColumn("x", ("0.5", ""), "a.csv").array()
    (array([ 7, 12]), array([0.5, nan]))
    >>> CsvColumn("x", ("007", "8"), "a.csv").array()
    array(['007', '8'], dtype='<U3')
    """

    name: str
    values: tuple[str, ...]
    path: object

    def texts(self):
        """Values as texts, '' where there is none."""
        return list(self.values)

    def ids(self):
        """IDs as integers where that loses nothing; '007' stays a string."""
        canonical = all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text) for text in self.values)
        return np.array(self.values).astype(np.int64) if canonical else self._as_text()

    def array(self):
        """Numbers where that loses nothing, NaN where there is none; else text as it stands."""
        texts = self.values
        if not all(_is_number(text) for text in texts if text):
            return self._as_text()
        if all(re.fullmatch(r"-?[0-9]+", text) for text in texts):
            within = all(-(2**63) <= int(text) < 2**63 for text in texts)
            return np.array([int(text) for text in texts]) if within else self._as_text()
        if any(_n_significant(text) > DIGITS_KEPT for text in texts):
            return self._as_text()
        return np.array([float(text or "nan") for text in texts])

    def _as_text(self):
        return text_column(self.values, self.name, self.path)


def _is_number(text):
    """Whether a text is a number as a program writes it: no sign '+', no leading zero."""
    integer = r"0|-?[1-9][0-9]{0,18}"
    decimal = r"-?(0|[1-9][0-9]*)(\.[0-9]+(e[+-]?[0-9]{1,2})?|e[+-][0-9]{2})"
    return re.fullmatch(f"{integer}|{decimal}", text) is not None


def _n_significant(text):
    mantissa = text.partition("e")[0]
    return len(re.sub(r"[-.]", "", mantissa).lstrip("0"))


def read_csv_columns(path, *, needed):
    """Read a CSV.

    Parameters
    ----------
    path : path-like
        File in UTF-8 with a header; comma, semicolon or tab separates its columns.
    needed : set of str
        Headers that must be among them; they tell which separator is meant.

    Returns
    -------
    dict of str to CsvColumn
        By header, in the file's order.

    Raises
    ------
    AnnotationError
        If the file is not such a CSV, has no rows, two columns of one name or a row with more
        values than the header has names.
    """
    text = _text(path)
    separator = _separator(text, needed, path)
    header, *rows = _rows(text, separator, path) or [[]]
    if not rows:
        raise AnnotationError(f"{path} holds no rows; one row per annotation is needed")
    for number, row in enumerate(rows, start=1):
        if any(row[len(header) :]):
            raise AnnotationError(
                f"row {number} of {path} has {len(row)} values and the header {len(header)} names; "
                f"put values that hold {separator!r} into quotes"
            )
        row.extend([""] * (len(header) - len(row)))
    return _by_header(header, list(zip(*(row[: len(header)] for row in rows), strict=True)), path)


def _text(path):
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is not a CSV in UTF-8: {error}; save it as such") from error


def _rows(text, separator, path):
    """Values of all lines that are not blank, without blanks at their ends."""
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        rows = [[value.strip() for value in row] for row in reader]
    except csv.Error as error:
        raise AnnotationError(
            f"{path} is not a CSV with a header: line {reader.line_num}: {as_line(error)}"
        ) from error
    return [row for row in rows if row not in ([], [""])]


def _separator(text, needed, path):
    """Whichever of comma, semicolon and tab parts the header into the columns asked for."""
    headers = {separator: _header(text, separator) for separator in SEPARATORS}
    splitting = [separator for separator in SEPARATORS if len(headers[separator]) > 1]
    if len(splitting) > 1:
        fitting = [separator for separator in splitting if needed <= headers[separator]]
        if len(fitting) != 1:
            raise AnnotationError(
                f"the header of {path} holds {' and '.join(map(repr, splitting))}, and which of "
                "them separates the columns is unclear; keep one of them"
            )
        splitting = fitting
    return splitting[0] if splitting else SEPARATORS[0]


def _header(text, separator):
    lines = io.StringIO(text.lstrip("\r\n"), newline="")
    try:
        names = next(csv.reader(lines, delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # the reading proper says what is wrong
        names = []
    return {name.strip() for name in names}


def _by_header(header, columns, path):
    """Columns by their names; one without a name is kept where it holds something."""
    table = {}
    for place, (name, values) in enumerate(zip(header, columns, strict=True)):
        if not name and not any(values):
            continue  # a separator at the end of each line
        key = name or f"unnamed_{place}"
        if key in table:
            raise AnnotationError(f"{path} has two columns {key!r}; rename one")
        table[key] = CsvColumn(key, values, path)
    return table
