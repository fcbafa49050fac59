import json

import numpy as np
import pytest

from featstore.annotations import LOOK_ALIKE, MITOTIC_FIGURE
from featstore.datasets.midog import read_midog
from featstore.errors import AnnotationError, KnownCountsWarning

# Per domain mitotic figure / look-alike of MIDOG++, as its publication counts them.
MIDOG_PLUSPLUS = {
    "human breast cancer": (1721, 2714),
    "canine lung cancer": (855, 951),
    "canine lymphoma": (3959, 4257),
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
                    {"id": 1, "image_id": 3, "category_id": 1, "bbox": [100.5, 200, 150.5, 250]},
                    {"id": 2, "image_id": 3, "category_id": 2, "bbox": [-27, 2391, 23, 2441]},
                ],
            }
        )
    )
    cells = read_midog(file, name="m").table
    assert cells.x.tolist() == [125.5, -2.0]
    assert cells.y.tolist() == [225.0, 2416.0]
    assert cells.labels.tolist() == [MITOTIC_FIGURE, LOOK_ALIKE]
    assert cells.slides.tolist() == ["003", "003"]
    assert "domain" not in cells.columns


def test_midog_plusplus_gives_the_published_counts(real_data):
    cells = read_midog(real_data / "annotations" / "MIDOG++.json", name="midogpp").table
    frame = cells.to_frame()
    counts = frame.groupby("domain")["label"].value_counts().unstack()
    found = {domain: (row[MITOTIC_FIGURE], row[LOOK_ALIKE]) for domain, row in counts.iterrows()}
    assert found == MIDOG_PLUSPLUS
    assert len(cells) == 26_286


def test_the_labels_of_the_aperio_file_are_read_by_their_other_names(real_data):
    cells = read_midog(real_data / "annotations" / "MIDOG_AperioCS2.json", name="cs2").table
    assert set(cells.labels) == {MITOTIC_FIGURE, LOOK_ALIKE}


def break_category(content):
    content["categories"][0]["name"] = "granulocyte"


def break_label(content):
    content["annotations"][0]["category_id"] = 9


def break_image(content):
    content["annotations"][1]["image_id"] = 77


def break_box(content):
    content["annotations"][2]["bbox"] = [250, 200, 220, 250]


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
        (break_box, r"1 boxes .* are not \[x1, y1, x2, y2\], or .* \(first: annotation 1002"),
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

    cells = read_midog(write_midog(edit=forget_one) / "MIDOG.json", name="m").table
    assert cells.domains.tolist() == ["tumour B"] * 4 + ["tumour A"] * 4


def test_an_annotated_image_without_a_tumour_type_has_an_empty_domain(write_midog, caplog):
    def forget_second(content):
        content["images"][1]["tumor_type"] = None

    cells = read_midog(write_midog(edit=forget_second) / "MIDOG.json", name="m").table
    assert cells.domains.tolist() == ["tumour B"] * 4 + [""] * 4
    assert cells.to_frame().groupby("domain").size().to_dict() == {"": 4, "tumour B": 4}
    assert caplog.records == []


def test_a_category_that_no_annotation_uses_may_be_anything(write_midog):
    def add_others(content):
        content["categories"] += [{"id": 3, "name": "granulocyte"}, {"id": 4}]

    assert len(read_midog(write_midog(edit=add_others) / "MIDOG.json", name="m").table) == 8


