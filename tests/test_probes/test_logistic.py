import io
import json
import pickle
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import probes
from probes import probefile
from probes.errors import CollapsedProbeWarning, OneClassError, ProbesError, SplitError
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
        ({"C": [[1.0, 2.0]]}, "give a number, or a grid of shape"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(data, parameters, message):
    with pytest.raises(ProbesError, match=message):
        probes.LogisticProbe("l2", **parameters).fit(*data, X_val=data[0], y_val=data[1])


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


# ---- a grid of C


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


# ---- saving


LABELS = {
    "texts": ["mitotic figure", "look-alike", "Ähnliches"],
    "numbers": [3, 1, 2],
    "truths": [True, False],
    "floats": [1.0, 2.0],
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("as_objects", [False, True])
def test_a_saved_probe_is_the_same_probe(kind, as_objects, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 5))
    y = np.array(LABELS[kind], dtype=object if as_objects else None)
    y = y[np.arange(90) % len(y)]
    if as_objects and kind != "texts":
        y = y.astype(type(LABELS[kind][0]))
    probe = probes.LogisticProbe(
        "l2", C=[0.1, 1.0], standardize=True, class_weight={LABELS[kind][0]: 2.0}, max_iter=300
    )
    probe.fit(X, y, X_val=X, y_val=y)
    probe.save(tmp_path / "probe.npz")
    loaded = probes.LogisticProbe.load(tmp_path / "probe.npz")
    assert loaded.get_params() == probe.get_params()
    assert np.array_equal(loaded.predict_proba(X), probe.predict_proba(X))
    assert loaded.predict(X).tolist() == probe.predict(X).tolist()
    for name in ("C_", "objective_", "n_iter_", "converged_", "collapsed_", "n_features_in_"):
        assert getattr(loaded, name) == getattr(probe, name)


def test_a_saved_probe_can_be_read_with_numpy_alone_and_says_what_wrote_it(data, tmp_path):
    probe = probes.LogisticProbe("l2").fit(*data)
    probe.save(tmp_path / "probe.npz")
    with np.load(tmp_path / "probe.npz", allow_pickle=False) as file:
        metadata = json.loads(file["metadata"].tobytes())
        assert np.array_equal(file["coef"], probe.coef_)
        assert file["classes"].tolist() == ["a", "b"]
    assert metadata["format"] == "featstore-probes linear probe"
    assert set(metadata["versions"]) == {"featstore-probes", "numpy", "scikit-learn"}
    assert [path.name for path in tmp_path.iterdir()] == ["probe.npz"]


def test_a_probe_that_cannot_be_written_leaves_what_was_there(data, tmp_path):
    (tmp_path / "probe.npz").write_text("older")
    probe = probes.LogisticProbe("l2").fit(*data)
    probe.coef_ = probe.coef_.astype(object)  # which only a pickle could hold
    with pytest.raises(ValueError, match="allow_pickle=False"):
        probe.save(tmp_path / "probe.npz")
    assert (tmp_path / "probe.npz").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["probe.npz"]


@pytest.fixture
def saved(data, tmp_path):
    """Arrays and metadata of a saved probe, and how to write others."""
    path = tmp_path / "probe.npz"
    probes.LogisticProbe("l2").fit(*data).save(path)
    arrays, metadata = probefile.read(path)

    def write(*, without=(), more=None, **changes):
        text = metadata | {name: changes.pop(name) for name in set(metadata) & set(changes)}
        parts = arrays | {"metadata": np.frombuffer(json.dumps(text).encode(), np.uint8)}
        parts = {name: part for name, part in (parts | changes).items() if name not in without}
        np.savez(path, **parts, **(more or {}))
        return path

    return write


def test_a_probe_that_was_not_changed_is_read(saved):
    assert probes.LogisticProbe.load(saved()).C_ == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": np.array(["a", object()], dtype=object)}, "is of type object"),
        ({"coef": np.zeros((1, 12), complex)}, "coef.npy is of type complex128"),
        ({"coef": np.zeros((2, 12))}, "do not fit each other"),
        ({"coef": np.full((1, 12), np.nan)}, "weights that are not finite"),
        ({"classes": np.array(["b", "a"])}, "do not fit each other"),
        ({"classes": np.array("ab")}, "do not fit each other"),
        ({"without": ["coef"]}, "it holds .*, not"),
        ({"more": {"extra": np.zeros(3)}}, "it holds .*, not"),
        ({"format": "another"}, "its metadata do not say 'featstore-probes linear probe'"),
        ({"format_version": 2}, "a saved probe of format 2, this version reads 1"),
        ({"parameters": {"C": 1.0, "run": "rm"}}, "its metadata are not those of a probe"),
        ({"parameters": [1]}, "its metadata are not those of a probe"),
        ({"C": "1"}, "its metadata are not those of a probe"),
        ({"encoder_digest": None}, "its metadata are not those of a probe"),
        ({"parameters": {"class_weight": [["a"], 3]}}, "class_weight is"),
        ({"metadata": np.frombuffer(b"{", np.uint8)}, "no saved probe, or a damaged one"),
    ],
)
def test_a_file_that_is_no_saved_probe_is_refused_in_one_line(saved, changes, message):
    path = saved(**changes)
    with pytest.raises(ProbesError, match=message) as raised:
        probes.LogisticProbe.load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_no_pickle_is_ever_run(saved, tmp_path):
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ProbesError, match="no saved probe"):
        probes.LogisticProbe.load(tmp_path / "pickle.npz")
    with pytest.raises(ProbesError, match="is of type object"):
        probes.LogisticProbe.load(saved(coef=np.array([Trap()], dtype=object)))


def member(shape, values=b""):
    """A .npy file that claims a shape."""
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + values


def test_no_memory_is_taken_for_what_a_file_only_claims(saved):
    path = saved()
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    for coef, message in (
        (member((2**40, 12)), "claims a shape"),
        (member((1, 12), bytes(12 * 8 + 1)), "claims a shape"),
        (bytes(probefile.MOST_BYTES), "unpacks to more than 256 MiB"),
    ):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in (members | {"coef.npy": coef}).items():
                file.writestr(name, content)
        with pytest.raises(ProbesError, match=message):
            probes.LogisticProbe.load(path)


@example(place=430, change=4)  # a member that ends too early
@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_probe_file_with_any_byte_changed_is_refused_or_the_same(tmp_path_factory, place, change):
    X = np.arange(12.0).reshape(6, 2) % 5
    path = tmp_path_factory.mktemp("probe") / "probe.npz"
    probe = probes.LogisticProbe("l2").fit(X, [0, 0, 0, 1, 1, 1])
    probe.save(path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(content)
    try:
        loaded = probes.LogisticProbe.load(path)
    except ProbesError:
        return
    assert np.array_equal(loaded.coef_, probe.coef_)
    assert loaded.get_params() == probe.get_params()
