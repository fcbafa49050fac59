"""show and image: a look at what is there."""

import pytest
from PIL import Image


def sheet_of(store, path, ok, *options):
    ok("show", store, "midog", *options, "--patches", path)
    with Image.open(path) as image:
        return image.copy()


def test_show_draws_a_contact_sheet_of_every_label_and_domain(midog_store, tmp_path, ok):
    whole = sheet_of(midog_store, tmp_path / "all.png", ok)
    two = sheet_of(midog_store, tmp_path / "two.png", ok, 1000, 1001)
    assert whole.size[0] == two.size[0]
    assert whole.size[1] > two.size[1] > 200
    few = sheet_of(midog_store, tmp_path / "few.png", ok, "--per-group", 1, "--patch-px", 64)
    assert few.size == (two.size[0], few.size[1])


def test_show_counts_by_any_column(midog_store, ok):
    by_image = ok("show", midog_store, "midog", "--by", "image", "--csv").lines
    assert by_image[0] == "image,look-alike,mitotic figure,slides"
    assert by_image[1:] == [f"{number:03d}.tiff,20,20,1" for number in range(1, 5)]


def test_image_shows_levels_and_resolution_and_compares_readers(tmp_path, ok, real_data):
    pytest.importorskip("openslide")
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    outcome = ok("image", path, "--compare")
    assert outcome.lines[0] == f"{path}: read by tifffile; um per pixel from Aperio MPP"
    assert outcome.lines[-2].split() == ["0", "2220", "2967", "1", "0.499"]
    assert outcome.lines[-1].endswith("in 16 regions: 0")


def test_image_says_what_stands_in_the_place_of_a_resolution(tmp_path, ok):
    Image.new("RGB", (20, 20)).save(tmp_path / "i.png", dpi=(72, 72))
    outcome = ok("image", tmp_path / "i.png")
    assert (
        "um per pixel not known (PNG pHYs of 352.7 um/px, outside 0.1 to 1.2)" in outcome.lines[0]
    )


def test_a_sheet_of_odd_labels_and_repeated_ids_is_drawn_and_one_too_large_refused(
    midog_store, tmp_path, ok, run
):
    ok("show", midog_store, "midog", 1000, 1000, "--patches", tmp_path / "twice.png")
    many = ["--per-group", 40, "--patch-px", 8]
    ok("show", midog_store, "midog", *many, "--patches", tmp_path / "many.jpg")
    rows = "".join(f'{number},{number % 2}.png,"a\n{number}"\n' for number in range(300))
    (tmp_path / "labels.csv").write_text("id,file,label\n" + rows)
    for number in range(2):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{number}.png")
    ok("add", tmp_path / "lab.zarr", "d", "--patches", tmp_path / "labels.csv")
    refused = run("show", tmp_path / "lab.zarr", "d", "--patches", tmp_path / "all.png")
    assert refused.code == 1
    assert "a sheet of 300 groups in 300 rows would be" in refused.err
    assert len(refused.err.splitlines()) == 1
    ok("show", tmp_path / "lab.zarr", "d", 4, 7, "--patches", tmp_path / "two.png")
