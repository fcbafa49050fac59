"""Planted leakage is found with its sign and size, and none where none was planted."""

from dataclasses import replace

import numpy as np
import pytest

import probes
from featstore.annotations import AnnotationTable
from probes.errors import AuditError
from probes.protocols import InMemory

GIVEN, GROUPED = "as given", "grouped by slide"
TRAIN, TEST = "train without overlapping", "test without overlapping"


def table_of(labels, slides, x):
    columns = {"slide": slides, "image": slides, "x": x, "y": np.zeros(len(x))}
    labels = np.where(labels, "mitotic figure", "look-alike")
    return AnnotationTable("toy", np.arange(len(x)), labels, columns)


def source_of(table, values):
    return InMemory(table.ids, values.astype(np.float32), "m", "sha256:m")


def by_design(cost, size=1.0):
    summary = cost.summary()
    return summary[summary["size"] == size].set_index("design")


@pytest.fixture(scope="module")
def slide_nuisance():
    """40 slides of 50 cells, half of them 90 % mitotic, half 10 %; embeddings tell slides alone.

    Who knows a slide ranks a cell of a 90 % one above one of a 10 % one. A mitotic figure is in
    the former with 0.9, a look-alike with 0.1: AUROC = 0.9 * 0.9 + (2 * 0.9 * 0.1) / 2 = 0.9. Of a
    slide that was never seen nothing is known: 0.5. Leakage is worth 0.4.
    """
    rng = np.random.default_rng(0)
    slides = np.repeat(np.arange(40), 50)
    labels = np.tile(np.arange(50), 40) < np.where(slides % 2, 45, 5)
    table = table_of(labels, slides, np.tile(np.arange(50), 40) * 1_000.0)
    values = np.hstack([4 * np.eye(40)[slides], rng.normal(size=(2_000, 10))])
    splits = probes.monte_carlo(table, train=[0.05, 1.0])
    return probes.leakage_cost(source_of(table, values), table, splits, objective="l2")


def test_what_slides_give_away_is_found_with_its_size_by_grouping(slide_nuisance):
    found = by_design(slide_nuisance)
    assert found.loc[GIVEN, "auroc_mean"] == pytest.approx(0.9, abs=0.02)
    assert found.loc[GROUPED, "auroc_mean"] == pytest.approx(0.5, abs=0.04)
    assert found.loc[GROUPED, "auroc_difference"] == pytest.approx(-0.4, abs=0.04)
    assert found.loc[GROUPED, "auroc_difference_se"] < 0.03
    assert found["repeats"].tolist() == [5] * 4


def test_patches_that_do_not_overlap_cost_nothing_when_overlapping_is_dropped(slide_nuisance):
    for size in (0.05, 1.0):
        found = by_design(slide_nuisance, size)
        assert found.loc[[TRAIN, TEST], "auroc_difference"].tolist() == [0, 0]
        assert found.loc[TRAIN, "n_train"] == found.loc[GIVEN, "n_train"]
        assert found.loc[TEST, "n_test"] == found.loc[GIVEN, "n_test"]


def test_what_shared_pixels_give_away_is_found_with_its_size_by_dropping_them():
    """Pairs of patches show the same cell, whose label nothing else tells.

    A nearest neighbour knows a tested cell if its twin trains, a share f of them, and guesses
    otherwise: AUROC = 0.5 + f / 2 as given, 0.5 without the overlapping patches. Of thinned test
    parts some 120 patches are left, 60 cells, by which an AUROC is known to 0.06 in each repeat.
    """
    rng = np.random.default_rng(1)
    pair = np.repeat(np.arange(1_500), 2)
    x = pair * 1_000.0 + np.tile([0, 10], 1_500)
    table = table_of(rng.permutation(1_500)[pair] % 2 == 0, pair % 12, x)
    values = rng.normal(size=(1_500, 24))[pair] + 0.01 * rng.normal(size=(3_000, 24))
    splits = probes.monte_carlo(table, val=0, train=[1.0])
    audit = probes.audit(table, splits)
    share = audit.summary().set_index("finding").loc["overlapping", "share"].iloc[0]
    assert share == pytest.approx(0.8, abs=0.02)
    cost = probes.leakage_cost(
        source_of(table, values), table, splits, found=audit, probe="knn", n_neighbors=1
    )
    found = by_design(cost)
    assert found.loc[GIVEN, "auroc_mean"] == pytest.approx(0.5 + share / 2, abs=0.02)
    assert found.loc[TRAIN, "auroc_difference"] == pytest.approx(-share / 2, abs=0.02)
    assert found.loc[TEST, "auroc_difference"] == pytest.approx(-share / 2, abs=0.08)
    assert found.loc[GROUPED, "auroc_difference"] == pytest.approx(-share / 2, abs=0.03)


