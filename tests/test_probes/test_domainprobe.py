"""How well the domain can be read off embeddings in which it was planted, or was not."""

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import probes
from probes.domainprobe import domain_probe
from probes.errors import ProbesError, SplitError
from probes.protocols import InMemory
from probes.results import RESULT_COLUMNS
from tests.test_probes.splitting import column_of


@pytest.fixture
def make_planted():
    """Embeddings in which directions tell the domain, the slide and the label apart."""

    def make(table, *, domain=0.0, slide=0.0, label=1.5, seed=0, model="a"):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(len(table.ids), 12))
        values[:, 0] += label * np.where(table.labels == "mitotic figure", 1, -1)
        codes = np.unique(table.column("domain"), return_inverse=True)[1]
        values[np.arange(len(codes)), 1 + codes] += domain
        slides = np.unique(table.column("slide"), return_inverse=True)[1]
        values += slide * rng.normal(size=(slides.max() + 1, 12))[slides]
        return InMemory(table.ids, values.astype(np.float32), model, f"sha256:{model}")

    return make


def means(found, target):
    """Mean of each metric of a target."""
    summary = found.summary().set_index("target")
    return {name: summary.loc[target, f"{name}_mean"] for name in ("auroc", "balanced_accuracy")}


def test_a_planted_domain_is_found_and_none_where_none_was_planted(make_table, make_planted):
    table = make_table(1_500)
    planted, none = (
        domain_probe(make_planted(table, domain=strength), table, objective="l2")
        for strength in (3.0, 0.0)
    )
    assert means(planted, "domain")["auroc"] > 0.95
    assert means(planted, "domain")["balanced_accuracy"] > 0.9
    assert means(none, "domain")["auroc"] == pytest.approx(0.5, abs=0.04)
    assert means(none, "domain")["balanced_accuracy"] == pytest.approx(1 / 3, abs=0.04)
    for found in (planted, none):
        assert means(found, "label")["auroc"] > 0.95


def test_drawn_by_annotation_the_slide_gives_its_domain_away_and_by_slide_it_does_not(
    make_table, make_planted
):
    table = make_table(1_500)
    source = make_planted(table, slide=2.0)
    by_slide = means(domain_probe(source, table, objective="l2"), "domain")
    by_cell = means(domain_probe(source, table, group=None, objective="l2"), "domain")
    assert by_cell["balanced_accuracy"] > by_slide["balanced_accuracy"] + 0.1
    assert by_cell["auroc"] > by_slide["auroc"] + 0.1


def test_both_targets_are_tested_on_the_same_splits(make_table, make_planted):
    table = make_table()
    splits = probes.grouped(table, repeats=3, train=[1.0], stratify="domain")
    found = domain_probe(make_planted(table, domain=2), table, splits, objective="l2")
    frame = found.to_frame()
    assert tuple(frame.columns) == RESULT_COLUMNS
    for experiment in ("domain_probe domain", "domain_probe label"):
        rows = frame[(frame["experiment"] == experiment) & (frame["metric"] == "auroc")]
        assert rows["split"].tolist() == [split.digest for split in splits]
    drawn = domain_probe(make_planted(table), table, repeats=2, objective="l2").to_frame()
    of_split = drawn.groupby("split")["experiment"].nunique()
    assert of_split.tolist() == [2, 2]


def test_every_domain_is_in_every_part_of_splits_that_are_drawn(make_table, make_planted):
    """Of ten slides of a domain two or so are tested; AUROC is undefined where one is missing."""
    table = make_table()
    for column in ("domain", "scanner"):
        table.columns["scanner"] = np.array(["x", "y"])[table.column("slide").astype(int) % 2]
        found = domain_probe(make_planted(table), table, column=column, objective="l2")
        assert found.classes[column] == tuple(sorted(set(table.column(column).tolist())))
        frame = found.to_frame()
        assert frame["value"].notna().all()
        assert set(frame["experiment"]) == {f"domain_probe {column}", "domain_probe label"}


