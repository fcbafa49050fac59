"""Companions of the linear probe, against what their definitions give by brute force."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

import probes
from probes.errors import OneClassError, ProbesError
from probes.neighbours import fit_probes
from probes.protocols import InMemory


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 7)) + 5
    y = np.array(["a", "b", "c"])[np.argmax(X[:, :3] + rng.normal(size=(120, 3)), axis=1)]
    return X[:90], y[:90], X[90:]


def direction(row, mean):
    return (row - mean) / np.linalg.norm(row - mean)


def test_twenty_nearest_directions_vote(rows):
    X, y, asked = rows
    probe = probes.KNNProbe().fit(X, y)
    mean = X.mean(axis=0)
    kept = [direction(row, mean) for row in X]
    for row, shares in zip(asked, probe.predict_proba(asked), strict=True):
        apart = [np.linalg.norm(direction(row, mean) - each) for each in kept]
        votes = y[np.argsort(apart)[:20]]
        assert shares.tolist() == [np.mean(votes == each) for each in "abc"]
    assert probe.n_neighbors_ == 20
    assert probe.classes_.tolist() == ["a", "b", "c"]


def test_the_nearest_mean_direction_of_a_class_is_predicted(rows):
    X, y, asked = rows
    probe = probes.SimpleShot().fit(X, y)
    mean = X.mean(axis=0)
    means = [np.mean([direction(row, mean) for row in X[y == each]], axis=0) for each in "abc"]
    shares = probe.predict_proba(asked)
    for row, label, own in zip(asked, probe.predict(asked), shares, strict=True):
        squares = [np.sum((direction(row, mean) - each) ** 2) for each in means]
        assert label == "abc"[np.argmin(squares)]
        assert own == pytest.approx(np.exp(-np.array(squares)) / np.exp(-np.array(squares)).sum())


@pytest.mark.parametrize("probe", [probes.KNNProbe(), probes.SimpleShot()])
def test_units_and_origin_of_the_embeddings_do_not_matter(rows, probe):
    X, y, asked = rows
    plain = probe.fit(X, y).predict_proba(asked)
    moved = probe.fit(1e3 * X - 40, y).predict_proba(1e3 * asked - 40)
    assert np.allclose(plain, moved)


@pytest.mark.parametrize("probe", [probes.KNNProbe(), probes.SimpleShot()])
def test_a_row_at_the_training_mean_has_no_direction_and_no_nan(probe):
    X = np.array([[0.0, 1.0], [0.0, -1.0], [2.0, 0.0], [-2.0, 0.0]])
    shares = probe.fit(X, [0, 1, 0, 1]).predict_proba([[0.0, 0.0]])
    assert np.isfinite(shares).all()


@pytest.mark.parametrize("probe", [probes.KNNProbe(), probes.SimpleShot()], ids=["knn", "shot"])
def test_companions_pass_the_checks_of_scikit_learn(probe):
    done = check_estimator(probe, on_skip=None)
    assert {each["check_name"] for each in done if each["status"] != "passed"} <= {
        "check_array_api_input"
    }


def test_with_fewer_rows_than_neighbours_all_vote():
    probe = probes.KNNProbe().fit([[0.0, 1], [1, 0], [3, 3]], ["a", "b", "b"])
    assert probe.n_neighbors_ == 3
    assert probe.predict_proba([[9.0, 9]])[0].tolist() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize("probe", [probes.KNNProbe(), probes.SimpleShot()])
def test_one_class_is_refused(probe):
    with pytest.raises(OneClassError, match="all 2 training labels are 'a', which is 1 class"):
        probe.fit([[0.0], [1.0]], ["a", "a"])


def test_no_neighbours_are_refused():
    with pytest.raises(ProbesError, match="n_neighbors=0 lets no one vote"):
        probes.KNNProbe(0).fit([[0.0], [1.0]], ["a", "b"])


@pytest.mark.parametrize(
    ("name", "alone"), [("knn", probes.KNNProbe(5)), ("simpleshot", probes.SimpleShot())]
)
def test_curves_and_matrices_take_companions_on_the_same_splits(
    name, alone, make_table, make_source
):
    table = make_table()
    source = make_source(table, signal=0.7)
    splits = probes.monte_carlo(table, repeats=2, train=(0.1, 1.0))
    settings = {"n_neighbors": 5} if name == "knn" else {}
    frame = probes.learning_curve(source, table, splits, probe=name, **settings).to_frame()
    linear = probes.learning_curve(source, table, splits, objective="l2").to_frame()
    assert frame["split"].tolist() == linear["split"].tolist()
    assert set(frame["model"]) == {f"({name})"}
    assert frame["converged"].all()
    for split, value in zip(splits, frame["value"], strict=True):
        alone.fit(source.read(split.train), table.labels_of(split.train))
        assert value == pytest.approx(probes.evaluate(alone, source, table, split).auroc)
    clear = make_source(table, signal=1.5)
    matrix = probes.cross_domain(clear, table, repeats=2, probe=name, **settings)
    assert matrix.matrix().to_numpy().min() > 0.9


def test_an_unknown_probe_is_refused_and_the_known_are_named(make_table, make_source):
    table = make_table()
    source = make_source(table)
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    with pytest.raises(
        ProbesError, match="probe='svm' is unknown; use one of 'logistic', 'knn', 'simpleshot'"
    ):
        fit_probes("svm", InMemory.of(source, splits), table, splits)
