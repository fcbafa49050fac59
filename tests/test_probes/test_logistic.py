import pickle
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import probes
from probes.errors import CollapsedProbeWarning, OneClassError, ProbesError
from probes.logistic import fit_splits
from probes.protocols import InMemory


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


# ---- scikit-learn's own checks

SOLVED_TO_TOL = "the check asks for 1e-7 in each logit, and tol=1e-8 is of the objective"
COLLAPSES = "at the published C the check's few dimensions collapse, so it predicts one class"
EXPECTED = {
    "l2": {"check_sample_weight_equivalence_on_dense_data": SOLVED_TO_TOL},
    "uni": {"check_sample_weight_equivalence_on_dense_data": SOLVED_TO_TOL},
    "default": {
        "check_classifiers_train": COLLAPSES,
        "check_non_transformer_estimators_n_iter": "a collapse is seen before any iteration",
    },
}
PROBES = {
    "l2": probes.LogisticProbe("l2"),
    "uni": probes.LogisticProbe("uni", C=1e3),
    "default": probes.LogisticProbe(),
}


@pytest.mark.filterwarnings("ignore::probes.errors.CollapsedProbeWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", PROBES)
def test_a_probe_passes_the_checks_of_scikit_learn_apart_from_these(name):
    done = check_estimator(
        PROBES[name], expected_failed_checks=EXPECTED[name], on_skip=None, on_fail=None
    )
    failed = {each["check_name"]: each["exception"] for each in done if each["status"] == "failed"}
    assert not failed
    skipped = {each["check_name"] for each in done if each["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # only with SCIPY_ARRAY_API in the environment
    assert len(done) > 50


def test_a_probe_can_be_cloned_and_cross_validated_with_all_its_parameters(data):
    probe = probes.LogisticProbe(
        "l2", C=0.5, max_iter=500, standardize=True, class_weight={"a": 2.0}, solver="sklearn"
    )
    assert clone(probe).get_params() == probe.get_params()
    result = cross_validate(probe, *data, scoring="roc_auc", return_estimator=True)
    assert result["test_score"].mean() > 0.75
    assert all(each.converged_ for each in result["estimator"])


# ---- what the parameters mean


def test_C_uni_is_the_published_strength_for_either_objective(data):
    for objective in ("uni", "l2"):
        assert probes.LogisticProbe(objective, C="uni", max_iter=5000).fit(*wide()).C_ == 2.4
    with pytest.raises(ProbesError, match="C='strong' is unknown; give a number, a grid of them"):
        probes.LogisticProbe(C="strong").fit(*data)


def wide():
    """Rows in which two classes are far apart in the first of 120 dimensions."""
    X = np.random.default_rng(3).normal(size=(80, 120))
    X[::2, 0] += 4
    return X, np.tile(["b", "a"], 40)


def test_standardizing_is_a_scaler_in_front_with_weights_of_the_raw_features(data):
    X, y = data[0] * np.logspace(-3, 3, 12) + 5, data[1]
    X[:, 4] = 2.0  # a feature that says nothing
    probe = probes.LogisticProbe("l2", C=0.3, standardize=True).fit(X, y)
    model = LogisticRegression(C=0.3, solver="newton-cholesky", tol=1e-12)
    same = make_pipeline(StandardScaler(), model).fit(X, y)
    assert np.allclose(probe.decision_function(X), same.decision_function(X), atol=1e-5)
    assert np.allclose(X @ probe.coef_[0] + probe.intercept_, probe.decision_function(X))


@pytest.mark.parametrize("class_weight", ["balanced", {"a": 3.0, "b": 0.5}, {"b": 4.0}])
def test_class_weights_are_those_of_scikit_learn(data, class_weight):
    X, y = data[0].astype(float)[40:], np.sort(data[1])[40:]  # uneven
    probe = probes.LogisticProbe("l2", C=0.3, class_weight=class_weight).fit(X, y)
    same = LogisticRegression(C=0.3, class_weight=class_weight, tol=1e-12, solver="newton-cholesky")
    assert np.allclose(probe.coef_, same.fit(X, y).coef_, atol=1e-5)


def test_balancing_looks_at_the_rows_of_each_split_alone(make_table, make_source):
    table = make_table(share=0.2)
    source = make_source(table)
    splits = probes.monte_carlo(table, repeats=2, train=(0.2, 1.0))
    settings = {"objective": "l2", "class_weight": "balanced"}
    together = fit_splits(InMemory.of(source, splits), table, splits, **settings)
    for probe, split in zip(together, splits, strict=True):
        X, y = source.read(split.train), table.labels_of(split.train)
        assert np.allclose(probe.coef_, probes.LogisticProbe(**settings).fit(X, y).coef_, atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"class_weight": {"c": 1}},
            "class_weight names 'c', which no label is; there are 'a', 'b'",
        ),
        ({"class_weight": "even"}, "class_weight='even' is unknown"),
        ({"select_by": "f1"}, "select_by='f1' is unknown; use one of auroc, log_loss"),
        ({"solver": "saga"}, "solver='saga' is unknown"),
        ({"class_weight": [1, 2]}, r"class_weight=\[1, 2\] is unknown"),
        ({"class_weight": {"a": "much"}}, "class_weight={'a': 'much'} holds no numbers"),
        ({"C": [[1.0, 2.0]]}, "give a number, or a grid of shape"),
        ({"C": []}, "give a number, or a grid of shape"),
        ({"C": {1.0, 2.0}}, "is unknown; give a number, a grid of them, or 'uni'"),
        ({"C": ["weak"]}, r"C=\['weak'\] is unknown; give a number, a grid of them, or 'uni'"),
        ({"C": [0.0, 1.0]}, "C=0 is no inverse strength"),
        ({"max_iter": "many"}, "max_iter=many, tol=1e-08 can end no fit"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(data, parameters, message):
    with pytest.raises(ProbesError, match=message):
        probes.LogisticProbe("l2", **parameters).fit(*data, X_val=data[0], y_val=data[1])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(300), "all 300 sample weights are zero"),
        (np.full(300, -1.0), "sample_weights reach -1; give finite weights of at least 0"),
        (np.full(300, np.nan), "sample_weights reach nan"),
        (["much"] * 300, "sample_weight holds no numbers"),
        (np.ones((300, 1)), r"sample_weight has shape \(300, 1\); give \(300,\)"),
    ],
)
def test_sample_weights_that_make_no_sense_are_refused(data, weights, message):
    with pytest.raises(ProbesError, match=message):
        probes.LogisticProbe("l2").fit(*data, sample_weight=weights)


