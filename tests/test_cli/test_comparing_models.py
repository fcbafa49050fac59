"""compare: tests between models whose results are kept."""

import json

import pytest

import probes
from tests.test_featstore.test_store_reading import write_vit


@pytest.fixture
def store(filled_store):
    """A store with two models of the same cells: one that knows the classes, one that does not."""
    opened, values = filled_store
    noise = values.copy()
    noise[:, 0] = values[::-1, 1]
    write_vit(opened.path, "cells", noise)
    return opened


@pytest.fixture
def kept(store, ok, tmp_path):
    """A folder of results of both models with scores, and the words that made it."""
    splits = probes.monte_carlo(store.annotations("cells"), repeats=3, train=(0.5, 1.0), test=0.4)
    splits.save(tmp_path / "splits.json")
    words = [store.path, "--dataset", "cells", "--splits", tmp_path / "splits.json"]
    words += ["--objective", "l2", "--results", tmp_path / "kept", "--keep-scores"]
    ok("curve", *words, "--model", "tiny", "--model", "vit:mean")
    return tmp_path / "kept"


def test_pairs_are_tested_over_repeats_and_a_note_says_what_that_is_worth(store, kept, ok):
    said = ok("compare", store.path, kept, "--dataset", "cells", "--draws", 50)
    assert said.lines[0].split()[:4] == ["size", "first", "second", "first"]
    assert len(said.lines) == 2 + 2 + (1 if "mean" in said.lines[1] else 0)
    assert said.err.startswith("Repeats are not independent samples")
    assert "drawn by slide" in said.err


def test_programs_get_every_column(store, kept, ok):
    on = [store.path, kept, "--dataset", "cells", "--draws", 50]
    expected = probes.compare(probes.Results.load(kept), store.annotations("cells"), draws=50)
    rows = json.loads(ok("compare", *on, "--json").out)
    assert list(rows[0]) == list(expected.repeats.columns)
    assert [row["p"] for row in rows] == pytest.approx(expected.repeats["p"].tolist())
    rows = json.loads(ok("compare", *on, "--per-split", "--json").out)
    assert list(rows[0]) == list(expected.splits.columns)
    assert len(rows) == 6
    one = json.loads(ok("compare", *on, "--size", 1, "--per-split", "--json").out)
    assert [row["size"] for row in one] == [1.0] * 3


def test_results_may_lie_in_several_places_and_be_without_scores(store, kept, ok, tmp_path):
    results = probes.Results.load(kept)
    for model in ("tiny", "vit:mean"):
        results.where(model=model).save(tmp_path / f"{model[:3]}.csv")
    places = [tmp_path / "tin.csv", tmp_path / "vit.csv"]
    said = ok("compare", store.path, *places, "--dataset", "cells", "--per-split")
    assert "Nothing was tested: no per-annotation scores are kept; fit again" in said.err
    rows = json.loads(ok("compare", store.path, *places, "--dataset", "cells", "--json").out)
    assert all(0 < row["p"] < 1 for row in rows)


def test_what_cannot_be_compared_ends_in_one_line(store, kept, run, tmp_path):
    on = ["--dataset", "cells"]
    for words, message in (
        ([kept, "--model", "tiny"], "there are results of tiny in auroc; a comparison needs two"),
        ([kept, "--metric", "f1"], "there are results of no model in f1"),
        ([kept, "--metric", "auc"], "metric='auc' is unknown"),
        ([tmp_path / "none"], "cannot read the results"),
        ([kept, "--by", "scanner"], "scanner"),
    ):
        refused = run("compare", store.path, *words, *on)
        assert refused.code == 1, words
        assert message in refused.err
        assert len(refused.err.splitlines()) == 1
    assert run("compare", store.path, *on).code == 2


def test_means_over_pairs_of_domains_are_a_table_of_their_own(store, kept, ok, run, tmp_path):
    on = [store.path, tmp_path / "pairs", "--dataset", "cells"]
    words = ["--objective", "l2", "--repeats", 2, "--results", tmp_path / "pairs"]
    models = ["--model", "tiny", "--model", "vit:mean"]
    ok("domains", store.path, "--dataset", "cells", *models, *words)
    rows = json.loads(ok("compare", *on, "--per-place", "--json").out)
    assert [row["tested"] for row in rows] == ["in domain", "out of domain"]
    assert "domain" in ok("compare", *on, "--per-place").out
    refused = run("compare", *on, "--per-place", "--per-split")
    assert refused.code == 2
    assert "two tables; give one" in refused.err
    curves = [store.path, kept, "--dataset", "cells", "--draws", 10]
    refused = run("compare", *curves, "--per-place")
    assert refused.code == 1
    assert "these results name no test domains" in refused.err
