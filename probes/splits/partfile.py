"""Files that name a part for each annotation or slide, as they come with published datasets."""

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from probes.errors import SplitError

__all__ = ["PartFile", "read_parts"]

KEYS = ("id", "annotation_id", "uid", "slide", "slide_id", "case", "image", "file", "filename")
PARTS = ("split", "part", "subset", "set", "dataset")
SEPARATORS = ",;\t"
MOST_BYTES = 2**28


@dataclass(frozen=True)
class PartFile:
    """What a file says.

    Parameters
    ----------
    name : str
        Name of the file.
    digest : str
        SHA-256 of its bytes.
    key, part : str
        Names of the columns that were read.
    parts : dict of str to str
        Part of each key, in the file's order.
    """

    name: str
    digest: str
    key: str
    part: str
    parts: dict


def read_parts(path, *, key=None, part=None):
    """Read a CSV of parts, separated by commas, semicolons or tabs.

    Parameters
    ----------
    path : path-like
        The file, in UTF-8.
    key, part : str, optional
        Names of the columns; by default the first of usual names.

    Returns
    -------
    PartFile

    Raises
    ------
    SplitError
        If the file cannot be read, has not those columns, or gives a key two parts.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "slides.csv"
    >>> _ = file.write_text("Slide;Dataset;Tumor\\n1;train;lung\\n2;test;lung\\n")
    >>> read_parts(file).parts
    {'1': 'train', '2': 'test'}
    """
    content = _bytes_of(path)
    rows = _rows(path, content)
    header = [name.strip() for name in rows[0]]
    at_key = _column(path, header, key, KEYS, "key")
    at_part = _column(path, header, part, PARTS, "part")
    parts = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise SplitError(
                f"line {number} of {path} has {len(row)} values under {len(header)} columns"
            )
        name, found = row[at_key].strip(), row[at_part].strip()
        if parts.setdefault(name, found) != found:
            raise SplitError(
                f"{path} puts {header[at_key]} {name!r} into {parts[name]!r} and into {found!r}; "
                "one part is needed"
            )
    if not parts:
        raise SplitError(f"{path} names no {header[at_key]}; a line for each is needed")
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return PartFile(Path(path).name, digest, header[at_key], header[at_part], parts)


def _bytes_of(path):
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise SplitError(f"{path} is larger than {MOST_BYTES:,} bytes, no table of parts is")
        return Path(path).read_bytes()
    except OSError as error:
        raise SplitError(f"cannot read the parts {path}: {error.strerror}") from error


def _rows(path, content):
    try:
        text = content.decode("utf-8-sig")
        first = text.split("\n", 1)[0]
        separator = max(SEPARATORS, key=first.count)
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row
        ]
    except UnicodeDecodeError as error:
        raise SplitError(f"{path} is no table of parts: it is not UTF-8 text") from error
    except csv.Error as error:
        raise SplitError(f"{path} is no table of parts: {error}") from error
    if not rows:
        raise SplitError(f"{path} is empty; a table of parts is needed")
    return rows


def _column(path, header, asked, usual, what):
    """Place of a column by the name asked for, or by the first of the usual names."""
    lowered = [name.lower().replace(" ", "_") for name in header]
    if asked is not None and asked in header:
        return header.index(asked)
    found = [name for name in usual if name in lowered] if asked is None else []
    if not found:
        wanted = f"column {asked!r}" if asked is not None else f"column like {', '.join(usual)}"
        raise SplitError(f"{path} has no {wanted}; it has {', '.join(header)}: name one as {what}")
    return lowered.index(found[0])
