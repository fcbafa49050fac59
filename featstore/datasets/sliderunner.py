"""SlideRunner databases (SQLite), as CCMCT and other datasets are published.

Read whatever the schema version says: a database with the column ``deleted`` is a new one, one
without it an old one. The file is opened read-only and immutable, so nothing is written beside it
and none of its triggers, views or virtual tables runs.
"""

import os
import re
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from featstore.annotations import LOOK_ALIKE, MITOTIC_FIGURE, AnnotationTable
from featstore.datasets.labels import LabelMap
from featstore.datasets.reading import LeftOut, Reading, left_out_by
from featstore.datasets.releases import CCMCT, check_counts, release_named
from featstore.datasets.untrusted import (
    as_line,
    check_nonempty,
    finite,
    one_line,
    short,
    text_column,
)
from featstore.errors import AnnotationError

__all__ = ["SQLITE_MAGIC", "read_sliderunner"]

SQLITE_MAGIC = b"SQLite format 3\x00"
NEEDED = {
    "Slides": ("uid", "filename"),
    "Classes": ("uid", "name"),
    "Annotations": ("uid", "slide", "type", "agreedClass"),
    "Annotations_coordinates": ("annoId", "coordinateX", "coordinateY"),
}
VOTES = {"Annotations_label": ("annoId", "person", "class"), "Persons": ("uid", "name")}

# Shapes by SlideRunner's number, with the coordinates that each has at least.
FEWEST_COORDINATES = {1: 1, 2: 2, 3: 1, 4: 1, 5: 2}
SPOTS = (1, 4)  # spot and special spot: one coordinate, the centre itself
# CCMCT ODAEL, for databases whose classes have numbers only.
CODES_WITHOUT_NAMES = {2: MITOTIC_FIGURE, 7: LOOK_ALIKE}

LONGEST_VALUE = 1_000_000  # bytes of a text or a table's definition
FEWEST_BYTES_PER_ROW = 4  # a cell's pointer, length, ID and header in an SQLite page
MOST_PERSONS = 100  # each is a column of text


def read_sliderunner(path, *, name, labels=None, release=None):
    """Read the mitotic figures and look-alikes of a SlideRunner database.

    Parameters
    ----------
    path : path-like
        The SQLite file, of any schema version.
    name : str
        Name of the dataset.
    labels : mapping of str to str, optional
        Labels of the database's classes, before the spellings that are known anyway; a class
        that gets one here is kept, whatever it is.
    release : {'ccmct'}, optional
        Which release the database is. By default that is found out, where its number of slides
        and its classes leave no doubt.

    Returns
    -------
    Reading
        IDs are the annotations' ``uid``. Columns ``x``, ``y`` (pixels of the slide at full
        resolution), ``image`` (file name of the slide), ``slide`` (the same without its ending)
        and ``vote_<person>`` where experts voted. Deleted annotations, those without an agreed
        class (none, or 0) and those of other classes are left out and counted.

    Raises
    ------
    AnnotationError
        If the file is no such database, is damaged or still being written to, a slide's file
        stands twice, or an annotation has a slide or a class that the database does not list.

    Warns
    -----
    KnownCountsWarning
        If the database is a known release and gives other numbers than were published.

    Notes
    -----
    The centre is the middle of the smallest upright box around an annotation's coordinates,
    whatever its shape: the coordinate itself for a spot, the middle between two corners for a
    rectangle or a circle, the middle of the bounding box for a polygon. Of a person's several
    votes on one annotation the last counts.

    Examples
    --------
    >>> import sqlite3, tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "cells.sqlite"
    >>> database = sqlite3.connect(file)
    >>> _ = database.executescript('''
    ...   CREATE TABLE Slides (uid, filename); CREATE TABLE Classes (uid, name);
    ...   CREATE TABLE Annotations (uid, slide, type, agreedClass);
    ...   CREATE TABLE Annotations_coordinates (annoId, coordinateX, coordinateY);
    ...   INSERT INTO Slides VALUES (1, 'a.svs'); INSERT INTO Classes VALUES (4, 'Mitose');
    ...   INSERT INTO Annotations VALUES (9, 1, 5, 4);
    ...   INSERT INTO Annotations_coordinates VALUES (9, 10, 20), (9, 61, 71);''')
    >>> database.close()
    >>> cells = read_sliderunner(file, name="ccmct").table
    >>> cells.ids, cells.x, cells.y, cells.labels
    (array([9]), array([35.5]), array([45.5]), array(['mitotic figure'], dtype='<U14'))
    """
    content = _load(path)
    slides = _slides(content.slides, path)
    classes, notes = _classes(content.classes, LabelMap(labels), path)
    kept, reasons = _sort_out(content, slides, classes, path)
    if not kept:
        _refuse_empty(reasons, classes, path)
    table = AnnotationTable(
        name,
        [row.uid for row in kept],
        text_column([row.label for row in kept], "label", path),
        _columns(kept, slides, path) | _votes(content, kept, classes, path),
    )
    known = _release(release, content, classes)
    if known is not None:
        check_counts(known, table, path)
    return Reading(table, left_out_by(reasons) + _unused_slides(kept, slides), notes)


