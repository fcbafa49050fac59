import json
import sqlite3
import struct
from contextlib import closing

import numpy as np
import pytest

from featstore.annotations import LOOK_ALIKE, MITOTIC_FIGURE
from featstore.datasets.midog import read_midog
from featstore.datasets.sliderunner import read_sliderunner
from featstore.errors import AnnotationError, KnownCountsWarning

OLD = """
CREATE TABLE Slides (uid INTEGER PRIMARY KEY, filename TEXT, width INTEGER, height INTEGER,
                     directory TEXT);
CREATE TABLE Classes (uid INTEGER PRIMARY KEY, name TEXT, color TEXT);
CREATE TABLE Persons (uid INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE Annotations (uid INTEGER PRIMARY KEY, slide INTEGER, type INTEGER,
                          agreedClass INTEGER);
CREATE TABLE Annotations_coordinates (uid INTEGER PRIMARY KEY, coordinateX INTEGER,
                                      coordinateY INTEGER, slide INTEGER, annoId INTEGER,
                                      orderIdx INTEGER);
CREATE TABLE Annotations_label (uid INTEGER PRIMARY KEY, person INTEGER, class INTEGER,
                                annoId INTEGER);
"""
# What version 3 has in addition; the trigger calls a function that only SlideRunner itself defines.
NEW = """
ALTER TABLE Annotations ADD COLUMN guid TEXT;
ALTER TABLE Annotations ADD COLUMN deleted INTEGER DEFAULT 0;
ALTER TABLE Annotations ADD COLUMN lastModified REAL DEFAULT 1615322004.2;
PRAGMA user_version = 3;
"""
TRIGGER = """
CREATE TRIGGER touched AFTER UPDATE ON Annotations BEGIN
    UPDATE Annotations SET lastModified = pycurrent_time() WHERE uid = new.uid;
END;
"""
CLASSES = [(1, "Granulocyte"), (2, "Mitotic figure"), (3, "Tumor cell"), (7, "Mitosis look-alike")]


@pytest.fixture
def write_database(tmp_path):
    """Write a SlideRunner database; rows are (uid, slide, type, class, coordinates)."""

    def write(
        rows=((1, 1, 1, 2, [(10, 20)]),),
        *,
        version=3,
        slides=((1, "a.svs"),),
        classes=CLASSES,
        votes=(),
        persons=(),
        sql="",
        name="cells.sqlite",
    ):
        with closing(sqlite3.connect(tmp_path / name)) as base:
            base.executescript(OLD + (NEW if version == 3 else ""))
            base.executemany("INSERT INTO Slides (uid, filename) VALUES (?, ?)", slides)
            base.executemany("INSERT INTO Classes (uid, name) VALUES (?, ?)", classes)
            base.executemany("INSERT INTO Persons VALUES (?, ?)", persons)
            base.executemany(
                "INSERT INTO Annotations (uid, slide, type, agreedClass) VALUES (?, ?, ?, ?)",
                [row[:4] for row in rows],
            )
            base.executemany(
                "INSERT INTO Annotations_coordinates (annoId, slide, coordinateX, coordinateY, "
                "orderIdx) VALUES (?, ?, ?, ?, ?)",
                [
                    (uid, slide, x, y, place)
                    for uid, slide, _, _, points in rows
                    for place, (x, y) in enumerate(points, start=1)
                ],
            )
            base.executemany(
                "INSERT INTO Annotations_label (annoId, person, class) VALUES (?, ?, ?)", votes
            )
            base.executescript((TRIGGER if version == 3 else "") + sql)
            base.commit()
        return tmp_path / name

    return write


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_aperio_database_equals_the_aperio_json_annotation_by_annotation(real_data):
    folder = real_data / "annotations"
    before = {path.name for path in folder.iterdir()}
    from_sqlite = read_sliderunner(folder / "MIDOG_AperioCS2.sqlite", name="cs2").table
    from_json = read_midog(folder / "MIDOG_AperioCS2.json", name="cs2").table
    assert len(from_sqlite) == len(from_json) == 1_612
    same = from_json.take(from_sqlite.ids)
    for column in ("label", "x", "y", "image", "slide"):
        assert from_sqlite.column(column).tolist() == same.column(column).tolist(), column
    assert {path.name for path in folder.iterdir()} == before


