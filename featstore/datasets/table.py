"""Tables of patches that are already cropped: a CSV with a file and a label in each row."""

import csv
import io
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from featstore.annotations import AnnotationTable
from featstore.errors import AnnotationError, ImageError

__all__ = ["read_patch_table"]

OPTIONAL = ("slide", "domain")
SEPARATORS = (",", ";", "\t")
ALWAYS_TEXT = ("slide", "domain", "case", "scanner", "patient")  # names, even where all are digits
# What a table in a store has or keeps for itself: 'c' and 'zarr.json' are Zarr's own names.
RESERVED = ("id", "label", "image", "c", "zarr.json")
DIGITS_KEPT = 15  # decimal digits that every float64 gives back unchanged


def read_patch_table(
    path, *, name, images=None, id="id", file="file", label="label", slide=None, domain=None
):
    """Read a CSV of cropped patches.

    Parameters
    ----------
    path : path-like
        CSV in UTF-8 with a header; comma, semicolon or tab separates its columns. Blanks at both
        ends of a name or a value do not count.
    name : str
        Name of the dataset.
    images : path-like, optional
        Folder of the patch files; the CSV's own folder by default. A file that the CSV names
        without a folder is, where it is not there, looked for by its name in the folders below,
        where it must be the only one.
    id, file, label : str
        Names of the columns.
    slide, domain : str, optional
        Names of these columns; columns called ``slide`` and ``domain`` are taken without asking.

    Returns
    -------
    AnnotationTable
        ``image`` is the patch file, relative to the folder. All further columns of the CSV are
        kept, their names in lower case; those whose name the table needs itself (``id``,
        ``label``, ``image``, ``c``, ``zarr.json``, and ``slide`` or ``domain`` where another
        column is taken for it) have ``csv_`` before it.

    Raises
    ------
    AnnotationError
        If a column is missing, two have the same name, a row has no ID or label or more values
        than the header has names, or it is unclear what separates the columns.
    ImageError
        If a patch file is missing or its name stands for several files.

    Notes
    -----
    A column becomes numbers where that loses nothing: no leading zero, integers within int64,
    at most 15 significant digits otherwise; empty values are then NaN. ``slide``, ``domain``,
    ``case``, ``scanner`` and ``patient`` stay text.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "normal").mkdir(); (folder / "normal" / "7.png").touch()
    >>> _ = (folder / "labels.csv").write_text("uid,png,kind\\n7,7.png,normal\\n")
    >>> cells = read_patch_table(folder / "labels.csv", name="lab", id="uid", file="png",
    ...                          label="kind")
    >>> cells.ids, cells.images
    (array([7]), array(['normal/7.png'], dtype='<U12'))
    """
    roles = {"id": id, "file": file, "label": label}
    roles |= {key: value for key, value in (("slide", slide), ("domain", domain)) if value}
    table = _load(path, needed=set(roles.values()))
    roles |= {role: role for role in OPTIONAL if role not in roles and role in table}
    _check_columns(table, roles, path)
    folder = Path(images) if images is not None else Path(path).parent
    columns = {"image": np.array(_PatchFiles(folder).relative(table[roles["file"]]))}
    columns |= {role: np.array(table[roles[role]]) for role in OPTIONAL if role in roles}
    columns |= _further_columns(table, roles, path)
    ids = _ids(table[roles["id"]], roles["id"], path)
    return AnnotationTable(name, ids, np.array(table[roles["label"]]), columns)


def _load(path, *, needed):
    """Columns of a CSV as texts, by their headers."""
    text = _text(path)
    separator = _separator(text, needed, path)
    header, *rows = _rows(text, separator, path) or [[]]
    if not rows:
        raise AnnotationError(f"{path} holds no rows; one row per patch is needed")
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
            f"{path} is not a CSV with a header: line {reader.line_num}: {error}"
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
        table[key] = values
    return table


