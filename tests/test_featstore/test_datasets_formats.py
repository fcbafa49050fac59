import json
import sqlite3
from contextlib import closing

import pytest

from featstore.datasets.formats import FORMATS, format_of, read_annotations
from featstore.errors import AnnotationError

FEATURE = {"type": "Feature", "geometry": None, "properties": {}}


def test_the_content_tells_the_format_whatever_the_ending(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    with closing(sqlite3.connect(tmp_path / "d.txt")) as base:
        base.execute("CREATE TABLE t (a)")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p.csv")
    for name, content, expected in [
        ("a.json", json.dumps({"images": []}), "midog"),
        ("a.noise", ' \n{"images": []}', "midog"),
        ("b.json", json.dumps({"features": [], "type": "FeatureCollection"}), "geojson"),
        ("c.json", "\ufeff" + json.dumps([FEATURE]), "geojson"),
        ("c.geojson", json.dumps(FEATURE), "geojson"),
        ("e.csv", "id,x\n", "table"),
        ("e.TSV", "id\tx\n", "table"),
    ]:
        (tmp_path / name).write_text(content)
        assert format_of(tmp_path / name) == expected, name
    assert format_of(tmp_path / "d.txt") == "sliderunner"
    assert format_of(tmp_path / "p.csv") == "table"
    assert format_of(tmp_path) == "geojson"


def test_an_unknown_format_is_refused_with_a_list_of_the_known_ones(tmp_path):
    (tmp_path / "cells.xml").write_text("<xml/>")
    with pytest.raises(
        AnnotationError, match="is of no known format; known are MIDOG JSON"
    ) as caught:
        read_annotations(tmp_path / "cells.xml", name="d")
    assert all(form.title in str(caught.value) for form in FORMATS.values())
    assert "--format midog, sliderunner, table, geojson" in str(caught.value)
    with pytest.raises(AnnotationError, match="no format 'coco'; known are midog, sliderunner"):
        read_annotations(tmp_path / "cells.xml", name="d", format="coco")
    with pytest.raises(AnnotationError, match=r"cannot read .*none\.json: No such file"):
        read_annotations(tmp_path / "none.json", name="d")


def test_a_format_that_is_asked_for_is_the_one_that_is_read(tmp_path):
    (tmp_path / "cells.data").write_text("id;image;x;y;label\n1;a.svs;2;3;b\n")
    assert len(read_annotations(tmp_path / "cells.data", name="d", format="table").table) == 1
    with pytest.raises(AnnotationError, match="is not an SQLite database"):
        read_annotations(tmp_path / "cells.data", name="d", format="sliderunner")


def test_an_option_that_a_format_does_not_have_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id,image,x,y,label\n1,a.svs,2,3,b\n")
    with pytest.raises(
        AnnotationError, match=r"read as table of centres .*no option 'release'; it has id, file"
    ):
        read_annotations(tmp_path / "a.csv", name="d", release="midog2022")
