"""Trainings of several encoders and experiments at once, and those that are not fitted again."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

import probes
from probes.errors import CollapsedProbeWarning, ProbesError
from probes.protocols import InMemory
from probes.recipes import recipe_of


@dataclass
class Counted:
    """Embeddings of a model, which count how often they are read."""

    rows: InMemory
    model: str = "uni"
    digest: str = "sha256:uni"
    n_reads: int = 0

    @property
    def ids(self):
        return self.rows.ids

    def read(self, ids):
        self.n_reads += 1
        return self.rows.read(ids)


@pytest.fixture
def table(make_table):
    return make_table()


@pytest.fixture
def encoder(table, make_source):
    def make(name="uni", **settings):
        return Counted(make_source(table, signal=0.7, **settings), name, f"sha256:{name}")

    return make


@pytest.fixture
def both(table):
    """The paper's two experiments, made small: 4 and 6 trainings."""
    return {
        "learning_curve": probes.monte_carlo(table, repeats=2, train=(0.1, 1.0)),
        "cross_domain": probes.single_domain(table, repeats=2),
    }


def fitted(sources, table, experiments, **options):
    return probes.fit_and_score(sources, table, experiments, objective="l2", **options)


def keyed(results):
    names = ("model", "experiment", "split", "test_domain", "metric")
    return {tuple(row[name] for name in names): row["value"] for row in results.rows}


# ---- all at once


def test_an_encoder_is_read_once_for_all_experiments(table, encoder, both):
    sources = [encoder("uni"), encoder("phikon", seed=1)]
    results = fitted(sources, table, both)
    assert [source.n_reads for source in sources] == [1, 1]
    assert len(results) == 2 * (4 + 6 * 3)
    assert list(dict.fromkeys(row["model"] for row in results.rows)) == ["uni", "phikon"]


@pytest.mark.parametrize("probe", ["logistic", "knn", "simpleshot"])
def test_all_at_once_gives_what_each_gives_alone(table, encoder, both, probe):
    options = {"probe": probe} if probe != "logistic" else {"objective": "l2"}
    metrics = ("auroc", "f1")
    sources = [encoder("uni"), encoder("phikon", seed=1)]
    together = keyed(probes.fit_and_score(sources, table, both, metrics=metrics, **options))
    alone = {}
    for source in sources:
        for name, splits in both.items():
            part = probes.fit_and_score(source, table, {name: splits}, metrics=metrics, **options)
            alone |= keyed(part)
    assert together == pytest.approx(alone, abs=1e-6)


def test_every_value_is_that_of_a_probe_fitted_and_tested_by_itself(table, encoder, both):
    results = fitted(encoder(), table, both, metrics=("auroc", "brier"), keep_scores=True)
    for split in both["cross_domain"]:
        probe = probes.LogisticProbe("l2").fit_source(encoder(), table, split)
        score = probe.score_source(encoder(), table, split)
        domains = table.column("domain")[np.isin(table.ids, score.ids)]
        domains = dict(zip(table.ids.tolist(), table.column("domain").tolist(), strict=True))
        for row in results.where(split=split.digest).rows:
            inside = np.array([domains[each] == row["test_domain"] for each in score.ids.tolist()])
            part = score.among(inside)
            assert row["value"] == pytest.approx(part.metrics[row["metric"]].value, abs=1e-5)
            assert row["n_test"] == part.n_test
        kept = results.where(split=split.digest).scores
        assert kept["id"].tolist() == split.test.tolist()
        assert kept["label"].tolist() == table.labels_of(split.test).tolist()
        assert kept["p mitotic figure"].to_numpy() == pytest.approx(
            score.probabilities[:, 1], abs=1e-5
        )


def test_several_classes_and_half_precision_are_met_as_a_probe_meets_them(table, encoder):
    table.labels = np.where(np.arange(len(table.ids)) % 5 == 0, "apoptotic body", table.labels)
    splits = probes.monte_carlo(table, repeats=2, train=[1.0])
    source = encoder()
    source.rows = replace(source.rows, values=source.rows.values.astype(np.float16))
    results = fitted(source, table, {"x": splits}, metrics=("auroc", "brier"), keep_scores=True)
    for split in splits:
        score = probes.LogisticProbe("l2").fit_source(source, table, split)
        score = score.score_source(source, table, split)
        for row in results.where(split=split.digest).rows:
            expected = score.metrics[row["metric"]].value
            assert row["value"] == pytest.approx(expected, abs=1e-4)
    assert [name for name in results.scores if name.startswith("p ")] == [
        "p apoptotic body",
        "p look-alike",
        "p mitotic figure",
    ]


def test_flags_of_the_solver_are_in_the_table(table, encoder, both):
    with pytest.warns(match="did not converge"):
        stalled = fitted(encoder(), table, both, max_iter=1)
    assert not any(row["converged"] for row in stalled.rows)
    with pytest.warns(CollapsedProbeWarning):
        collapsed = probes.fit_and_score(encoder(), table, both, C=1e-3)
    assert all(row["collapsed"] for row in collapsed.rows)
    assert {row["recipe"] for row in collapsed.rows} == {"logistic objective=uni C=0.001"}


