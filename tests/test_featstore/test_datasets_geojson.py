import json

import numpy as np
import pytest

from featstore.annotations import LOOK_ALIKE, MITOTIC_FIGURE
from featstore.datasets.geojson import read_geojson
from featstore.errors import AnnotationError, ImageError

UUID = "8d8f9d3c-5c36-4b5e-9a51-0c3b7a5f1e{:02d}"


def feature(number=1, kind="Point", coordinates=(10.5, 20), label="Mitosis", **properties):
    """A feature as QuPath 0.5 writes it."""
    return {
        "type": "Feature",
        "id": UUID.format(number),
        "geometry": {"type": kind, "coordinates": list(coordinates)},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": label, "color": [200, 0, 0]},
        }
        | properties,
    }


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


@pytest.fixture
def write(tmp_path):
    def write_json(content, name="a.svs.geojson"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
        return file

    return write_json


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.svs", "b.ome.tif", "c.tiff", "c.png", "d.svs", "d.xml", ".d.svs"):
        (folder / name).touch()
    return folder


SQUARE = [[[0, 0], [51, 0], [51, 21], [0, 21], [0, 0]]]
HOLE = [[10, 10], [12, 10], [12, 12], [10, 10]]


@pytest.mark.parametrize(
    ("kind", "coordinates", "centres"),
    [
        ("Point", [10.5, 20], [(10.5, 20)]),
        ("Point", [10, 20, 3], [(10, 20)]),
        ("MultiPoint", [[1, 2], [3.5, 4]], [(1, 2), (3.5, 4)]),
        ("Polygon", SQUARE, [(25.5, 10.5)]),
        ("Polygon", [*SQUARE, HOLE], [(25.5, 10.5)]),
        ("MultiPolygon", [SQUARE, [[[100, 100], [101, 100], [101, 101]]]], [(50.5, 50.5)]),
    ],
)
def test_a_geometry_gives_its_points_or_the_middle_of_its_box(write, kind, coordinates, centres):
    cells = read_geojson(write(collection(feature(7, kind, coordinates))), name="g").table
    assert list(zip(cells.x.tolist(), cells.y.tolist(), strict=True)) == centres
    ids = (
        [f"{UUID.format(7)}-1", f"{UUID.format(7)}-2"] if kind == "MultiPoint" else [UUID.format(7)]
    )
    assert cells.ids.tolist() == ids
    assert cells.x.dtype == np.float64


@pytest.mark.parametrize("form", [collection, lambda *f: list(f), lambda one, *_: one])
def test_a_collection_a_list_and_one_feature_are_read(write, form):
    cells = read_geojson(write(form(feature(1), feature(2))), name="g").table
    assert cells.ids.tolist()[0] == UUID.format(1)
    assert cells.column("object_type").tolist()[0] == "annotation"
    assert cells.images.tolist()[0] == "a.svs"
    assert cells.slides.tolist()[0] == "a"


@pytest.mark.parametrize(
    ("classification", "label"),
    [
        ({"name": "Mitosis"}, MITOTIC_FIGURE),
        ("Hard negative", LOOK_ALIKE),
        ({"names": ["Tumor", "Positive"]}, "Tumor: Positive"),
        ({"name": "Tumor: Positive", "colorRGB": -377282}, "Tumor: Positive"),
        ({"names": ["mitotic figure"]}, MITOTIC_FIGURE),
        (" Immune cells ", "Immune cells"),
    ],
)
def test_a_classification_is_read_in_each_of_its_forms(write, classification, label):
    file = write(collection(feature(1, classification=classification)))
    assert read_geojson(file, name="g").table.labels.tolist() == [label]


def test_the_caller_names_labels(write):
    file = write(collection(feature(1, label="Klasse A")))
    cells = read_geojson(file, name="g", labels={"klasse a": "mitotic figure"}).table
    assert cells.labels.tolist() == [MITOTIC_FIGURE]
    with pytest.raises(
        AnnotationError, match="has no class 'Klasse B' to give a label; it has 'Kl"
    ):
        read_geojson(file, name="g", labels={"Klasse B": "x"})


def test_what_cannot_be_used_is_left_out_with_its_reason(write):
    bare = {"type": "Feature", "id": "no-geometry", "geometry": None, "properties": {}}
    bare["properties"]["classification"] = {"name": "x"}
    reading = read_geojson(
        write(
            collection(
                feature(1),
                feature(2, classification=None),
                feature(3, classification={}),
                feature(4, "LineString", [[0, 0], [1, 1]]),
                feature(5, "Polygon", []),
                feature(6, "GeometryCollection", []),
                bare,
                {"type": "Feature", "id": "z", "geometry": None, "properties": None},
            )
        ),
        name="g",
    )
    assert reading.table.ids.tolist() == [UUID.format(1)]
    assert {(part.reason, part.n) for part in reading.left_out} == {
        ("without a classification", 3),
        ("of the geometry 'LineString'", 1),
        ("of the geometry 'GeometryCollection'", 1),
        ("without coordinates", 1),
        ("without a geometry", 1),
    }


@pytest.mark.parametrize("old", ["PathAnnotationObject", "PathDetectionObject", None])
def test_ids_that_are_none_are_counted_and_a_note_says_so(write, old):
    features = [feature(number) for number in (1, 2, 3)]
    for one in features:
        if old is None:
            del one["id"]
        else:
            one["id"] = old
    features[1]["properties"]["classification"] = None
    features[2]["geometry"] = {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}
    reading = read_geojson(write(collection(*features)), name="g")
    assert reading.table.ids.tolist() == ["a-1", "a-3-1", "a-3-2"]
    assert "have no IDs of their own: they are counted, a-1, ..." in reading.notes[0]


def test_whole_numbers_are_ids_too(write):
    one, two = feature(1) | {"id": 12}, feature(2) | {"id": 7}
    assert read_geojson(write(collection(one, two)), name="g").table.ids.tolist() == [12, 7]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.svs.geojson", "a.svs"),
        ("a.geojson", "a.svs"),
        ("a.tiff.geojson", "a.svs"),
        ("b.geojson", "b.ome.tif"),
        ("b.ome.tif.geojson", "b.ome.tif"),
        ("c.png.geojson", "c.png"),
        ("d.GeoJSON", "d.svs"),
        ("d.xml.geojson", "d.xml"),
    ],
)
def test_the_image_is_found_by_the_name_of_the_file(write, images, name, image):
    cells = read_geojson(write(collection(feature(1)), name), name="g", images=images).table
    assert cells.images.tolist() == [image]