def _check_columns(table, roles, path):
    for role, column in roles.items():
        if column not in table:
            raise AnnotationError(
                f"{path} has no column {column!r} for the {role}; it has {', '.join(table)}. "
                f"Name one with --{role}"
            )


def _ids(texts, column, path):
    """IDs as integers where that loses nothing; '007' stays a string."""
    if "" in texts:
        raise AnnotationError(
            f"row {texts.index('') + 1} of {path} has nothing in {column!r}; every patch needs an "
            "ID"
        )
    canonical = all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text) for text in texts)
    return np.array(texts).astype(np.int64) if canonical else np.array(texts)


def _further_columns(table, roles, path):
    """All columns without a role, under the names they have in a store."""
    reserved = {*RESERVED, *(role for role in OPTIONAL if role in roles)}
    header_of, further = {}, {}
    for place, header in enumerate(table):
        if header in roles.values():
            continue
        name = re.sub(r"[^a-z0-9._-]+", "_", header.lower()).strip("._-") or f"column_{place}"
        name = f"csv_{name}" if name in reserved else name
        if name in further:
            raise AnnotationError(
                f"the columns {header_of[name]!r} and {header!r} of {path} would both be called "
                f"{name!r}; rename one"
            )
        header_of[name] = header
        further[name] = _values(name, table[header])
    return further


def _values(name, texts):
    """Numbers where that loses nothing, NaN where there is none; else text as it stands.

    Examples
    --------
    >>> _values("x", ["7", "12"]), _values("x", ["0.5", ""]), _values("x", ["007", "8"])
    (array([ 7, 12]), array([0.5, nan]), array(['007', '8'], dtype='<U3'))
    """
    if name in ALWAYS_TEXT or not all(_is_number(text) for text in texts if text):
        return np.array(texts)
    if all(re.fullmatch(r"-?[0-9]+", text) for text in texts):
        within = all(-(2**63) <= int(text) < 2**63 for text in texts)
        return np.array([int(text) for text in texts]) if within else np.array(texts)
    if any(_n_significant(text) > DIGITS_KEPT for text in texts):
        return np.array(texts)
    return np.array([float(text or "nan") for text in texts])


def _is_number(text):
    """Whether a text is a number as a program writes it: no sign '+', no leading zero."""
    integer = r"0|-?[1-9][0-9]{0,18}"
    decimal = r"-?(0|[1-9][0-9]*)(\.[0-9]+(e[+-]?[0-9]{1,2})?|e[+-][0-9]{2})"
    return re.fullmatch(f"{integer}|{decimal}", text) is not None


def _n_significant(text):
    mantissa = text.partition("e")[0]
    return len(re.sub(r"[-.]", "", mantissa).lstrip("0"))


class _PatchFiles:
    """Patch files in a folder, found by path or, failing that, by name."""

    def __init__(self, folder):
        if not folder.is_dir():
            raise ImageError(f"the folder of patch files {folder} does not exist; give --images")
        self.folder = folder
        self._by_name = None

    def relative(self, named):
        return [self._relative(file) for file in named]

    def _relative(self, file):
        if not file or Path(file).is_absolute() or ".." in Path(file).parts:
            raise ImageError(f"patch file {file!r} is not a path within {self.folder}")
        if (self.folder / file).is_file():
            return Path(file).as_posix()
        # A folder that the CSV names is meant: the same file name elsewhere is another patch.
        found = self._below().get(file, []) if len(Path(file).parts) == 1 else []
        if len(found) != 1:
            problem = "is missing" if not found else f"could be any of {', '.join(found[:3])}"
            raise ImageError(
                f"patch file {file!r} {problem} in {self.folder}; give --images or "
                "paths relative to it"
            )
        return found[0]

    def _below(self):
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in sorted(self.folder.rglob("*")):
                if path.is_file():
                    self._by_name[path.name].append(path.relative_to(self.folder).as_posix())
        return self._by_name