def test_the_votes_in_the_aperio_database_are_columns_by_person(real_data):
    cells = read_sliderunner(real_data / "annotations" / "MIDOG_AperioCS2.sqlite", name="c").table
    votes = {name for name in cells.columns if name.startswith("vote_")}
    assert votes == {"vote_cb", "vote_retinanet", "vote_rk", "vote_td"}
    n_votes = sum((cells.column(name) != "").sum() for name in votes)
    assert n_votes == 3_758
    assert set(cells.column("vote_cb")) <= {"", MITOTIC_FIGURE, LOOK_ALIKE}


@pytest.mark.parametrize("version", [0, 3])
def test_both_schema_versions_are_read_and_nothing_is_written(write_database, version):
    rows = [(1, 1, 1, 2, [(10, 20)]), (5, 2, 4, 7, [(3.5, 4.25)]), (6, 1, 1, 3, [(1, 1)])]
    slides = [(1, "a.svs"), (2, "b/c.ndpi"), (3, "d.svs")]
    file = write_database(rows, version=version, slides=slides)
    before = contents(file.parent)
    reading = read_sliderunner(file, name="d")
    cells = reading.table
    assert cells.ids.tolist() == [1, 5]
    assert cells.labels.tolist() == [MITOTIC_FIGURE, LOOK_ALIKE]
    assert (cells.x.tolist(), cells.y.tolist()) == ([10, 3.5], [20, 4.25])
    assert cells.x.dtype == np.float64
    assert cells.images.tolist() == ["a.svs", "b/c.ndpi"]
    assert cells.slides.tolist() == ["a", "c"]
    assert list(map(str, reading.left_out)) == [
        "1 annotations of class 'Tumor cell' (6)",
        "1 slides without an annotation that was kept (d.svs)",
    ]
    assert contents(file.parent) == before


