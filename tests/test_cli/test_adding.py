"""What add reads, and what it says of it."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import tifffile

import featstore
from featstore.annotations import LOOK_ALIKE, MITOTIC_FIGURE
from featstore.datasets.formats import FORMATS
from featstore.datasets.midog import read_midog
from featstore.datasets.releases import RELEASES
from featstore.errors import KnownCountsWarning


@pytest.fixture
def home(write_midog):
    """A small MIDOG dataset with an image that nobody annotated."""

    def forget(content):
        content["images"].append({"id": 3, "file_name": "003.tiff"})

    return write_midog(edit=forget)


@pytest.fixture
def cells(home):
    return read_midog(home / "MIDOG.json", name="d").table


def write_sqlite(cells, file):
    images = sorted(set(cells.images.tolist()))
    with closing(sqlite3.connect(file)) as base:
        base.executescript(
            "CREATE TABLE Slides (uid, filename); CREATE TABLE Classes (uid, name);"
            "CREATE TABLE Annotations (uid, slide, type, agreedClass);"
            "CREATE TABLE Annotations_coordinates (annoId, coordinateX, coordinateY);"
        )
        base.executemany("INSERT INTO Slides VALUES (?, ?)", list(enumerate(images)))
        classes = [MITOTIC_FIGURE, LOOK_ALIKE]
        base.executemany("INSERT INTO Classes VALUES (?, ?)", list(enumerate(classes, start=1)))
        for id, label, image, x, y in rows(cells):
            row = (id, images.index(image), 1, 1 + classes.index(label))
            base.execute("INSERT INTO Annotations VALUES (?, ?, ?, ?)", row)
            base.execute("INSERT INTO Annotations_coordinates VALUES (?, ?, ?)", (id, x, y))
        base.commit()


def rows(cells):
    columns = (cells.ids, cells.labels, cells.images, cells.x, cells.y)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def write_csv(cells, file):
    lines = [f"{id},{label},{image},{x},{y}" for id, label, image, x, y in rows(cells)]
    file.write_text("\n".join(["id,label,image,x,y", *lines]))


def write_parquet(cells, file):
    frame = cells.to_frame().reset_index()[["id", "label", "image", "x", "y"]]
    frame.to_parquet(pytest.importorskip("pyarrow") and file)


def write_geojson(cells, folder):
    folder.mkdir()
    for image in set(cells.images.tolist()):
        features = [
            {
                "type": "Feature",
                "id": id,
                "geometry": {"type": "Point", "coordinates": [x, y]},
                "properties": {"classification": {"name": label}},
            }
            for id, label, of, x, y in rows(cells)
            if of == image
        ]
        content = {"type": "FeatureCollection", "features": features}
        (folder / f"{image.removesuffix('.tiff')}.geojson").write_text(json.dumps(content))


WRITERS = {
    "cells.sqlite": write_sqlite,
    "cells.csv": write_csv,
    "cells.parquet": write_parquet,
    "geojson": write_geojson,
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_cells_in_any_format_become_the_same_dataset(name, cells, home, ok, tmp_path):
    WRITERS[name](cells, tmp_path / name)
    store, images = tmp_path / "lab.zarr", ["--images", home / "images"]
    ok("add", store, "json", "--annotations", home / "MIDOG.json", *images)
    said = ok("add", store, "other", "--annotations", tmp_path / name, *images)
    assert "added 'other'" in said.out
    opened = featstore.open(store)
    ours, theirs = opened.annotations("json"), opened.annotations("other").take(cells.ids)
    for column in ("id", "label", "x", "y", "image", "slide", "mpp"):
        assert theirs.column(column).tolist() == ours.column(column).tolist(), column


def test_add_says_what_it_read_and_what_it_left_out_and_keeps_that(home, ok, tmp_path):
    store = tmp_path / "lab.zarr"
    words = ["--annotations", home / "MIDOG.json", "--images", home / "images"]
    said = ok("add", store, "d", *words)
    assert [" ".join(line.split()) for line in said.lines if "--" not in line] == [
        f"added 'd' to {store}: 8 annotations",
        "domain look-alike mitotic figure slides images",
        "tumour A 2 2 1 1",
        "tumour B 2 2 1 1",
        "left out: 1 images without annotations (003.tiff)",
        "0.25 um/px in 2 images, from resolution tags",
    ]
    assert featstore.open(store).source("d")["left_out"] == [
        {"reason": "without annotations", "n": 1, "unit": "images", "first": ["003.tiff"]}
    ]


def test_annotations_that_are_dropped_are_counted_among_what_was_left_out(
    write_midog, ok, tmp_path
):
    def move(content):
        content["annotations"][0]["bbox"] = [290, 10, 340, 60]

    home = write_midog(edit=move)
    words = ["--annotations", home / "MIDOG.json", "--images", home / "images"]
    said = ok("add", tmp_path / "lab.zarr", "d", *words, "--outside", "drop")
    assert said.lines[-2] == "left out: 1 annotations whose centre is outside of its image (1000)"


def test_a_dataset_of_which_nothing_is_left_out_says_no_more_than_its_counts(
    write_midog, ok, tmp_path
):
    home = write_midog()
    said = ok("add", tmp_path / "s.zarr", "d", "--annotations", home / "MIDOG.json")
    assert len(said.lines) == 5
    assert "left_out" not in featstore.open(tmp_path / "s.zarr").source("d")


def test_labels_boxes_and_the_release_come_from_options(write_midog, ok, run, tmp_path):
    def edit(content):
        for image in content["images"]:
            del image["tumor_type"]
        content["categories"][0]["name"] = "Zelle A"
        content["annotations"][0]["bbox"] = [10, 10, 40, 70]

    file = write_midog(edit=edit) / "MIDOG.json"
    words = ["add", tmp_path / "s.zarr", "d", "--annotations", file]
    assert "1 boxes of " in run(*words).err
    words += ["--box-px", "0"]
    assert "'Zelle A', which is neither" in run(*words).err
    words += ["--map-label", "Zelle A=mitotic figure"]
    assert "no domains: no image has a tumor_type" in ok(*words).lines[-1]
    words[2] = "e"
    with pytest.warns(KnownCountsWarning, match="4 mitotic figures where 1,721 are published"):
        ok(*words, "--release", "midog2021")
    table = featstore.open(tmp_path / "s.zarr").annotations("e")
    assert set(table.domains) == {"Hamamatsu XR"}
    assert set(table.labels) == {MITOTIC_FIGURE, LOOK_ALIKE}


def test_columns_of_centres_are_named_by_options(cells, home, ok, tmp_path):
    lines = [f"{id};{label};{image};{x};{y}" for id, label, image, x, y in rows(cells)]
    (tmp_path / "cells.txt").write_text("\n".join(["uid;kind;wsi;cx;cy", *lines]))
    words = ["--annotations", tmp_path / "cells.txt", "--images", home / "images", "--id", "uid"]
    words += ["--label", "kind", "--file", "wsi", "--x", "cx", "--y", "cy", "--slide", "wsi"]
    ok("add", tmp_path / "s.zarr", "d", *words)
    table = featstore.open(tmp_path / "s.zarr").annotations("d")
    assert table.x.tolist() == cells.x.tolist()
    assert table.slides.tolist() == cells.images.tolist()


def test_patches_come_as_parquet_too(tmp_path, ok):
    pd, image = pytest.importorskip("pandas"), pytest.importorskip("PIL.Image")
    for name in ("a.png", "b.png"):
        image.new("RGB", (8, 8)).save(tmp_path / name)
    frame = pd.DataFrame({"id": [1, 2], "file": ["a.png", "b.png"], "label": ["x", "y"]})
    frame.to_parquet(tmp_path / "labels.parquet")
    said = ok("add", tmp_path / "s.zarr", "d", "--patches", tmp_path / "labels.parquet")
    assert said.lines[1].split() == ["domain", "x", "y"]
    assert featstore.open(tmp_path / "s.zarr").annotations("d").images.tolist() == [
        "a.png",
        "b.png",
    ]


def test_a_geojson_file_is_of_the_image_that_is_named(cells, home, ok, run, tmp_path):
    write_geojson(cells, tmp_path / "g")
    file = (tmp_path / "g" / "001.geojson").rename(tmp_path / "export.geojson")
    words = ["add", tmp_path / "s.zarr", "d", "--annotations", file, "--images", home / "images"]
    assert "'export', is not there in" in run(*words).err
    ok(*words, "--image", "001.tiff")
    assert set(featstore.open(tmp_path / "s.zarr").annotations("d").images) == {"001.tiff"}
    assert len(featstore.open(tmp_path / "s.zarr").source("d")["sha256"]) == 64


def coco(content):
    for row in content["annotations"]:
        x1, y1, x2, y2 = row["bbox"]
        row["bbox"] = [x1, y1, x2 - x1, y2 - y1]


def same_file(content):
    content["images"][1]["file_name"] = "001.tiff"


BROKEN = {
    "boxes as COCO has them": (coco, "8 boxes of {file} look like [x, y, width, height]"),
    "an image named twice": (same_file, "{file} names the image file '001.tiff' twice"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_annotations_that_would_be_read_wrongly_are_refused(mistake, write_midog, run, tmp_path):
    edit, message = BROKEN[mistake]
    file = write_midog(edit=edit) / "MIDOG.json"
    said = run("add", tmp_path / "s.zarr", "d", "--annotations", file)
    assert said.code == 1
    assert said.err.startswith(f"Error: {message.format(file=file)}")
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--patches", "a.csv", "--x", "cx"], "--x goes with --annotations alone"),
        (["--patches", "a.csv", "--box-px", "0"], "--box-px goes with --annotations alone"),
        (["--annotations", "a.json", "--map-label", "Mitose"], "'Mitose' is not NAME=LABEL"),
        (["--annotations", "a.json", "--map-label", "a=b", "--map-label", "a=c"], "once for each"),
        (["--annotations", "a.json", "--box-px", "-1"], "--box-px"),
    ],
)
def test_options_that_do_not_go_together_have_exit_code_2(words, message, run):
    said = run("add", "s.zarr", "d", *words)
    assert said.code == 2
    assert message in said.err


def test_an_option_of_another_format_is_refused_in_one_line(home, run, tmp_path):
    said = run("add", tmp_path / "s.zarr", "d", "--annotations", home / "MIDOG.json", "--x", "cx")
    assert said.code == 1
    assert "is read as MIDOG JSON (.json), which has no option 'x'" in said.err
    assert "it has labels, release, box_px" in said.err


def test_the_help_names_every_format_and_release(ok):
    text = ok("add", "--help").out
    for name in (*FORMATS, *RELEASES):
        assert name in text


def test_a_bad_image_is_left_out_and_listed_only_with_skip_bad(tmp_path, write_midog, run, ok):
    home = write_midog(n_images=4)
    images = home / "images"
    (images / "001.tiff").write_bytes((images / "001.tiff").read_bytes()[:-2_000])
    (images / "003.tiff").unlink()
    pixels = np.zeros((260, 300, 3), np.uint8)
    tifffile.imwrite(
        images / "004.tiff", pixels, photometric="rgb", tile=(64, 64), compression="zlib",
        resolution=(40_000, 40_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    with tifffile.TiffFile(images / "004.tiff", mode="r+") as file:
        file.pages[0].tags["TileByteCounts"].overwrite([0] * 25)
    words = ["add", tmp_path / "lab.zarr", "midog", "--annotations", home / "MIDOG.json"]
    words += ["--images", images]
    refused = run(*words)
    assert refused.code == 1
    assert "001.tiff is cut short" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not (tmp_path / "lab.zarr").exists()
    outcome = ok(*words, "--skip-bad")
    listed = [line for line in outcome.lines if line.startswith("left out: ")]
    assert listed == [
        f"left out: 4 annotations of the bad image {number:03d}.tiff" for number in (1, 3, 4)
    ]
    problems = ["001.tiff is cut short", "003.tiff is missing", "004.tiff: tile "]
    assert all(problem in outcome.out for problem in problems)
    kept = featstore.open(tmp_path / "lab.zarr").source("midog")
    assert [part["n"] for part in kept["left_out"]] == [4, 4, 4]
    assert str(tmp_path) not in str(kept)  # a store tells no one of this machine's folders
    table = featstore.open(tmp_path / "lab.zarr").annotations("midog")
    assert set(table.images) == {"002.tiff"}


def test_where_every_image_is_bad_nothing_is_added(tmp_path, write_midog, run):
    home = write_midog()
    for image in (home / "images").iterdir():
        image.write_bytes(b"nothing")
    words = ["add", tmp_path / "lab.zarr", "midog", "--annotations", home / "MIDOG.json"]
    outcome = run(*words, "--images", home / "images", "--skip-bad")
    assert outcome.code == 1
    assert "none of the 2 images of 'midog'" in outcome.err.splitlines()[-1]
    assert not (tmp_path / "lab.zarr").exists()


def test_add_says_where_um_per_pixel_stand_and_which_slip_odd_ones_could_be(
    write_midog, ok, run, tmp_path
):
    home = write_midog(resolution=(15_748, 15_748))  # 40,000 per cm, written as per inch
    words = ["--annotations", home / "MIDOG.json", "--images", home / "images"]
    said = ok("add", tmp_path / "s.zarr", "d", *words).lines[-1]
    assert said == (
        "0.635 um/px in 2 images, from resolution tags; with inch for centimetre or back it would "
        "be 0.25, which --mpp would say"
    )
    stated = ok("add", tmp_path / "s.zarr", "e", *words, "--mpp", 0.25)
    assert "um/px" not in stated.out
    for wrong in ("nan", "inf", "0"):
        assert run("add", tmp_path / "s.zarr", "f", *words, "--mpp", wrong).code == 2
