import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest

import featstore
import probes
from featstore.annotations import AnnotationTable
from featstore.store.writer import add_annotations

N = 300


@pytest.fixture
def lab(tmp_path, tiny_spec, write_embeddings):
    """A store of 300 positions on 10 slides in 2 domains, with embeddings, and its splits.

    Annotation 1 lies on annotation 0, with the same embedding; the others lie far apart.
    """
    rng = np.random.default_rng(0)
    number = np.arange(N)
    labels = np.where(number % 3 == 0, "mitotic figure", "look-alike")
    columns = {
        "x": number * 500.0,
        "y": np.zeros(N),
        "image": np.array([f"{k}.tiff" for k in number // 30]),
        "slide": np.array([f"s{k}" for k in number // 30]),
        "domain": np.where(number < 150, "A", "B"),
    }
    columns["x"][1] = 10.0
    path = tmp_path / "lab.zarr"
    featstore.create(path)
    add_annotations(path, AnnotationTable("lab", number, labels, columns))
    values = rng.normal(size=(N, 6)).astype(np.float32)
    values[:, 0] += 2 * (number % 3 == 0)
    values[1] = values[0]
    write_embeddings(path, "lab", tiny_spec, values)
    annotations = featstore.open(path).annotations("lab")
    parts = (number[1:180], number[180:240], np.append(number[240:], 0))
    drawn = probes.monte_carlo(annotations, repeats=1, train=[0.75])
    probes.Splits(
        "lab",
        annotations.digest,
        "by hand",
        0,
        drawn.options,
        (probes.Split(*parts, 0, 0.75),),
    ).save(tmp_path / "splits.json")
    return ["audit", path, "--dataset", "lab", "--splits", tmp_path / "splits.json"]


def cells(lines, finding):
    return next(line for line in lines if line.startswith(finding + " ")).split()


def test_audit_prints_shares_by_size_and_what_was_not_audited(lab, ok):
    said = ok(*lab)
    assert cells(said.lines, "overlapping") == ["overlapping", "1.6", "%"]
    assert cells(said.lines, "same-slide") == ["same-slide", "1.6", "%"]
    assert cells(said.lines, "contains-another") == ["contains-another", "1.6", "%"]
    assert "size 0.75" in said.lines[0]
    assert "windows of 224 px at 0.25 um/px" in said.lines
    assert (
        "images of 300 of 300 annotations are of unknown um/px and taken to be at as many"
        in said.lines
    )
    assert "largest slide: s0, 30 of 300 annotations (10.0 %)" in said.lines
    assert "same-case: not audited, 'lab' has no column 'case'" in said.lines
    assert "duplicates: not audited, no embeddings were given" in said.lines


def test_audit_by_domain_has_a_column_for_each(lab, ok):
    said = ok(*lab, "--by", "domain")
    assert said.lines[0].split() == ["finding", "all", "domains", "A", "B"]
    assert cells(said.lines, "overlapping")[1:] == ["1.6", "%", "100.0", "%", "0.0", "%"]
    assert "the largest" not in said.out  # there is one size


def test_of_several_sizes_audit_by_domain_shows_the_largest(lab, ok):
    """A small training set shares next to nothing, which is no part of what a large one shares."""
    splits = probes.load_splits(lab[-1])
    small = replace(splits[0], train=splits[0].train[-2:], val=splits[0].val[:0], size=0.01)
    replace(splits, members=(small, *splits)).save(lab[-1])
    said = ok(*lab, "--by", "domain")
    assert cells(said.lines, "overlapping")[1:] == ["1.6", "%", "100.0", "%", "0.0", "%"]
    assert "size 0.75 only, the largest" in said.lines


def test_the_size_of_a_patch_says_what_overlaps(lab, ok):
    """The two centres are 10 px apart; of images of unknown um/px, pixels are those of patches."""
    assert cells(ok(*lab, "--patch-px", 10).lines, "overlapping")[1] == "0.0"
    assert cells(ok(*lab, "--patch-px", 11).lines, "overlapping")[1] == "1.6"
    coarser = ok(*lab, "--patch-px", 10, "--mpp", 1)
    assert cells(coarser.lines, "overlapping")[1] == "0.0"
    assert "windows of 10 px at 1 um/px" in coarser.lines


def test_a_model_adds_duplicates(lab, ok):
    said = ok(*lab, "--model", "tiny")
    assert cells(said.lines, "duplicates") == ["duplicates", "1.6", "%"]
    assert cells(said.lines, "near-duplicates") == ["near-duplicates", "1.6", "%"]
    assert cells(ok(*lab, "--model", "tiny", "--near", 0.5).lines, "near-duplicates")[1] != "1.6"


def test_csv_has_every_row_and_json_the_settings_too(lab, ok):
    frame = pd.read_csv(StringIO(ok(*lab, "--csv").out))
    assert tuple(frame.columns) == probes.AUDIT_COLUMNS
    content = json.loads(ok(*lab, "--json", "--model", "tiny", "--positive", "look-alike").out)
    assert content["settings"]["model"] == "tiny"
    assert content["settings"]["positive"] == "look-alike"
    assert content["settings"]["patch_px"] == 224
    assert {row["finding"] for row in content["rows"]} == {
        "same-slide",
        "overlapping",
        "duplicates",
        "near-duplicates",
        "contains-another",
        "contains-mitotic",
    }


@pytest.mark.parametrize(("finding", "more"), [("overlapping", []), ("duplicates", ["tiny"])])
def test_what_is_dropped_is_gone_from_the_file_that_is_written(lab, ok, tmp_path, finding, more):
    words = [word for model in more for word in ("--model", model)]
    clean = tmp_path / "clean.json"
    said = ok(*lab, *words, "--drop", finding, "--out", clean)
    assert said.err == f"splits by hand without {finding}: {clean}\n"
    split = probes.load_splits(clean)[0]
    assert 0 not in split.test.tolist()
    assert (len(split.train), len(split.val), len(split.test)) == (179, 60, 60)
    ok(*lab, "--drop", "overlapping", "--thin", "train", "--out", clean)
    split = probes.load_splits(clean)[0]
    assert 1 not in split.train.tolist()
    assert (len(split.train), len(split.val), len(split.test)) == (178, 60, 61)
    again = ok(*lab[:-1], clean)
    assert cells(again.lines, "overlapping")[1] == "0.0"


def test_the_cost_is_one_table_of_designs_and_models(lab, ok):
    said = ok(*lab, "--cost", "--model", "tiny", "--C", 1)
    designs = ["as given", "train without overlapping", "test without overlapping"]
    for design in [*designs, "grouped by slide"]:
        assert design in said.out
    frame = pd.read_csv(StringIO(ok(*lab, "--cost", "--model", "tiny", "--C", 1, "--csv").out))
    assert frame["n_test"].tolist() == [61, 61, 60, 60]
    other = ok(*lab, "--cost", "--model", "tiny", "--drop", "same-slide", "--C", 1)
    assert "test without same-slide" in other.out


def test_the_cost_is_of_all_models_and_in_the_metrics_that_are_asked_for(
    lab, ok, run, tiny_spec, write_embeddings
):
    values = np.random.default_rng(1).normal(size=(N, 6)).astype(np.float32)
    values[:, 0] += 2 * (np.arange(N) % 3 == 0)
    write_embeddings(lab[1], "lab", replace(tiny_spec, key="other"), values)
    words = [*lab, "--cost", "--C", 1, "--metric", "brier", "--metric", "auroc"]
    said = ok(*words)
    assert "brier difference" in " ".join(said.lines[:2])
    rows = json.loads(ok(*words, "--json").out)
    assert {(row["model"], row["metric"]) for row in rows} == {
        (model, metric) for model in ("tiny", "other") for metric in ("brier", "auroc")
    }
    lost = run(*lab, "--cost", "--model", "nothing")
    assert lost.code == 1
    assert "no embeddings 'nothing/lab'" in lost.err
    assert len(lost.err.splitlines()) == 1


def test_the_file_that_is_audited_is_not_written_over(lab, run):
    splits = lab[-1]
    before = splits.read_bytes()
    again = splits.parent / "." / "again.json"
    again.symlink_to(splits)
    for out in (splits, again):
        said = run(*lab, "--drop", "overlapping", "--out", out)
        assert said.code == 1
        assert "is the file that is audited, which would be lost; give another name" in said.err
        assert len(said.err.splitlines()) == 1
    assert splits.read_bytes() == before


def test_json_says_null_where_there_is_no_share(lab, ok):
    """All tested patches are mitotic figures, so none of them can contain one."""
    annotations = featstore.open(lab[1]).annotations("lab")
    mitotic = annotations.labels == "mitotic figure"
    split = probes.Split(annotations.ids[~mitotic], annotations.ids[:0], annotations.ids[mitotic])
    only = probes.Splits("lab", annotations.digest, "by hand", 0, {}, (split,))
    only.save(lab[-1])

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    content = json.loads(ok(*lab, "--json").out, parse_constant=refuse)
    shares = [
        row["share"]
        for row in content["rows"]
        if row["finding"] == "contains-mitotic" and row["part"] == "test"
    ]
    assert shares == [None]
    assert cells(ok(*lab).lines, "contains-mitotic")[1] == "-"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--drop", "overlapping"], "give --drop FINDING and --out FILE together, or --cost"),
        (["--out", "x.json"], "give --drop FINDING and --out FILE together"),
        (["--near", "0.9"], "--near is of embeddings: name their --model"),
        (["--metric", "brier"], "--metric is of the probes that --cost fits: give both"),
        (["--model", "a", "--model", "b"], "duplicates are looked for in one --model"),
        (["--cost", "--model", "a", "--out", "x.json"], "name with --drop what the splits"),
        (["--near", "1"], "1.0 is not in the range 0<x<1"),
        (["--patch-px", "0"], "0 is not in the range x>=1"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(lab, run, words, message):
    said = run(*lab, *words)
    assert said.code == 2
    assert message in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--drop", "same-case", "--out", "x.json"], "'same-case' was not audited: 'lab' has no"),
        (["--drop", "pixels", "--out", "x.json"], "'pixels' is no finding; give one of same-slide"),
        (["--positive", "cell"], "no annotation of 'lab' is a 'cell'"),
        (["--model", "nothing"], "no embeddings 'nothing/lab'"),
        (["--drop", "overlapping", "--out", "no/where.json"], "its folder does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line(lab, run, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    said = run(*lab, *words)
    assert said.code == 1
    assert message in said.err
    assert said.err.startswith("Error: ")
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "x.json").exists()


def test_patch_files_need_the_size_that_they_have_on_the_slide(real_data, ok, run, tmp_path):
    home = real_data / "ami_br_midog21_train"
    store, splits = tmp_path / "ami.zarr", tmp_path / "s.json"
    columns = ["--id", "uid", "--file", "dataset_uid", "--label", "final_label"]
    ok("add", store, "ami", "--patches", home / "labels.csv", *columns)
    ok("split", store, "--dataset", "ami", "--train", "1", "--out", splits)
    audit = ["audit", store, "--dataset", "ami", "--splits", splits]
    refused = run(*audit)
    assert refused.code == 1
    assert "'ami' holds patch files; say with --patch-px, and --mpp, what each" in refused.err
    said = ok(*audit, "--patch-px", 128)
    assert 3 < float(cells(said.lines, "overlapping")[1]) < 10
    assert float(cells(said.lines, "same-slide")[1]) > 95
