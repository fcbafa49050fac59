"""From a store to the paper's figures and one page, as a user goes."""

import json

import pandas as pd
import pytest

import featstore
from featstore.encoders.registry import ENCODERS
from probes import Results, load_splits, published
from tests.test_probes.page import Page

MODEL = "test_vit-random0"
EVIL = "<script>alert(1)</script>"

pytestmark = pytest.mark.filterwarnings("ignore::probes.errors.CollapsedProbeWarning")


@pytest.fixture
def two_models(midog_store, ok):
    """A store with embeddings of two networks."""
    how = ["--dataset", "midog", "--precision", "float32", "--workers", 0, "--quiet"]
    ok("extract", midog_store, "--model", "timm:test_vit", "--random-weights", 1, *how)
    return midog_store


@pytest.fixture
def curve(midog_store, ok, tmp_path):
    """A learning curve and its splits in a folder, made with the verbs for each."""
    folder = tmp_path / "results"
    folder.mkdir()
    to_midog, splits = [midog_store, "--dataset", "midog"], folder / "splits.json"
    ok("split", *to_midog, "--repeats", 2, "--train", "0.3,1", "--out", splits)
    ok("curve", *to_midog, "--splits", splits, "--results", folder / "curve.csv")
    return folder


def test_one_call_leaves_splits_results_figures_tables_and_a_page(two_models, ok, tmp_path):
    folder = tmp_path / "paper"
    words = ["reproduce", two_models, "--out", folder, "--train", "0.3,1", "--repeats", 2]
    ok(*words)
    figures = {f"figure-{number}.{ending}" for number in (1, 2) for ending in ("png", "pdf")}
    tables = {"table-2.md", "table-2.tex"}
    assert {path.name for path in folder.iterdir()} == {"midog", "report.html"} | figures | tables

    splits = load_splits(folder / "midog" / "sizes.json")
    results = Results.load(folder / "midog" / "results")
    assert {split.digest for split in splits} <= {row["split"] for row in results.rows}
    assert {row["model"] for row in results.rows} == {MODEL, "test_vit-random1"}

    page = Page((folder / "report.html").read_text())
    for said in (MODEL, "random:0", "float32", "160 annotations", "monte_carlo", "same-slide"):
        assert said in page.text, said
    assert f"--out {folder} --dataset midog --seed 42 --repeats 2 --train 0.3,1" in page.text
    assert "--model timm:test_vit --random-weights 1 --name test_vit-random1" in page.text

    before = {path: path.read_bytes() for path in (folder / "midog").rglob("*.csv")}
    again = ok(*words)
    assert "8 trainings of test_vit-random1 are there and equal; nothing is fitted" in again.out
    assert "comparison.csv is there, made from the same" in again.out
    assert {path: path.read_bytes() for path in (folder / "midog").rglob("*.csv")} == before


def test_a_report_is_made_of_part_of_the_results_and_says_what_is_missing(
    curve, midog_store, ok, tmp_path
):
    done = ok("report", midog_store, "--results", curve, "--out", tmp_path / "page.html")
    assert done.out == ""
    assert f"report: {tmp_path / 'page.html'}" in done.err
    text = Page((tmp_path / "page.html").read_text()).text
    assert "splits.json midog monte_carlo 42" in text
    for missing in ("A comparison of domains", "An audit", "A domain probe"):
        assert f"{missing} is not among these results" in text


def test_a_report_tells_results_of_another_encoder_and_of_other_labs(
    curve, midog_store, ok, tmp_path
):
    rows = Results.load(curve / "curve.csv").rows
    changed = [row | {"encoder": "sha256:" + "1" * 64} for row in rows]
    foreign = [row | {"model": EVIL, "dataset": EVIL, "recipe": EVIL} for row in rows]
    Results((*changed, *foreign)).save(tmp_path / "all.csv")
    (tmp_path / "all.csv").replace(curve / "curve.csv")
    ok("report", midog_store, "--results", curve)
    text = (curve / "report.html").read_text()
    page = Page(text)
    assert "<script" not in text
    assert EVIL in page.text
    assert f"Results of {MODEL} on midog are of the encoder sha256:1111" in page.text
    assert "The store does not hold the dataset" in page.text


def test_what_cannot_be_is_one_line(midog_store, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    featstore.create(tmp_path / "empty.zarr")
    for words, said in (
        (["report", midog_store, "--results", "none"], "there is no folder none"),
        (["report", midog_store, "--results", "."], "holds no results"),
        (["reproduce", midog_store, "--dataset", "none"], "no dataset 'none'"),
        (["reproduce", midog_store], "train=0.001 leaves"),
        (["reproduce", "empty.zarr"], "no complete embeddings"),
    ):
        done = run(*words)
        assert done.code == 1
        assert said in done.err
        assert len(done.err.splitlines()) == 1


def test_every_published_model_is_one_that_can_be_embedded_or_trained():
    names = set(published("ganz2024-table2")["model"])
    assert names - set(ENCODERS) == {"end-to-end resnet50"}


def test_the_packaged_numbers_are_those_of_the_reference(real_data):
    reference = real_data.parent / "reference" / "paper_table2.csv"
    if not reference.exists():
        pytest.skip(f"{reference} is not there")
    ours = published("ganz2024-table2").drop(columns=["model", "source"])
    theirs = pd.read_csv(reference).rename(columns={"model": "published_as"})
    assert json.loads(ours.to_json()) == json.loads(theirs.to_json())
