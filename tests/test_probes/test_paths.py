"""Paths of C on data with a planted answer."""

import matplotlib.pyplot
import numpy as np
import pytest

import probes
from probes.errors import SplitError
from probes.paths import DINOV2_CS, PATH_COLUMNS

matplotlib.use("agg")


@pytest.fixture
def planted(make_table, make_source):
    """Embeddings in which few rows and many dimensions make a weak penalty a bad one."""
    table = make_table(400)
    source = make_source(table, dim=60, signal=0.6)
    return source, table, probes.monte_carlo(table, repeats=2, train=(0.3, 1.0))


def test_the_values_are_those_of_dinov2():
    assert len(DINOV2_CS) == 45
    assert DINOV2_CS[0] == pytest.approx(1e-6)
    assert DINOV2_CS[-1] == pytest.approx(1e5)
    assert np.allclose(np.diff(np.log10(DINOV2_CS)), 0.25)


def test_a_path_has_a_row_per_split_and_value_and_one_chosen_for_each_split(planted):
    path = probes.regularization_path(*planted)
    frame, chosen = path.to_frame(), path.chosen()
    assert tuple(frame.columns) == PATH_COLUMNS
    assert len(frame) == 4 * 45
    assert chosen["split"].tolist() == [split.digest for split in planted[2]]
    assert [probe.C_ for probe in path.probes] == chosen["C"].tolist()
    for split, line in frame.groupby("split", sort=False):
        best = line["auroc"].max()
        assert chosen.set_index("split").loc[split, "auroc"] == best
        assert line["C"].tolist() == list(DINOV2_CS)
        assert (np.diff(line["weight_norm"]) > 0).all()
    assert frame["converged"].all()
    assert chosen["C"].max() < 1e3


def test_every_value_is_what_fitting_it_alone_gives(planted):
    source, table, splits = planted
    path = probes.regularization_path(source, table, splits, Cs=[1e-3, 1.0]).to_frame()
    for split in splits:
        for row in path[path["split"] == split.digest].itertuples():
            probe = probes.LogisticProbe("l2", C=row.C)
            probe.fit(source.read(split.train), table.labels_of(split.train))
            share = probe.predict_proba(source.read(split.val))[:, 1]
            auroc = probes.metrics.auroc(
                table.labels_of(split.val), np.stack([1 - share, share], axis=1), probe.classes_
            )
            assert row.auroc == pytest.approx(auroc, abs=1e-3)
            assert (row.n_train, row.n_val) == (len(split.train), len(split.val))


def test_only_the_chosen_value_is_tested_and_on_the_test_part(planted):
    source, table, splits = planted
    path = probes.regularization_path(source, table, splits, Cs=[1e-3, 1.0, 1e3])
    frame = path.to_frame()
    assert frame["test_auroc"].notna().tolist() == frame["chosen"].tolist()
    for probe, split, value in zip(path.probes, splits, path.chosen()["test_auroc"], strict=True):
        assert value == probes.evaluate(probe, source, table, split).auroc


def test_the_log_loss_chooses_where_asked(planted):
    path = probes.regularization_path(*planted, metric="log_loss")
    for _, line in path.to_frame().groupby("split", sort=False):
        assert line.loc[line["chosen"], "log_loss"].item() == line["log_loss"].min()
    assert "log loss" in path.plot().get_ylabel()
    matplotlib.pyplot.close("all")


def test_a_path_of_uni_records_which_values_collapse(planted):
    frame = probes.regularization_path(*planted, objective="uni", Cs=[1e-3, 30.0, 300.0]).to_frame()
    assert frame["collapsed"].tolist() == [True, False, False] * 4
    assert not frame.loc[frame["chosen"], "collapsed"].any()


def test_splits_without_validation_and_of_other_annotations_are_refused(planted):
    source, table, splits = planted
    bare = probes.monte_carlo(table, repeats=1, val=0, train=[1.0])
    with pytest.raises(SplitError, match="the validation part of repeat 0, size 1 is empty"):
        probes.regularization_path(source, table, bare)
    table.digest, table.labels = "sha256:other", table.labels[::-1].copy()
    with pytest.raises(SplitError, match="labels differ"):
        probes.regularization_path(source, table, splits)


def test_the_plot_has_a_line_per_split_and_a_mark_at_each_chosen_value(planted):
    path = probes.regularization_path(*planted)
    axes = path.plot()
    drawn = [line for line in axes.lines if len(line.get_xdata())]
    lines = [line for line in drawn if len(line.get_xdata()) == 45]
    marks = [line for line in drawn if len(line.get_xdata()) == 1]
    assert len(lines) == len(marks) == 4
    chosen = path.chosen()
    assert [mark.get_xdata()[0] for mark in marks] == chosen["C"].tolist()
    assert [mark.get_ydata()[0] for mark in marks] == chosen["auroc"].tolist()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"{len(split.train):,} training annotations" for split in planted[2][:2]
    ]
    assert axes.get_xscale() == "log"
    assert "AUROC" in axes.get_ylabel()
    matplotlib.pyplot.close("all")