def test_a_byte_order_mark_is_no_part_of_the_json(write_midog):
    file = write_midog() / "MIDOG.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_midog(file, name="m").table) == 8


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
        (
            having("annotations", bbox=["1", "2", "51", "52"]),
            "bbox of annotation 1000 .* four fini",
        ),
        (having("annotations", bbox=[True, 2, 51, 52]), "bbox of annotation 1000 .* four finite"),
        (having("annotations", id=True), r"has the annotation \{.*\} without an id"),
        (having("annotations", id=1.5), r"has the annotation \{.*\} without an id"),
        (having("annotations", id=10**400), "annotation ID 1000.* does not fit 64 bits"),
        (having("annotations", id="a\nb"), r"annotation ID 'a\\nb' is empty or holds a control"),
        (
            having("annotations", labels=5),
            "labels of annotation 1000 .* are 5; a list of at most 20",
        ),
        (
            having("annotations", labels=[True]),
            r"labels of annotation 1000 .* are \[True\]; a list",
        ),
        (
            having("annotations", labels=[1] * 21),
            "labels of annotation 1000 .* a list of at most 20",
        ),
        (having("images", file_name="a\0.tiff"), r"has 'a\\x00.tiff' as file_name .* control char"),
        (having("images", file_name="a" * 1_001), "as file_name of the image 1, 1,001 characters"),
        (having("images", file_name="\ud800.tiff"), "as file_name .* with a control character"),
        (
            having("images", file_name="002.tiff"),
            "names the image file '002.tiff' twice, as image 1",
        ),
        (having("images", tumor_type="a\nb"), r"has 'a\\nb' as tumor_type of the image 1"),
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
    cells = read_midog(write_midog() / "MIDOG.json", name="m").table
    assert cells.x.dtype == np.float64
    assert cells.domains.tolist() == ["tumour B"] * 4 + ["tumour A"] * 4


def write(folder, content):
    (folder / "m.json").write_text(json.dumps(content))
    return folder / "m.json"


def small(*boxes, image=None):
    """One image and a mitotic figure for each box."""
    return {
        "images": [
            {"id": 1, "file_name": "001.tiff", "width": 7_000, "height": 5_000} | (image or {})
        ],
        "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": list(box)}
            for number, box in enumerate(boxes, start=1)
        ],
    }


COCO = r"look like \[x, y, width, height\], as COCO has them \(first: annotation 1 with"


@pytest.mark.parametrize("box_px", [50, None])
@pytest.mark.parametrize(
    "boxes",
    [
        [[900, 800, 50, 50], [40, 3_000, 50, 50]],  # upside down
        [[30, 20, 50, 50], [10, 5, 50, 50]],  # corners of smaller boxes, all of one second corner
        [[0.5, 20, 50, 50], [900, 800, 50, 50], [901, 1, 50, 50]],
        [[900, 800, 31, 44]],  # upside down, not even 50 x 50
    ],
)
def test_boxes_as_coco_has_them_are_refused_with_an_explanation(tmp_path, boxes, box_px):
    with pytest.raises(AnnotationError, match=COCO) as caught:
        read_midog(write(tmp_path, small(*boxes)), name="m", box_px=box_px)
    assert "\n" not in str(caught.value)
    assert "write x + width and y + height instead" in str(caught.value)


def test_some_boxes_as_coco_has_them_are_named_among_those_that_are_right(tmp_path):
    file = write(tmp_path, small([0, 0, 50, 50], [900, 800, 50, 50], [10, 10, 60, 60]))
    with pytest.raises(AnnotationError, match=r"1 boxes .* as COCO .*annotation 2 with \[900.0"):
        read_midog(file, name="m")


def test_a_box_larger_than_its_image_is_no_corner_box(tmp_path):
    boxes = [[10, 10, 60, 60], [0, 0, 900, 200]]
    file = write(tmp_path, small(*boxes, image={"width": 800, "height": 700}))
    with pytest.raises(
        AnnotationError, match=r"1 boxes .* larger than their image .* annotation 2"
    ):
        read_midog(file, name="m", box_px=None)


def test_a_box_of_another_size_is_taken_only_where_the_caller_says_so(tmp_path):
    file = write(tmp_path, small([10, 10, 60, 60], [10, 10, 40, 70]))
    with pytest.raises(AnnotationError, match=r"1 boxes .* not 50 x 50 px.* 2 with .*--box-px 0"):
        read_midog(file, name="m")
    assert read_midog(file, name="m", box_px=None).table.x.tolist() == [35, 25]
    with pytest.raises(AnnotationError, match=r"2 boxes .* not 64 x 64 px"):
        read_midog(file, name="m", box_px=64)


