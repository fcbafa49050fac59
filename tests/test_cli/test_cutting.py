"""cut, and what others do with what it leaves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featstore


def cut(store, *options):
    return ["cut", store, "--dataset", "midog", "--quiet", *options]


def extract(store, name, *options):
    model = ["--model", "timm:test_vit", "--random-weights", 0, "--name", name]
    return ["extract", store, *model, "--dataset", "midog", "--workers", 0, "--quiet", *options]


def chunks(store, model):
    folder = store / "embeddings" / model / "midog" / "values" / "c"
    return [file.read_bytes() for file in sorted(folder.rglob("0"), key=str) if file.is_file()]


def test_cut_says_what_it_did_and_what_is_in_the_patches(midog_store, ok):
    outcome = ok(*cut(midog_store, "--patch-px", 160))
    said = "midog: 160 patches of 160 px at 0.25 um/px are there, 160 of them cut in "
    assert outcome.lines[0].startswith(said)
    table = [line.split() for line in outcome.lines[-2:]]
    windows = featstore.open(midog_store).patches("midog").windows
    for row, label in zip(table, ["look-alike", "mitotic figure"], strict=True):
        here = windows.labels == label
        expected = [
            here.sum(),
            0,
            (here & (windows.column("padded_fraction") > 0)).sum(),
            (here & (windows.column("others_in_window") > 0)).sum(),
            (here & windows.column("mitotic_figure_in_window")).sum(),
        ]
        assert row[-5:] == [str(value) for value in expected]
    again = ok(*cut(midog_store, "--patch-px", 160))
    assert again.lines[0] == "midog: all 160 patches of 160 px at 0.25 um/px are there"


def test_extraction_gives_the_same_bytes_with_the_cache_and_without(midog_store, ok):
    ok(*extract(midog_store, "without"))
    ok(*cut(midog_store, "--patch-px", 162))
    images = featstore.open(midog_store).image_folder("midog").root
    for image in Path(images).iterdir():
        image.unlink()  # what comes now can only come out of the cache
    ok(*extract(midog_store, "cached"))
    assert chunks(midog_store, "cached") == chunks(midog_store, "without")


def test_another_size_needs_replace(midog_store, run, ok):
    ok(*cut(midog_store, "--patch-px", 64))
    refused = run(*cut(midog_store, "--patch-px", 32))
    assert refused.code == 1
    assert "patch_px 64 and 32" in refused.err
    assert len(refused.err.splitlines()) == 1
    ok(*cut(midog_store, "--patch-px", 32, "--replace"))
    assert featstore.open(midog_store).patches("midog").patch_px == 32
    assert ok("verify", midog_store).lines[-1].endswith("no findings")


def test_a_dry_run_tells_the_size_that_is_then_written(midog_store, ok):
    said = ok(*cut(midog_store, "--patch-px", 64, "--dry-run")).lines
    assert said == ["160 patches of 64 px: 1.9 MiB in about 5 files"]
    assert featstore.open(midog_store).cached_datasets() == []
    ok(*cut(midog_store, "--patch-px", 64))
    info = featstore.open(midog_store).patches("midog").info
    assert info.n_bytes == pytest.approx(1.9 * 2**20, rel=0.03)


def test_copy_and_pack_take_patches_along_only_when_asked(midog_store, tmp_path, ok):
    ok(*cut(midog_store, "--patch-px", 64))
    left = ok("copy", midog_store, tmp_path / "left.zarr")
    assert "patches of midog" in left.err
    assert featstore.open(tmp_path / "left.zarr").cached_datasets() == []
    ok("copy", midog_store, tmp_path / "taken.zarr", "--patches")
    ok("pack", midog_store, tmp_path / "taken.zip", "--patches")
    ids = featstore.open(midog_store).annotations("midog").ids[[5, 3]]
    expected = featstore.open(midog_store).patches("midog").read(ids)
    for place in ("taken.zarr", "taken.zip"):
        there = featstore.open(tmp_path / place).patches("midog")
        assert np.array_equal(there.read(ids), expected)


def test_an_image_that_is_coarser_than_asked_for_is_a_warning_with_both_numbers(
    tmp_path, write_midog, ok
):
    home = write_midog(resolution=(20_000, 20_000))
    store = tmp_path / "lab.zarr"
    ok("add", store, "midog", "--annotations", home / "MIDOG.json", "--images", home / "images")
    with pytest.warns(UserWarning, match=r"0.25 um/px was asked for .* have up to 0.5"):
        ok(*cut(store, "--patch-px", 32))


def test_replace_keeps_the_old_patches_until_all_images_have_been_opened(midog_store, run, ok):
    ok(*cut(midog_store, "--patch-px", 64))
    folder = Path(featstore.open(midog_store).image_folder("midog").root)
    (folder / "003.tiff").rename(folder / "away")
    for wrong in ([], ["--patch-px", 100_000], ["--mpp", 90]):
        refused = run(*cut(midog_store, "--patch-px", 32, "--replace", *wrong))
        assert refused.code == 1
        assert len(refused.err.splitlines()) == 1
        assert featstore.open(midog_store).patches("midog").patch_px == 64


def test_patches_that_would_not_fit_are_refused_in_one_line(midog_store, run):
    for wrong, message in [
        (["--patch-px", 100_000], "give 1 to 4,096 px"),
        (["--mpp", 1e9], "give 0.01 to 100 um/px"),
        (["--mpp", 50], "at most 8,192 are read"),
    ]:
        refused = run(*cut(midog_store, *wrong))
        assert refused.code == 1
        assert message in refused.err
        assert len(refused.err.splitlines()) == 1
    for wrong in ("nan", "inf"):
        assert run(*cut(midog_store, "--mpp", wrong)).code == 2
    assert featstore.open(midog_store).cached_datasets() == []


def test_whole_patches_of_a_copied_store_come_out_of_its_cache(tmp_path, ok, run):
    for number in range(3):
        Image.fromarray(np.full((20, 20, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    rows = "".join(f"{number},{number}.png,a\n" for number in range(3))
    (tmp_path / "labels.csv").write_text("id,file,label\n" + rows)
    store, copied = tmp_path / "lab.zarr", tmp_path / "elsewhere" / "copied.zarr"
    ok("add", store, "midog", "--patches", tmp_path / "labels.csv")
    ok(*cut(store, "--patch-px", 160))
    (tmp_path / "elsewhere").mkdir()
    ok("copy", store, copied, "--patches")
    ok("pack", store, tmp_path / "packed.zip", "--patches")
    for place in (copied, tmp_path / "packed.zip"):
        assert featstore.open(place).has_whole_patches("midog")
        assert featstore.open(place).image_folder("midog") is None
    ok(*extract(store, "m"))
    ok(*extract(copied, "m"))
    assert chunks(copied, "m") == chunks(store, "m")
    assert "all 3 patches" in ok(*cut(copied, "--patch-px", 160)).lines[0]
    ok("show", copied, "midog", "--patches", tmp_path / "sheet.png")
    refused = run(*cut(copied, "--patch-px", 64))
    assert "does not know where the images of 'midog' are" in refused.err
    ok(*cut(copied, "--patch-px", 64, "--replace", "--images", tmp_path))


def test_a_packed_store_reads_columns_whose_names_begin_alike(tmp_path, ok):
    (tmp_path / "a.png").touch()
    (tmp_path / "labels.csv").write_text("id,file,label,image_id,image_i\n1,a.png,a,7,8\n")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    ok("add", tmp_path / "lab.zarr", "d", "--patches", tmp_path / "labels.csv")
    ok("pack", tmp_path / "lab.zarr", tmp_path / "lab.zip")
    assert featstore.open(tmp_path / "lab.zip").annotations("d").column("image_id").tolist() == [7]