def test_nothing_is_found_where_nothing_was_planted():
    """Overlapping patches on slides, and embeddings that know of neither."""
    rng = np.random.default_rng(0)
    labels = rng.random(3_000) < 0.45
    table = table_of(labels, rng.integers(0, 40, 3_000), rng.uniform(0, 60_000, 3_000))
    values = rng.normal(size=(3_000, 16))
    values[:, 0] += 1.5 * labels
    splits = probes.monte_carlo(table, train=[0.1, 1.0])
    cost = probes.leakage_cost(source_of(table, values), table, splits, objective="l2")
    shares = probes.audit(table, splits).summary().set_index(["finding", "against", "size"])
    assert 0.3 < shares.loc[("overlapping", "train+val", 1.0), "share"] < 0.45
    for size in (0.1, 1.0):
        found = by_design(cost, size)
        assert found.loc[GIVEN, "auroc_mean"] > 0.8
        for design in (TRAIN, TEST, GROUPED):
            difference, error = found.loc[design, ["auroc_difference", "auroc_difference_se"]]
            assert abs(difference) < 2 * error
            assert error < 0.03
    assert found.loc[TRAIN, "auroc_difference_se"] < 0.002


def test_designs_have_the_sizes_and_repeats_of_the_splits_as_given(slide_nuisance):
    given, *others = slide_nuisance.designs.values()
    for splits in others:
        assert [(s.repeat, s.size) for s in splits] == [(s.repeat, s.size) for s in given]
        assert splits.seed == given.seed
    assert [splits.rule for splits in others] == [
        "monte_carlo without overlapping",
        "monte_carlo without overlapping",
        "grouped",
    ]
    frame = slide_nuisance.to_frame()
    assert tuple(frame.columns) == probes.RESULT_COLUMNS
    assert frame.groupby("experiment").size().to_dict() == dict.fromkeys(
        [GIVEN, TRAIN, TEST, GROUPED], 10
    )


def test_the_difference_is_by_repeat_where_repeats_are_the_same(slide_nuisance):
    frame = slide_nuisance.to_frame()
    frame = frame[frame["size"] == 1.0].set_index(["experiment", "repeat"])["value"]
    found = by_design(slide_nuisance)
    means = frame.groupby("experiment").mean()
    for design in (TRAIN, TEST, GROUPED):
        expected = means[design] - means[GIVEN]
        assert found.loc[design, "auroc_difference"] == pytest.approx(expected)
    assert found.loc[GIVEN, "auroc_difference_se"] == 0


