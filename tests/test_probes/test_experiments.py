"""Learning curves and domain matrices, on data with a planted answer."""

from dataclasses import replace

import matplotlib.pyplot
import numpy as np
import pandas as pd
import pytest

import probes
from probes.errors import SplitError
from probes.results import RESULT_COLUMNS

matplotlib.use("agg")


def test_a_curve_has_a_row_per_training_with_the_splits_own_digest(make_table, make_source):
    table = make_table()
    splits = probes.monte_carlo(table, repeats=3, train=(0.1, 1.0))
    frame = probes.learning_curve(make_source(table), table, splits, C=5.0).to_frame()
    assert tuple(frame.columns) == RESULT_COLUMNS
    assert frame["split"].tolist() == [split.digest for split in splits]
    assert frame["n_train"].tolist() == [39, 384] * 3
    assert frame["converged"].all()


def test_a_curve_is_what_fitting_and_testing_one_by_one_gives(make_table, make_source):
    table = make_table()
    source = make_source(table, signal=0.7)
    splits = probes.monte_carlo(table, repeats=2, train=(0.1, 1.0))
    frame = probes.learning_curve(source, table, splits, C=5.0).to_frame()
    for split, value in zip(splits, frame["value"], strict=True):
        probe = probes.LogisticProbe(C=5.0).fit(
            source.read(split.train), table.labels_of(split.train)
        )
        assert value == pytest.approx(probes.evaluate(probe, source, table, split).auroc, abs=1e-6)


def test_more_training_helps_where_there_is_a_signal_and_none_is_found_where_there_is_none(
    make_table, make_source
):
    table = make_table(1_500)
    splits = probes.monte_carlo(table, repeats=5, train=(0.02, 1.0))
    found = probes.learning_curve(
        make_source(table, dim=30, signal=0.6), table, splits, objective="l2"
    )
    small, large = found.summary()["auroc_mean"]
    assert small + 0.05 < large > 0.75
    noise = probes.learning_curve(
        make_source(table, dim=30, signal=0), table, splits, objective="l2"
    )
    assert abs(noise.summary()["auroc_mean"].iloc[-1] - 0.5) < 0.05


def test_a_curve_refuses_splits_of_another_dataset(make_table, make_source):
    table = make_table()
    splits = probes.monte_carlo(table, train=[1.0])
    other = make_table(seed=1)
    other.digest = "sha256:other"
    with pytest.raises(SplitError):
        probes.learning_curve(make_source(other), other, splits)


def test_a_planted_domain_shift_shows_off_the_diagonal_only(make_table, make_source):
    table = make_table(1_500)
    shifted = probes.cross_domain(
        make_source(table, shift=np.pi / 2), table, repeats=2, objective="l2"
    )
    same = probes.cross_domain(make_source(table, shift=0), table, repeats=2, objective="l2")
    matrix = shifted.matrix().to_numpy()
    assert matrix.shape == (3, 3)
    assert np.diag(matrix).min() > 0.9
    assert matrix[0, 1] < 0.65  # the direction is turned by a right angle
    assert matrix[0, 2] < 0.1  # and then points the other way
    assert same.matrix().to_numpy().min() > 0.9


def test_in_domain_values_are_of_the_held_out_part(make_table, make_source):
    table = make_table()
    frame = probes.cross_domain(make_source(table), table, repeats=2, C=5.0).to_frame()
    assert len(frame) == 2 * 3 * 3
    sizes = pd.Series(table.column("domain")).value_counts()
    for row in frame.itertuples():
        whole = sizes[row.test_domain]
        own = row.test_domain == row.train_domain
        assert row.n_test == (round(0.2 * whole) if own else whole)


def test_in_and_out_of_domain_are_summed_up_as_in_table_2(make_table, make_source):
    table = make_table()
    result = probes.cross_domain(make_source(table, shift=0.5), table, repeats=2, C=5.0)
    frame, summary = result.to_frame(), result.summary().set_index("tested")
    inside = frame[frame["train_domain"] == frame["test_domain"]]["value"]
    assert summary.loc["in domain", "auroc_mean"] == pytest.approx(inside.mean())
    assert summary.loc["in domain", "auroc_sd"] == pytest.approx(inside.std(ddof=1))
    assert summary["n"].tolist() == [6, 12]


def test_the_matrix_and_both_plots_are_of_the_same_numbers(make_table, make_source):
    table = make_table()
    source = make_source(table, shift=0.5)
    curve = probes.learning_curve(source, table, probes.monte_carlo(table, train=(0.1, 1.0)), C=5.0)
    assert "AUROC" in curve.plot().get_ylabel()
    matrix = probes.cross_domain(source, table, repeats=2, C=5.0)
    shown = [text.get_text() for text in matrix.plot().texts]
    assert shown == [f"{value:.2f}" for value in matrix.matrix().to_numpy().ravel()]
    matplotlib.pyplot.close("all")


def test_a_curve_takes_every_parameter_of_a_probe_and_remembers_the_encoder(
    make_table, make_source
):
    table = make_table()
    source = make_source(table, signal=0.7)
    splits = probes.monte_carlo(table, repeats=2, train=(0.1, 1.0))
    settings = {"objective": "l2", "C": [0.01, 1.0], "standardize": True, "solver": "sklearn"}
    frame = probes.learning_curve(source, table, splits, **settings).to_frame()
    for split, value in zip(splits, frame["value"], strict=True):
        probe = probes.LogisticProbe(**settings).fit_source(source, table, split)
        assert value == pytest.approx(probe.score_source(source, table, split).auroc, abs=1e-4)


def test_models_stand_below_each_other_in_one_matrix(make_table, make_source):
    table = make_table()
    sources = [replace(make_source(table, seed=number), model=f"m{number}") for number in (0, 1)]
    result = probes.cross_domain(sources, table, repeats=1, objective="l2")
    assert result.matrix().index.tolist() == [(m, d) for m in ("m0", "m1") for d in "ABC"]
    alone = probes.cross_domain(sources[1], table, repeats=1, objective="l2").matrix()
    assert result.matrix().loc["m1"].to_numpy() == pytest.approx(alone.to_numpy())
    assert result.summary()["model"].tolist() == ["m0", "m0", "m1", "m1"]


def test_splits_of_a_file_may_be_given_and_need_a_training_domain(make_table, make_source):
    table = make_table()
    source = make_source(table)
    splits = probes.single_domain(table, repeats=1, seed=7)
    frame = probes.cross_domain(source, table, splits, C=5.0).to_frame()
    assert frame["split"].unique().tolist() == [split.digest for split in splits]
    with pytest.raises(SplitError, match="2 of 2 splits name no training domain"):
        probes.cross_domain(source, table, probes.monte_carlo(table, repeats=2, train=[1.0]))


def test_with_one_domain_left_out_only_that_one_is_out_of_domain(make_table, make_source):
    table = make_table()
    splits = probes.leave_one_domain_out(table, repeats=2)
    result = probes.cross_domain(make_source(table), table, splits, C=5.0)
    frame = result.to_frame()
    assert len(frame) == 2 * 3 * 3
    assert result.summary().set_index("tested")["n"].to_dict() == {
        "in domain": 12,
        "out of domain": 6,
    }


def test_a_curve_does_not_average_over_what_is_in_and_out_of_domain(make_table, make_source):
    table = make_table()
    with pytest.raises(SplitError, match="6 of 6 splits name a training domain, the first is"):
        probes.learning_curve(make_source(table), table, probes.single_domain(table, repeats=2))