def test_the_solver_is_the_one_asked_for(data):
    ours, theirs = (
        probes.LogisticProbe("uni", C=5.0, solver=name).fit(*data) for name in ("lbfgs", "sklearn")
    )
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-5)
    assert ours.n_iter_ != theirs.n_iter_


def test_a_tensor_is_fitted_and_scored_as_an_array_is(data):
    X, y = data
    on_numpy = probes.LogisticProbe("l2").fit(X, y)
    on_torch = probes.LogisticProbe("l2").fit(torch.from_numpy(X), y)
    assert np.allclose(on_numpy.coef_, on_torch.coef_, atol=1e-6)
    probabilities = on_torch.predict_proba(torch.from_numpy(X))
    assert np.allclose(probabilities, on_numpy.predict_proba(X), atol=1e-5)
    with pytest.raises(ProbesError, match=r"X has shape \(3, 4\); the probe takes \(n, 12\)"):
        on_torch.predict(torch.zeros(3, 4))


def reference(X):
    """Rows of a tensor as an array; what 16 bits hold, float32 holds."""
    return X.detach().float().numpy()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_of_any_precision_with_or_without_a_gradient_is_scored_as_an_array(data, dtype):
    X = torch.tensor(data[0]).to(dtype).requires_grad_()
    y = torch.tensor((data[1] == "b").astype(int))
    probe = probes.LogisticProbe("l2").fit(X, y, sample_weight=torch.ones(len(X)))
    same = probes.LogisticProbe("l2").fit(reference(X), y.numpy())
    assert np.allclose(probe.coef_, same.coef_, atol=1e-6)
    assert np.allclose(probe.predict_proba(X), same.predict_proba(reference(X)), atol=1e-6)
    assert X.requires_grad


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (torch.ones(12), r"X has shape \(12,\); give"),
        (torch.ones(3, 12, dtype=torch.int64), "X is torch.int64; give an array of floats"),
        (torch.full((3, 12), torch.nan), "not finite in 3 of 3 rows"),
        (torch.ones(3, 12, device="meta"), "on meta; give a dense one that holds values"),
        (torch.ones(0, 12), r"X has shape \(0, 12\); give"),
    ],
)
def test_a_tensor_that_cannot_be_scored_or_fitted_is_refused_in_one_line(data, X, message):
    probe = probes.LogisticProbe("l2").fit(*data)
    with pytest.raises(ProbesError, match=message):
        probe.predict_proba(X)
    with pytest.raises(ProbesError, match=message):
        probes.LogisticProbe("l2").fit(X, ["a", "b", "a"])


def test_labels_of_a_tensor_that_are_too_few_are_refused(data):
    with pytest.raises(ProbesError, match=r"y has shape \(3,\); X has 300 rows, give"):
        probes.LogisticProbe("l2").fit(torch.from_numpy(data[0]), data[1][:3])