def test_the_standard_error_counts_what_repeats_share():
    """Of 100 annotations 20 are tested: the variance of a mean is (1 / 2 + 20 / 80) * sd**2."""
    ids = np.arange(100)
    split = probes.Split(ids[20:], ids[:0], ids[:20])
    given = probes.Splits("toy", "", "monte_carlo", 0, {}, (split, replace(split, repeat=1)))
    values = {GIVEN: (0.8, 0.9), TRAIN: (0.78, 0.84), GROUPED: (0.6, 0.7)}
    base = dict.fromkeys(probes.RESULT_COLUMNS, "")
    base |= {"model": "m", "size": 1.0, "n_train": 80, "n_val": 0, "n_test": 20}
    rows = tuple(
        base | {"experiment": name, "repeat": repeat, "metric": "auroc", "value": value}
        for name, of_design in values.items()
        for repeat, value in enumerate(of_design)
    )
    cost = probes.LeakageCost({GIVEN: given}, GROUPED, probes.Results(rows))
    found = by_design(cost)
    # by repeat -0.02 and -0.06: sd**2 = 0.0008; of each mean sd**2 = 0.005
    assert found.loc[TRAIN, "auroc_difference"] == pytest.approx(-0.04)
    assert found.loc[TRAIN, "auroc_difference_se"] == pytest.approx(np.sqrt(0.75 * 0.0008))
    assert found.loc[GROUPED, "auroc_difference"] == pytest.approx(-0.2)
    assert found.loc[GROUPED, "auroc_difference_se"] == pytest.approx(np.sqrt(0.75 * 0.01))
    assert found["auroc_n"].tolist() == [2, 2, 2]


@pytest.fixture(scope="module")
def of_many_datasets():
    """Mean differences and their standard errors for 60 small datasets in which nothing leaks."""
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = rng.random(800) < 0.45
        table = table_of(labels, rng.integers(0, 30, 800), rng.uniform(0, 16_000, 800))
        values = rng.normal(size=(800, 4))
        values[:, 0] += 1.5 * labels
        splits = probes.monte_carlo(table, train=[1.0], seed=seed)
        cost = probes.leakage_cost(source_of(table, values), table, splits, objective="l2", C=1)
        found.append(by_design(cost)[["auroc_difference", "auroc_difference_se"]])
    return found


@pytest.mark.parametrize("design", [TEST, GROUPED])
def test_intervals_of_the_standard_error_hold_the_truth_where_nothing_leaks(
    of_many_datasets, design
):
    """2.78 is Student's t for 5 repeats; a naive standard error is 1.5 times as small as ours."""
    difference, error = np.array([found.loc[design] for found in of_many_datasets]).T
    assert np.mean(np.abs(difference) < 2.78 * error) >= 0.95
    assert 0.9 < np.sqrt(np.mean(error**2)) / difference.std() < 1.9


def test_several_models_and_other_findings_stand_in_one_table(make_table, make_source):
    table = make_table(300)
    splits = probes.monte_carlo(table, repeats=2, train=[1.0])
    good, bad = (
        InMemory(table.ids, make_source(table, signal=signal).values, name, f"sha256:{name}")
        for name, signal in (("good", 2.0), ("bad", 0.1))
    )
    cost = probes.leakage_cost(
        [good, bad],
        table,
        splits,
        drop=(),
        group="domain",
        objective="l2",
        metrics=("auroc", "brier"),
    )
    summary = cost.summary()
    assert len(cost.to_frame()) == 2 * 2 * 2 * 2
    assert summary["repeats"].tolist() == summary["brier_n"].tolist() == [2] * 4
    assert summary["brier_difference"].iloc[0] == 0
    assert summary["brier_mean"].iloc[0] < summary["brier_mean"].iloc[2]
    assert summary["design"].tolist() == ["as given", "grouped by domain"] * 2
    assert summary["model"].tolist() == ["good", "good", "bad", "bad"]
    assert summary["auroc_mean"].iloc[0] > summary["auroc_mean"].iloc[2]


def test_splits_that_do_not_say_how_they_were_drawn_are_refused(make_table, make_source):
    table = make_table(300)
    by_hand = probes.Splits(
        "toy",
        table.digest,
        "by hand",
        0,
        {},
        probes.monte_carlo(table, repeats=1, train=[1.0]).members,
    )
    with pytest.raises(AuditError, match="rule 'by hand' do not say their repeats, test, val, tr"):
        probes.leakage_cost(make_source(table), table, by_hand, drop=())
