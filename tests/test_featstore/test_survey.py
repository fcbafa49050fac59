import numpy as np
import pytest
import tifffile
from PIL import Image

from featstore import AnnotationTable, ImageFolder, Patches
from featstore.datasets.midog import read_midog
from featstore.errors import AnnotationError, ImageError
from featstore.survey import check_against_images


def test_checking_adds_the_resolution_of_each_annotations_image(write_midog):
    home = write_midog(resolution=(20_000, 20_000))
    cells = read_midog(home / "MIDOG.json", name="m").table
    folder = ImageFolder(str(home / "images"))
    assert set(check_against_images(cells, folder).column("mpp")) == {0.5}
    assert set(check_against_images(cells, folder, mpp=0.23).column("mpp")) == {0.23}


def test_a_tiff_without_resolution_needs_an_mpp(write_midog):
    home = write_midog(tags=False)
    cells = read_midog(home / "MIDOG.json", name="m").table
    folder = ImageFolder(str(home / "images"))
    with pytest.raises(ImageError, match=r"001.tiff has no resolution tags; give .* --mpp"):
        check_against_images(cells, folder)


def test_a_resolution_that_cannot_be_meant_is_named_and_a_stated_one_wins(write_midog):
    home = write_midog(resolution=(28, 28))
    cells = read_midog(home / "MIDOG.json", name="m").table
    folder = ImageFolder(str(home / "images"))
    message = r"001.tiff has resolution tags of 357.1 um/px, outside 0.1 to 1.2; give .* --mpp"
    with pytest.raises(ImageError, match=message):
        check_against_images(cells, folder)
    assert set(check_against_images(cells, folder, mpp=0.23).column("mpp")) == {0.23}


def test_the_tables_own_mpp_counts_where_the_files_say_nothing(write_midog):
    home = write_midog(tags=False)
    folder = ImageFolder(str(home / "images"))
    cells = read_midog(home / "MIDOG.json", name="m").table.with_columns(mpp=[0.5] * 8)
    assert set(check_against_images(cells, folder).column("mpp")) == {0.5}
    assert set(check_against_images(cells, folder, mpp=0.23).column("mpp")) == {0.23}
    some = cells.with_columns(mpp=["0.5", ""] * 4)
    with pytest.raises(ImageError, match=r"001.tiff has no resolution tags; give its um per"):
        check_against_images(some, folder)
    tagged = ImageFolder(str(write_midog(folder="tagged") / "images"))
    assert set(check_against_images(cells, tagged).column("mpp")) == {0.25}


@pytest.mark.parametrize("wrong", ["unknown", "0", "-0.25", "inf"])
def test_an_mpp_in_the_table_that_is_none_is_refused(write_midog, wrong):
    home = write_midog(tags=False)
    cells = read_midog(home / "MIDOG.json", name="m").table.with_columns(mpp=["0.5"] * 7 + [wrong])
    message = rf"1 values of the column mpp of 'm' .* \(first: '{wrong}' at ID 2003\)"
    with pytest.raises(AnnotationError, match=message):
        check_against_images(cells, ImageFolder(str(home / "images")))


def test_whole_patches_keep_the_mpp_of_their_table(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    folder = ImageFolder(str(tmp_path), whole=True)
    table = AnnotationTable("lab", [1, 2], ["a", "a"], {"image": ["p.png"] * 2})
    assert np.isnan(check_against_images(table, folder).column("mpp")).all()
    stated = check_against_images(table.with_columns(mpp=["0.5", ""]), folder).column("mpp")
    assert np.array_equal(stated, [0.5, np.nan], equal_nan=True)


def test_a_whole_patch_of_an_absurd_size_is_refused_before_it_takes_memory(tmp_path):
    tifffile.imwrite(tmp_path / "p.tiff", np.zeros((64, 64), np.uint8), tile=(16, 16))
    with tifffile.TiffFile(tmp_path / "p.tiff", mode="r+") as file:
        tags = file.pages[0].tags
        for name, value in [("TileWidth", 16_384), ("TileLength", 16_384)]:
            tags[name].overwrite(value)
        for name in ("ImageWidth", "ImageLength"):
            tags[name].overwrite(65_536)
    folder = ImageFolder(str(tmp_path), whole=True)
    table = AnnotationTable("lab", [1], ["a"], {"image": ["p.tiff"], "mpp": [np.nan]})
    with pytest.raises(ImageError, match="65536 x 65536 px is too large to be a cropped patch"):
        check_against_images(table, folder)
    with pytest.raises(ImageError, match="65536 x 65536 px is too large to be a cropped patch"):
        Patches(table, folder, 64, mpp=None).read([1])


def move_one_outside(content):
    content["annotations"][1]["bbox"] = [-45, 100, 5, 150]


def test_an_annotation_outside_its_image_is_refused_dropped_or_kept_as_asked(write_midog):
    home = write_midog(edit=move_one_outside)
    cells = read_midog(home / "MIDOG.json", name="m").table
    folder = ImageFolder(str(home / "images"))
    with pytest.raises(
        AnnotationError,
        match=r"1 of 8 annotations lie outside .* ID 1001 at "
        r"\(-20, 125\) in 001.tiff, 300 x 260 px",
    ):
        check_against_images(cells, folder)
    assert 1001 not in check_against_images(cells, folder, outside="drop").ids
    kept = check_against_images(cells, folder, outside="keep")
    assert (Patches(kept, folder, 32).read([1001]) == 255).all()


def test_a_missing_image_is_named(write_midog):
    home = write_midog()
    (home / "images" / "002.tiff").unlink()
    with pytest.raises(ImageError, match=r"002.tiff is missing"):
        check_against_images(
            read_midog(home / "MIDOG.json", name="m").table, ImageFolder(str(home / "images"))
        )
