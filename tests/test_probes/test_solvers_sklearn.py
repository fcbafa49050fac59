"""scikit-learn behind the same entry as our solver: two implementations against each other."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from probes.errors import ProbesError
from probes.solvers import SOLVERS, solve

Cs = {"l2": np.array([0.01, 1.0, 30.0]), "uni": np.array([3.0, 30.0, 300.0])}


def draw(n=150, dim=6, n_classes=2, *, scale=7.0, seed=0):
    """Rows off the origin, of any unit, whose classes follow a direction, and uneven weights."""
    rng = np.random.default_rng(seed)
    X = scale * (rng.standard_normal((n, dim)) / np.sqrt(1 + np.arange(dim)) + 0.3)
    scores = X / scale @ rng.standard_normal((dim, n_classes))
    codes = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)
    codes[:n_classes] = np.arange(n_classes)
    sample_weights = rng.uniform(0.2, 3, (n, 3))
    sample_weights[n // 2 :, 1] = 0
    return X, codes, sample_weights


def both(X, codes, sample_weights, **settings):
    return (
        solve(X, codes, sample_weights, solver=name, **settings) for name in ("lbfgs", "sklearn")
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("objective", ["uni", "l2"])
@pytest.mark.parametrize(("n", "dim"), [(150, 6), (40, 100)])
def test_scikit_learn_and_our_solver_find_one_optimum(n, dim, objective, n_classes, scale):
    X, codes, weights = draw(n, dim, n_classes, scale=scale)
    C = Cs[objective] / scale ** (2 if objective == "l2" else 1)
    ours, theirs = both(X, codes, weights, n_classes=n_classes, objective=objective, C=C)
    assert theirs.converged.all()
    np.testing.assert_allclose(theirs.objective, ours.objective, rtol=1e-10)
    largest = np.abs(ours.weights).max()
    np.testing.assert_allclose(theirs.weights, ours.weights, atol=1e-5 * largest)
    np.testing.assert_allclose(theirs.intercepts, ours.intercepts, atol=1e-4)
    np.testing.assert_allclose(theirs.weight_norm, ours.weight_norm, rtol=1e-5)
    assert theirs.gradient_norm.max() < 1e-8 * scale
    assert (theirs.n_iter > 0).all()
    assert not theirs.collapsed.any()


@pytest.mark.parametrize(("n_classes", "factor"), [(2, 4), (3, 2)])
def test_the_strength_of_uni_is_the_fixed_point_in_the_norm_of_the_weights(n_classes, factor):
    """C_sk = 4 C norm(W) / n (protocol.md), with sample weights in place of n; 2 for softmax."""
    X, codes, weights = draw(n_classes=n_classes)
    w = weights[:, 0]
    found = solve(X, codes, w[:, None], n_classes=n_classes, C=20.0, solver="sklearn")
    C_sk = factor * 20.0 * found.weight_norm[0] / w.sum()
    same = LogisticRegression(C=C_sk, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    same.fit(X, codes, sample_weight=w)
    np.testing.assert_allclose(found.weights[0], same.coef_, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("objective", ["uni", "l2"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_what_is_reported_is_computed_from_the_weights(objective, n_classes):
    X, codes, weights = draw(n_classes=n_classes)
    w, C = weights[:, 0], 5.0
    found = solve(
        X, codes, w[:, None], n_classes=n_classes, objective=objective, C=C, solver="sklearn"
    )
    W, b = found.weights[0], found.intercepts[0]
    if n_classes == 2:
        W, b = np.vstack([-W, W]) / 2, np.append(-b, b) / 2
    scores = X @ W.T + b
    losses = logsumexp(scores, axis=1) - scores[np.arange(len(X)), codes]
    if objective == "uni":
        expected = w @ losses / w.sum() + 0.5 * np.linalg.norm(W) / C
    else:
        expected = C * w @ losses + 0.5 * np.sum(found.weights**2)
    assert found.objective[0] == pytest.approx(expected, rel=1e-12)
    assert found.weight_norm[0] == pytest.approx(np.linalg.norm(W), rel=1e-12)


@pytest.mark.parametrize("above", [0.999, 1.001, 1.1])
def test_a_collapse_is_seen_before_any_fit_and_near_it_the_fixed_point_is_found(above):
    """Exactly where sqrt(2) * pi0 * pi1 * norm(mu1 - mu0) <= 0.5 / C (protocol.md)."""
    X, codes, _ = draw()
    shares = np.mean(codes == 0) * np.mean(codes == 1)
    apart = np.linalg.norm(X[codes == 1].mean(axis=0) - X[codes == 0].mean(axis=0))
    C = above * 0.5 / (np.sqrt(2) * shares * apart)
    ours, theirs = both(X, codes, np.ones((150, 1)), n_classes=2, C=C)
    assert theirs.collapsed[0] == ours.collapsed[0] == (above < 1)
    assert theirs.converged[0]
    assert theirs.objective[0] == pytest.approx(ours.objective[0], rel=1e-12)
    if above < 1:
        assert not theirs.weights.any()
        assert theirs.n_iter[0] == theirs.gradient_norm[0] == 0
        assert theirs.intercepts[0, 0] == pytest.approx(np.log(codes.mean() / (1 - codes.mean())))


@pytest.mark.parametrize("objective", ["uni", "l2"])
def test_a_class_without_rows_in_a_fit_gets_no_weights_and_hardly_any_probability(objective):
    X, codes, weights = draw(n_classes=3)
    weights[codes == 1, 0] = 0
    ours, theirs = both(X, codes, weights, n_classes=3, objective=objective, C=10.0)
    np.testing.assert_allclose(theirs.weights, ours.weights, atol=1e-5)
    np.testing.assert_allclose(theirs.objective, ours.objective, rtol=1e-9)
    assert not theirs.weights[0, 1].any()
    scores = X @ theirs.weights[0].T + theirs.intercepts[0]
    assert np.exp(scores[:, 1] - logsumexp(scores, axis=1)).max() < 1e-10


@pytest.mark.parametrize("objective", ["uni", "l2"])
def test_a_fit_that_was_given_up_is_not_called_converged(objective):
    X, codes, weights = draw(scale=1.0)
    found = solve(
        X,
        codes,
        weights,
        n_classes=2,
        objective=objective,
        C=1e4,
        solver="sklearn",
        max_iter=1,
    )
    assert not found.converged.any()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_gradient_that_is_reported_is_that_of_the_objective_per_unit_of_weight(n_classes):
    """Largest entry, in the weights of centred features; of a fit that was given up it is large."""
    X, codes, _ = draw(n_classes=n_classes)
    settings = {"n_classes": n_classes, "objective": "l2", "C": 2.0, "max_iter": 1}
    found = solve(X, codes, np.ones((150, 1)), solver="sklearn", **settings)
    W, b = found.weights[0], found.intercepts[0]
    scores = X @ W.T + b
    if n_classes == 2:
        scores = np.hstack([np.zeros_like(scores), scores])
    shares = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
    residuals = (shares - (codes[:, None] == np.arange(n_classes)))[:, -len(W) :] / 150
    in_weights = residuals.T @ (X - X.mean(axis=0)) + W / (2.0 * 150)
    largest = max(np.abs(in_weights).max(), np.abs(residuals.sum(axis=0)).max())
    assert largest > 1e-3
    assert found.gradient_norm[0] == pytest.approx(largest, rel=1e-9)


@pytest.mark.parametrize("solver", ["lbfgs", "sklearn"])
def test_a_tensor_is_taken_as_it_is(solver):
    X, codes, weights = draw()
    settings = {"n_classes": 2, "objective": "l2", "C": 1.0, "solver": solver}
    on_numpy = solve(X.astype(np.float32), codes, weights, **settings)
    tensor = torch.from_numpy(X.astype(np.float32))
    there = tensor.data_ptr()
    on_torch = solve(tensor, codes, weights, **settings)
    np.testing.assert_allclose(on_torch.weights, on_numpy.weights, rtol=1e-6, atol=1e-8)
    assert tensor.data_ptr() == there
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), X.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_tensor_of_half_precision_is_taken_with_its_gradient(dtype):
    X, codes, weights = draw()
    tensor = torch.from_numpy(X).to(dtype).requires_grad_()
    settings = {"n_classes": 2, "objective": "l2", "C": 1.0, "solver": "sklearn"}
    theirs = solve(tensor, codes, weights, **settings)
    same = solve(tensor.detach().double().numpy(), codes, weights, **settings)
    np.testing.assert_allclose(theirs.weights, same.weights, rtol=1e-6, atol=1e-8)


def test_a_tensor_with_a_value_that_is_not_finite_is_refused_with_its_row():
    X, codes, weights = draw()
    X[7, 1] = np.nan
    with pytest.raises(ProbesError, match="not finite in 1 of 150 rows, the first is row 7"):
        solve(torch.from_numpy(X), codes, weights, n_classes=2, C=1.0)
    with pytest.raises(ProbesError, match=r"X is torch\.int64; give an array of floats"):
        solve(torch.zeros((150, 6), dtype=torch.int64), codes, weights, n_classes=2, C=1.0)


def test_an_unknown_solver_is_refused_and_the_known_are_named():
    X, codes, weights = draw()
    assert SOLVERS == ("lbfgs", "sklearn", "cuml")
    with pytest.raises(
        ProbesError, match="solver='saga' is unknown; use one of lbfgs, sklearn, cuml"
    ):
        solve(X, codes, weights, n_classes=2, C=1.0, solver="saga")