@pytest.mark.parametrize(
    ("shape", "points", "centre"),
    [
        (1, [(10, 20)], (10, 20)),
        (1, [(10.5, 20.25)], (10.5, 20.25)),
        (4, [(10, 20)], (10, 20)),
        (2, [(0, 0), (51, 20)], (25.5, 10)),
        (2, [(51, 0), (0, 20)], (25.5, 10)),
        (5, [(5, 5), (55, 55)], (30, 30)),
        (3, [(0, 0), (10, 0), (10, 4), (9, 4), (8, 4)], (5, 2)),
        (3, [(7, 8)], (7, 8)),
    ],
)
def test_the_centre_is_the_middle_of_the_bounding_box(write_database, shape, points, centre):
    cells = read_sliderunner(write_database([(1, 1, shape, 2, points)]), name="d").table
    assert (cells.x[0], cells.y[0]) == centre


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((2, 1, 1, 2, []), "without coordinates"),
        ((2, 1, 1, 2, [(None, 3)]), "with a coordinate that is no number"),
        ((2, 1, 1, 2, [("here", 3)]), "with a coordinate that is no number"),
        ((2, 1, 1, 2, [(float("inf"), 3)]), "with a coordinate that is no number"),
        ((2, 1, 1, 2, [(1e300, 3)]), "with a coordinate that is no number"),
        ((2, 1, 5, 2, [(1, 3)]), "with one corner where two are needed"),
        ((2, 1, 2, 2, [(1, 3)]), "with one corner where two are needed"),
        ((2, 1, 1, 2, [(1, 3), (5, 5)]), "that are spots with several coordinates"),
        ((2, 1, 9, 2, [(1, 3)]), "of the unknown shape 9"),
        ((2, 1, None, 2, [(1, 3)]), "of the unknown shape None"),
        ((2, 1, 1, None, [(1, 3)]), "without an agreed class"),
        ((2, 1, 1, 0, [(1, 3)]), "without an agreed class"),
        ((2, 1, 1, 1, [(1, 3)]), "of class 'Granulocyte'"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_its_reason(write_database, row, reason):
    reading = read_sliderunner(write_database([(1, 1, 1, 2, [(1, 1)]), row]), name="d")
    assert reading.table.ids.tolist() == [1]
    assert list(map(str, reading.left_out)) == [f"1 annotations {reason} (2)"]


def test_deleted_annotations_are_skipped_and_counted(write_database):
    rows = [(uid, 1, 1, 2, [(uid, uid)]) for uid in (1, 2, 3)]
    sql = (
        "DROP TRIGGER touched; UPDATE Annotations SET deleted = 1, agreedClass = 99 WHERE uid = 2;"
    )
    sql += "UPDATE Annotations SET deleted = NULL WHERE uid = 3;"
    reading = read_sliderunner(write_database(rows, sql=sql), name="d")
    assert reading.table.ids.tolist() == [1, 3]
    assert list(map(str, reading.left_out)) == ["1 annotations deleted (2)"]


def test_classes_go_by_name_since_numbers_differ_between_files(write_database):
    rows = [(1, 1, 1, 2, [(1, 1)]), (2, 1, 1, 4, [(2, 2)])]
    classes = [(2, "Hard Negative"), (4, "mitosis")]
    cells = read_sliderunner(write_database(rows, classes=classes), name="d").table
    assert cells.labels.tolist() == [LOOK_ALIKE, MITOTIC_FIGURE]


def test_another_class_is_kept_where_the_caller_gives_it_a_label(write_database):
    rows = [(1, 1, 1, 2, [(1, 1)]), (2, 1, 1, 1, [(2, 2)])]
    labels = {"granulocyte": "granulocyte", "Mitotic figure": "mitosis"}
    reading = read_sliderunner(write_database(rows), name="d", labels=labels)
    assert reading.table.labels.tolist() == ["mitosis", "granulocyte"]
    assert reading.left_out == ()


@pytest.mark.parametrize("classes", [[], [(2, None), (3, ""), (7, " ")]])
def test_classes_without_names_go_by_the_numbers_of_ccmct(write_database, classes):
    rows = [(1, 1, 1, 2, [(1, 1)]), (2, 1, 1, 7, [(2, 2)]), (3, 1, 1, 3, [(2, 2)])]
    file = write_database(rows, classes=classes)
    reading = read_sliderunner(file, name="d")
    assert reading.table.labels.tolist() == [MITOTIC_FIGURE, LOOK_ALIKE]
    assert list(map(str, reading.left_out)) == ["1 annotations of class 3 (3)"]
    assert "2 is taken for mitotic figure and 7 for look-alike" in reading.notes[0]
    mapped = read_sliderunner(file, name="d", labels={"3": "tumour cell"})
    assert mapped.table.labels.tolist() == ["tumour cell"]
    assert mapped.notes == ()


def test_the_last_vote_of_a_person_counts_and_names_become_keys(write_database):
    rows = [(1, 1, 1, 2, [(1, 1)]), (2, 1, 1, 7, [(2, 2)]), (3, 1, 1, 1, [(2, 2)])]
    persons = [(1, "Dr. K"), (2, "dr k"), (3, None), (4, "silent")]
    votes = [(1, 1, 7), (1, 1, 2), (2, 2, 3), (2, 3, 7), (2, 5, 44), (3, 4, 1), (1, None, 2)]
    cells = read_sliderunner(write_database(rows, persons=persons, votes=votes), name="d").table
    found = {key: column.tolist() for key, column in cells.columns.items() if "vote" in key}
    assert found == {
        "vote_dr_k": [MITOTIC_FIGURE, ""],
        "vote_dr_k_2": ["", "Tumor cell"],
        "vote_person_3": ["", LOOK_ALIKE],
        "vote_person_5": ["", "44"],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rows": [(1, 1, 1, 9, [(1, 1)])]},
            "annotation 1 of .* has the class 9, which the database",
        ),
        (
            {"rows": [(1, 8, 1, 2, [(1, 1)])]},
            "annotation 1 of .* is on the slide 8, which the data",
        ),
        ({"rows": [(1, 1, 1, 1, [(1, 1)])]}, "no annotation to keep: 1 of class 'Granulocyte'"),
        ({"rows": []}, "no annotation to keep: it holds no annotations"),
        ({"slides": [(1, "a.svs"), (2, "a.svs")]}, "names the slide 'a.svs' or its number 2 twice"),
        ({"slides": [(1, None)]}, "has None as filename of the slide 1; a text is needed"),
        ({"slides": [(1, "a\x07.svs")]}, r"has 'a\\x07.svs' as filename .* control character"),
        ({"sql": "DROP TABLE Classes;"}, "has no table Classes; a SlideRunner database has Slides"),
        (
            {"sql": "DROP TABLE Classes;CREATE VIEW Classes AS SELECT 2 AS uid, 'Mitose' AS name;"},
            "Classes in .* is a view or a virtual table",
        ),
        (
            {"sql": "DROP TABLE Classes; CREATE VIRTUAL TABLE Classes USING fts5(uid, name);"},
            "Classes in .* is a view or a virtual table",
        ),
        (
            {
                "sql": "DROP TABLE Classes; CREATE TABLE Classes (uid INTEGER, name TEXT "
                "GENERATED ALWAYS AS (hex(zeroblob(100000))) VIRTUAL);"
            },
            "table Classes of .* has no column name; SlideRunner's has uid, name",
        ),
        ({"sql": "DROP TABLE Annotations; CREATE TABLE Annotations (uid);"}, "has no column slide"),
        (
            {
                "sql": "DROP TABLE Classes; CREATE TABLE Classes (uid, name);"
                "INSERT INTO Classes VALUES ('b', 'Mitose');"
            },
            "has a class with the uid 'b'",
        ),
        ({"sql": "UPDATE Slides SET filename = hex(zeroblob(900000));"}, "string or blob too big"),
        (
            {"sql": "UPDATE Slides SET filename = CAST(x'ff' AS TEXT);"},
            "cannot be read as an SQLite",
        ),
    ],
)
def test_a_broken_database_is_refused_in_one_line(write_database, options, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_sliderunner(write_database(**options), name="d")
    assert "\n" not in str(caught.value)


def test_a_trigger_for_functions_that_are_not_here_does_no_harm(write_database):
    sql = "CREATE INDEX odd ON Annotations (slide); ANALYZE;"
    assert len(read_sliderunner(write_database(sql=sql), name="d").table) == 1


@pytest.mark.parametrize("name", ["a?mode=rwc.sqlite", "b#c.sqlite", "50% of ä.sqlite", "?.db"])
def test_names_that_mean_something_in_an_address_are_read_as_names(write_database, name):
    file = write_database(name=name)
    before = contents(file.parent)
    assert len(read_sliderunner(file, name="d").table) == 1
    assert contents(file.parent) == before


def test_what_is_no_whole_database_is_refused_in_one_line(write_database, tmp_path):
    file = write_database([(uid, 1, 1, 2, [(uid, uid)]) for uid in range(1, 3_000)])
    whole = file.read_bytes()
    for content, message in [
        (b"", "is not an SQLite database"),
        (b"{}", "is not an SQLite database"),
        (whole[:100], "cannot be read as an SQLite database"),
        (whole[: len(whole) // 2], "damaged or cut short: get it again"),
        (whole[:4096] + bytes(len(whole) - 4096), "cannot be read as an SQLite database"),
    ]:
        file.write_bytes(content)
        with pytest.raises(AnnotationError, match=message) as caught:
            read_sliderunner(file, name="d")
        assert "\n" not in str(caught.value)
    for missing in (tmp_path / "none.sqlite", tmp_path):
        with pytest.raises(AnnotationError, match="cannot read"):
            read_sliderunner(missing, name="d")


def test_a_database_that_is_still_written_to_is_refused(write_database):
    file = write_database()
    beside = file.with_name(file.name + "-wal")
    beside.write_bytes(b"changes")
    with pytest.raises(AnnotationError, match=r"-wal holds changes that are not in .* yet; close"):
        read_sliderunner(file, name="d")
    beside.write_bytes(b"")
    assert len(read_sliderunner(file, name="d").table) == 1


def test_a_page_that_names_itself_again_and_again_ends(write_database):
    """An inner page of a table whose children are all one page holds endless rows."""
    file = write_database([(uid, 1, 1, 2, [(uid, uid)]) for uid in range(1, 5_000)])
    with closing(sqlite3.connect(file)) as base:
        root, size = (
            base.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Annotations'"),
            base.execute("PRAGMA page_size"),
        )
        start, size = root.fetchone()[0], size.fetchone()[0]
    pages = bytearray(file.read_bytes())
    at = (start - 1) * size
    assert pages[at] == 5, "an inner page of a table"
    first_cell = struct.unpack(">H", pages[at + 12 : at + 14])[0]
    leaf = pages[at + first_cell : at + first_cell + 4]
    # A page of its own kind, full of cells that all lead to the same leaf, below itself.
    n_cells = 400
    page = bytearray(size)
    page[0] = 5
    page[3:5] = struct.pack(">H", n_cells)
    content = size - 5 * n_cells
    page[5:7] = struct.pack(">H", content)
    page[8:12] = leaf
    for cell in range(n_cells):
        place = content + 5 * cell
        page[12 + 2 * cell : 14 + 2 * cell] = struct.pack(">H", place)
        page[place : place + 5] = leaf + bytes([1])
    pages[at : at + size] = page
    file.write_bytes(pages)
    with pytest.raises(
        AnnotationError, match="holds more rows of Annotations than its size allows"
    ):
        read_sliderunner(file, name="d")


def ccmct_rows(n_mitotic, n_alike):
    codes = [2] * n_mitotic + [7] * n_alike + [1, 3] * 50
    return [
        (uid, 1 + uid % 32, 5, code, [(uid, 5), (uid + 50, 55)])
        for uid, code in enumerate(codes, start=1)
    ]


SLIDES_OF_CCMCT = [(uid, f"slide{uid:02d}.svs") for uid in range(1, 33)]


@pytest.mark.parametrize("classes", [CLASSES, []])
def test_ccmct_gives_the_published_counts(write_database, classes):
    rows = ccmct_rows(44_880, 27_965)
    file = write_database(rows, version=0, slides=SLIDES_OF_CCMCT, classes=classes)
    cells = read_sliderunner(file, name="ccmct").table
    assert (cells.labels == MITOTIC_FIGURE).sum() == 44_880
    assert (cells.labels == LOOK_ALIKE).sum() == 27_965


def test_ccmct_with_one_annotation_less_warns_with_both_numbers(write_database):
    file = write_database(ccmct_rows(44_879, 27_965), slides=SLIDES_OF_CCMCT)
    message = r"CCMCT \(ODAEL\), gives 44,879 mitotic figures where 44,880 are published$"
    with pytest.warns(KnownCountsWarning, match=message):
        read_sliderunner(file, name="ccmct")


def test_a_database_of_other_slides_or_classes_is_not_taken_for_ccmct(write_database):
    other = [(2, "Hard negative"), (7, "Mitotic figure")]
    read_sliderunner(write_database(slides=SLIDES_OF_CCMCT, classes=other), name="d")
    file = write_database(slides=SLIDES_OF_CCMCT[:31], name="fewer.sqlite")
    read_sliderunner(file, name="d")
    with pytest.warns(KnownCountsWarning, match="1 mitotic figures where 44,880"):
        read_sliderunner(file, name="d", release="ccmct")
    with pytest.raises(AnnotationError, match="no release 'midog2022' of such a file"):
        read_sliderunner(file, name="d", release="midog2022")


def test_what_is_kept_of_a_left_out_reason_is_json(write_database):
    rows = [(1, 1, 1, 2, [(1, 1)]), (2, 1, 1, 1, [(2, 2)])]
    part = read_sliderunner(write_database(rows), name="d").left_out[0]
    assert json.loads(json.dumps(part.to_json())) == {
        "reason": "of class 'Granulocyte'",
        "n": 1,
        "unit": "annotations",
        "first": ["2"],
    }