def test_a_box_at_the_edge_of_a_one_pixel_image_still_has_its_centre(tmp_path):
    file = write(tmp_path, small([-25, -25, 25, 25], image={"width": 1, "height": 1}))
    assert read_midog(file, name="m").table.x.tolist() == [0]


def test_whole_and_half_pixels_come_as_integers_and_as_floats(tmp_path):
    cells = read_midog(
        write(tmp_path, small([1, 2.5, 51, 52.5], [1.0, 2, 51.0, 52], [0.5, 0, 50.5, 50])), name="m"
    ).table
    assert cells.x.tolist() == [26, 26, 25.5]
    assert cells.y.tolist() == [27.5, 27, 25]


def test_votes_of_experts_are_columns_of_labels(tmp_path):
    content = small([0, 0, 50, 50], [9, 0, 59, 50], [9, 9, 59, 59])
    for row, votes in zip(content["annotations"], [[1, 2, 1], [2, 2], None], strict=True):
        row["labels"] = votes
    content["annotations"][2]["labels"] = [1, 77]  # a number that no category has
    cells = read_midog(write(tmp_path, content), name="m").table
    assert cells.column("vote_1").tolist() == [MITOTIC_FIGURE, LOOK_ALIKE, MITOTIC_FIGURE]
    assert cells.column("vote_2").tolist() == [LOOK_ALIKE, LOOK_ALIKE, "77"]
    assert cells.column("vote_3").tolist() == [MITOTIC_FIGURE, "", ""]
    assert "vote_4" not in cells.columns


def test_a_category_gets_the_label_that_the_caller_gives(write_midog):
    def rename(content):
        content["categories"][0]["name"] = "Zelle A"

    file = write_midog(edit=rename) / "MIDOG.json"
    cells = read_midog(file, name="m", labels={"zelle a": "atypical"}).table
    assert set(cells.labels) == {"atypical", LOOK_ALIKE}
    with pytest.raises(
        AnnotationError, match="no class 'Zelle B' to give a label; it has 'Zelle A'"
    ):
        read_midog(file, name="m", labels={"Zelle B": "atypical"})


def test_images_without_annotations_are_counted_and_named(write_midog):
    def add_two(content):
        content["images"] += [{"id": 9, "file_name": "009.tiff"}, {"id": 10, "file_name": None}]

    reading = read_midog(write_midog(edit=add_two) / "MIDOG.json", name="m")
    assert list(map(str, reading.left_out)) == ["2 images without annotations (009.tiff, 10)"]
    assert read_midog(write_midog(folder="all") / "MIDOG.json", name="m").left_out == ()


def test_the_votes_and_unlabelled_images_of_midog_plusplus_are_told(real_data):
    reading = read_midog(real_data / "annotations" / "MIDOG++.json", name="midogpp")
    assert list(map(str, reading.left_out)) == [
        "50 images without annotations (151.tiff, 152.tiff, 153.tiff, ...)"
    ]
    assert reading.notes == (
        "domain 'canine lymphosarcoma' is written 'canine lymphoma', as elsewhere",
    )
    votes = [reading.table.column(f"vote_{number}") for number in (1, 2, 3)]
    assert (np.array(votes) != "").sum(axis=1).tolist() == [26_286, 26_286, 8_559]
    assert sum((vote == MITOTIC_FIGURE).sum() for vote in votes) == 26_369


def without_tumour_types(file):
    content = json.loads(file.read_text())
    for image in content["images"]:
        del image["tumor_type"]
    return content


def test_domains_by_image_number_are_those_by_tumour_type(real_data, tmp_path):
    original = real_data / "annotations" / "MIDOG++.json"
    file = write(tmp_path, without_tumour_types(original))
    by_number, by_type = (read_midog(path, name="m").table for path in (file, original))
    assert by_number.domains.tolist() == by_type.domains.tolist()


