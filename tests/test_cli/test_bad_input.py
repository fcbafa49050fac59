"""Each mistake gets one line, exit code 1, and leaves the store as it was."""

import numpy as np
import pytest
import tifffile
from PIL import Image


def contents(store):
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture
def refused(run):
    """Run a command that must fail with one line, and give that line."""

    def run_words(*words):
        outcome = run(*words)
        assert outcome.code == 1, outcome
        assert outcome.out == ""
        lines = outcome.err.splitlines()
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("Error: ")
        return lines[0]

    return run_words


def drop_image(home):
    (home / "images" / "002.tiff").unlink()


def break_image(home):
    (home / "images" / "002.tiff").write_bytes(b"II*\0nothing")


def untag_image(home):
    tifffile.imwrite(
        home / "images" / "002.tiff", np.zeros((260, 300, 3), np.uint8), photometric="rgb"
    )


def edit_text(old, new):
    def edit(home):
        file = home / "MIDOG.json"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return edit


BROKEN = {
    "a missing image": (drop_image, "002.tiff is missing; check the folder"),
    "an unreadable TIFF": (break_image, "002.tiff is not a readable TIFF"),
    "a TIFF without resolution": (
        untag_image,
        "002.tiff has no resolution tags; give its um per pixel with --mpp",
    ),
    "an unknown label": (
        edit_text('"mitotic figure"', '"granulocyte"'),
        "'granulocyte', which is neither",
    ),
    "a duplicate ID": (
        edit_text('"id": 1001,', '"id": 1000,'),
        "stand more than once in 'new' (first: 1000)",
    ),
    "a file that is no JSON": (edit_text("{", "("), "is not JSON"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_dataset_is_refused_and_the_store_stays_as_it_was(
    mistake, midog_store, write_midog, refused, tmp_path
):
    break_it, message = BROKEN[mistake]
    home = write_midog(folder="broken")
    break_it(home)
    before = contents(midog_store)
    words = ["new", "--annotations", home / "MIDOG.json", "--images", home / "images"]
    assert message in refused("add", midog_store, *words)
    assert contents(midog_store) == before
    refused("add", tmp_path / "other.zarr", *words)
    assert not (tmp_path / "other.zarr").exists()


def test_an_annotation_outside_its_image_is_refused_and_can_be_dropped(
    midog_store, write_midog, refused, ok
):
    def move(content):
        content["annotations"][0]["bbox"] = [290, 10, 340, 60]

    home = write_midog(folder="outside", edit=move)
    words = [
        "add",
        midog_store,
        "new",
        "--annotations",
        home / "MIDOG.json",
        "--images",
        home / "images",
    ]
    before = contents(midog_store)
    assert "(first: ID 1000 at (315, 35) in 001.tiff, 300 x 260 px)" in refused(*words)
    assert contents(midog_store) == before
    assert "7 annotations" in ok(*words, "--outside", "drop").out


def test_a_csv_without_the_named_column_is_refused(midog_store, refused, tmp_path):
    (tmp_path / "labels.csv").write_text("uid,file,label\n1,a.png,x\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    before = contents(midog_store)
    assert "has no column 'id' for the id; it has uid, file, label" in refused(
        "add", midog_store, "new", "--patches", tmp_path / "labels.csv"
    )
    assert contents(midog_store) == before


def test_a_name_that_is_taken_is_not_overwritten(midog_store, write_midog, refused):
    home = write_midog(folder="again")
    before = contents(midog_store)
    assert "'annotations/midog' is in" in refused(
        "add",
        midog_store,
        "midog",
        "--annotations",
        home / "MIDOG.json",
        "--images",
        home / "images",
    )
    assert contents(midog_store) == before


TO_MIDOG = ("--dataset", "midog")
UNKNOWN = {
    "an unknown encoder": (
        ["extract", "{store}", "--model", "uni9", *TO_MIDOG],
        "no encoder 'uni9'; known are efficientnet-lite0",
    ),
    "an unknown dataset": (
        ["extract", "{store}", "--model", "efficientnet-lite0", "--dataset", "ccmct"],
        "no dataset 'ccmct' in {store}; it holds midog",
    ),
    "weights that are not here": (
        ["extract", "{store}", "--model", "resnet50-imagenet", *TO_MIDOG],
        "no weights of 'resnet50-imagenet' on this machine",
    ),
    "an unknown model": (
        ["probe", "{store}", "--model", "virchow", *TO_MIDOG, "--splits", "{splits}"],
        "no embeddings 'virchow/midog' in {store}; it holds test_vit-random0/midog",
    ),
    "a missing file of splits": (
        ["curve", "{store}", *TO_MIDOG, "--splits", "none.json"],
        "cannot read the splits none.json",
    ),
    "a training draw too small": (
        ["split", "{store}", *TO_MIDOG, "--train", "0.001", "--out", "{out}"],
        "train=0.001 leaves 0 of 160 annotations to train on",
    ),
    "an unknown column": (
        ["split", "{store}", *TO_MIDOG, "--group", "case", "--out", "{out}"],
        "dataset 'midog' has no column 'case'; it has id, label, x, y",
    ),
    "an unknown ID": (
        ["show", "{store}", "midog", "77"],
        "1 of 1 annotation IDs asked for are not in dataset 'midog' (first: 77)",
    ),
    "no store": (["list", "nowhere.zarr"], "no store at nowhere.zarr"),
    "another folder": (["list", "{tmp}"], "is not a featstore store"),
    "another digest": (
        [
            "extract",
            "{store}",
            "--model",
            "timm:test_vit",
            "--random-weights",
            "0",
            *TO_MIDOG,
            "--mpp",
            "0.5",
        ],
        "(mpp: 0.25, 0.5); give the new one another --name",
    ),
    "an unknown network": (
        ["train", "{store}", *TO_MIDOG, "--splits", "{splits}", "--network", "resnet50"],
        "no network 'resnet50'",
    ),
    "an ID of another kind": (["show", "{store}", "midog", "12x"], "ID '12x' is not an integer"),
    "a plot of an unknown kind": (
        ["domains", "{store}", *TO_MIDOG, "--plot", "{tmp}/p.xyz"],
        "give a name that ends in .png, .pdf or .svg",
    ),
    "a device that is none": (
        [
            "extract",
            "{store}",
            "--model",
            "timm:test_vit",
            "--random-weights",
            "1",
            *TO_MIDOG,
            "--device",
            "abacus",
        ],
        "device 'abacus' cannot be used",
    ),
    "results twice": (
        [
            "curve",
            "{store}",
            *TO_MIDOG,
            "--splits",
            "{splits}",
            "--C",
            "10",
            "--beside",
            "{results}",
        ],
        "holds results of test_vit-random0, which are fitted here too",
    ),
    "a plot that cannot be written": (
        [
            "curve",
            "{store}",
            *TO_MIDOG,
            "--splits",
            "{splits}",
            "--C",
            "10",
            "--csv",
            "--plot",
            "{tmp}/none/p.png",
        ],
        "cannot write {tmp}/none/p.png: its folder does not exist",
    ),
}


@pytest.mark.parametrize("mistake", UNKNOWN)
def test_what_is_not_there_is_answered_in_one_line(mistake, midog_store, ok, run, tmp_path):
    words, message = UNKNOWN[mistake]
    splits = tmp_path / "splits.json"
    ok("split", midog_store, *TO_MIDOG, "--train", "1", "--repeats", 1, "--out", splits)
    results = tmp_path / "results.csv"
    ok("curve", midog_store, *TO_MIDOG, "--splits", splits, "--C", 10, "--results", results)
    before = contents(midog_store)
    names = {
        "results": results,
        "store": midog_store,
        "splits": splits,
        "tmp": tmp_path,
        "out": tmp_path / "out.json",
    }
    outcome = run(*[word.format(**names) for word in words])
    assert outcome.code == 1
    assert [line for line in outcome.err.splitlines() if message.format(**names) in line], (
        outcome.err
    )
    assert outcome.err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in outcome.err
    assert contents(midog_store) == before
    assert not (tmp_path / "out.json").exists()


def test_a_draw_of_one_class_is_refused(tmp_path, write_midog, ok, refused):
    def relabel(content):
        for row in content["annotations"][1:]:
            row["category_id"] = 1
        content["annotations"][0]["category_id"] = 2

    home = write_midog(cells_per_image=40, edit=relabel)
    ok(
        "add",
        tmp_path / "s.zarr",
        "d",
        "--annotations",
        home / "MIDOG.json",
        "--images",
        home / "images",
    )
    words = ["--dataset", "d", "--train", "0.1", "--out", tmp_path / "s.json"]
    message = refused("split", tmp_path / "s.zarr", *words)
    assert "hold no 'look-alike'; take a larger size or another --seed" in message


@pytest.mark.parametrize(
    "words",
    [
        ["add", "s.zarr", "d"],
        ["add", "s.zarr", "d", "--annotations", "a", "--patches", "b"],
        ["split", "s.zarr", "--dataset", "d", "--out", "o", "--train", "0.1;1"],
        ["no-such-verb"],
        ["extract", "s.zarr", "--dataset", "d"],
    ],
)
def test_a_command_that_is_put_wrongly_has_exit_code_2(words, run):
    assert run(*words).code == 2


def test_an_empty_folder_becomes_a_store_and_a_dataset_without_rows_makes_none(
    tmp_path, write_midog, ok, refused
):
    home = write_midog()
    words = ["d", "--annotations", home / "MIDOG.json", "--images", home / "images"]
    (tmp_path / "empty.zarr").mkdir()
    ok("add", tmp_path / "empty.zarr", *words)

    def move_all(content):
        for row in content["annotations"]:
            row["bbox"] = [-80, -80, -30, -30]

    home = write_midog(folder="outside", edit=move_all)
    words = ["d", "--annotations", home / "MIDOG.json", "--images", home / "images"]
    assert "has no annotations; nothing to add" in refused(
        "add", tmp_path / "none.zarr", *words, "--outside", "drop"
    )
    assert not (tmp_path / "none.zarr").exists()
