"""The table of results: rows, files, merging, what is there and equal, and means."""

import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import probes
from probes.errors import MissingExtraError, ProbesError, ResultsError, SplitError
from probes.means import means_by
from probes.results import KEY, domains_tested, training_results
from probes.scores import SCORE_COLUMNS, score_frame

CLASSES = np.array(["a", "b"])
SPLIT = probes.Split(np.arange(3), np.arange(3, 4), np.arange(4, 8), repeat=2, size=0.1)
TABLE = SimpleNamespace(name="cells", digest="sha256:cells")


def a_score(positive=(0.2, 0.6, 0.4, 0.5), ids=SPLIT.test, codes=(0, 1, 1, 0)):
    probabilities = np.stack([1 - np.array(positive), positive], axis=1)
    return probes.Score(0.75, np.asarray(ids), CLASSES[list(codes)], probabilities, CLASSES)


def a_row(**cells):
    """A row as one reads it: every cell may be given."""
    model = cells.pop("model", "uni")
    row = probes.result_row(
        a_score(), SPLIT, model=model, annotations=TABLE, experiment="learning_curve"
    )
    return row | cells


def results_of(*models, scores=False, **cells):
    rows = tuple(a_row(model=model, **cells) for model in models)
    kept = [score_frame(a_score(), row) for row in rows] if scores else [None]
    return probes.Results(rows, kept[0] if len(kept) == 1 else pd.concat(kept))


# ---- rows


def test_a_row_names_model_data_split_and_sizes():
    row = a_row(recipe="l2", encoder="sha256:e")
    assert tuple(row) == probes.RESULT_COLUMNS
    assert (row["value"], row["n_train"], row["n_val"], row["n_test"]) == (0.75, 3, 1, 4)
    assert (row["repeat"], row["size"]) == (2, 0.1)
    assert (row["dataset"], row["dataset_digest"]) == ("cells", "sha256:cells")
    assert row["split"] == SPLIT.digest
    assert row["reason"] == ""


def test_a_table_may_have_a_row_per_metric():
    cells = {"model": "m", "annotations": TABLE, "experiment": "probe"}
    rows = probes.result_rows(a_score(), SPLIT, metrics=("auroc", "brier"), **cells)
    assert [(row["metric"], row["value"]) for row in rows] == [
        ("auroc", 0.75),
        ("brier", pytest.approx((0.04 + 0.16 + 0.36 + 0.25) / 4)),
    ]
    assert probes.result_rows(a_score(), SPLIT, **cells) == [rows[0]]
    with pytest.raises(ProbesError, match="metric='auc' is unknown; give one of auroc, "):
        probes.result_rows(a_score(), SPLIT, metrics=["auc"], **cells)


def test_a_value_that_is_undefined_says_why():
    one_class = a_score(codes=(0, 0, 0, 0))
    cells = {"model": "m", "annotations": TABLE, "experiment": "probe"}
    for metric in ("auroc", "f1"):
        score = probes.Score(math.nan, *list(vars(one_class).values())[1:])
        row = probes.result_row(score, SPLIT, metric=metric, **cells)
        assert math.isnan(row["value"])
        assert row["reason"] == "all 4 labels are 'a'; there is no other class to tell them from"


def test_what_could_not_be_trained_has_rows_with_the_reason_and_never_without():
    cells = {"model": "m", "annotations": TABLE, "experiment": "probe"}
    row = probes.result_row(None, SPLIT, reason="one class only", **cells)
    assert math.isnan(row["value"])
    assert (row["reason"], row["n_test"]) == ("one class only", 4)
    with pytest.raises(ProbesError, match=r"repeat 2, size 0\.1 has neither a score nor a reason"):
        probes.result_row(None, SPLIT, **cells)


def test_a_training_on_one_domain_has_a_row_for_each_domain_it_is_tested_on():
    domains = np.array(list("XXXXXXYY"))
    table = SimpleNamespace(name="cells", digest="", ids=np.arange(8), column=lambda name: domains)
    split = probes.Split(np.arange(3), [], np.arange(4, 8), train_domain="X")
    assert domains_tested(split, table) == ("X", "Y")
    found = training_results(
        a_score(), split, model="m", annotations=table, metrics=["auroc", "brier"], keep_scores=True
    )
    assert [(row["test_domain"], row["metric"]) for row in found.rows] == [
        ("X", "auroc"),
        ("X", "brier"),
        ("Y", "auroc"),
        ("Y", "brier"),
    ]
    assert found.rows[0]["experiment"] == "cross_domain"
    assert [row["value"] for row in found.rows[::2]] == [1.0, 0.0]  # 0.2 < 0.6; 0.4 < 0.5
    assert len(found.scores) == 4
    untrained = training_results(None, split, model="m", annotations=table, reason="why")
    assert [(row["n_test"], row["reason"]) for row in untrained.rows] == [(2, "why")] * 2


