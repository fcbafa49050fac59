"""cut, and what others do with what it leaves."""

from pathlib import Path

import numpy as np
import pytest

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
    assert outcome.lines[0].startswith("midog: 160 patches of 160 px at 0.25 um/px in ")
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
