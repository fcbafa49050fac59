import json
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import probes
from probes.results import RESULT_COLUMNS

MODEL = "test_vit-random0"


def width_px(picture):
    with Image.open(picture) as image:
        return image.width


def test_list_and_show_say_what_a_store_holds(midog_store, ok):
    listed = ok("list", midog_store)
    assert "midog" in listed.out
    assert MODEL in listed.out
    assert json.loads(ok("list", midog_store, "--json").out) == [
        {
            "model": MODEL,
            "dataset": "midog",
            "rows": 160,
            "dim": 64,
            "dtype": "float32",
            "complete": True,
            "parts": ["class", "mean"],
        }
    ]
    assert "read from MIDOG.json (sha256 " in ok("show", midog_store, "midog").out
    rows = pd.read_csv(StringIO(ok("show", midog_store, "midog", "1003", "4000", "--csv").out))
    assert rows["id"].tolist() == [1003, 4000]
    assert rows["image"].tolist() == ["001.tiff", "004.tiff"]
    provenance = ok("show", midog_store, "midog", "--model", MODEL).out
    assert "random:0" in provenance
    assert "versions.torch" in provenance


def test_extract_goes_on_and_says_so(midog_store, ok):
    values = midog_store / "embeddings" / MODEL / "midog" / "values" / "c"
    assert [path.name for path in values.iterdir()] == ["0"]
    again = ok(
        "extract",
        midog_store,
        "--model",
        "timm:test_vit",
        "--random-weights",
        0,
        "--dataset",
        "midog",
        "--quiet",
    )
    assert again.out == f"{MODEL}/midog: all 160 embeddings are there\n"


def test_the_paper_way_from_splits_to_results(midog_store, ok, tmp_path):
    """One line per verb, each reading what the one before wrote."""
    to_midog = ["--dataset", "midog"]
    splits, results, plot = tmp_path / "s.json", tmp_path / "r.csv", tmp_path / "p.png"
    table = pd.read_csv(
        StringIO(
            ok(
                "split",
                midog_store,
                *to_midog,
                "--repeats",
                2,
                "--train",
                "0.3,1",
                "--out",
                splits,
                "--csv",
            ).out
        )
    )
    assert table["n_train"].tolist() == [31, 103] * 2
    probe = json.loads(
        ok(
            "probe",
            midog_store,
            "--model",
            MODEL,
            *to_midog,
            "--splits",
            splits,
            "--C",
            10,
            "--json",
        ).out
    )[0]
    assert (probe["n_train"], probe["n_test"], probe["C"]) == (103, 32, 10)
    curve = ok(
        "curve", midog_store, *to_midog, "--splits", splits, "--C", 10, "--csv", "--plot", plot
    )
    frame = pd.read_csv(StringIO(curve.out))
    assert tuple(frame.columns) == RESULT_COLUMNS
    assert frame["split"].tolist() == [split.digest for split in probes.load_splits(splits)]
    assert frame["value"].iloc[-1] == pytest.approx(probe["auroc"])
    assert width_px(plot) > 500
    ok(
        "train",
        midog_store,
        *to_midog,
        "--splits",
        splits,
        "--repeat",
        0,
        "--network",
        "timm:test_efficientnet",
        "--weights",
        "random",
        "--patch-px",
        32,
        "--epochs",
        1,
        "--quiet",
        "--results",
        results,
        "--save",
        tmp_path / "networks",
    )
    assert sorted(path.name[:-21] for path in (tmp_path / "networks").iterdir()) == [
        "test_efficientnet-repeat0-size0.3",
        "test_efficientnet-repeat0-size1",
    ]
    both = pd.read_csv(
        StringIO(
            ok(
                "curve",
                midog_store,
                *to_midog,
                "--splits",
                splits,
                "--C",
                10,
                "--beside",
                results,
                "--csv",
            ).out
        )
    )
    assert both["model"].unique().tolist() == [MODEL, "end-to-end test_efficientnet"]
    trained = both[both["model"] != MODEL]
    assert trained["split"].tolist() == frame["split"].tolist()[:2]


def test_splits_by_slide_come_from_one_option(midog_store, ok, tmp_path):
    ok(
        "split",
        midog_store,
        "--dataset",
        "midog",
        "--group",
        "slide",
        "--train",
        "1",
        "--out",
        tmp_path / "s.json",
    )
    assert probes.load_splits(tmp_path / "s.json").rule == "grouped"


