import json

import numpy as np
import pytest

from featstore.datasets.midog import LOOK_ALIKE, MITOTIC_FIGURE, read_midog
from featstore.errors import AnnotationError

# Per domain mitotic figure / look-alike of MIDOG++, as its publication counts them; the file says
# lymphosarcoma where the publication says lymphoma.
MIDOG_PLUSPLUS = {
    "human breast cancer": (1721, 2714),
    "canine lung cancer": (855, 951),
    "canine lymphosarcoma": (3959, 4257),
    "canine cutaneous mast cell tumor": (2327, 1366),
    "human neuroendocrine tumor": (639, 1761),
    "canine soft tissue sarcoma": (1286, 2375),
    "human melanoma": (1150, 925),
}


def test_the_annotation_is_the_centre_of_two_corners_half_pixels_kept(tmp_path):
    file = tmp_path / "m.json"
    file.write_text(
        json.dumps(
            {
                "images": [{"id": 3, "file_name": "003.tiff"}],
                "categories": [{"id": 1, "name": "Mitose"}, {"id": 2, "name": "Hard negative"}],
                "annotations": [
                    {"id": 1, "image_id": 3, "category_id": 1, "bbox": [100, 200, 151, 250]},
                    {"id": 2, "image_id": 3, "category_id": 2, "bbox": [-27, 2391, 23, 2441]},
                ],
            }
        )
    )
    cells = read_midog(file, name="m")
    assert cells.x.tolist() == [125.5, -2.0]
    assert cells.y.tolist() == [225.0, 2416.0]
    assert cells.labels.tolist() == [MITOTIC_FIGURE, LOOK_ALIKE]
    assert cells.slides.tolist() == ["003", "003"]
    assert "domain" not in cells.columns


def test_midog_plusplus_gives_the_published_counts(real_data):
    cells = read_midog(real_data / "annotations" / "MIDOG++.json", name="midogpp")
    frame = cells.to_frame()
    counts = frame.groupby("domain")["label"].value_counts().unstack()
    found = {domain: (row[MITOTIC_FIGURE], row[LOOK_ALIKE]) for domain, row in counts.iterrows()}
    assert found == MIDOG_PLUSPLUS
    assert len(cells) == 26_286


def test_the_labels_of_the_aperio_file_are_read_by_their_other_names(real_data):
    cells = read_midog(real_data / "annotations" / "MIDOG_AperioCS2.json", name="cs2")
    assert set(cells.labels) == {MITOTIC_FIGURE, LOOK_ALIKE}


def break_category(content):
    content["categories"][0]["name"] = "granulocyte"


def break_label(content):
    content["annotations"][0]["category_id"] = 9


def break_image(content):
    content["annotations"][1]["image_id"] = 77


def break_box(content):
    content["annotations"][2]["bbox"] = [250, 200, 50, 50]


def break_id(content):
    content["annotations"][1]["id"] = content["annotations"][0]["id"]


