"""list, show and image: a look at what is there."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

import featstore
from featstore.store.writer import add_annotations
from featstore_cli.showing import COMMANDS
from tests.test_featstore.test_store_reading import VIT, write_vit


@pytest.fixture
def look():
    """Run a verb of this module that must succeed; give what it prints."""

    def run(verb, *words):
        result = CliRunner().invoke(COMMANDS[verb], [str(word) for word in words])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    return run


def test_list_names_the_parts_of_each_model(filled_store, look):
    store, values = filled_store
    write_vit(store.path, "cells", values)
    header, _, tiny, vit = look("list", store.path).splitlines()[-4:]
    assert header.split()[-2:] == ["complete", "parts"]
    assert tiny.split()[2:] == ["40", "6", "float32", "yes", "class,", "mean"]
    assert vit.split()[2:] == ["40", "2", "float32", "yes", "class,", "mean,", "registers"]
    rows = json.loads(look("list", store.path, "--json"))
    assert [row["parts"] for row in rows] == [["class", "mean"], ["class", "mean", "registers"]]
    assert look("list", store.path, "--csv").splitlines()[1:] == [
        'tiny,cells,40,6,float32,True,"class, mean"',
        'vit,cells,40,2,float32,True,"class, mean, registers"',
    ]


def test_list_leaves_parts_out_where_there_is_nothing_to_choose(tmp_path, filled_store, look):
    store, values = filled_store
    whole, empty = tmp_path / "whole.zarr", tmp_path / "empty.zarr"
    for path in (whole, empty):
        featstore.create(path)
        add_annotations(path, store.annotations("cells"))
    write_vit(whole, "cells", values, spec=VIT.at(dim=6), parts={"class": (0, 6)})
    write_vit(whole, "cells", values, spec=VIT.at(key="theirs", dim=6), parts={})
    for path in (whole, empty):
        assert "parts" not in look("list", path)
    rows = [row["parts"] for row in json.loads(look("list", whole, "--json"))]
    assert rows == [[], ["class"]]


def test_show_says_how_all_that_is_stored_was_made_or_the_view_that_is_named(filled_store, look):
    store, values = filled_store
    write_vit(store.path, "cells", values)
    fields = {}
    for model in ("vit", "vit:class", "vit:mean"):
        rows = json.loads(look("show", store.path, "cells", "--model", model, "--json"))
        fields[model] = {row["field"]: row["value"] for row in rows}
    assert fields["vit"]["encoder.pooling"] == fields["vit:class"]["encoder.pooling"] == "class"
    assert fields["vit"]["parts.registers"] == "[4, 6]"
    assert "parts.registers" not in fields["vit:class"]
    assert fields["vit:mean"]["encoder.pooling"] == "mean"
    assert fields["vit:mean"]["parts.mean"] == "[0, 2]"
    assert fields["vit:mean"]["digest"] == store.embeddings("vit:mean", "cells").digest


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
