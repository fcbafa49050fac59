"""What C stands for, and how validation chooses one of a grid."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

import probes
from probes.errors import ProbesError, SplitError
from probes.logistic import fit_splits
from probes.protocols import InMemory
from probes.strengths import default_C


def test_the_published_strength_is_dimensions_times_classes_over_100():
    assert default_C("uni", 1_536, 2) == 30.72
    assert default_C("uni", 2_560, 3) == 76.8
    with pytest.raises(ProbesError, match="objective='l1' is unknown; give 'uni' or 'l2'"):
        default_C("l1", 10, 2)


GRID = [1e-4, 1e-2, 1.0, 100.0]


@pytest.mark.parametrize("select_by", ["auroc", "log_loss"])
@pytest.mark.parametrize("standardize", [False, True])
def test_of_a_grid_validation_chooses_what_fitting_each_value_alone_would(
    data, select_by, standardize
):
    X, y = data[0][:60] * np.float32(3), data[1][:60]
    X_val, y_val = data[0][60:] * np.float32(3), data[1][60:]
    probe = probes.LogisticProbe("l2", C=GRID, select_by=select_by, standardize=standardize)
    probe.fit(X, y, X_val=X_val, y_val=y_val)
    alone = [probes.LogisticProbe("l2", C=C, standardize=standardize).fit(X, y) for C in GRID]
    shares = [each.predict_proba(X_val)[:, 1] for each in alone]
    aurocs = [roc_auc_score(y_val, share) for share in shares]
    losses = [log_loss(y_val, share) for share in shares]
    assert np.allclose(probe.path_["auroc"], aurocs, atol=1e-4)
    assert np.allclose(probe.path_["log_loss"], losses, atol=1e-5)
    best = np.argmax(probe.path_["auroc"]) if select_by == "auroc" else np.argmin(losses)
    assert GRID[best] == probe.C_
    assert np.allclose(probe.coef_, alone[best].coef_, atol=1e-5)
    assert probe.path_["C"].tolist() == GRID
    assert (np.diff(probe.path_["weight_norm"]) > 0).all()


def test_where_validation_holds_one_class_the_log_loss_chooses(data):
    X, y = data
    only = y == "a"
    probe = probes.LogisticProbe("l2", C=GRID).fit(X, y, X_val=X[only], y_val=y[only])
    assert np.isnan(probe.path_["auroc"]).all()
    assert GRID[np.argmin(probe.path_["log_loss"])] == probe.C_


def test_of_values_that_rank_alike_the_least_log_loss_is_taken():
    X = np.array([[0.0], [1.0], [2.0], [3.0]])  # any weight above 0 ranks one feature alike
    probe = probes.LogisticProbe("l2", C=[1.0, 100.0, 0.01])
    probe.fit(X, [0, 0, 1, 1], X_val=X, y_val=[0, 0, 1, 1])
    assert probe.path_["auroc"].tolist() == [1.0, 1.0, 1.0]
    assert probe.C_ == 100.0


def test_a_grid_without_validation_is_refused_and_a_fit_without_a_grid_forgets_the_path(data):
    X, y = data
    probe = probes.LogisticProbe("l2", C=GRID)
    with pytest.raises(ProbesError, match="a grid of 4 values and there is nothing to choose by"):
        probe.fit(X, y)
    with pytest.raises(ProbesError, match="y_val holds 'c', which no training label is"):
        probe.fit(X, y, X_val=X[:2], y_val=["a", "c"])
    probe.fit(X, y, X_val=X, y_val=y).set_params(C=1.0).fit(X, y)
    assert not hasattr(probe, "path_")


def test_splits_choose_on_their_own_validation_parts(make_table, make_source):
    table = make_table()
    source = make_source(table, signal=0.5)
    splits = probes.monte_carlo(table, repeats=2, train=(0.2, 1.0))
    together = fit_splits(InMemory.of(source, splits), table, splits, objective="l2", C=GRID)
    for probe, split in zip(together, splits, strict=True):
        alone = probes.LogisticProbe("l2", C=GRID).fit_source(source, table, split)
        assert probe.C_ == alone.C_
        assert np.allclose(probe.coef_, alone.coef_, atol=1e-5)
    bare = probes.monte_carlo(table, repeats=1, val=0, train=[1.0])
    with pytest.raises(SplitError, match="validation part of repeat 0, size 1 is empty"):
        fit_splits(InMemory.of(source, bare), table, bare, C=GRID)


def test_a_value_that_is_named_twice_counts_once(data):
    X, y = data
    plain = probes.LogisticProbe("l2", C=GRID).fit(X, y, X_val=X, y_val=y)
    double = probes.LogisticProbe("l2", C=[*GRID, *GRID]).fit(X, y, X_val=X, y_val=y)
    assert double.C_ == plain.C_
    assert np.allclose(double.coef_, plain.coef_, atol=1e-6)
