"""Tables of annotations: CSV or Parquet, a row for each, the columns named by the caller.

Two kinds of rows: a file of an already cropped patch, or a centre in a larger image. What a column
means is never guessed beyond its plain name.
"""

import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from featstore.annotations import LOOK_ALIKE, MITOTIC_FIGURE, AnnotationTable
from featstore.datasets.csv_columns import read_csv_columns
from featstore.datasets.labels import LabelMap, known_label
from featstore.datasets.parquet_columns import PARQUET_MAGIC, read_parquet_columns
from featstore.datasets.reading import LeftOut, Reading
from featstore.datasets.untrusted import as_line, finite, short, text_column
from featstore.errors import AnnotationError, ImageError

__all__ = ["read_centre_table", "read_patch_table"]

OPTIONAL = ("slide", "domain")
ALWAYS_TEXT = ("slide", "domain", "case", "scanner", "patient")  # names, even where all are digits
# What a table in a store has or keeps for itself: 'c' and 'zarr.json' are Zarr's own names.
RESERVED = ("id", "label", "image", "c", "zarr.json")


def read_patch_table(
    path,
    *,
    name,
    images=None,
    id="id",
    file="file",
    label="label",
    slide=None,
    domain=None,
    labels=None,
):
    """Read a CSV or Parquet file of cropped patches.

    Parameters
    ----------
    path : path-like
        Parquet, or CSV in UTF-8 with a header; comma, semicolon or tab separates its columns.
        Blanks at both ends of a name or a value do not count.
    name : str
        Name of the dataset.
    images : path-like, optional
        Folder of the patch files; the table's own folder by default. A file that the table names
        without a folder is, where it is not there, looked for by its name in the folders below,
        where it must be the only one.
    id, file, label : str
        Names of the columns.
    slide, domain : str, optional
        Names of these columns; columns called ``slide`` and ``domain`` are taken without asking.
    labels : mapping of str to str, optional
        Labels to write in place of the table's own.

    Returns
    -------
    Reading
        ``image`` is the patch file, relative to the folder. All further columns are kept, their
        names in lower case; those whose name the table needs itself (``id``, ``label``,
        ``image``, ``c``, ``zarr.json``, and ``slide`` or ``domain`` where another column is taken
        for it) have ``csv_`` or ``parquet_`` before it.

    Raises
    ------
    AnnotationError
        If a column is missing, two have the same name, a row has no ID or label or more values
        than the header has names, or it is unclear what separates the columns.
    ImageError
        If a patch file is missing or its name stands for several files.

    Notes
    -----
    A column of a CSV becomes numbers where that loses nothing: no leading zero, integers within
    int64, at most 15 significant digits otherwise; empty values are then NaN. Columns of a Parquet
    file keep their type; integers with gaps become floats where that loses nothing. ``slide``,
    ``domain``, ``case``, ``scanner`` and ``patient`` are always text. Lists, records and bytes in a
    Parquet file are left out.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "normal").mkdir(); (folder / "normal" / "7.png").touch()
    >>> _ = (folder / "labels.csv").write_text("uid,png,kind\\n7,7.png,normal\\n")
    >>> cells = read_patch_table(folder / "labels.csv", name="lab", id="uid", file="png",
    ...                          label="kind").table
    >>> cells.ids, cells.images
    (array([7]), array(['normal/7.png'], dtype='<U12'))
    """
    roles = {"id": id, "file": file, "label": label}
    table, left_out = _load(path, roles, slide=slide, domain=domain)
    folder = Path(images) if images is not None else Path(path).parent
    files = _PatchFiles(folder).relative(table[roles["file"]].texts())
    columns = {"image": text_column(files, roles["file"], path)}
    return _reading(name, table, roles, columns, labels, left_out, path)


def read_centre_table(
    path,
    *,
    name,
    id="id",
    file=None,
    label="label",
    x="x",
    y="y",
    slide=None,
    domain=None,
    labels=None,
):
    """Read a CSV or Parquet file of centres in larger images.

    Parameters
    ----------
    path, name, slide, domain, labels
        As in :func:`read_patch_table`.
    id, label, x, y : str
        Names of the columns; ``x`` and ``y`` are in pixels of the image at full resolution.
    file : str, optional
        Name of the column of image files; ``image`` by default, or ``file`` where there is no
        such column.

    Returns
    -------
    Reading
        Columns ``x``, ``y``, ``image``, ``slide`` (the image's name without its ending, where the
        table says nothing of slides), and all further ones as in :func:`read_patch_table`.

    Raises
    ------
    AnnotationError
        As in :func:`read_patch_table`, and if a centre is not two finite numbers.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "cells.csv"
    >>> _ = file.write_text("id,image,x_px,y_px,label\\n7,a.svs,10.5,20,mitotic figure\\n")
    >>> cells = read_centre_table(file, name="lab", x="x_px", y="y_px").table
    >>> cells.x, cells.y, cells.slides
    (array([10.5]), array([20.]), array(['a'], dtype='<U1'))
    """
    roles = {"id": id, "label": label, "x": x, "y": y, "file": file}
    table, left_out = _load(path, roles, slide=slide, domain=domain)
    files = _files(table[roles["file"]], roles["file"], path)
    columns = {axis: _numbers(table[roles[axis]], roles[axis], path) for axis in ("x", "y")}
    columns["image"] = text_column(files, roles["file"], path)
    if "slide" not in roles:
        columns["slide"] = text_column([Path(image).stem for image in files], "slide", path)
    return _reading(name, table, roles, columns, labels, left_out, path)


