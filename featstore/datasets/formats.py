"""Which reader an annotation file is for, told by its content and, where that fails, its ending."""

import inspect
from dataclasses import dataclass
from pathlib import Path

from featstore.datasets.geojson import GEOJSON_SUFFIX, is_geojson, read_geojson
from featstore.datasets.midog import read_midog
from featstore.datasets.parquet_columns import PARQUET_MAGIC
from featstore.datasets.sliderunner import SQLITE_MAGIC, read_sliderunner
from featstore.datasets.table import read_centre_table
from featstore.datasets.untrusted import load_json
from featstore.errors import AnnotationError

__all__ = ["FORMATS", "Format", "format_of", "options_of", "read_annotations"]

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Format:
    """A file format and its reader.

    Parameters
    ----------
    title : str
        Its name in errors, with the endings its files have.
    read : callable
        Takes a path and options, gives a Reading.
    """

    title: str
    read: object


FORMATS = {
    "midog": Format("MIDOG JSON (.json)", read_midog),
    "sliderunner": Format("SlideRunner database (.sqlite, .db)", read_sliderunner),
    "table": Format("table of centres (.csv, .tsv, .parquet)", read_centre_table),
    "geojson": Format("GeoJSON of QuPath (.geojson, or a folder of them)", read_geojson),
}


def options_of(read):
    """Names of the options that a reader takes, the dataset's name aside.

    Examples
    --------
    >>> options_of(read_midog)
    ['labels', 'release', 'box_px']
    """
    return [key for key in inspect.signature(read).parameters if key not in ("path", "name")]


def read_annotations(path, *, name, format=None, images=None, **options):
    """Read an annotation file of any known format.

    Parameters
    ----------
    path : path-like
        A file, or a folder of GeoJSON files.
    name : str
        Name of the dataset.
    format : {'midog', 'sliderunner', 'table', 'geojson'}, optional
        What the file is; by default that is told by its content.
    images : path-like, optional
        Folder of the images, for the formats whose reader looks there.
    **options
        As the format's reader takes them: :func:`~featstore.datasets.midog.read_midog`,
        :func:`~featstore.datasets.sliderunner.read_sliderunner`,
        :func:`~featstore.datasets.table.read_centre_table`,
        :func:`~featstore.datasets.geojson.read_geojson`.

    Returns
    -------
    Reading

    Raises
    ------
    AnnotationError
        If the format is unknown, its reader does not take an option, or the file is not as the
        format has it.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "cells.csv"
    >>> _ = file.write_text("id,image,x,y,label\\n7,a.svs,10.5,20,mitotic figure\\n")
    >>> format_of(file), read_annotations(file, name="lab").table.ids
    ('table', array([7]))
    """
    key = format_of(path) if format is None else format
    if key not in FORMATS:
        raise AnnotationError(f"no format {key!r}; known are {', '.join(FORMATS)}")
    known = options_of(FORMATS[key].read)
    lost = [option for option in options if option not in known]
    if lost:
        raise AnnotationError(
            f"{path} is read as {FORMATS[key].title}, which has no option {lost[0]!r}; it has "
            f"{', '.join(option for option in known if option != 'images')}"
        )
    if "images" in known:
        options["images"] = images
    return FORMATS[key].read(path, name=name, **options)


def format_of(path):
    """Tell the format of an annotation file.

    Parameters
    ----------
    path : path-like
        A file or a folder.

    Returns
    -------
    str
        A key of ``FORMATS``.

    Raises
    ------
    AnnotationError
        If the file cannot be read or is of no known format.
    """
    if Path(path).is_dir():
        return "geojson"
    start = _start(path)
    if start.startswith(SQLITE_MAGIC):
        return "sliderunner"
    if start.startswith(PARQUET_MAGIC):
        return "table"
    suffix = Path(path).suffix.lower()
    if suffix == GEOJSON_SUFFIX:
        return "geojson"
    if suffix in TABLE_SUFFIXES:
        return "table"
    if suffix == ".json" or start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return "geojson" if is_geojson(load_json(path)) else "midog"
    raise AnnotationError(
        f"{path} is of no known format; known are "
        f"{', '.join(form.title for form in FORMATS.values())}: name one with --format "
        f"{', '.join(FORMATS)}"
    )


def _start(path):
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error