def break_keys(content):
    del content["annotations"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (break_category, "has the category 'granulocyte', which is neither"),
        (break_label, r"1 annotations .* unknown category_id \(first: annotation 1000 with 9\)"),
        (break_image, r"1 annotations .* unknown image_id \(first: annotation 1001 with 77\)"),
        (break_box, r"1 boxes .* are not \[x1, y1, x2, y2\] \(first: annotation 1002"),
        (break_id, "1 annotation IDs stand more than once"),
        (break_keys, "has no 'annotations'"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(write_midog, edit, message):
    home = write_midog(edit=edit)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_midog(home / "MIDOG.json", name="m")
    assert "\n" not in str(caught.value)


def test_domains_are_those_of_the_annotated_images_alone(write_midog):
    def forget_one(content):
        content["images"].append({"id": 9, "file_name": "009.tiff"})
        content["images"].append({"id": 10, "file_name": None})

    cells = read_midog(write_midog(edit=forget_one) / "MIDOG.json", name="m")
    assert cells.domains.tolist() == ["tumour B"] * 4 + ["tumour A"] * 4


def test_an_annotated_image_without_a_tumour_type_has_an_empty_domain(write_midog, caplog):
    def forget_second(content):
        content["images"][1]["tumor_type"] = None

    cells = read_midog(write_midog(edit=forget_second) / "MIDOG.json", name="m")
    assert cells.domains.tolist() == ["tumour B"] * 4 + [""] * 4
    assert cells.to_frame().groupby("domain").size().to_dict() == {"": 4, "tumour B": 4}
    assert caplog.records == []


def test_a_category_that_no_annotation_uses_may_be_anything(write_midog):
    def add_others(content):
        content["categories"] += [{"id": 3, "name": "granulocyte"}, {"id": 4}]

    assert len(read_midog(write_midog(edit=add_others) / "MIDOG.json", name="m")) == 8


def test_a_byte_order_mark_is_no_part_of_the_json(write_midog):
    file = write_midog() / "MIDOG.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_midog(file, name="m")) == 8


def without(part, key):
    def edit(content):
        del content[part][0][key]

    return edit


def having(part, **values):
    def edit(content):
        content[part][0].update(values)

    return edit


def being(part, value):
    def edit(content):
        content[part] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("images", "id"), r"has the image \{.*\} without an id"),
        (without("images", "file_name"), "has None as file_name of the image 1"),
        (without("annotations", "id"), r"has the annotation \{.*\} without an id"),
        (
            without("annotations", "image_id"),
            r"unknown image_id \(first: annotation 1000 with None",
        ),
        (without("annotations", "bbox"), "bbox of annotation 1000 .* is None; four finite numbers"),
        (without("categories", "id"), r"has the category \{.*\} without an id"),
        (without("categories", "name"), "has the category None, which is neither"),
        (having("images", file_name=None), "has None as file_name of the image 1"),
        (having("images", id=None), r"has the image \{.*\} without an id"),
        (having("images", id=[1]), r"has the image \{.*\} without an id"),
        (having("images", id=2), "has two of the image id 2; IDs must be unique"),
        (having("categories", id=2), "has two of the category id 2; IDs must be unique"),
        (having("annotations", id=None), r"has the annotation \{.*\} without an id"),
        (having("annotations", image_id=[1]), r"unknown image_id .* 1000 with \[1\]"),
        (having("annotations", category_id={}), r"unknown category_id .* 1000 with \{\}"),
        (having("annotations", bbox=[1, 2, float("nan"), 4]), r"1000 .* is \[1, 2, nan, 4\]; four"),
        (having("annotations", bbox=[1, 2, float("inf"), 4]), r"1000 .* is \[1, 2, inf, 4\]; four"),
        (having("annotations", bbox=[1, 2, 10**400, 4]), "bbox of annotation 1000 .* four finite"),
        (having("annotations", bbox=[1, 2, 3, 4] * 2), "bbox of annotation 1000 .* four finite"),
        (having("annotations", bbox={"x": 1}), r"1000 .* is \{'x': 1\}; four finite"),
        (having("annotations", bbox=[1, [2], 3, 4]), r"1000 .* is \[1, \[2\], 3, 4\]; four finite"),
        (being("images", ["a"]), "'images' of .* holds 'a'; a list of objects is needed"),
        (being("images", "a"), "'images' of .* holds 'a'; a list of objects is needed"),
        (
            being("categories", {"id": 1}),
            r"'categories' of .* holds \{'id': 1\}; a list of objects",
        ),
        (being("annotations", {"id": 1}), r"'annotations' of .* holds \{'id': 1\}; a list of"),
        (being("annotations", {}), "has no 'annotations'"),
        (being("annotations", []), "has no 'annotations'"),
    ],
)
def test_malformed_content_is_refused_in_one_line(write_midog, edit, message):
    home = write_midog(edit=edit)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_midog(home / "MIDOG.json", name="m")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "m.json").write_text("id,x,y")
    with pytest.raises(AnnotationError, match="is not JSON"):
        read_midog(tmp_path / "m.json", name="m")
    (tmp_path / "m.json").write_text("[" * 100_000)
    with pytest.raises(AnnotationError, match="is not JSON"):
        read_midog(tmp_path / "m.json", name="m")
    with pytest.raises(AnnotationError, match="cannot read"):
        read_midog(tmp_path / "none.json", name="m")


def test_centres_are_floats_whatever_the_file_holds(write_midog):
    cells = read_midog(write_midog() / "MIDOG.json", name="m")
    assert cells.x.dtype == np.float64
    assert cells.domains.tolist() == ["tumour B"] * 4 + ["tumour A"] * 4
