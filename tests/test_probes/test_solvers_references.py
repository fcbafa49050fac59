"""Our optima against minimisers that are not ours, on rows wide and many enough for every path."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import probes
from probes.solvers import solve
from probes.solvers.rows import BLOCK_BYTES
from tests.test_probes.references import l2_optimum, uni_optimum, uni_value


def steep(n, dim, n_classes, seed=0):
    """Rows of float32 with a steep spectrum, whose classes follow many of its directions."""
    rng = np.random.default_rng(seed)
    spectrum = 10 / (1 + np.arange(dim))
    X = (rng.standard_normal((n, dim)) * spectrum + 0.5).astype(np.float32)
    scores = (X / spectrum)[:, 2:30] @ rng.standard_normal((28, n_classes)) / 4
    codes = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)
    codes[:n_classes] = np.arange(n_classes)
    return X, codes


def softmax_weights(weights, intercepts):
    """A row per class; half the direction on either side for two."""
    if len(weights) > 1:
        return weights, intercepts
    return np.vstack([-weights, weights]) / 2, np.append(-intercepts, intercepts) / 2


WIDTHS = [(2_100, 256), (120, 256)]  # passes in float32; fewer rows than features, in float64
assert BLOCK_BYTES < 8 * 2_100 * 256


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("n", "dim"), WIDTHS)
def test_uni_has_the_least_value_that_newtons_method_finds(n, dim, n_classes):
    X, codes = steep(n, dim, n_classes)
    w = np.random.default_rng(1).uniform(0.2, 3, n)
    C = 4 * dim * n_classes / 100
    ours = solve(X, codes, w[:, None], n_classes=n_classes, C=C)
    exact = X.astype(float)
    W, b = uni_optimum(exact, codes, w, C, n_classes)
    least = uni_value(W, b, exact, codes, w, C)
    assert not ours.collapsed.any()
    assert ours.converged.all()
    reached = uni_value(*softmax_weights(ours.weights[0], ours.intercepts[0]), exact, codes, w, C)
    assert ours.objective[0] == pytest.approx(reached, rel=1e-12)
    assert abs(reached - least) <= 1e-12 * least
    found = softmax_weights(ours.weights[0], ours.intercepts[0])[0]
    np.testing.assert_allclose(found, W - W.mean(axis=0), atol=1e-5 * np.abs(W).max())


@pytest.mark.parametrize("settings", [{"class_weight": "balanced"}, {"standardize": True}])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_uni_probe_with_class_weights_or_scaled_features_has_the_least_value(n_classes, settings):
    X, codes = steep(600, 80, n_classes)
    keep = (codes != 0) | (np.arange(600) < 300)  # uneven classes
    X, codes = X[keep], codes[keep]
    probe = probes.LogisticProbe(C=20.0, **settings).fit(X, codes)
    exact, w = X.astype(float), np.ones(len(X))
    if "class_weight" in settings:
        w = (len(X) / n_classes / np.bincount(codes))[codes]
    else:
        exact = StandardScaler().fit_transform(exact)
    W, b = uni_optimum(exact, codes, w, 20.0, n_classes)
    least = uni_value(W, b, exact, codes, w, 20.0)
    assert probe.converged_
    assert probe.objective_ == pytest.approx(least, rel=1e-12)
    shares = probe.predict_proba(X)
    scores = exact @ W.T + b
    expected = np.exp(scores - np.logaddexp.reduce(scores, axis=1)[:, None])
    np.testing.assert_allclose(shares, expected, atol=1e-4)


@pytest.mark.parametrize(("n", "dim"), WIDTHS)
def test_uni_is_scikit_learn_at_the_fixed_point_in_auroc_and_coefficients(n, dim):
    """C_sk = 4 C norm(W) / n, at tol 1e-12 (protocol.md)."""
    X, codes = steep(n + 2_000, dim, 2)
    rows, tested = X[:n], X[n:].astype(float)
    C = 4 * dim * 2 / 100
    ours = solve(rows, codes[:n], np.ones((n, 1)), n_classes=2, C=C)
    theirs = l2_optimum(rows.astype(float), codes[:n], None, 4 * C * ours.weight_norm[0] / n)
    largest = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.weights[0], theirs.coef_, rtol=1e-3, atol=1e-5 * largest)
    aurocs = [roc_auc_score(codes[n:], tested @ v) for v in (ours.weights[0, 0], theirs.coef_[0])]
    assert aurocs[0] == pytest.approx(aurocs[1], abs=1e-6)


# ---- l2, against scikit-learn's newton-cholesky at tol 1e-12


def case(name, n_classes):
    """Rows, codes, sample weights and C of a kind of problem."""
    n, dim = (2_100, 256) if name in ("many rows", "duplicated rows") else (700, 40)
    n, dim = {"n smaller than dim": (90, 200), "one column": (700, 1)}.get(name, (n, dim))
    X, codes = steep(n, max(dim, 40), n_classes)
    X, w, C = X[:, :dim], np.ones(n), 0.5
    if name == "class weights":
        w = np.array([3.0, 0.2, 1.0])[codes]
    if name == "constant columns":
        X[:, ::7] = 1 / np.float32(3)
    if name == "duplicated rows":
        X, codes = np.repeat(X[:700], 3, axis=0), np.repeat(codes[:700], 3)
    if name == "separable":
        codes, C = np.digitize(X[:, 0], [0.0] if n_classes == 2 else [-5.0, 5.0]), 100.0
    return X, codes, w, C


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "name",
    [
        "many rows",
        "class weights",
        "n smaller than dim",
        "constant columns",
        "one column",
        "duplicated rows",
        "separable",
    ],
)
def test_l2_is_newton_cholesky_on(name, n_classes):
    X, codes, w, C = case(name, n_classes)
    ours = solve(X, codes, w[:, None], n_classes=n_classes, objective="l2", C=C)
    theirs = l2_optimum(X.astype(float), codes, w, C)
    assert ours.converged.all()
    largest = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.weights[0], theirs.coef_, rtol=1e-5, atol=1e-6 * largest)
    found, expected = (
        b - b.mean() * (n_classes > 2) for b in (ours.intercepts[0], theirs.intercept_)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize(("n", "dim"), WIDTHS)
def test_l2_is_newton_cholesky_at_huge_and_tiny_scales(n, dim, scale, dtype):
    X, codes = steep(n, dim, 2)
    scaled = (X.astype(float) * scale).astype(dtype)
    ours = solve(scaled, codes, np.ones((n, 1)), n_classes=2, objective="l2", C=0.5 / scale**2)
    theirs = l2_optimum(scaled.astype(float) / scale, codes, None, 0.5)
    assert ours.converged.all()
    largest = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(
        ours.weights[0] * scale, theirs.coef_, rtol=1e-5, atol=1e-6 * largest
    )
    assert ours.gradient_norm[0] < 1e-7 * max(1, scale)


def test_a_standardised_l2_probe_is_a_pipeline_of_scikit_learn_on_wide_rows():
    X, codes = steep(700, 80, 3)
    X[:, 5] = 1 / 3  # constant: its mean is rounded, so its deviation is not quite 0
    probe = probes.LogisticProbe("l2", C=0.1, standardize=True).fit(X, codes)
    model = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-12)
    same = make_pipeline(StandardScaler(), model).fit(X.astype(float), codes)
    np.testing.assert_allclose(
        probe.predict_proba(X), same.predict_proba(X.astype(float)), atol=1e-5
    )
    assert np.abs(probe.coef_[:, 5]).max() < 1e-6
