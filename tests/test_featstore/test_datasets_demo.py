import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from featstore.datasets.demo import draw_layout, make_demo
from featstore.datasets.tissue import DOMAINS
from featstore.errors import AnnotationError, ImageError

tifffile = pytest.importorskip("tifffile")

SMALL = {"images_per_domain": 1, "cells_per_image": (3, 5), "image_px": (400, 320)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("demo"), **SMALL)


@pytest.fixture(scope="module")
def midog(demo):
    return json.loads(demo.annotations.read_text())


def digests(demo):
    files = [demo.annotations, *sorted(demo.images.iterdir())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_runs_give_the_same_bytes(demo, tmp_path):
    assert digests(make_demo(tmp_path, **SMALL)) == digests(demo)


def test_another_seed_gives_other_files_under_the_same_names(demo, tmp_path):
    other, this = digests(make_demo(tmp_path, seed=1, **SMALL)), digests(demo)
    assert other.keys() == this.keys()
    assert all(other[name] != this[name] for name in this)


def test_an_image_does_not_depend_on_how_many_others_are_made():
    few, many = draw_layout(images_per_domain=1), draw_layout(images_per_domain=2)
    np.testing.assert_array_equal(few[1].centres, many[1].centres)


def test_the_counts_are_those_of_the_files(demo, midog):
    assert demo.n_images == len(midog["images"]) == len(list(demo.images.iterdir())) == 5
    assert demo.n_annotations == len(midog["annotations"])


def test_the_json_has_the_keys_and_categories_of_midog(midog):
    assert set(midog) == {"info", "licenses", "images", "categories", "annotations"}
    assert [(entry["id"], entry["name"]) for entry in midog["categories"]] == [
        (1, "mitotic figure"),
        (2, "hard negative"),
    ]
    assert set(midog["annotations"][0]) == {"id", "image_id", "category_id", "bbox"}
    assert {"id", "file_name", "width", "height", "tumor_type"} <= set(midog["images"][0])


def test_annotation_ids_are_unique_integers(midog):
    ids = [entry["id"] for entry in midog["annotations"]]
    assert all(type(number) is int for number in ids)
    assert len(set(ids)) == len(ids)


def test_boxes_are_corners_50_px_apart_and_lie_inside_their_image(midog):
    sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in midog["images"]}
    for annotation in midog["annotations"]:
        x1, y1, x2, y2 = annotation["bbox"]
        width, height = sizes[annotation["image_id"]]
        assert (x2 - x1, y2 - y1) == (50, 50)
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height


def test_every_image_is_a_tiled_jpeg_tiff_of_a_quarter_micron_per_pixel(demo, midog):
    for entry in midog["images"]:
        with tifffile.TiffFile(demo.images / entry["file_name"]) as tiff:
            page = tiff.pages[0]
            assert page.shape == (entry["height"], entry["width"], 3)
            assert page.is_tiled
            assert (page.tilelength, page.tilewidth) == (256, 256)
            assert page.compression == tifffile.COMPRESSION.JPEG
            assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
            assert page.tags["XResolution"].value == page.tags["YResolution"].value == (40_000, 1)
            assert "DateTime" not in page.tags


def test_a_cell_is_darker_than_its_image(demo, midog):
    annotation = midog["annotations"][0]
    image = tifffile.imread(demo.images / midog["images"][0]["file_name"])
    x, y = (int(corner) + 25 for corner in annotation["bbox"][:2])
    assert image[y - 12 : y + 12, x - 12 : x + 12].min() < np.percentile(image, 5)


def test_domains_differ_in_mean_colour(demo, midog):
    colours = [
        tifffile.imread(demo.images / entry["file_name"]).mean(axis=(0, 1))
        for entry in midog["images"]
    ]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(colours) for b in colours[:i]]
    assert len({entry["tumor_type"] for entry in midog["images"]}) == 5
    assert min(distances) > 20  # grey levels; images of one domain lie within 10 of its mean


def test_by_default_there_are_five_domains_of_six_images():
    layouts = draw_layout()
    assert [layout.number for layout in layouts] == list(range(1, 31))
    assert Counter(layout.domain.name for layout in layouts) == {
        domain.name: 6 for domain in DOMAINS
    }
    assert len(DOMAINS) == 5


@pytest.mark.parametrize("seed", range(5))
def test_by_default_there_are_1200_to_1400_annotations_and_45_percent_are_mitotic(seed):
    layouts = draw_layout(seed=seed)
    mitotic = np.concatenate([layout.mitotic for layout in layouts])
    assert 1200 <= len(mitotic) <= 1400
    assert 0.40 <= mitotic.mean() <= 0.50


def test_every_image_has_both_classes_and_their_number_varies():
    layouts = draw_layout(cells_per_image=(2, 4))
    assert all(0 < layout.mitotic.sum() < len(layout.mitotic) for layout in layouts)
    assert {len(layout.mitotic) for layout in layouts} == {2, 3, 4}


def test_some_centres_are_half_pixel_and_some_patches_reach_over_the_border():
    centres = np.concatenate([layout.centres for layout in draw_layout()])
    assert set(np.unique(centres % 1)) == {0, 0.5}
    to_border_px = np.minimum(centres, (1280, 1024) - centres).min(axis=1)
    assert to_border_px.min() >= 25
    assert 0.1 < np.mean(to_border_px < 112) < 0.6


@pytest.mark.parametrize("cells_per_image", [(1, 4), (5, 4), (36, 5000)])
def test_impossible_numbers_of_cells_are_refused_with_the_room_there_is(cells_per_image):
    with pytest.raises(AnnotationError, match=r"1280 x 1024 px, which has room for \d+; give"):
        draw_layout(cells_per_image=cells_per_image)


def test_images_of_another_origin_are_never_written_over(tmp_path):
    (tmp_path / "images").mkdir()
    theirs = tmp_path / "images" / "001.tiff"
    theirs.write_bytes(b"a real slide")
    with pytest.raises(ImageError, match="give another folder"):
        make_demo(tmp_path, **SMALL)
    assert theirs.read_bytes() == b"a real slide"


def test_a_demo_can_be_made_again_in_its_own_folder(demo):
    before = digests(demo)
    make_demo(demo.annotations.parent, **SMALL)
    assert digests(demo) == before