@dataclass(frozen=True)
class _Content:
    """Rows of the tables, as they stand in the file."""

    slides: list
    classes: list
    annotations: list
    coordinates: list
    votes: list
    persons: list


@dataclass(frozen=True)
class _Classes:
    """What a class number is called, and which label it has."""

    names: dict
    label_of: dict
    named: bool


@dataclass(frozen=True)
class _Kept:
    """One annotation that goes into the table."""

    uid: int
    slide: int
    label: str
    x: float
    y: float


def _load(path):
    _check_file(path)
    try:
        with closing(_connect(path)) as database:
            return _read_tables(database, path)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"{path} cannot be read as an SQLite database ({as_line(error)}); it is damaged or "
            "cut short: get it again"
        ) from error


def _check_file(path):
    """Refuse what is no database, or one whose last changes are in a file beside it."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(SQLITE_MAGIC))
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error
    if start != SQLITE_MAGIC:
        raise AnnotationError(f"{path} is not an SQLite database; SlideRunner's files are")
    for ending in ("-wal", "-journal"):
        beside = Path(f"{path}{ending}")
        if beside.is_file() and beside.stat().st_size:
            raise AnnotationError(
                f"{beside} holds changes that are not in {path} yet; close the program that has it "
                "open"
            )


def _connect(path):
    """Open a database that may have been made to harm, with nothing of it allowed to run."""
    address = "file:" + quote(os.fsencode(Path(path).absolute())) + "?mode=ro&immutable=1"
    database = sqlite3.connect(address, uri=True, isolation_level=None)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    database.execute("PRAGMA trusted_schema=OFF")
    database.execute("PRAGMA cell_size_check=ON")
    return database


def _read_tables(database, path):
    # No file holds more rows than its bytes allow; a page that names itself would go on for ever.
    most = Path(path).stat().st_size // FEWEST_BYTES_PER_ROW
    for table, columns in NEEDED.items():
        _check_table(database, table, columns, path)

    def rows(table, columns, *more):
        names = ", ".join(f'"{column}"' for column in (*columns, *more))
        query = f'SELECT {names} FROM "{table}" NOT INDEXED LIMIT {most + 1}'  # noqa: S608 - our names
        found = database.execute(query).fetchall()
        if len(found) > most:
            raise AnnotationError(f"{path} holds more rows of {table} than its size allows")
        return found

    deleted = [name for name in _column_names(database, "Annotations") if name == "deleted"]
    votes = all(set(columns) <= _column_names(database, table) for table, columns in VOTES.items())
    for table, columns in VOTES.items() if votes else ():
        _check_table(database, table, columns, path)
    return _Content(
        *(rows(table, columns) for table, columns in list(NEEDED.items())[:2]),
        rows("Annotations", NEEDED["Annotations"], *deleted),
        rows("Annotations_coordinates", NEEDED["Annotations_coordinates"]),
        *([rows(table, columns) for table, columns in VOTES.items()] if votes else ([], [])),
    )


def _check_table(database, table, columns, path):
    """Refuse a table that is missing, computed, or without the columns that are needed."""
    found = database.execute(
        "SELECT type, rootpage FROM sqlite_master WHERE name = ? COLLATE NOCASE AND type <> 'index'"
        " AND type <> 'trigger'",
        (table,),
    ).fetchall()
    if not found:
        raise AnnotationError(
            f"{path} has no table {table}; a SlideRunner database has {', '.join(NEEDED)}"
        )
    if len(found) > 1 or found[0][0] != "table" or not found[0][1]:
        raise AnnotationError(
            f"{table} in {path} is a view or a virtual table; SlideRunner's are plain tables"
        )
    missing = [column for column in columns if column not in _column_names(database, table)]
    if missing:
        raise AnnotationError(
            f"table {table} of {path} has no column {missing[0]}; SlideRunner's has "
            f"{', '.join(columns)}"
        )


def _column_names(database, table):
    """Names of the stored columns; computed ones are not among them."""
    return {row[1] for row in database.execute(f'PRAGMA table_info("{table}")')}


def _slides(rows, path):
    """File name of each slide number."""
    slides, seen = {}, set()
    for uid, filename in rows:
        if not _is_number(uid):
            raise AnnotationError(f"{path} has a slide with the uid {short(uid)}; give it a number")
        file = one_line(filename, f"filename of the slide {uid}", path)
        if file in seen or uid in slides:
            raise AnnotationError(
                f"{path} names the slide {file!r} or its number {uid} twice; it is unclear whose "
                "annotations are on it: keep one"
            )
        seen.add(file)
        slides[uid] = file
    return slides


def _is_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _classes(rows, label_map, path):
    """Tell what each class is called and labelled; numbers alone where no class has a name."""
    wrong = [uid for uid, _ in rows if not _is_number(uid)]
    if wrong:
        raise AnnotationError(
            f"{path} has a class with the uid {short(wrong[0])}; give it a number"
        )
    names = {uid: name for uid, name in rows if isinstance(name, str) and name.strip()}
    if names:
        label_map.check_names(names.values(), path)
        label_of = {
            uid: label_map.of(one_line(name, "a class", path)) for uid, name in names.items()
        }
        names = {uid: names.get(uid, str(uid)) for uid, _ in rows}
        return _Classes(names, label_of, True), ()
    label_of = {int(code): label for code, label in label_map.asked.items() if code.isdecimal()}
    if label_map.asked and len(label_of) < len(label_map.asked):
        raise AnnotationError(f"the classes of {path} have numbers only: write 2=mitotic figure")
    note = "the classes have no names: 2 is taken for mitotic figure and 7 for look-alike, as CCMCT"
    notes = () if label_of else (f"{note} (ODAEL) numbers them",)
    return _Classes({}, label_of or CODES_WITHOUT_NAMES, False), notes


def _sort_out(content, slides, classes, path):
    """Part the annotations into those to keep and the reasons why others are not."""
    coordinates = defaultdict(list)
    for annotation, x, y in content.coordinates:
        coordinates[annotation].append((x, y))
    kept, reasons = [], []
    for uid, slide, shape, code, *deleted in content.annotations:
        if not _is_number(uid):
            raise AnnotationError(
                f"{path} has an annotation with the uid {short(uid)}; give it a number"
            )
        reason = _reason_by_class(uid, code, deleted, classes, path)
        centre, reason = (None, reason) if reason else _centre(shape, coordinates.get(uid))
        if reason:
            reasons.append((reason, uid))
            continue
        if not _is_number(slide) or slide not in slides:
            raise AnnotationError(
                f"annotation {uid} of {path} is on the slide {short(slide)}, which the database "
                "does not list"
            )
        kept.append(_Kept(uid, slide, classes.label_of[code], *centre))
    return kept, reasons


def _reason_by_class(uid, code, deleted, classes, path):
    """Why an annotation is left out for what it is, or None."""
    if deleted and deleted[0] not in (None, 0):
        return "deleted"
    if code in (None, 0):
        return "without an agreed class"
    if classes.named and (not _is_number(code) or code not in classes.names):
        listed = ", ".join(f"{key} {short(name)}" for key, name in list(classes.names.items())[:10])
        raise AnnotationError(
            f"annotation {uid} of {path} has the class {short(code)}, which the database does not "
            f"list; it lists {listed}"
        )
    if not _is_number(code) or classes.label_of.get(code) is None:
        return f"of class {short(classes.names.get(code, code) if _is_number(code) else code)}"
    return None


def _centre(shape, points):
    """Middle of the box around an annotation's points, or why there is none."""
    if not _is_number(shape) or shape not in FEWEST_COORDINATES:
        return None, f"of the unknown shape {short(shape)}"
    if not points:
        return None, "without coordinates"
    numbers = [(finite(x), finite(y)) for x, y in points]
    if any(None in pair for pair in numbers):
        return None, "with a coordinate that is no number"
    if len(points) < FEWEST_COORDINATES[shape]:
        return None, "with one corner where two are needed"
    if shape in SPOTS and len(points) > 1:
        return None, "that are spots with several coordinates"
    across, down = zip(*numbers, strict=True)
    return ((min(across) + max(across)) / 2, (min(down) + max(down)) / 2), None