def test_an_image_that_is_not_there_or_not_the_only_one_is_asked_for(write, images):
    for name, problem in [
        ("e.geojson", "'e', is not there in"),
        ("c.geojson", "'c', could be any of c.png, c.tiff in"),
    ]:
        file = write(collection(feature(1)), name)
        with pytest.raises(AnnotationError, match=f"{problem} .*; name it with --image"):
            read_geojson(file, name="g", images=images)
        cells = read_geojson(file, name="g", images=images, image="e.svs").table
        assert cells.images.tolist() == ["e.svs"]
    with pytest.raises(ImageError, match=r"folder of images .* does not exist; give --images"):
        read_geojson(file, name="g", images=images / "none")


def test_a_folder_is_one_dataset_with_a_file_for_each_image(write, images, tmp_path):
    write(collection(feature(1), feature(2, classification=None)), "all/b.geojson")
    write(collection(feature(3, label="Hard negative")), "all/a.geojson")
    write({"no": "GeoJSON"}, "all/notes.json")
    reading = read_geojson(tmp_path / "all", name="g", images=images)
    assert reading.table.images.tolist() == ["a.svs", "b.ome.tif"]
    assert reading.table.labels.tolist() == [LOOK_ALIKE, MITOTIC_FIGURE]
    assert list(map(str, reading.left_out)) == [
        f"1 annotations without a classification ({UUID.format(2)})"
    ]
    with pytest.raises(AnnotationError, match=r"image 'a.svs' is asked for, and .* is a folder"):
        read_geojson(tmp_path / "all", name="g", image="a.svs")
    write(collection(feature(4)), "all/a.svs.geojson")
    with pytest.raises(AnnotationError, match=r"would both be of the image 'a\.svs'"):
        read_geojson(tmp_path / "all", name="g", images=images)
    with pytest.raises(AnnotationError, match=r"holds no \.geojson files"):
        read_geojson(images, name="g")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, r"is not GeoJSON: it holds \{'a': 1\}, and a FeatureCollection"),
        (5, "is not GeoJSON: it holds 5"),
        ({"type": "FeatureCollection"}, "is not GeoJSON"),
        (collection(5), "holds 5 where GeoJSON has a feature"),
        ([[]], r"holds \[\] where GeoJSON has a feature"),
        ([], "no annotation to keep: it holds no features"),
        (collection(feature(1, classification=None)), "to keep: 1 annotations without a class"),
        (collection(feature(1), feature(1)), "stand more than once in 'g'"),
        (collection(feature(1) | {"id": True}), "has the id True; a text or a number"),
        (collection(feature(1) | {"id": 1.5}), "has the id 1.5; a text or a number"),
        (collection(feature(1) | {"id": "a\x07"}), "as an id, with a control character"),
        (collection(feature(1) | {"id": 10**400}), "does not fit 64 bits"),
        (collection(feature(1, coordinates=["1", 2])), r"are \['1', 2\]; a Point of finite"),
        (collection(feature(1, coordinates=[float("nan"), 2])), "a Point of finite numbers"),
        (collection(feature(1, coordinates=[10**400, 2])), "a Point of finite numbers"),
        (collection(feature(1, coordinates=[True, 2])), "a Point of finite numbers"),
        (collection(feature(1, coordinates=[1])), "a Point of finite numbers"),
        (collection(feature(1, "Polygon", [[1, 2]])), "a Polygon of finite numbers"),
        (collection(feature(1, "MultiPoint", [1, 2])), "a MultiPoint of finite numbers"),
        (collection(feature(1, classification=5)), "has 5 as classification of the feature"),
        (collection(feature(1, classification="a\nb")), "with a control character"),
        (collection(feature(1, objectType=[1])), r"has \[1\] as objectType"),
    ],
)
def test_what_is_no_such_geojson_is_refused_in_one_line(write, content, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_geojson(write(content), name="g")
    assert "\n" not in str(caught.value)