def test_domains_prints_a_matrix_and_draws_it(midog_store, ok, tmp_path):
    shown = ok(
        "domains",
        midog_store,
        "--dataset",
        "midog",
        "--objective",
        "l2",
        "--repeats",
        2,
        "--plot",
        tmp_path / "d.png",
    )
    assert "in domain" in shown.out
    frame = pd.read_csv(
        StringIO(
            ok(
                "domains",
                midog_store,
                "--dataset",
                "midog",
                "--objective",
                "l2",
                "--repeats",
                2,
                "--csv",
            ).out
        )
    )
    assert len(frame) == 2 * 2 * 2
    assert width_px(tmp_path / "d.png") > 500


def test_real_patches_go_in_by_naming_their_columns(real_data, ok, tmp_path):
    home = real_data / "ami_br_midog21_train"
    said = ok(
        "add",
        tmp_path / "ami.zarr",
        "ami-br",
        "--patches",
        home / "labels.csv",
        "--id",
        "uid",
        "--file",
        "dataset_uid",
        "--label",
        "final_label",
    )
    assert "1,292 annotations" in said.out
    assert said.lines[-1].split() == ["all", "307", "985", "99"]


def test_results_beside_must_be_on_the_same_splits(midog_store, ok, run, tmp_path):
    for seed in (1, 2):
        ok(
            "split",
            midog_store,
            "--dataset",
            "midog",
            "--train",
            "1",
            "--seed",
            seed,
            "--out",
            tmp_path / f"{seed}.json",
        )
    command = ["curve", midog_store, "--dataset", "midog", "--C", 10, "--splits"]
    ok(*command, tmp_path / "1.json", "--results", tmp_path / "1.csv")
    other = run(*command, tmp_path / "2.json", "--beside", tmp_path / "1.csv")
    assert other.code == 1
    assert "holds results on other splits than these" in other.err


def test_every_verb_is_documented_and_says_what_it_does(ok):
    from featstore_cli.main import VERBS

    listed = ok("--help").out
    documented = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for verb in VERBS:
        assert f"\n  {verb} " in listed
        assert f"## featstore {verb}\n" in documented
        assert ok(verb, "--help").out.startswith(f"Usage: featstore {verb}")


def test_later_annotations_extend_a_dataset_and_extraction_tops_up(
    midog_store, write_midog, ok, run
):
    home = write_midog(n_images=4, cells_per_image=60, folder="later")
    words = ["add", midog_store, "midog", "--annotations", home / "MIDOG.json", "--images"]
    words += [home / "images", "--extend"]
    said = run(*words)
    assert said.code == 1
    assert "annotations of 'midog' have another" in said.err
    same = write_midog(n_images=4, cells_per_image=40, folder="same", edit=add_one)
    words[4], words[6] = same / "MIDOG.json", same / "images"
    assert "1 annotations" in ok(*words).out
    assert json.loads(ok("list", midog_store, "--json").out)[0]["complete"] is False
    said = ok(
        "extract",
        midog_store,
        "--model",
        "timm:test_vit",
        "--random-weights",
        0,
        "--dataset",
        "midog",
        "--workers",
        0,
        "--quiet",
    )
    assert f"{MODEL}/midog: 1 embeddings of 64" in said.out
    assert json.loads(ok("list", midog_store, "--json").out)[0]["complete"] is True


def add_one(content):
    content["annotations"].append(
        {"id": 9_999, "image_id": 2, "category_id": 1, "bbox": [100, 100, 150, 150]}
    )


def test_a_dry_run_counts_bytes_and_files_and_writes_nothing(midog_store, ok):
    before = sorted(midog_store.rglob("*"))
    said = ok(
        "extract", midog_store, "--model", "efficientnet-lite0", "--dataset", "midog", "--dry-run"
    )
    expected = "160 embeddings of 1280 (average) as float32: at most 0.8 MiB in 5 files"
    assert said.out == f"efficientnet-lite0: {expected}\n"
    assert sorted(midog_store.rglob("*")) == before
    ok("extract", midog_store, "--model", "efficientnet-lite0", "--dataset", "midog", "--quiet")
    made = [path for path in midog_store.rglob("*") if path.is_file() and path not in before]
    assert len(made) == 5


def test_diff_names_what_differs_and_the_worst_annotations(midog_store, ok):
    ok(
        "extract",
        midog_store,
        "--model",
        "timm:test_vit",
        "--random-weights",
        0,
        "--dataset",
        "midog",
        "--precision",
        "bfloat16",
        "--name",
        "half",
        "--quiet",
    )
    said = ok("diff", f"{midog_store}:{MODEL}/midog", f"{midog_store}:half-random0/midog")
    assert "encoder.precision" in said.out
    assert "bfloat16" in said.out
    assert "cosine: lowest 0.99" in said.out