# ---- files

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8)
rows = st.builds(
    a_row,
    model=texts,
    recipe=texts,
    reason=texts,
    value=st.floats(allow_infinity=False),
    size=st.floats(1e-9, 1),
    converged=st.booleans(),
    repeat=st.integers(0, 9),
)


def same(one, other):
    assert len(one.rows) == len(other.rows)
    for left, right in zip(one.rows, other.rows, strict=True):
        assert {n: v for n, v in left.items() if v == v} == {
            n: v for n, v in right.items() if v == v
        }
        assert [type(v) for v in left.values()] == [type(v) for v in right.values()]


@pytest.mark.parametrize("name", ["folder", "file.csv", "file.parquet"])
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=st.lists(rows, max_size=4))
def test_what_is_read_is_what_was_written(name, table, tmp_path):
    results = probes.Results().merged(probes.Results(tuple(table)))  # each row once
    results.save(tmp_path / name)
    same(results, probes.Results.load(tmp_path / name))


def test_a_folder_holds_the_rows_twice_and_scores_where_they_are_kept(tmp_path):
    results = results_of("uni", scores=True)
    results.save(tmp_path / "r")
    assert {path.name for path in (tmp_path / "r").iterdir()} == {
        "results.csv",
        "results.parquet",
        "scores.parquet",
    }
    same(results, probes.Results.load(tmp_path / "r" / "results.parquet"))
    back = probes.Results.load(tmp_path / "r").scores
    assert back["p b"].tolist() == [0.2, 0.6, 0.4, 0.5]
    assert back["label"].astype(str).tolist() == ["a", "b", "b", "a"]
    assert tuple(back.columns) == (*SCORE_COLUMNS, "p a", "p b")
    results_of("uni").save(tmp_path / "s")
    assert not (tmp_path / "s" / "scores.parquet").exists()


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    results_of("uni").save(tmp_path / "r.csv")
    before = (tmp_path / "r.csv").read_bytes()
    broken = probes.Results((a_row(model="\ud800"),))  # no UTF-8 of that
    with pytest.raises(UnicodeEncodeError):
        broken.save(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_bytes() == before


def test_without_pyarrow_a_folder_holds_the_csv_alone_and_no_old_parquet(tmp_path, monkeypatch):
    results_of("uni").save(tmp_path / "r")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    results_of("uni", "phikon").save(tmp_path / "r")
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["results.csv"]
    assert len(probes.Results.load(tmp_path / "r")) == 2
    with pytest.raises(MissingExtraError, match="pip install"):
        results_of("uni").save(tmp_path / "r.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model,value\nuni,0.5\n", "is no table of results: it has no column dataset, experiment"),
        ("", "cannot read the results"),
        ('"', "cannot read the results"),
    ],
)
def test_a_file_that_is_no_table_of_results_is_refused_in_one_line(content, message, tmp_path):
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(ResultsError, match=message) as refused:
        probes.Results.load(tmp_path / "r.csv")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("value", "high", "value of row 0 is 'high', which is no number"),
        ("n_test", "3.5", "n_test of row 0 is '3.5', which is no whole number"),
        ("n_test", "", "n_test of row 0 is '', which is no whole number"),
        ("converged", "perhaps", "converged of row 0 is 'perhaps', which is no True or False"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(column, value, message, tmp_path):
    frame = results_of("uni").to_frame().astype(object)
    frame[column] = value
    frame.to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(ResultsError, match=message):
        probes.Results.load(tmp_path / "r.csv")


def test_damaged_parquet_and_scores_without_probabilities_are_refused(tmp_path):
    (tmp_path / "r.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(ResultsError, match=r"cannot read the results .*r\.parquet"):
        probes.Results.load(tmp_path / "r.parquet")
    results = results_of("uni", scores=True)
    results.save(tmp_path / "r")
    results.scores.drop(columns=["p a", "p b"]).to_parquet(tmp_path / "r" / "scores.parquet")
    with pytest.raises(ResultsError, match="it has no probabilities, 'p <class>'"):
        probes.Results.load(tmp_path / "r")


def test_a_place_that_holds_nothing_is_named(tmp_path):
    with pytest.raises(ResultsError, match=r"holds no results: there is neither results\.csv"):
        probes.Results.load(tmp_path)
    with pytest.raises(ResultsError, match="No such file"):
        probes.Results.load(tmp_path / "none.csv")


def test_a_row_that_stands_twice_in_a_file_is_one_row(tmp_path):
    probes.Results((a_row(value=0.5), a_row(value=0.6))).save(tmp_path / "r.csv")
    assert [row["value"] for row in probes.Results.load(tmp_path / "r.csv").rows] == [0.6]


# ---- merging


def test_merging_keeps_all_models_and_the_newer_of_equal_rows():
    old = results_of("uni", "phikon", value=0.5)
    new = results_of("uni", value=0.9)
    both = old.merged(new)
    assert [(row["model"], row["value"]) for row in both.rows] == [("uni", 0.9), ("phikon", 0.5)]


@pytest.mark.parametrize("column", [name for name in KEY if name not in ("repeat", "size")])
def test_rows_that_differ_in_what_they_are_of_stand_beside_each_other(column):
    both = results_of("uni").merged(probes.Results((a_row(**{column: "another"}),)))
    assert len(both) == 2


def test_scores_are_merged_by_training_and_follow_their_rows():
    one, two = results_of("uni", scores=True), results_of("phikon", scores=True)
    both = one.merged(two)
    assert both.scores.groupby("model", observed=True).size().to_dict() == {"uni": 4, "phikon": 4}
    assert both.scores["model"].dtype == "category"
    newer = probes.Results(one.rows, one.scores.assign(**{"p b": 0.5}))
    again = both.merged(newer).scores
    assert again.groupby("model", observed=True)["p b"].mean().to_dict() == {
        "uni": 0.5,
        "phikon": pytest.approx(0.425),
    }
    assert both.where(model="phikon").scores["model"].unique().tolist() == ["phikon"]
    assert both.where(model="none").scores is None


def test_ids_of_numbers_and_of_texts_may_stand_in_one_table(tmp_path):
    named = a_row(dataset="named", dataset_digest="sha256:named")
    texts = probes.Results((named,), score_frame(a_score(ids=np.array(list("wxyz"))), named))
    both = results_of("uni", scores=True).merged(texts)
    both.save(tmp_path / "r")
    back = probes.Results.load(tmp_path / "r").scores
    assert back["id"].tolist() == ["4", "5", "6", "7", "w", "x", "y", "z"]


def test_programs_that_add_at_the_same_time_lose_nothing(tmp_path):
    models = [f"model-{number}" for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda model: results_of(model).add_to(tmp_path / "r"), models))
    there = probes.Results.load(tmp_path / "r")
    assert sorted(row["model"] for row in there.rows) == sorted(models)


# ---- what is there and equal


def asked(**changes):
    cells = {
        "model": "uni",
        "annotations": TABLE,
        "experiment": "learning_curve",
        "split": SPLIT,
        "encoder": "sha256:e",
        "recipe": "l2",
    }
    return cells | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "phikon"},
        {"annotations": SimpleNamespace(name="cells", digest="sha256:relabelled")},
        {"experiment": "cross_domain"},
        {"split": probes.Split(SPLIT.train, SPLIT.val, SPLIT.test[::-1], 2, 0.1)},
        {"split": probes.Split(SPLIT.train, SPLIT.val, SPLIT.test, 3, 0.1)},
        {"encoder": "sha256:other"},
        {"recipe": "uni"},
        {"metrics": ("auroc", "brier")},
        {"test_domains": ("lung",)},
        {"scores": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_only_what_is_equal_in_everything_is_there(changes):
    results = results_of("uni", encoder="sha256:e", recipe="l2")
    assert results.holds(**asked())
    assert not results.holds(**asked(**changes))


def test_every_domain_and_kept_scores_count():
    rows = [a_row(test_domain=name, encoder="sha256:e", recipe="l2") for name in ("lung", "skin")]
    results = probes.Results(tuple(rows), score_frame(a_score(), rows[0]))
    assert results.holds(**asked(test_domains=("lung", "skin"), scores=True))
    assert not results.holds(**asked(test_domains=("lung", "skin", "breast")))


# ---- means


def repeats_of(values, **cells):
    return [
        a_row(repeat=number, value=value, split=f"sha256:{number}", **cells)
        for number, value in enumerate(values)
    ]


def test_means_are_over_the_values_that_are_numbers_and_say_how_many():
    frame = probes.Results(tuple(repeats_of([0.5, 0.7, math.nan], collapsed=True))).to_frame()
    row = means_by(frame, ["size"]).iloc[0]
    assert row["auroc_mean"] == pytest.approx(0.6)
    assert row["auroc_sd"] == pytest.approx(math.sqrt(0.02))  # of a sample: n - 1
    assert (row["repeats"], row["auroc_n"], row["collapsed"]) == (3, 2, 3)


def test_metrics_stand_side_by_side_and_count_no_training_twice():
    rows = repeats_of([0.5, 0.7], n_train=10) + repeats_of([0.2, 0.4], metric="brier", n_train=10)
    row = means_by(probes.Results(tuple(rows)).to_frame(), ["size"]).iloc[0]
    assert (row["repeats"], row["auroc_mean"], row["brier_mean"]) == pytest.approx((2, 0.6, 0.3))


@pytest.mark.parametrize("column", ["dataset", "dataset_digest", "recipe", "encoder"])
def test_what_differs_is_never_averaged_and_then_is_a_column(column):
    rows = repeats_of([0.5, 0.7]) + repeats_of([0.1, 0.3], **{column: "another"})
    table = means_by(probes.Results(tuple(rows)).to_frame(), ["size"])
    assert table["auroc_mean"].tolist() == pytest.approx([0.6, 0.2])
    assert table[column].tolist()[1] == "another"
    assert column not in means_by(probes.Results(tuple(rows[:2])).to_frame(), ["size"])


def test_repeats_on_splits_of_several_draws_are_refused():
    rows = repeats_of([0.5, 0.7]) + [row | {"split": "sha256:x"} for row in repeats_of([0.6])]
    with pytest.raises(ResultsError, match=r"there are 2 splits of repeat 0, size 0\.1"):
        probes.Results(tuple(rows)).summary()


def test_a_summary_keeps_experiments_sizes_and_places_apart():
    domains = [
        a_row(train_domain="lung", test_domain=name, experiment="cross_domain", value=value)
        for name, value in (("lung", 0.9), ("skin", 0.5), ("breast", 0.6))
    ]
    table = probes.Results((*repeats_of([0.7]), *domains)).summary()
    assert table[["experiment", "tested", "repeats"]].to_numpy().tolist() == [
        ["learning_curve", "", 1],
        ["cross_domain", "in domain", 1],
        ["cross_domain", "out of domain", 2],
    ]


# ---- files of other programs, and places that are no longer what they were


def test_a_table_that_a_spreadsheet_has_saved_is_read(tmp_path):
    before = results_of("uni", "phikon")
    before.save(tmp_path / "r.csv")
    text = (tmp_path / "r.csv").read_text().replace("True", "TRUE").replace("False", "FALSE")
    (tmp_path / "r.csv").write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    assert probes.Results.load(tmp_path / "r.csv").rows == before.rows


def test_numbers_without_end_and_what_is_no_file_are_refused(tmp_path):
    results_of("uni").save(tmp_path / "r.csv")
    text = (tmp_path / "r.csv").read_text()
    (tmp_path / "r.csv").write_text(text.replace("0.75", "1e999"))
    with pytest.raises(ResultsError, match="value of row 0 is '1e999', which is no number"):
        probes.Results.load(tmp_path / "r.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ResultsError, match=r"pipe\.csv is no regular file; a table of results has"):
        probes.Results.load(tmp_path / "pipe.csv")


def test_results_without_scores_leave_no_scores_of_others_there(tmp_path):
    results_of("uni", scores=True).save(tmp_path)
    results_of("phikon").save(tmp_path)
    assert probes.Results.load(tmp_path).scores is None


def test_scores_of_embeddings_that_nobody_can_name_go_with_their_rows():
    old, new = results_of("uni", scores=True), results_of("uni", value=0.5)
    assert old.merged(new).scores is None
    named = results_of("uni", scores=True, encoder="sha256:e")
    assert len(named.merged(results_of("uni", metric="f1", encoder="sha256:e")).scores) == 4


def test_labels_of_any_kind_are_kept_as_texts(tmp_path):
    score = replace(a_score(), labels=np.array([False, True, True, False]), classes=[False, True])
    row = a_row(model="bools")
    both = results_of("uni", scores=True).merged(probes.Results((row,), score_frame(score, row)))
    both.save(tmp_path)
    said = probes.Results.load(tmp_path).scores
    assert said["label"].tolist() == ["a", "b", "b", "a", "False", "True", "True", "False"]


def test_an_annotation_that_has_lost_its_domain_is_not_tested_with_all():
    domains = np.array(["X"] * 6 + ["Y", None], object)
    table = SimpleNamespace(name="cells", digest="", ids=np.arange(8), column=lambda name: domains)
    split = probes.Split(np.arange(3), [], np.arange(4, 8), train_domain="X")
    with pytest.raises(SplitError, match="trained on X: 1 of 4 annotations to test have no domain"):
        domains_tested(split, table)