def _refuse_empty(reasons, classes, path):
    counts = Counter(reason for reason, _ in reasons)
    found = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common(5))
    check_nonempty((), path, found or "it holds no annotations")


def _columns(kept, slides, path):
    files = [slides[row.slide] for row in kept]
    return {
        "x": np.array([row.x for row in kept]),
        "y": np.array([row.y for row in kept]),
        "image": text_column(files, "image", path),
        "slide": text_column([Path(file).stem for file in files], "slide", path),
    }


def _votes(content, kept, classes, path):
    """Make a column for each person who voted on a kept annotation, '' where there is no vote."""
    row_of = {row.uid: place for place, row in enumerate(kept)}
    votes = defaultdict(lambda: [""] * len(kept))
    for annotation, person, code in content.votes:
        if annotation in row_of and _is_number(person) and _is_number(code):
            votes[person][row_of[annotation]] = _vote(code, classes)
            if len(votes) > MOST_PERSONS:
                raise AnnotationError(
                    f"more than {MOST_PERSONS} persons voted in {path}; take some out"
                )
    names = dict(content.persons)
    keys = {}
    for person in sorted(votes):
        keys[_vote_key(names.get(person), person, taken=keys)] = person
    return {key: text_column(votes[person], key, path) for key, person in keys.items()}