def test_sources_that_no_table_could_tell_apart_are_refused(table, encoder, both):
    with pytest.raises(ProbesError, match="2 sources are named 'uni' and have the digest"):
        fitted([encoder(), encoder()], table, both)


# ---- what cannot be trained or tested


def test_a_training_part_of_one_class_gives_no_number_and_the_reason(table, encoder):
    splits = probes.monte_carlo(table, repeats=1, train=(0.1, 1.0))
    small = splits[0]
    of_one = small.train[table.labels_of(small.train) == "look-alike"]
    kept = replace(splits, members=(replace(small, train=of_one), splits[1]))
    results = fitted(encoder(), table, {"x": kept}, metrics=("auroc", "brier"), keep_scores=True)
    untrained, trained = results.rows[:2], results.rows[2:]
    assert all(math.isnan(row["value"]) for row in untrained)
    reason = f"all {len(of_one)} training labels are 'look-alike'; there is nothing to tell apart"
    assert [row["reason"] for row in untrained] == [reason] * 2
    assert all(row["value"] > 0 and row["reason"] == "" for row in trained)
    again = fitted(
        encoder(), table, {"x": kept}, metrics=("auroc", "brier"), known=results, keep_scores=True
    )
    assert again.notes == ("2 of 2 trainings of uni are there and equal; nothing is fitted",)
    table_of = probes.LearningCurve(results.rows).summary()
    assert table_of["auroc_n"].tolist() == [0, 1]


def test_one_class_in_the_training_domain_gives_a_row_for_each_domain(table, encoder):
    table.labels = np.where(table.column("domain") == "A", "look-alike", table.labels)
    splits = probes.single_domain(table, repeats=1, one_class="keep")
    rows = fitted(encoder(), table, {"cross_domain": splits}).rows
    assert [row["test_domain"] for row in rows[:3]] == ["A", "B", "C"]
    assert all(row["reason"].startswith("all ") for row in rows[:3])
    expected = [(table.column("domain") == name).sum() for name in "BC"]
    assert [row["n_test"] for row in rows[1:3]] == expected
    tested_on_a = [row for row in rows[3:] if row["test_domain"] == "A"]
    assert all("there is no other class to tell them from" in row["reason"] for row in tested_on_a)
    assert all(math.isnan(row["value"]) for row in tested_on_a)


# ---- what is there and equal


def test_what_is_there_and_equal_is_neither_read_nor_fitted(table, encoder, both):
    first = fitted(encoder(), table, both)
    source, said = encoder(), []
    again = fitted(source, table, both, known=first, say=said.append)
    assert source.n_reads == 0
    assert again.rows == first.rows
    assert said == ["10 of 10 trainings of uni are there and equal; nothing is fitted"]
    assert again.notes == tuple(said)


def test_what_is_not_there_is_fitted_and_stands_in_its_place(table, encoder, both):
    whole = fitted(encoder(), table, both)
    some = both["learning_curve"][1].digest
    known = probes.Results(tuple(row for row in whole.rows if row["split"] != some))
    source, said = encoder(), []
    again = fitted(source, table, both, known=known, say=said.append)
    assert source.n_reads == 1
    assert said == ["9 of 10 trainings of uni are there and equal; 1 more are fitted"]
    assert [row["split"] for row in again.rows] == [row["split"] for row in whole.rows]
    assert keyed(again) == pytest.approx(keyed(whole), abs=1e-6)


def test_a_metric_or_scores_that_are_not_there_are_computed(table, encoder, both):
    known = fitted(encoder(), table, both)
    more = fitted(encoder(), table, both, known=known, metrics=("brier", "auroc"))
    assert [row["metric"] for row in more.rows[:2]] == ["brier", "auroc"]
    assert more.scores is None
    kept = fitted(encoder(), table, both, known=known, keep_scores=True)
    assert kept.scores["split"].nunique() == 10
    source = encoder()
    assert fitted(source, table, both, known=kept, keep_scores=True).scores.equals(kept.scores)
    assert source.n_reads == 0


def test_another_encoder_recipe_or_label_is_fitted_and_what_differs_is_said(table, encoder, both):
    known = fitted(encoder(), table, both)
    other = replace(encoder(), digest="sha256:other")
    notes = fitted(other, table, both, known=known).notes
    assert notes == (
        "10 trainings of uni are there with another encoder (sha256:uni; now sha256:other); they "
        "stay, and are not mixed with these",
    )
    notes = probes.fit_and_score(encoder(), table, both, known=known, objective="l2", C=2).notes
    assert "another recipe (logistic objective=l2 C=1; now logistic objective=l2 C=2)" in notes[0]
    table.digest = "sha256:relabelled"
    source = encoder()
    notes = fitted(source, table, both, known=known).notes
    assert "another version of the dataset" in notes[0]
    assert source.n_reads == 1


