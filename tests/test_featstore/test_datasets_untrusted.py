"""Whatever a stranger's file holds, a reader gives a Reading or one AnnotationError of one line."""

import copy
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.datasets.formats import read_annotations
from featstore.datasets.reading import Reading
from featstore.errors import AnnotationError

MIDOG = {
    "images": [
        {"id": 1, "file_name": "001.tiff", "width": 900, "height": 800, "tumor_type": "a"},
        {"id": 2, "file_name": "002.tiff", "width": 900, "height": 800},
    ],
    "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "labels": [1, 2]},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [0.5, 0, 50.5, 50], "labels": [2]},
    ],
}
GEOJSON = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "id": f"id-{kind}",
            "geometry": {"type": kind, "coordinates": coordinates},
            "properties": {"objectType": "annotation", "classification": {"names": ["a", "b"]}},
        }
        for kind, coordinates in [
            ("Point", [1, 2]),
            ("MultiPoint", [[1, 2], [3, 4]]),
            ("MultiPolygon", [[[[0, 0], [2, 0], [2, 2]]]]),
        ]
    ],
}
SQL = """
CREATE TABLE Slides (uid INTEGER PRIMARY KEY, filename TEXT);
CREATE TABLE Classes (uid INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE Persons (uid INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE Annotations (uid INTEGER PRIMARY KEY, slide, type, agreedClass, deleted);
CREATE TABLE Annotations_coordinates (annoId, coordinateX, coordinateY);
CREATE TABLE Annotations_label (annoId, person, class);
INSERT INTO Slides VALUES (1, 'a.svs');
INSERT INTO Classes VALUES (1, 'Mitose'), (2, 'Hard negative');
INSERT INTO Persons VALUES (1, 'CB');
INSERT INTO Annotations VALUES (1, 1, 1, 1, 0), (2, 1, 5, 2, 0);
INSERT INTO Annotations_coordinates VALUES (1, 10, 20), (2, 1, 2), (2, 3, 4);
INSERT INTO Annotations_label VALUES (1, 1, 2), (2, 1, 2);
"""
CSV = "id,image,x,y,label,grade\n1,a.svs,1,2,m,3\n2,b.svs,1.5,2,h,\n"


def deep(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


# What JSON can hold and a reader may not expect.
ODD = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        1.5,
        "",
        " ",
        "\0",
        "a\nb",
        "\x1b[2J",
        "\ud800",
        "\u2028",
        "x" * 70_000,
        "../../etc/passwd",
        float("nan"),
        float("inf"),
        1e308,
        -1e308,
        10**400,
        -(10**25),
        [],
        {},
        [[]],
        [{}],
        [None] * 30,
        {"id": {}},
        deep(600),
    ]
)


def places(content, path=()):
    """Every place in parsed JSON, as a path of keys."""
    found = [path] if path else []
    items = content.items() if isinstance(content, dict) else ()
    items = enumerate(content) if isinstance(content, list) else items
    for key, value in items:
        found += places(value, (*path, key))
    return found


def put(content, path, value):
    content = copy.deepcopy(content)
    home = content
    for key in path[:-1]:
        home = home[key]
    if value is Ellipsis:
        del home[path[-1]]
    else:
        home[path[-1]] = value
    return content