def test_the_values_are_those_of_scikit_learn(make_table, make_planted):
    table = make_table()
    source = make_planted(table, domain=1.0)
    splits = probes.grouped(table, repeats=2, train=[1.0], stratify="domain")
    found = domain_probe(source, table, splits, objective="l2", C=0.1).to_frame()
    domain_of = column_of(table, "domain")
    for split in splits:
        rows = found[(found["split"] == split.digest) & (found["experiment"] != LABEL)]
        truth, tested = ([domain_of[each] for each in ids] for ids in (split.train, split.test))
        model = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000)
        model.fit(source.read(split.train).astype(float), truth)
        said = model.predict_proba(source.read(split.test).astype(float))
        values = dict(zip(rows["metric"], rows["value"], strict=True))
        assert values["auroc"] == pytest.approx(
            roc_auc_score(tested, said, multi_class="ovo"), abs=1e-4
        )
        assert values["balanced_accuracy"] == pytest.approx(
            balanced_accuracy_score(tested, model.classes_[said.argmax(axis=1)]), abs=1e-4
        )


LABEL = "domain_probe label"


def test_models_stand_beside_each_other_and_chance_is_one_in_so_many_classes(
    make_table, make_planted
):
    table = make_table()
    two = make_planted(table, domain=2), make_planted(table, seed=1, model="b")
    summary = domain_probe(two, table, repeats=2, objective="l2").summary()
    assert summary[["model", "target", "classes"]].values.tolist() == [
        ["a", "domain", 3],
        ["b", "domain", 3],
        ["a", "label", 2],
        ["b", "label", 2],
    ]
    assert summary["repeats"].tolist() == [2] * 4


def test_what_is_known_is_not_fitted_again(make_table, make_planted):
    table, said = make_table(), []
    source = make_planted(table, model="b")
    options = {"repeats": 2, "objective": "l2", "say": said.append}
    first = domain_probe(source, table, **options)
    again = domain_probe(source, table, known=first, **options)
    assert again.rows == first.rows
    assert said == ["2 of 2 trainings of b are there and equal; nothing is fitted"] * 2
    assert again.notes == tuple(said)


def test_a_column_that_leaves_nothing_to_tell_apart_is_refused(make_table, make_planted):
    table = make_table(n_domains=1)
    with pytest.raises(
        SplitError, match="all 600 annotations of 'toy' have the domain 'A'; two or"
    ):
        domain_probe(make_planted(table), table)
    table.columns["domain"] = np.where(np.arange(600) < 5, "", "A")
    with pytest.raises(SplitError, match="5 of 600 annotations of 'toy' have no domain"):
        domain_probe(make_planted(table), table)


def test_a_domain_on_one_slide_cannot_be_both_trained_on_and_tested(make_table, make_planted):
    table = make_table()
    table.columns["domain"] = np.where(table.column("slide") == "7", "rare", "common")
    with pytest.raises(
        SplitError, match="the domain 'rare' of 'toy' lies in one slide, '7', and cannot be both"
    ):
        domain_probe(make_planted(table), table)
    assert len(domain_probe(make_planted(table), table, group=None, repeats=1, objective="l2")) == 4


def test_splits_that_train_on_one_domain_are_refused(make_table, make_planted):
    table = make_table()
    with pytest.raises(SplitError, match="trained on A: no training annotation has the domain 'B'"):
        domain_probe(make_planted(table), table, probes.single_domain(table))


def test_an_encoder_is_read_once_for_both_targets(make_table, make_planted):
    table, reads = make_table(), []

    @dataclass(frozen=True, eq=False)
    class Counted(InMemory):
        def read(self, ids):
            reads.append(self.model)
            return super().read(ids)

    two = [Counted(*vars(make_planted(table, model=name)).values()) for name in "ab"]
    domain_probe(two, table, repeats=2, objective="l2")
    assert reads == ["a", "b"]
    with pytest.raises(ProbesError, match="2 sources are named 'a'"):
        domain_probe([two[0], two[0]], table)
    with pytest.raises(SplitError, match="column='label' is the task itself"):
        domain_probe(two, table, column="label")