def _load(path, roles, **optional):
    """Read all columns, and settle which of them has which role."""
    roles |= {role: column for role, column in optional.items() if column}
    table, nested = _columns_of(path, needed={column for column in roles.values() if column})
    if roles["file"] is None:
        roles["file"] = "image" if "image" in table else "file"
    roles |= {role: role for role in OPTIONAL if role not in roles and role in table}
    _check_columns(table, roles, path)
    if not nested:
        return table, ()
    return table, (
        LeftOut("of lists, records or bytes", len(nested), "columns", tuple(map(as_line, nested))),
    )


def _columns_of(path, *, needed):
    if _is_parquet(path):
        return read_parquet_columns(path, needed=needed)
    return read_csv_columns(path, needed=needed), []


def _is_parquet(path):
    try:
        with open(path, "rb") as file:
            return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error


def _check_columns(table, roles, path):
    for role, column in roles.items():
        if column not in table:
            raise AnnotationError(
                f"{path} has no column {column!r} for the {role}; it has "
                f"{as_line(', '.join(table))}. Name one with --{role}"
            )


def _reading(name, table, roles, columns, labels, left_out, path):
    """Put together what both kinds of rows share."""
    columns = columns | {
        role: text_column(table[roles[role]].texts(), roles[role], path)
        for role in OPTIONAL
        if role in roles
    }
    columns |= _further_columns(table, roles, taken=columns, path=path)
    label_of_row, notes = _labels(table[roles["label"]].texts(), LabelMap(labels), path)
    ids = _ids(table[roles["id"]], roles["id"], path)
    return Reading(AnnotationTable(name, ids, label_of_row, columns), left_out, notes)


def _labels(texts, label_map, path):
    """Labels as they stand, or as the caller maps them, and a note where they have other names."""
    label_map.check_names(texts, path)
    labels = [label_map.asked_for(text) or text for text in texts]
    notes = [
        f"label {short(label)} is kept as it stands; --map-label "
        f"'{label}={known_label(label)}' gives it the name it has in other datasets"
        for label in sorted(set(labels))
        if known_label(label) and label not in (MITOTIC_FIGURE, LOOK_ALIKE)
    ]
    return text_column(labels, "label", path), tuple(notes)


def _ids(column, name, path):
    texts = column.texts()
    if "" in texts:
        raise AnnotationError(
            f"row {texts.index('') + 1} of {path} has nothing in {name!r}; every annotation needs "
            "an ID"
        )
    return column.ids()


def _files(column, name, path):
    files = column.texts()
    if "" in files:
        raise AnnotationError(
            f"row {files.index('') + 1} of {path} has nothing in {name!r}; every annotation is on "
            "an image"
        )
    return files


def _numbers(column, name, path):
    """Centres, float64; the first that is no finite number is named."""
    texts = column.texts()
    numbers = [_number(text) for text in texts]
    if None in numbers:
        row = numbers.index(None)
        raise AnnotationError(
            f"row {row + 1} of {path} has {short(texts[row])} in {name!r}; a finite number of "
            "pixels is needed"
        )
    return np.array(numbers)


def _number(text):
    try:
        return None if "_" in text else finite(float(text))
    except ValueError:
        return None


def _further_columns(table, roles, *, taken, path):
    """All columns without a role, under the names they have in a store."""
    reserved = {*RESERVED, *taken}
    kind = "parquet" if _is_parquet(path) else "csv"
    header_of, further = {}, {}
    for place, header in enumerate(table):
        if header in roles.values():
            continue
        name = re.sub(r"[^a-z0-9._-]+", "_", header.lower()).strip("._-") or f"column_{place}"
        name = f"{kind}_{name}" if name in reserved else name
        if name in further:
            raise AnnotationError(
                f"the columns {header_of[name]!r} and {header!r} of {path} would both be called "
                f"{name!r}; rename one"
            )
        header_of[name] = header
        further[name] = _values(name, table[header], path)
    return further


def _values(name, column, path):
    if name in ALWAYS_TEXT:
        return text_column(column.texts(), name, path)
    return column.array()


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
        if os.path.isfile(self.folder / file):  # False where no system allows such a name
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