def test_embeddings_that_nobody_can_name_are_always_fitted(table, encoder, both):
    unnamed = replace(encoder(), digest="")
    known = fitted(unnamed, table, both)
    fitted(unnamed, table, both, known=known)
    assert unnamed.n_reads == 2


def test_a_place_is_added_to_after_every_encoder(table, encoder, both, tmp_path):
    class Broken(Counted):
        def read(self, ids):
            raise KeyboardInterrupt

    place = tmp_path / "results"
    broken = Broken(encoder().rows, "broken", "sha256:broken")
    with pytest.raises(KeyboardInterrupt):
        fitted([encoder(), broken], table, both, place=place, keep_scores=True)
    there = probes.Results.load(place)
    assert {row["model"] for row in there.rows} == {"uni"}
    source = encoder()
    again = fitted([source, encoder("phikon", seed=1)], table, both, place=place, keep_scores=True)
    assert source.n_reads == 0
    assert again.rows[:22] == there.rows
    assert len(probes.Results.load(place)) == 44
    assert probes.Results.load(place).scores["model"].nunique() == 2


def test_what_is_known_from_elsewhere_is_at_the_place_too(table, encoder, both, tmp_path):
    known = fitted(encoder(), table, both)
    again = fitted(encoder(), table, both, known=known, place=tmp_path / "results")
    assert probes.Results.load(tmp_path / "results").rows == again.rows == known.rows


def test_what_is_there_is_said_before_anything_is_fitted(table, encoder, both):
    known = fitted(encoder(), table, {"learning_curve": both["learning_curve"]})
    source, n_reads = encoder(), []
    fitted(source, table, both, known=known, say=lambda note: n_reads.append(source.n_reads))
    assert n_reads == [0]
    assert source.n_reads == 1


def test_scores_are_kept_in_a_folder_only(table, encoder, both, tmp_path):
    with pytest.raises(ProbesError, match=r"r\.csv keeps no scores; give a folder"):
        fitted(encoder(), table, both, place=tmp_path / "r.csv", keep_scores=True)


def test_equal_splits_of_two_sizes_have_rows_of_their_own_and_scores_once(table, encoder):
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    twice = replace(splits, members=(splits[0], replace(splits[0], size=0.5)))
    results = fitted(encoder(), table, {"x": twice}, keep_scores=True)
    assert [row["size"] for row in results.rows] == [1.0, 0.5]
    assert len(results.scores) == len(splits[0].test)
    source = encoder()
    again = fitted(source, table, {"x": twice}, known=results, keep_scores=True)
    assert (again.rows, source.n_reads) == (results.rows, 0)


# ---- recipes


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "logistic objective=uni C=uni"),
        ({"C": "uni"}, "logistic objective=uni C=uni"),
        ({"objective": "l2"}, "logistic objective=l2 C=1"),
        ({"objective": "l2", "C": 1}, "logistic objective=l2 C=1"),
        ({"objective": "l2", "C": np.float32(0.1)}, "logistic objective=l2 C=0.10000000149011612"),
        ({"C": np.array([0.1, 3])}, "logistic objective=uni C=0.1,3"),
        (
            {"C": [1.0], "select_by": "log_loss", "solver": "sklearn", "max_iter": 5},
            "logistic objective=uni C=1 select_by=log_loss solver=sklearn max_iter=5",
        ),
        ({"select_by": "log_loss"}, "logistic objective=uni C=uni"),
        (
            {"standardize": True, "class_weight": {"b": 1, "a": 2.5}},
            'logistic objective=uni C=uni standardize=True class_weight={"a":2.5,"b":1.0}',
        ),
        ({"probe": "knn", "n_neighbors": 5}, "knn n_neighbors=5"),
        ({"probe": "simpleshot"}, "simpleshot"),
    ],
)
def test_a_recipe_says_what_decides_a_result_and_no_more(given, text):
    assert recipe_of(**given) == text


def test_a_probe_that_is_none_has_no_recipe():
    with pytest.raises(ProbesError, match="probe='svm' is unknown; use one of 'logistic', 'knn'"):
        recipe_of("svm")


def test_a_class_that_is_tested_and_was_not_trained_gives_no_number_and_the_reason(table, encoder):
    table.labels = np.where(np.arange(len(table.ids)) % 5 == 0, "apoptotic body", table.labels)
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    known = splits[0].train[table.labels_of(splits[0].train) != "apoptotic body"]
    without = replace(splits, members=(replace(splits[0], train=known),))
    for probe in ("logistic", "knn"):
        (row,) = probes.fit_and_score(encoder(), table, {"x": without}, probe=probe).rows
        assert math.isnan(row["value"])
        assert row["reason"] == (
            f"none of {len(known)} training labels is 'apoptotic body', which is tested"
        )


def test_a_place_that_cannot_be_written_is_known_before_anything_is_read(
    table, encoder, both, tmp_path
):
    (tmp_path / "file").write_text("")
    source = encoder()
    with pytest.raises(NotADirectoryError):
        fitted(source, table, both, place=tmp_path / "file" / "results")
    assert source.n_reads == 0