@dataclass
class Files:
    """A folder in which one file after the other is written and read."""

    folder: object

    def check(self, content, name, **options):
        (self.folder / name).write_bytes(content)
        try:
            reading = read_annotations(self.folder / name, name="d", **options)
        except AnnotationError as error:
            line = str(error)
        else:
            return self.check_reading(reading)
        assert len(line.splitlines()) == 1
        assert len(line) < 3_000
        line.encode()
        return None

    def check_reading(self, reading):
        assert isinstance(reading, Reading)
        assert len(reading.table) > 0
        str(reading.lines()).encode()
        json.dumps([part.to_json() for part in reading.left_out])
        for column in ("x", "y"):
            assert np.isfinite(reading.table.column(column)).all()
        return reading


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def valid(files):
    """One valid file of each format, as bytes, by name."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    with closing(sqlite3.connect(files.folder / "cells.sqlite")) as base:
        base.executescript("PRAGMA page_size = 512;" + SQL)
    columns = {"id": [1, 2], "image": ["a", "b"], "x": [1.5, 2], "y": [3, 4], "label": ["m", "h"]}
    pq.write_table(pa.table(columns), files.folder / "cells.parquet")
    (files.folder / "cells.json").write_text(json.dumps(MIDOG))
    (files.folder / "cells.geojson").write_text(json.dumps(GEOJSON))
    (files.folder / "cells.csv").write_text(CSV)
    return {path.name: path.read_bytes() for path in files.folder.iterdir()}


def test_the_files_that_are_broken_below_are_whole(files, valid):
    assert len(valid) == 5
    assert all(files.check(content, name) is not None for name, content in valid.items())


@settings(max_examples=400)
@given(choices=st.data())
def test_json_with_odd_values_gives_a_reading_or_one_line(files, choices):
    name, content = choices.draw(
        st.sampled_from([("m.json", MIDOG), ("g.geojson", GEOJSON)]), label="file"
    )
    for _ in range(choices.draw(st.integers(1, 2))):
        path = choices.draw(st.sampled_from(places(content) or [()]))
        if path:
            content = put(content, path, choices.draw(ODD | st.just(Ellipsis)))
    files.check(json.dumps(content).encode(), name)


@settings(max_examples=400)
@given(choices=st.data())
def test_files_with_other_bytes_give_a_reading_or_one_line(files, valid, choices):
    name = choices.draw(st.sampled_from(sorted(valid)))
    content = bytearray(valid[name])
    for _ in range(choices.draw(st.integers(0, 4))):
        place = choices.draw(st.integers(0, len(content) - 1))
        content[place] = choices.draw(st.integers(0, 255))
    content = content[: choices.draw(st.integers(0, len(content)) | st.just(len(content)))]
    files.check(bytes(content), f"broken-{name}")


@pytest.mark.parametrize("name", ["cells.parquet", "cells.sqlite"])
def test_any_one_byte_of_a_binary_file_may_be_wrong(files, valid, name):
    """One such byte made pyarrow end the process, another led out of a dictionary."""
    for place in range(len(valid[name])):
        content = bytearray(valid[name])
        content[place] ^= 0x77
        files.check(bytes(content), f"one-{name}")


VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary()
COLUMNS = [
    "Slides.filename",
    "Classes.name",
    "Persons.name",
    "Annotations.slide",
    "Annotations.type",
    "Annotations.agreedClass",
    "Annotations.deleted",
    "Annotations_coordinates.annoId",
    "Annotations_coordinates.coordinateX",
    "Annotations_label.annoId",
    "Annotations_label.person",
    "Annotations_label.class",
]


@settings(max_examples=200)
@given(column=st.sampled_from(COLUMNS), value=VALUES, one=st.booleans())
def test_a_database_with_odd_values_gives_a_reading_or_one_line(files, column, value, one):
    table, name = column.split(".")
    with closing(sqlite3.connect(":memory:")) as base:
        base.executescript(SQL)
        try:
            base.execute(
                f"UPDATE {table} SET {name} = ? WHERE rowid <= ?", (value, 1 if one else 9)
            )
        except UnicodeEncodeError:  # half of a surrogate pair does not go into a database
            return
        base.commit()
        content = base.serialize()
    files.check(content, "odd.sqlite")


TEXTS = st.text(max_size=8) | st.sampled_from(["1", "007", "nan", "1e999", "a.svs", '"', ",", "\0"])


@settings(max_examples=200)
@given(rows=st.lists(st.lists(TEXTS, min_size=5, max_size=6), min_size=1, max_size=4))
def test_a_csv_of_any_texts_gives_a_reading_or_one_line(files, rows):
    lines = ["id,image,x,y,label,more", *(",".join(row) for row in rows)]
    files.check("\n".join(lines).encode(errors="surrogatepass"), "odd.csv")


@pytest.mark.parametrize("name", ["a.json", "a.geojson"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "", "\0", "NaN"])
def test_json_that_is_none_or_endless_is_one_line(files, name, text):
    assert files.check(text.encode(), name) is None


@pytest.mark.parametrize("where", ["id", "file"])
def test_one_long_text_among_many_rows_does_not_fill_the_memory(files, where):
    content = copy.deepcopy(MIDOG)
    row = content["annotations"][0]
    content["annotations"] = [row | {"id": number} for number in range(3_000)]
    if where == "id":
        content["annotations"][0]["id"] = "x" * 200_000
    else:
        content["images"][0]["file_name"] = "x" * 200_000
    assert files.check(json.dumps(content).encode(), "long.json") is None


def test_what_a_message_quotes_of_a_file_stays_in_its_line(files):
    assert files.check(b'id,"im\nage\x1b[2J",x,y,label\n1,a,2,3,m\n', "header.csv") is None
    with closing(sqlite3.connect(":memory:")) as base:
        base.executescript(SQL)
        content = base.serialize()
    broken = content.replace(b"CREATE TABLE Persons (uid", b"CREATE TABLE Persons (\x1cid")
    assert files.check(broken, "schema.sqlite") is None
    broken = content.replace(b"CREATE TABLE Persons (uid", b"CREATE \xffABLE Persons (uid")
    assert files.check(broken, "schema.sqlite") is None


def test_a_nul_at_the_end_of_a_text_is_not_lost_in_silence(files):
    for cell in ("1\0", "m\0"):
        text = CSV.replace("1,a.svs", f"{cell},a.svs").replace(",m,", f",{cell},")
        assert files.check(text.encode(), "nul.csv") is None
    content = put(MIDOG, ("annotations", 0, "id"), "a\0")
    assert files.check(json.dumps(content).encode(), "nul.json") is None
