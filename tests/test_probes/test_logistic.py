import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import probes
from probes.errors import CollapsedProbeWarning, OneClassError, ProbesError
from probes.logistic import default_C, fit_splits
from probes.protocols import InMemory


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 12)).astype(np.float32)
    y = np.where(X[:, 0] + 0.5 * X[:, 1] + rng.normal(size=300) > 0, "b", "a")
    return X, y


def test_the_published_strength_is_dimensions_times_classes_over_100():
    assert default_C("uni", 1_536, 2) == 30.72
    assert default_C("uni", 2_560, 3) == 76.8
    with pytest.raises(ProbesError, match="objective='l1' is unknown; give 'uni' or 'l2'"):
        default_C("l1", 10, 2)


def test_uni_reaches_the_published_loss_written_out_with_its_norm_not_squared(data):
    """At the optimum of the literal loss no small step helps."""
    X, y = data[0].astype(float), (data[1] == "b").astype(int)

    def loss(W, b):
        logits = X @ W.T + b
        logits -= logits.max(axis=1, keepdims=True)
        cross_entropy = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
        return cross_entropy.mean() + 0.5 / C * np.linalg.norm(W)

    probe = probes.LogisticProbe(objective="uni", C=5.0).fit(*data)
    C = probe.C_
    W = np.vstack([-probe.coef_[0] / 2, probe.coef_[0] / 2])
    b = np.array([-probe.intercept_[0] / 2, probe.intercept_[0] / 2])
    least = loss(W, b)
    assert probe.objective_ == pytest.approx(least, rel=1e-9)
    rng = np.random.default_rng(1)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            step = rng.normal(size=(2, 13)) * size
            assert loss(W + step[:, :-1], b + step[:, -1]) >= least


def test_uni_is_scikit_learn_at_its_own_fixed_point(data):
    """C_sk = 4 C norm(W) / n (protocol.md); any other C is another model."""
    X, y = data
    probe = probes.LogisticProbe(objective="uni", C=5.0).fit(X, y)
    norm_of_W = np.linalg.norm(probe.coef_) / np.sqrt(2)
    same = LogisticRegression(C=4 * 5.0 * norm_of_W / len(X), solver="newton-cholesky", tol=1e-12)
    same.fit(X.astype(float), y)
    assert np.allclose(probe.coef_, same.coef_, atol=1e-5)
    assert np.allclose(probe.intercept_, same.intercept_, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_l2_is_scikit_learns_logistic_regression(data, n_classes):
    X = data[0]
    y = np.digitize(X[:, 0] + X[:, 1], [0.0] if n_classes == 2 else [-1.0, 0.0, 1.0])
    probe = probes.LogisticProbe(objective="l2", C=0.3).fit(X, y)
    same = LogisticRegression(C=0.3, solver="newton-cholesky", tol=1e-12).fit(X.astype(float), y)
    assert np.allclose(probe.coef_, same.coef_, atol=1e-5)
    assert np.allclose(probe.predict_proba(X), same.predict_proba(X), atol=1e-5)
    assert probe.predict(X).tolist() == same.predict(X).tolist()
    assert probe.converged_


def test_sample_weights_count_as_repeated_rows(data):
    X, y = data
    counts = np.random.default_rng(2).integers(0, 3, len(X))
    weighted = probes.LogisticProbe("l2").fit(X, y, sample_weight=counts)
    repeated = probes.LogisticProbe("l2").fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    assert np.allclose(weighted.coef_, repeated.coef_, atol=1e-5)


def test_a_probe_works_in_pipelines_and_cross_validation(data):
    X, y = data
    scores = cross_val_score(
        make_pipeline(StandardScaler(), probes.LogisticProbe("l2")), X, y, scoring="roc_auc"
    )
    assert scores.mean() > 0.75


def test_one_class_is_refused(data):
    with pytest.raises(OneClassError, match="all 300 training labels are 'a'"):
        probes.LogisticProbe().fit(data[0], ["a"] * 300)


def test_a_probe_that_collapses_says_so_and_predicts_the_same_for_all(data):
    X, y = data
    with pytest.warns(CollapsedProbeWarning, match="1 of 1 probes collapsed: at C = 0.1"):
        probe = probes.LogisticProbe("uni", C=0.1).fit(X, y)
    assert probe.collapsed_
    assert not probe.coef_.any()
    assert np.ptp(probe.predict_proba(X), axis=0).max() == 0
    assert probe.predict_proba(X)[0, 1] == pytest.approx(np.mean(y == "b"))


def test_a_probe_that_did_not_converge_says_so(data):
    with pytest.warns(ConvergenceWarning, match="1 of 1 probes did not converge in 1 iterations"):
        probe = probes.LogisticProbe("l2", C=1e4, max_iter=1).fit(*data)
    assert not probe.converged_


def test_fitting_all_splits_together_equals_fitting_each_alone(make_table, make_source):
    table = make_table()
    source = make_source(table)
    splits = probes.monte_carlo(table, repeats=2, train=(0.1, 1.0))
    together = fit_splits(InMemory.of(source, splits), table, splits, C=5.0)
    for probe, split in zip(together, splits, strict=True):
        alone = probes.LogisticProbe(C=5.0).fit(
            source.read(split.train), table.labels_of(split.train)
        )
        assert np.allclose(probe.coef_, alone.coef_, atol=1e-5)
        assert probe.C_ == alone.C_