def plusplus_id(id_2022):
    """Image number in MIDOG++ of an image of MIDOG 2022."""
    if id_2022 <= 150:
        return id_2022
    if 347 <= id_2022 <= 353:
        return id_2022 + 51
    return 397 if id_2022 == 354 else id_2022 + 50


@pytest.fixture(scope="module")
def midog_2022(real_data):
    """MIDOG 2022 as far as MIDOG++ tells it: two look-alikes are not in MIDOG++."""
    content = without_tumour_types(real_data / "annotations" / "MIDOG++.json")
    new_id = {plusplus_id(number): number for number in range(1, 355)}
    sizes = {image["id"]: image for image in content["images"]}
    content["images"] = [
        {**sizes[old], "id": new, "file_name": f"{new:03d}.tiff"} for old, new in new_id.items()
    ]
    content["annotations"] = [
        row | {"image_id": new_id[row["image_id"]]}
        for row in content["annotations"]
        if row["image_id"] in new_id
    ]
    return content


def test_midog_2022_gives_the_published_counts(midog_2022, tmp_path):
    missing = [
        {"id": 90_000 + image, "image_id": image, "category_id": 2, "bbox": [0, 0, 50, 50]}
        for image in (151, 354)
    ]
    for images in ([], [{"id": n, "file_name": f"{n:03d}.tiff"} for n in range(355, 406)]):
        content = midog_2022 | {
            "images": midog_2022["images"] + images,
            "annotations": midog_2022["annotations"] + missing,
        }
        reading = read_midog(write(tmp_path, content), name="m")
        assert (reading.table.labels == MITOTIC_FIGURE).sum() == 9_501
        assert (reading.table.labels == LOOK_ALIKE).sum() == 11_051
        assert len(set(reading.table.domains)) == 5
        assert sum(part.n for part in reading.left_out) == len(images)


def test_a_release_with_other_numbers_than_published_warns_with_both(midog_2022, tmp_path):
    message = (
        "read as MIDOG 2022, gives 11,049 look-alikes where 11,051 are published; 855 and 951 in "
        "canine lung cancer where 855 and 952 are published; 639 and 1,761 in human "
        "neuroendocrine tumor where 639 and 1,762 are published"
    )
    with pytest.warns(KnownCountsWarning) as caught:
        read_midog(write(tmp_path, midog_2022), name="m")
    assert str(caught[0].message).endswith(message)


def test_image_numbers_alone_give_the_aperio_file_no_domain(real_data):
    file = real_data / "annotations" / "MIDOG_AperioCS2.json"
    reading = read_midog(file, name="cs2")
    assert {image["id"] for image in json.loads(file.read_text())["images"]} == set(range(1, 51))
    assert "domain" not in reading.table.columns
    assert "name it with --release midog2021, midog2022, midog++" in reading.notes[0]
    with pytest.raises(AnnotationError, match=r"image 1 of .* is no image of MIDOG 2021"):
        read_midog(file, name="cs2", release="midog2021")


def test_a_part_of_a_release_gets_its_domains_where_the_caller_says_so(write_midog):
    def renumber(content):
        for image, number in zip(content["images"], (51, 101), strict=True):
            del image["tumor_type"]
            image.update(id=number, file_name=f"{number:03d}.tiff")
        for row in content["annotations"]:
            row["image_id"] = {1: 51, 2: 101}[row["image_id"]]

    file = write_midog(edit=renumber) / "MIDOG.json"
    assert "domain" not in read_midog(file, name="m").table.columns
    with pytest.warns(KnownCountsWarning, match="4 mitotic figures where 1,721 are published"):
        cells = read_midog(file, name="m", release="midog2021").table
    assert cells.domains.tolist() == ["Hamamatsu S360"] * 4 + ["Aperio CS2"] * 4
    with pytest.raises(AnnotationError, match=r"no release 'midog22' .* known are midog2021"):
        read_midog(file, name="m", release="midog22")
