"""probe, curve and domains: views of a model, metrics, C, and results that are kept."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

import probes
from featstore.errors import NotInStoreError
from featstore_cli import experiments, probing
from tests.test_featstore.test_store_reading import seen, write_vit

COMMANDS = probing.COMMANDS | experiments.COMMANDS


@pytest.fixture
def vit(filled_store):
    """A store with a model of three parts; and these, side by side."""
    store, values = filled_store
    write_vit(store.path, "cells", values)
    return store, values


@pytest.fixture
def rows_of(vit, tmp_path):
    """Run a verb on some models of the store, and give its rows."""

    def run(verb, *models, splits=True):
        chosen = [word for model in models for word in ("--model", model)]
        on = ["--splits", tmp_path / "splits.json"] if splits else []
        words = [vit[0].path, "--dataset", "cells", *chosen, *on, "--objective", "l2", "--json"]
        result = CliRunner().invoke(COMMANDS[verb], [str(word) for word in words])
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout)

    cells = vit[0].annotations("cells")
    probes.monte_carlo(cells, repeats=2, train=(1.0,), val=0.0).save(tmp_path / "splits.json")
    return run


@pytest.mark.parametrize("pooling", ["class", "mean", "registers+class"])
def test_a_probe_is_fitted_on_the_view_that_is_named(rows_of, vit, tmp_path, pooling):
    store, values = vit
    (row,) = rows_of("probe", f"vit:{pooling}")
    assert row["model"] == ("vit" if pooling == "class" else f"vit:{pooling}")
    cells, split = store.annotations("cells"), probes.load_splits(tmp_path / "splits.json")[-1]
    source = probes.protocols.InMemory(cells.ids, seen(values, pooling))
    fitted = probes.LogisticProbe("l2").fit(source.read(split.train), cells.labels_of(split.train))
    expected = probes.evaluate(fitted, source, cells, split).auroc
    assert row["auroc"] == pytest.approx(expected)


@pytest.mark.parametrize(("verb", "splits"), [("curve", True), ("domains", False)])
def test_views_of_a_model_stand_beside_each_other_each_once(rows_of, verb, splits):
    rows = rows_of(verb, "vit", "vit:class", "vit:mean", "vit:class+mean", splits=splits)
    models = list(dict.fromkeys(row["model"] for row in rows))
    assert models == ["vit", "vit:mean", "vit:class+mean"]
    of_each = [sum(row["model"] == name for row in rows) for name in ("vit", "vit:mean")]
    assert of_each[0] == of_each[1]


def test_without_a_name_each_model_is_probed_as_it_is_shown(rows_of):
    assert {row["model"] for row in rows_of("curve")} == {"tiny", "vit"}


@pytest.mark.parametrize("verb", ["probe", "curve"])
def test_a_view_that_is_not_there_is_refused_with_the_parts_that_are(rows_of, verb):
    with pytest.raises(NotInStoreError, match="has no view 'cls'; its parts are class, mean, reg"):
        rows_of(verb, "vit:cls")


# ---- results that are kept


@pytest.fixture
def words(vit, tmp_path):
    """Words of both experiments on a small store with two models."""
    splits = probes.monte_carlo(vit[0].annotations("cells"), repeats=2, train=(0.5, 1.0))
    splits.save(tmp_path / "two.json")
    on = [vit[0].path, "--dataset", "cells", "--objective", "l2"]
    return {
        "curve": ["curve", *on, "--splits", tmp_path / "two.json"],
        "domains": ["domains", *on, "--repeats", 2],
    }


N_ROWS = {"curve": 4, "domains": 2 * 2 * 2}
N_TRAININGS = {"curve": 4, "domains": 4}


@pytest.mark.parametrize("verb", ["curve", "domains"])
@pytest.mark.parametrize("place", ["kept", "kept.csv", "kept.parquet"])
def test_what_is_kept_is_not_fitted_again(verb, place, words, ok, tmp_path):
    keep = ["--results", tmp_path / place, "--csv"]
    first = ok(*words[verb], *keep)
    assert len(first.lines) == 1 + 2 * N_ROWS[verb]
    assert "are there" not in first.err
    again = ok(*words[verb], *keep)
    assert again.out == first.out
    n = N_TRAININGS[verb]
    assert again.err.splitlines() == [
        f"{n} of {n} trainings of tiny are there and equal; nothing is fitted",
        f"{n} of {n} trainings of vit are there and equal; nothing is fitted",
        f"results: {tmp_path / place}",
    ]


def test_other_models_experiments_and_recipes_stay_at_a_place(words, ok, tmp_path):
    keep = ["--results", tmp_path / "kept"]
    ok(*words["curve"], "--model", "tiny", *keep)
    ok(*words["curve"], "--model", "vit:mean", *keep)
    ok(*words["domains"], *keep)
    other = ok(*words["curve"], "--model", "tiny", "--C", "0.5", *keep, "--json")
    assert (
        "4 trainings of tiny are there with another recipe (logistic objective=l2 C=1; "
        in other.err
    )
    assert {row["recipe"] for row in json.loads(other.out)} == {"logistic objective=l2 C=0.5"}
    there = probes.Results.load(tmp_path / "kept").to_frame()
    assert there.groupby(["model", "experiment", "recipe"]).size().to_dict() == {
        ("tiny", "cross_domain", "logistic objective=l2 C=1"): 8,
        ("tiny", "learning_curve", "logistic objective=l2 C=0.5"): 4,
        ("tiny", "learning_curve", "logistic objective=l2 C=1"): 4,
        ("vit", "cross_domain", "logistic objective=l2 C=1"): 8,
        ("vit:mean", "learning_curve", "logistic objective=l2 C=1"): 4,
    }


def test_results_beside_may_be_a_folder_and_are_kept_too(words, ok, run, tmp_path):
    ok(*words["curve"], "--model", "vit", "--results", tmp_path / "one")
    ok(*words["domains"], "--model", "vit", "--results", tmp_path / "one")
    beside = ["--model", "tiny", "--beside", tmp_path / "one"]
    both = ok(*words["curve"], *beside, "--results", tmp_path / "both.csv", "--json")
    assert [row["model"] for row in json.loads(both.out)] == ["tiny"] * 4 + ["vit"] * 4
    assert len(probes.Results.load(tmp_path / "both.csv")) == 8
    ok(*words["domains"], "--model", "vit", "--results", tmp_path / "domains.csv")
    none = run(*words["curve"], "--model", "tiny", "--beside", tmp_path / "domains.csv")
    assert "domains.csv holds no learning curve in auroc" in none.err


@pytest.mark.parametrize("verb", ["curve", "domains"])
def test_any_metric_and_scores_are_computed_on_request(verb, words, ok, run, tmp_path):
    keep = ["--metric", "brier", "--metric", "auroc", "--keep-scores"]
    shown = ok(*words[verb], *keep, "--results", tmp_path / "kept")
    assert "brier mean" in shown.out
    assert "auroc mean" in shown.out
    there = probes.Results.load(tmp_path / "kept")
    assert there.to_frame()["metric"].value_counts().to_dict() == {
        "brier": 2 * N_ROWS[verb],
        "auroc": 2 * N_ROWS[verb],
    }
    assert there.scores["split"].nunique() == N_TRAININGS[verb]
    unknown = run(*words[verb], "--metric", "auc")
    assert unknown.err.startswith("Error: metric='auc' is unknown; give one of auroc, ")
    assert run(*words[verb], "--keep-scores").code == 2
    refused = run(*words[verb], "--keep-scores", "--results", tmp_path / "kept.csv")
    assert "kept.csv keeps no scores; give a folder" in refused.err


def test_domains_are_tested_on_the_splits_of_a_file(vit, words, ok, tmp_path):
    cells = vit[0].annotations("cells")
    probes.leave_one_domain_out(cells, repeats=1).save(tmp_path / "left.json")
    rows = json.loads(ok(*words["domains"], "--splits", tmp_path / "left.json", "--json").out)
    assert {row["train_domain"] for row in rows} == {
        f"all but {name}" for name in set(cells.column("domain").tolist())
    }


@pytest.mark.parametrize("verb", ["probe", "curve"])
def test_C_is_a_number_a_grid_or_the_published_one(verb, vit, words, ok, run, tmp_path):
    on = [*words["curve"][1:], "--model", "tiny"]
    for text, C, recipe in (
        ("uni", 0.12, "C=uni"),
        ("0.5", 0.5, "C=0.5"),
        ("0.001,10", 10.0, "C=0.001,10"),
    ):
        row = json.loads(ok(verb, *on, "--C", text, "--json").out)[-1]
        if verb == "probe":
            assert row["C"] in ((0.001, 10.0) if "," in text else (C,))
        else:
            assert row["recipe"] == f"logistic objective=l2 {recipe}"
    for text in ("0", "-1", "nan", "1,x", "inf", ""):
        refused = run(verb, *on, "--C", text)
        assert refused.code == 2
        assert "is no number above 0, no grid such as 0.01,0.1,1 and not 'uni'" in refused.err


def test_a_probe_is_judged_by_any_metric_and_says_what_is_undefined(vit, words, ok, tmp_path):
    cells = vit[0].annotations("cells")
    splits = probes.monte_carlo(cells, repeats=1, train=[1.0])
    of_one = splits[0].test[cells.labels_of(splits[0].test) == cells.labels[0]]
    replace(splits, members=(replace(splits[0], test=of_one),)).save(tmp_path / "one.json")
    on = ["probe", *words["curve"][1:6], "--model", "tiny", "--splits", tmp_path / "one.json"]
    said = ok(*on, "--metric", "auroc", "--metric", "brier", "--json")
    row = json.loads(said.out)[0]
    assert row["auroc"] is None
    assert 0 <= row["brier"] <= 1
    assert f"auroc is undefined: all {len(of_one)} labels are" in said.err


def test_a_place_that_cannot_be_is_refused_before_anything_is_fitted(words, run, tmp_path):
    missing = run(*words["curve"], "--results", tmp_path / "none" / "kept")
    assert "its folder does not exist; make it first" in missing.err
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    other = run(*words["curve"], "--results", tmp_path / "other.csv")
    assert other.code == 1
    assert "is no table of results: it has no column model" in other.err
    assert (tmp_path / "other.csv").read_text() == "a,b\n1,2\n"