@pytest.mark.parametrize("of", [list, lambda y: y.astype(object), lambda y: y == "b"])
def test_labels_may_be_lists_objects_truth_values_and_texts_of_any_length(data, of):
    X, y = data
    expected = probes.LogisticProbe("l2").fit(X, y)
    found = probes.LogisticProbe("l2").fit(X, of(y))
    assert np.array_equal(found.coef_, expected.coef_)
    variable = probes.LogisticProbe("l2").fit(X, y.astype(np.dtypes.StringDType()))
    assert variable.predict(X).tolist() == expected.predict(X).tolist()


@pytest.mark.parametrize("way", ["memory map", "columns first", "float16", "integers", "strided"])
def test_rows_may_lie_in_any_way(data, way, tmp_path):
    X, y = np.round(4 * data[0]), data[1]
    np.save(tmp_path / "rows.npy", X)
    rows = {
        "memory map": np.load(tmp_path / "rows.npy", mmap_mode="r"),
        "columns first": np.asfortranarray(X),
        "float16": X.astype(np.float16),
        "integers": X.astype(int),
        "strided": np.repeat(X, 2, axis=1)[:, ::2],
    }[way]
    expected = probes.LogisticProbe("l2").fit(X, y)
    found = probes.LogisticProbe("l2").fit(rows, y)
    assert np.allclose(found.coef_, expected.coef_, atol=1e-6)
    assert np.allclose(found.predict_proba(rows), expected.predict_proba(X), atol=1e-6)


def test_a_probe_can_be_pickled_and_fitted_beside_another(data):
    probe = probes.LogisticProbe("l2", C=0.3).fit(*data)
    again = pickle.loads(pickle.dumps(probe))
    assert np.array_equal(again.predict_proba(data[0]), probe.predict_proba(data[0]))
    one, other = joblib.Parallel(2, prefer="threads")(
        joblib.delayed(probes.LogisticProbe("l2", C=C).fit)(*data) for C in (0.3, 3.0)
    )
    assert np.array_equal(one.coef_, probe.coef_)
    assert not np.array_equal(other.coef_, probe.coef_)


def test_standardising_leaves_a_constant_feature_without_weight(data):
    X = np.hstack([data[0].astype(float), np.full((300, 1), 1 / 3)])
    probe = probes.LogisticProbe("l2", C=1e6, standardize=True).fit(X, data[1])
    assert np.abs(probe.coef_[0, -1]) < 1e-9
    for rows, message in (
        (1e200 * X, "the largest value of X is"),
        (torch.tensor(X), "standardize=True takes NumPy arrays"),
    ):
        with pytest.raises(ProbesError, match=message):
            probes.LogisticProbe("l2", standardize=True).fit(rows, data[1])
    grid = probes.LogisticProbe("l2", C=[1.0, 2.0], standardize=True)
    with pytest.raises(ProbesError, match="standardize=True takes NumPy arrays"):
        grid.fit(*data, X_val=torch.tensor(data[0]), y_val=data[1])


def test_no_splits_are_no_probes(make_table, make_source):
    table = make_table()
    assert fit_splits(make_source(table), table, []) == []


# ---- which encoder a probe is for


class Named:
    """Embeddings that say what made them."""

    def __init__(self, rows, digest):
        self.ids, self.read, self.model, self.digest = rows.ids, rows.read, "virchow", digest


def test_a_probe_refuses_embeddings_of_another_encoder(make_table, make_source, tmp_path):
    table = make_table()
    rows = make_source(table)
    split = probes.monte_carlo(table, repeats=1, train=[1.0])[0]
    probe = probes.LogisticProbe("l2").fit_source(Named(rows, "sha256:one"), table, split)
    probe.save(tmp_path / "probe.npz")
    for each in (probe, probes.LogisticProbe.load(tmp_path / "probe.npz")):
        assert each.encoder_digest_ == "sha256:one"
        assert each.score_source(Named(rows, "sha256:one"), table, split).auroc > 0.9
        with pytest.raises(
            ProbesError, match="embeddings of sha256:one, those of virchow are of sha256:two"
        ):
            each.score_source(Named(rows, "sha256:two"), table, split)
        each.check_source(rows)  # which do not say what made them
    unknown = probes.LogisticProbe("l2").fit(rows.values, table.labels)
    assert unknown.encoder_digest_ == ""
    unknown.check_source(Named(rows, "sha256:two"))


def test_probes_of_splits_remember_the_encoder(make_table, make_source):
    table = make_table()
    rows = make_source(table)
    splits = probes.monte_carlo(table, repeats=2, train=[1.0])
    named = SimpleNamespace(ids=rows.ids, values=rows.values, digest="sha256:one")
    for given_digest, expected in ((None, "sha256:one"), ("sha256:two", "sha256:two")):
        fitted = fit_splits(named, table, splits, objective="l2", digest=given_digest)
        assert [probe.encoder_digest_ for probe in fitted] == [expected, expected]