def _vote(code, classes):
    return classes.label_of.get(code) or short(classes.names.get(code, code)).strip("'\"")


def _vote_key(name, person, *, taken):
    """Name of a person's column, in the letters that a store allows.

    Examples
    --------
    >>> _vote_key("Dr. K", 3, taken={}), _vote_key("dr k", 4, taken={"vote_dr_k"})
    ('vote_dr_k', 'vote_dr_k_4')
    """
    plain = (
        re.sub(r"[^a-z0-9]+", "_", name.lower()[:50]).strip("_") if isinstance(name, str) else ""
    )
    key = f"vote_{plain or f'person_{person}'}"
    return f"{key}_{person}" if key in taken else key


def _release(asked, content, classes):
    """Take the release asked for, or the one that slides and classes leave no doubt of."""
    if asked is not None:
        return release_named(asked, among=(CCMCT.key,))
    as_published = all(
        classes.label_of.get(code) == label for code, label in CODES_WITHOUT_NAMES.items()
    )
    return CCMCT if as_published and len(content.slides) == CCMCT.n_images else None


def _unused_slides(kept, slides):
    used = {row.slide for row in kept}
    unused = [file for uid, file in slides.items() if uid not in used]
    if not unused:
        return ()
    return (LeftOut("without an annotation that was kept", len(unused), "slides", tuple(unused)),)
