"""domain-probe on a small store."""

import json

import numpy as np
import pytest

import featstore
import probes
from featstore.store.writer import add_annotations


@pytest.fixture
def store(tmp_path, tiny_spec, write_embeddings):
    """A store of 240 cells on 24 slides in two domains, which a model knows as well as labels."""
    number = np.arange(240)
    slide = number // 10
    cells = featstore.AnnotationTable(
        "cells",
        number,
        np.where(number % 3 == 0, "mitotic figure", "look-alike"),
        {"slide": np.char.mod("s%d", slide), "domain": np.array(["A", "B"])[slide % 2]},
    )
    featstore.create(tmp_path / "lab.zarr")
    add_annotations(tmp_path / "lab.zarr", cells)
    values = np.random.default_rng(0).normal(size=(240, 6)).astype(np.float32)
    values[:, 0] += 4 * (number % 3 == 0)
    values[:, 1] += 4 * (slide % 2)
    write_embeddings(tmp_path / "lab.zarr", "cells", tiny_spec, values)
    return tmp_path / "lab.zarr"


def test_domain_and_task_stand_beside_each_other(store, ok):
    words = ["domain-probe", store, "--dataset", "cells", "--objective", "l2", "--repeats", 3]
    lines = ok(*words).lines
    assert [line.split()[:3] for line in lines[-2:]] == [
        ["tiny", "domain", "2"],
        ["tiny", "label", "2"],
    ]
    rows = json.loads(ok(*words, "--json").out)
    opened = featstore.open(store)
    found = probes.domain_probe(
        opened.embeddings("tiny", "cells"), opened.annotations("cells"), repeats=3, objective="l2"
    )
    assert [row["value"] for row in rows] == pytest.approx([row["value"] for row in found.rows])
    assert {(row["experiment"], row["metric"]) for row in rows} == {
        (f"domain_probe {target}", metric)
        for target in ("domain", "label")
        for metric in ("auroc", "balanced_accuracy")
    }
    assert min(row["value"] for row in rows) > 0.9


def test_splits_of_a_file_are_used_and_results_are_kept(store, ok, tmp_path):
    splits = probes.grouped(featstore.open(store).annotations("cells"), train=[1.0], repeats=2)
    splits.save(tmp_path / "s.json")
    words = ["domain-probe", store, "--dataset", "cells", "--splits", tmp_path / "s.json"]
    words += ["--objective", "l2", "--results", tmp_path / "results", "--csv"]
    first = ok(*words)
    kept = probes.Results.load(tmp_path / "results")
    assert {row["split"] for row in kept.rows} == {split.digest for split in splits}
    again = ok(*words)
    assert again.out == first.out
    assert again.err.count("2 of 2 trainings of tiny are there and equal; nothing is fitted") == 2


def test_cells_are_drawn_one_by_one_where_no_group_is_named(store, ok):
    words = ["domain-probe", store, "--dataset", "cells", "--objective", "l2", "--repeats", 1]
    by_cell, by_slide = (
        json.loads(ok(*words, "--group", group, "--json").out)[0] for group in ("", "slide")
    )
    assert by_cell["n_test"] == 48
    assert by_cell["split"] != by_slide["split"]
    assert by_slide["n_test"] % 10 == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--column", "scanner"], 1, "dataset 'cells' has no column 'scanner'; it has id, label"),
        (["--column", "slide"], 1, "lies in one slide, 's0', and cannot be both trained on"),
        (["--keep-scores"], 2, "--keep-scores needs a folder to keep them in"),
        (["--metric", "roc"], 1, "metric='roc' is unknown"),
    ],
)
def test_what_cannot_be_read_off_is_refused(store, run, words, code, message):
    outcome = run("domain-probe", store, "--dataset", "cells", *words)
    assert outcome.code == code
    assert message in " ".join(outcome.err.split())
