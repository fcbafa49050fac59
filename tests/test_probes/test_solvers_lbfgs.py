import dataclasses
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from probes.errors import OneClassError, ProbesError
from probes.solvers import Solution, lbfgs, solve
from probes.solvers.rows import BLOCK_BYTES, Rows, scale_of
from tests.test_probes.references import l2_optimum, uni_gradient, uni_optimum, uni_value


def draw(n=120, dim=8, n_classes=2, seed=0, scale=1.0, signal=1.5):
    """Rows with a decaying spectrum, and classes that follow one direction of them."""
    rng = np.random.default_rng(seed)
    X = scale * rng.standard_normal((n, dim)) / np.sqrt(1 + np.arange(dim)) + 0.3 * scale
    scores = signal * (X / scale) @ rng.standard_normal((dim, n_classes))
    codes = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)
    codes[:n_classes] = np.arange(n_classes)
    return X, codes


def everything(codes, n_fits=1):
    return np.ones((len(codes), n_fits))


def softmax_weights(solution, fit=0):
    """Weights and intercepts with a row per class; half the direction on either side for two."""
    weights, intercepts = solution.weights[fit], solution.intercepts[fit]
    if len(weights) > 1:
        return weights, intercepts
    return np.vstack([-weights, weights]) / 2, np.append(-intercepts, intercepts) / 2


def same(left, right, rtol=1e-5):
    """Whether two solutions of the same fits are one, within what the tolerance leaves."""
    np.testing.assert_allclose(left.objective, right.objective, rtol=1e-10)
    np.testing.assert_allclose(left.weights, right.weights, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(left.intercepts, right.intercepts, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(left.collapsed, right.collapsed)


# ---- l2


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(("n", "dim"), [(150, 6), (40, 100), (90, 70), (60, 1)])
def test_l2_finds_the_coefficients_of_scikit_learn_for_every_C_and_weighting(n, dim, n_classes):
    X, codes = draw(n, dim, n_classes)
    sample_weights = np.random.default_rng(1).uniform(0.2, 3, (n, 3))
    sample_weights[n // 2 + n_classes :, 1] = 0
    Cs = np.array([0.01, 1.0, 30.0])
    ours = solve(X, codes, sample_weights, n_classes=n_classes, objective="l2", C=Cs)
    assert ours.converged.all()
    assert ours.gradient_norm.max() < 1e-7
    assert ours.weights.shape == (3, 1 if n_classes == 2 else n_classes, dim)
    for fit, C in enumerate(Cs):
        theirs = l2_optimum(X, codes, sample_weights[:, fit], C)
        np.testing.assert_allclose(ours.weights[fit], theirs.coef_, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            ours.intercepts[fit] - ours.intercepts[fit].mean() * (n_classes > 2),
            theirs.intercept_ - theirs.intercept_.mean() * (n_classes > 2),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_l2_objective_and_norm_are_those_of_the_solution(n_classes):
    X, codes = draw(n_classes=n_classes)
    w = np.random.default_rng(1).uniform(0.2, 3, len(X))
    ours = solve(X, codes, w[:, None], n_classes=n_classes, objective="l2", C=0.7)
    W, b = softmax_weights(ours)
    scores = X @ W.T + b
    entropies = logsumexp(scores, axis=1) - scores[np.arange(len(X)), codes]
    expected = 0.7 * w @ entropies + 0.5 * np.sum(ours.weights**2)
    assert ours.objective[0] == pytest.approx(expected, rel=1e-12)
    assert ours.weight_norm[0] == pytest.approx(np.linalg.norm(W), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("objective", ["uni", "l2"])
def test_separable_rows_of_any_scale_end_where_the_penalty_holds_them(objective, scale):
    X, codes = draw(60, 5)
    codes = (X[:, 0] > X[:, 0].mean()).astype(int)
    plain, scaled = (
        solve(
            factor * X,
            codes,
            everything(codes),
            n_classes=2,
            objective=objective,
            C=1e4 / factor ** (1 if objective == "uni" else 2),
        )
        for factor in (1, scale)
    )
    assert plain.converged.all()
    assert scaled.converged.all()
    assert ((X @ plain.weights[0, 0] + plain.intercepts[0] > 0) == codes).all()
    np.testing.assert_allclose(scale * scaled.weights, plain.weights, rtol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_whole_C_path_converges_on_rows_that_weak_penalties_let_a_probe_separate(n_classes):
    # Residuals go far below 1e-9 here: taken from 1, they are too coarse to balance the penalty.
    X, codes = draw(150, 300, n_classes, scale=3000)
    Cs = np.logspace(-6, 5, 12)
    ours = solve(X, codes, everything(codes, 12), n_classes=n_classes, objective="l2", C=Cs)
    assert ours.converged.all()
    assert (np.diff(ours.weight_norm) > 0).all()
    assert ours.n_iter.max() < 200


# ---- uni


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("n", "dim", "C"), [(150, 6, 3.0), (150, 6, 100.0), (30, 50, 5.0)])
def test_uni_reaches_the_least_value_of_the_objective_as_published(n, dim, C, n_classes):
    X, codes = draw(n, dim, n_classes)
    w = np.random.default_rng(1).uniform(0.2, 3, n)
    ours = solve(X, codes, w[:, None], n_classes=n_classes, C=C)
    assert ours.converged.all()
    assert not ours.collapsed.any()
    assert ours.gradient_norm.max() < 1e-8
    W, b = softmax_weights(ours)
    assert ours.objective[0] == pytest.approx(uni_value(W, b, X, codes, w, C), rel=1e-12)
    assert ours.weight_norm[0] == pytest.approx(np.linalg.norm(W), rel=1e-12)
    assert max(np.abs(g).max() for g in uni_gradient(W, b, X, codes, w, C)) < 1e-8
    least = uni_value(*uni_optimum(X, codes, w, C, n_classes), X, codes, w, C)
    assert abs(ours.objective[0] - least) <= 1e-12 * least


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [4.0, 40.0])
def test_uni_is_the_fixed_point_of_scikit_learn_at_a_C_of_its_own_norm(C, n_classes):
    X, codes = draw(n_classes=n_classes)
    ours = solve(X, codes, everything(codes), n_classes=n_classes, C=C)
    # protocol.md has the 4 of two classes, where norm(W)**2 is half of norm(v)**2; a row per
    # class lacks that half.
    factor = 4 if n_classes == 2 else 2
    theirs = l2_optimum(X, codes, None, factor * C * ours.weight_norm[0] / len(X))
    np.testing.assert_allclose(ours.weights[0], theirs.coef_, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_uni_collapses_exactly_where_the_penalty_outweighs_the_gradient_at_zero(n_classes):
    X, codes = draw(n_classes=n_classes)
    frequencies = np.bincount(codes) / len(codes)
    residuals = frequencies - np.eye(n_classes)[codes]
    at_zero = np.linalg.norm(residuals.T @ X / len(X))
    if n_classes == 2:
        apart = np.linalg.norm(X[codes == 1].mean(axis=0) - X[codes == 0].mean(axis=0))
        assert at_zero == pytest.approx(np.sqrt(2) * np.prod(frequencies) * apart)
    threshold = 0.5 / at_zero
    ours = solve(
        X,
        codes,
        everything(codes, 2),
        n_classes=n_classes,
        C=threshold * np.array([0.9999, 1.0001]),
    )
    assert ours.collapsed.tolist() == [True, False]
    assert ours.converged.all()
    assert ours.weight_norm[0] == 0
    assert not ours.weights[0].any()
    assert 0 < ours.weight_norm[1] < 0.01
    _, intercepts = softmax_weights(ours)
    np.testing.assert_allclose(np.exp(intercepts) / np.exp(intercepts).sum(), frequencies)
    assert (ours.n_iter[0], ours.gradient_norm[0]) == (0, 0)
    assert ours.objective[0] == pytest.approx(-frequencies @ np.log(frequencies))


def test_scaling_all_features_changes_a_uni_solution():
    X, codes = draw()
    plain, scaled = (
        solve(factor * X, codes, everything(codes), n_classes=2, C=4.0) for factor in (1, 3)
    )
    assert np.abs(plain.weights - 3 * scaled.weights).max() > 0.1
    tiny = solve(1e-3 * X, codes, everything(codes), n_classes=2, C=4.0)
    assert tiny.collapsed.all()


def published_scheme(X, codes, C, n_classes):
    """Full-batch torch L-BFGS, strong Wolfe, 1,000 iterations, float32, from zero."""
    model = torch.nn.Linear(X.shape[1], n_classes)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1000, line_search_fn="strong_wolfe")
    rows, targets = torch.tensor(X, dtype=torch.float32), torch.tensor(codes)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(rows), targets)
        loss = loss + 0.5 * model.weight.norm() / C
        loss.backward()
        return loss

    optimizer.step(closure)
    W, b = (part.detach().double().numpy() for part in (model.weight, model.bias))
    return uni_value(W, b, X, codes, np.ones(len(X)), C)


@pytest.mark.parametrize(("n", "dim", "n_classes"), [(100, 10, 2), (40, 64, 2), (80, 8, 3)])
def test_our_objective_is_never_above_that_of_the_published_scheme(n, dim, n_classes):
    X, codes = draw(n, dim, n_classes)
    C = 100 * dim * n_classes / 100
    ours = solve(X, codes, everything(codes), n_classes=n_classes, C=C)
    assert not ours.collapsed.any()
    assert ours.objective[0] <= published_scheme(X, codes, C, n_classes) * (1 + 1e-12)


# ---- both


def draw_awkward(n_classes):
    """Columns from 1e-3 to 1e3 in size, a constant one among them, and every row twice."""
    X, codes = draw(200, 10, n_classes)
    X = X * np.logspace(-3, 3, 10)
    X[:, 4] = 7.0
    return np.repeat(X, 2, axis=0), np.repeat(codes, 2)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_l2_is_right_on_unlike_scales_constant_columns_and_repeated_rows(n_classes):
    X, codes = draw_awkward(n_classes)
    ours = solve(X, codes, everything(codes), n_classes=n_classes, objective="l2", C=20.0)
    assert ours.converged.all()
    spreads = X.std(axis=0)
    coefficients = l2_optimum(X, codes, None, 20.0).coef_
    np.testing.assert_allclose(ours.weights[0] * spreads, coefficients * spreads, atol=1e-6)
    np.testing.assert_allclose(ours.weights[..., 4], 0, atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_uni_is_right_on_unlike_scales_constant_columns_and_repeated_rows(n_classes):
    X, codes = draw_awkward(n_classes)
    ours = solve(X, codes, everything(codes), n_classes=n_classes, C=20.0)
    assert ours.converged.all()
    W, b = softmax_weights(ours)
    centre = X.mean(axis=0)
    ones = np.ones(len(X))
    weights, intercepts = uni_gradient(W, b + W @ centre, X - centre, codes, ones, 20.0)
    assert np.abs(weights / np.maximum(X.std(axis=0), 1)).max() < 1e-8
    assert np.abs(intercepts).max() < 1e-8
    assert W.any()


def test_a_class_without_rows_in_a_fit_is_given_no_probability():
    X, codes = draw(n_classes=3)
    sample_weights = (codes != 2)[:, None].astype(float)
    ours = solve(X, codes, sample_weights, n_classes=3, C=40.0)
    assert ours.converged.all()
    scores = X[codes != 2] @ ours.weights[0].T + ours.intercepts[0]
    assert np.exp(scores[:, 2] - logsumexp(scores, axis=1)).max() < 1e-9


@pytest.mark.parametrize("objective", ["uni", "l2"])
@pytest.mark.parametrize("n_present", [2, 3])
def test_classes_without_rows_do_not_disturb_those_that_have_some(n_present, objective):
    X, few = draw(n_classes=n_present)
    codes = np.array([1, 6, 8])[few]
    ours = solve(X, codes, everything(codes), n_classes=10, objective=objective, C=40.0)
    W, b = ours.weights[0], ours.intercepts[0]
    assert ours.converged.all()
    assert not np.delete(W, codes, axis=0).any()
    if objective == "uni":
        alone = solve(X, few, everything(few), n_classes=n_present, C=40.0)
        assert ours.objective[0] == pytest.approx(alone.objective[0], rel=1e-12)
        return
    # two classes among ten are penalised as softmax rows: norm(W)**2 = norm(v)**2 / 2
    theirs = l2_optimum(X, few, None, 40.0 * (2 if n_present == 2 else 1))
    found = W[[1, 6, 8][:n_present]]
    if n_present == 2:
        found = found[1:] - found[:1]
    np.testing.assert_allclose(found, theirs.coef_, rtol=1e-5, atol=1e-5)
    assert (X @ W.T + b).argmax(axis=1).max() <= 8


def test_fits_with_and_without_all_classes_are_solved_beside_each_other():
    X, codes = draw(n_classes=3)
    sample_weights = everything(codes, 3)
    sample_weights[codes == 1, 1] = 0
    together = solve(X, codes, sample_weights, n_classes=3, C=40.0)
    for fit in range(3):
        alone = solve(X, codes, sample_weights[:, [fit]], n_classes=3, C=40.0)
        same(alone, take(together, [fit]))
    warm = solve(
        X,
        codes,
        sample_weights,
        n_classes=3,
        C=40.0,
        start=(together.weights, together.intercepts),
    )
    same(warm, together)
    assert warm.n_iter.max() <= 1


@pytest.mark.parametrize("n", [120, 30])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_gradient_that_is_reported_is_that_in_the_features_as_they_are(n_classes, n):
    X, codes = draw(n, 60, n_classes, scale=50.0)
    ours = solve(X, codes, everything(codes), n_classes=n_classes, C=5.0, max_iter=1)
    W, b = softmax_weights(ours)
    centre = X.mean(axis=0)
    parts = uni_gradient(W, b + W @ centre, X - centre, codes, np.ones(n), 5.0)
    largest = max(np.abs(part).max() for part in parts)
    assert ours.converged.tolist() == [False]
    assert ours.gradient_norm[0] == pytest.approx(largest, rel=1e-9)


def test_a_fit_that_runs_out_of_iterations_says_so():
    X, codes = draw(40, 60)
    ours = solve(X, codes, everything(codes), n_classes=2, objective="l2", C=1e3, max_iter=2)
    assert ours.converged.tolist() == [False]
    assert ours.n_iter.tolist() == [2]
    assert ours.gradient_norm[0] > 1e-6


problems = st.fixed_dictionaries(
    {
        "n": st.integers(6, 40),
        "dim": st.integers(1, 50),
        "n_classes": st.integers(2, 3),
        "seed": st.integers(0, 10**6),
    }
)
objectives = st.sampled_from([("uni", 1.0), ("uni", 30.0), ("l2", 0.1), ("l2", 5.0)])


def weights_of(codes, n_fits, rng):
    """Random weights, some of them 0, that leave each fit its first classes."""
    sample_weights = rng.uniform(0.5, 2, (len(codes), n_fits))
    sample_weights *= rng.random(sample_weights.shape) < 0.7
    sample_weights[:3] += 1
    return sample_weights


@settings(max_examples=25, deadline=None)
@given(problem=problems, how=objectives)
def test_neither_the_order_of_rows_nor_of_fits_matters(problem, how):
    X, codes = draw(**problem)
    rng = np.random.default_rng(problem["seed"])
    sample_weights = weights_of(codes, 3, rng)
    common = {"n_classes": problem["n_classes"], "objective": how[0], "C": how[1]}
    plain = solve(X, codes, sample_weights, **common)
    assert plain.converged.all()
    rows, fits = rng.permutation(len(X)), rng.permutation(3)
    turned = solve(X[rows], codes[rows], sample_weights[np.ix_(rows, fits)], **common)
    same(turned, take(plain, fits))


@settings(max_examples=25, deadline=None)
@given(problem=problems, how=objectives)
def test_fits_solved_together_are_those_solved_apart(problem, how):
    X, codes = draw(**problem)
    sample_weights = weights_of(codes, 3, np.random.default_rng(problem["seed"]))
    Cs = how[1] * np.array([0.5, 1, 4])
    common = {"n_classes": problem["n_classes"], "objective": how[0]}
    together = solve(X, codes, sample_weights, C=Cs, **common)
    for fit in range(3):
        apart = solve(X, codes, sample_weights[:, [fit]], C=Cs[fit], **common)
        same(apart, take(together, [fit]))


@settings(max_examples=25, deadline=None)
@given(problem=problems, factor=st.floats(1e-3, 1e3))
def test_scaling_sample_weights_changes_no_uni_solution(problem, factor):
    X, codes = draw(**problem)
    sample_weights = weights_of(codes, 2, np.random.default_rng(problem["seed"]))
    common = {"n_classes": problem["n_classes"], "C": 10.0}
    plain = solve(X, codes, sample_weights, **common)
    same(solve(X, codes, factor * sample_weights, **common), plain)


def take(solution, fits):
    parts = {name: getattr(solution, name)[fits] for name in names(Solution)}
    return Solution(**parts)


def names(record):
    return [field.name for field in dataclasses.fields(record)]


def test_float32_rows_are_read_as_they_are_and_left_unchanged():
    X, codes = draw()
    rows = X.astype(np.float32)
    before = rows.copy()
    ours = solve(rows, codes, everything(codes), n_classes=2, C=4.0)
    np.testing.assert_array_equal(rows, before)
    same(ours, solve(rows.astype(float), codes, everything(codes), n_classes=2, C=4.0))
    assert ours.weights.dtype == np.float64


# ---- passes in float32


def draw_wide(n=3_000, dim=200, n_classes=2, offset=0.0, **how):
    """More rows than are copied in float64, in float32; and weights of three fits."""
    X, codes = draw(n, dim, n_classes, **how)
    assert 8 * X.size > BLOCK_BYTES
    rng = np.random.default_rng(1)
    sample_weights = np.stack([np.ones(n), rng.uniform(0.2, 3, n), rng.random(n) < 0.5], axis=1)
    return (X + offset).astype(np.float32), codes, sample_weights


def run(X, codes, sample_weights, objective="uni", C=400.0, start=None, **how):
    settings = {"n_classes": codes.max() + 1, "max_iter": 1000, "tol": 1e-8} | how
    return lbfgs.solve(X, codes, sample_weights, objective=objective, C=C, start=start, **settings)


both = pytest.mark.parametrize(("objective", "C"), [("uni", 400.0), ("l2", 0.01), ("l2", 100.0)])


@both
@pytest.mark.parametrize("n_classes", [2, 3])
def test_float32_passes_reach_the_optimum_of_float64(n_classes, objective, C):
    X, codes, sample_weights = draw_wide(n_classes=n_classes)
    single = run(X, codes, sample_weights, objective, C)
    double = run(X.astype(float), codes, sample_weights, objective, C)
    assert single.converged.all()
    assert single.gradient_norm.max() < 1e-7
    assert np.abs(single.objective / double.objective - 1).max() < 1e-13
    same(single, double)


@both
def test_rows_far_from_zero_are_as_good_as_those_around_it(objective, C):
    X, codes, sample_weights = draw_wide(offset=300.0)
    double = X.astype(float)
    plain = run(double - 300, codes, sample_weights, objective, C)
    moved = run(X, codes, sample_weights, objective, C)
    assert moved.converged.all()
    np.testing.assert_allclose(moved.objective, plain.objective, rtol=1e-10)
    np.testing.assert_allclose(moved.weights, plain.weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("objective", ["uni", "l2"])
def test_float32_rows_of_any_scale_have_the_scaled_optimum(objective, scale):
    X, codes, sample_weights = draw_wide()
    scaled = X * np.float32(scale)
    plain = run(scaled.astype(float) / scale, codes, sample_weights, objective)
    C = 400.0 / scale ** (1 if objective == "uni" else 2)
    ours = run(scaled, codes, sample_weights, objective, C)
    assert ours.converged.all()
    np.testing.assert_allclose(scale * ours.weights, plain.weights, rtol=1e-5, atol=1e-6)


@both
def test_constant_columns_get_no_weight_in_float32(objective, C):
    X, codes, sample_weights = draw_wide()
    X[:, 7] = 1000.3
    ours = run(X, codes, sample_weights, objective, C)
    assert ours.converged.all()
    same_without = run(np.delete(X, 7, axis=1), codes, sample_weights, objective, C)
    np.testing.assert_allclose(ours.objective, same_without.objective, rtol=1e-12)
    np.testing.assert_allclose(ours.weights[..., 7], 0, atol=1e-6)


def test_one_column_of_many_rows_is_fitted():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((BLOCK_BYTES // 8 + 1, 1), dtype=np.float32)
    codes = (X[:, 0] + rng.standard_normal(len(X)) > 0).astype(int)
    ours = run(X, codes, everything(codes), "l2", 1.0)
    same(ours, run(X.astype(float), codes, everything(codes), "l2", 1.0))
    assert ours.converged.all()


@both
def test_repeated_rows_count_as_their_weights_in_float32(objective, C):
    X, codes, sample_weights = draw_wide()
    twice = run(
        np.tile(X, (2, 1)), np.tile(codes, 2), np.tile(sample_weights, (2, 1)), objective, C
    )
    same(twice, run(X, codes, 2 * sample_weights, objective, C))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("objective", "C"), [("uni", 1e3), ("l2", 10.0)])
def test_separable_rows_end_where_the_penalty_holds_them_in_float32(objective, C, n_classes):
    X, codes, sample_weights = draw_wide(n_classes=n_classes)
    codes = np.digitize(X[:, 0], np.quantile(X[:, 0], np.arange(1, n_classes) / n_classes))
    X[:, 1] = X[:, 0] ** 2
    ours = run(X, codes, sample_weights, objective, C)
    double = run(X.astype(float), codes, sample_weights, objective, C)
    assert ours.converged.all()
    np.testing.assert_allclose(ours.objective, double.objective, rtol=1e-10)


def test_three_classes_that_a_weak_penalty_lets_a_probe_separate_converge():
    X, _ = draw(1_200, 60)
    codes = np.digitize(X[:, 0], np.quantile(X[:, 0], [1 / 3, 2 / 3]))
    X[:, 1] = X[:, 0] ** 2
    ours = solve(X, codes, everything(codes), n_classes=3, C=1e4)
    assert ours.converged.all()
    assert ours.n_iter.max() < 400
    assert ((X @ ours.weights[0].T + ours.intercepts[0]).argmax(axis=1) == codes).all()


@both
def test_float32_fits_do_not_depend_on_their_company(objective, C):
    X, codes, sample_weights = draw_wide()
    Cs = C * np.array([0.2, 1, 10])
    together = run(X, codes, sample_weights, objective, Cs)
    assert len(set(together.n_iter)) > 1
    for fit in range(3):
        apart = run(X, codes, sample_weights[:, [fit]], objective, Cs[fit])
        same(apart, take(together, [fit]))


def test_more_fits_than_are_held_at_a_time_keep_their_order():
    X, codes, sample_weights = draw_wide(n=2_700)
    order = np.random.default_rng(0).permutation(lbfgs.LEAST_COLUMNS + 5)
    Cs = np.logspace(-4, 0, len(order))
    repeated = np.repeat(sample_weights[:, [1]], len(order), axis=1)
    ours = run(X, codes, repeated, "l2", Cs[order])
    assert ours.converged.all()
    assert (np.diff(ours.weight_norm[np.argsort(order)]) > 0).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_uni_collapses_exactly_at_the_threshold_in_float32(n_classes):
    X, codes, _ = draw_wide(n_classes=n_classes)
    residuals = np.bincount(codes) / len(codes) - np.eye(n_classes)[codes]
    threshold = 0.5 / np.linalg.norm(residuals.T @ X.astype(float) / len(X))
    factors = np.array([1 - 1e-9, 1 + 1e-4])
    ours = run(X, codes, everything(codes, 2), C=threshold * factors)
    assert ours.collapsed.tolist() == [True, False]
    assert ours.converged.all()
    assert 0 < ours.weight_norm[1] < 0.01


def test_wide_rows_are_solved_with_the_leading_part_of_their_spectrum():
    X, codes, sample_weights = draw_wide(1_500, 500)
    ours = run(X, codes, sample_weights, "l2", 1.0)
    assert ours.converged.all()
    for fit in range(3):
        theirs = l2_optimum(X.astype(float), codes, sample_weights[:, fit], 1.0)
        np.testing.assert_allclose(ours.weights[fit], theirs.coef_, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", ["uni", "l2"])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_float32_rows_whose_squares_are_out_of_range_have_the_scaled_optimum(objective, scale):
    X, codes, sample_weights = draw_wide()
    plain = run(X, codes, sample_weights, objective)
    C = 400.0 / scale ** (1 if objective == "uni" else 2)
    ours = run((X.astype(float) * scale).astype(np.float32), codes, sample_weights, objective, C)
    assert ours.converged.all()
    np.testing.assert_allclose(scale * ours.weights, plain.weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["uni", "l2"])
def test_rows_whose_spread_is_lost_in_float32_beside_their_centre_are_met_in_float64(objective):
    X, codes, sample_weights = draw_wide(offset=1e5)
    ours = run(X, codes, sample_weights, objective)
    theirs = run(X.astype(float) - 1e5, codes, sample_weights, objective)
    assert ours.converged.all()
    np.testing.assert_allclose(ours.objective, theirs.objective, rtol=1e-10)


def test_rows_that_are_all_the_same_get_no_weight():
    X = np.full((6_000, 100), 1e6 / 3, dtype=np.float32)
    codes = (np.arange(len(X)) % 3 == 0).astype(int)
    ours = run(X, codes, everything(codes), "l2", 1.0)
    assert ours.converged.all()
    assert ours.weight_norm[0] < 1e-5
    assert ours.objective[0] == pytest.approx(6_000 * 0.6365141682948128)
    assert run(X, codes, everything(codes), "uni").collapsed.all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_neither_the_order_of_float32_rows_nor_the_unit_of_weights_matters(n_classes):
    X, codes, sample_weights = draw_wide(n_classes=n_classes)
    plain = run(X, codes, sample_weights)
    rows, fits = np.random.default_rng(0).permutation(len(X)), np.array([2, 0, 1])
    turned = run(X[rows], codes[rows], sample_weights[np.ix_(rows, fits)])
    same(turned, take(plain, fits))
    same(run(X, codes, sample_weights * np.array([1e-30, 7.0, 1e30])), plain)


# ---- starts


@pytest.mark.parametrize(("objective", "C"), [("uni", 400.0), ("l2", 100.0)])
@pytest.mark.parametrize("n", [3_000, 90])
def test_a_near_start_leads_to_the_same_optimum_in_fewer_steps(n, objective, C):
    X, codes = draw(n, 200)
    sample_weights = everything(codes, 2)
    near = run(X, codes, sample_weights, objective, 0.95 * C)
    cold = run(X, codes, sample_weights, objective, C)
    warm = run(X, codes, sample_weights, objective, C, (near.weights, near.intercepts))
    same(warm, cold)
    assert (warm.n_iter < cold.n_iter).all()
    assert warm.converged.all()


@both
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_start_at_the_optimum_stays_there(n_classes, objective, C):
    X, codes, sample_weights = draw_wide(n_classes=n_classes)
    cold = run(X, codes, sample_weights, objective, C)
    warm = run(X, codes, sample_weights, objective, C, (cold.weights, cold.intercepts))
    assert warm.n_iter.max() <= 1
    same(warm, cold)


@both
def test_a_start_that_is_wrong_beyond_doubt_leads_to_the_same_optimum(objective, C):
    X, codes = draw()
    far = (np.full((1, 1, 8), 1e6), np.zeros((1, 1)))
    warm = solve(X, codes, everything(codes), n_classes=2, objective=objective, C=C, start=far)
    assert warm.converged.all()
    same(warm, solve(X, codes, everything(codes), n_classes=2, objective=objective, C=C))


def test_a_start_of_zero_is_none_and_a_collapsed_fit_needs_none():
    X, codes, sample_weights = draw_wide()
    Cs = np.array([400.0, 1e-3, 400.0])
    cold = run(X, codes, sample_weights, C=Cs)
    start = (np.zeros_like(cold.weights), np.ones_like(cold.intercepts))
    start[0][1] = 1
    warm = run(X, codes, sample_weights, C=Cs, start=start)
    same(warm, cold)
    assert warm.collapsed.tolist() == [False, True, False]
    np.testing.assert_array_equal(warm.n_iter, cold.n_iter)


# ---- torch, and memory


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [3_000, 300, 90])
def test_tensors_give_what_arrays_give(n, dtype, objective, C):
    X, codes = draw(n, 200)
    X, sample_weights = X.astype(dtype), everything(codes, 2)
    array = run(X, codes, sample_weights, objective, C)
    tensor = run(torch.from_numpy(X), codes, sample_weights, objective, C)
    same(tensor, array)
    for name in names(Solution):
        assert isinstance(getattr(tensor, name), np.ndarray)


def test_tensors_of_half_precision_are_met_in_float32():
    X, codes, sample_weights = draw_wide()
    half = torch.from_numpy(X).bfloat16()
    same(run(half, codes, sample_weights), run(half.double(), codes, sample_weights))


def test_the_three_operations_are_those_on_centred_rows_in_either_precision():
    X = draw_wide(offset=2.0)[0]
    rng = np.random.default_rng(0)
    W, R, s = rng.standard_normal((200, 3)), rng.standard_normal((3_000, 3)), rng.random(3_000)
    centred = (X - X.mean(axis=0, dtype=float)) / scale_of(np.abs(X).max())
    expected = centred @ W, centred.T @ R, (centred.T * s) @ centred
    for rows in (X, X.astype(float), torch.from_numpy(X)):
        met = Rows.of(rows, np.ones(3_000, dtype=bool))
        rtol = 1e-4 if met.dtype == np.float32 else 1e-12
        for found, wanted in zip(
            (met.scores(W), met.gradients(R), met.moments(s)), expected, strict=True
        ):
            np.testing.assert_allclose(found, wanted, atol=rtol * np.abs(wanted).max())


def test_a_solve_of_arrays_imports_no_torch():
    code = (
        "import sys, numpy as np; from probes.solvers import lbfgs; "
        "lbfgs.solve(np.eye(4, 2), np.arange(4) % 2, np.ones((4, 1)), n_classes=2, "
        "objective='l2', C=1.0, max_iter=9, tol=1e-8); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("n_fits", "n_classes"), [(5, 2), (40, 2), (20, 4)])
def test_a_solve_holds_less_than_a_third_of_the_embeddings_beside_them(n_fits, n_classes):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_552, 1_536), dtype=np.float32)
    X /= np.sqrt(1 + np.arange(1_536, dtype=np.float32))
    signal = X[:, 0] + X[:, 1] + 0.5 * rng.standard_normal(len(X))
    codes = np.digitize(signal, np.quantile(signal, np.arange(1, n_classes) / n_classes))
    sample_weights = (rng.random((len(X), n_fits)) < 0.64).astype(float)
    tracemalloc.start()
    run(X, codes, sample_weights, max_iter=5)  # as much as until the end
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 0.3 * X.nbytes


# ---- refusals


def test_a_fit_of_one_class_is_refused_by_its_number():
    X, codes = draw()
    sample_weights = np.stack([np.ones(len(X)), codes == 1], axis=1).astype(float)
    with pytest.raises(OneClassError, match="fit 1 has rows of class 1 only, of 2 classes; give"):
        solve(X, codes, sample_weights, n_classes=2, C=1.0)


def altered(array, place, value):
    array = array.copy()
    array[place] = value
    return array


X, CODES = draw(20, 3)
ONES = everything(CODES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": altered(X, (4, 1), np.nan)}, "not finite in 1 of 20 rows, the first is row 4"),
        ({"X": altered(X, (4, 1), np.inf)}, "not finite in 1 of 20 rows, the first is row 4"),
        ({"X": X.astype(int)}, "X is int64; give an array of floats"),
        ({"X": X[:, 0]}, r"X has shape \(20,\)"),
        ({"X": X[:, :0]}, r"X has shape \(20, 0\)"),
        ({"codes": CODES[:-1]}, r"codes has shape \(19,\); X has 20 rows"),
        ({"codes": CODES + 1}, "codes run from 1 to 2; n_classes=2 asks for 0 to 1"),
        ({"codes": CODES - 1}, "codes run from -1 to 0; n_classes=2 asks for 0 to 1"),
        ({"codes": CODES * 1.0}, "codes are float64; give integers from 0 to 1"),
        ({"sample_weights": ONES[:-1]}, r"sample_weights has shape \(19, 1\); X has 20 rows"),
        ({"sample_weights": ONES[:, 0]}, r"sample_weights has shape \(20,\)"),
        ({"sample_weights": ONES[:, :0]}, r"sample_weights has shape \(20, 0\)"),
        ({"sample_weights": altered(ONES, (3, 0), -1)}, "sample_weights reach -1; give"),
        ({"sample_weights": altered(ONES, (3, 0), np.nan)}, "sample_weights reach nan; give"),
        ({"sample_weights": 0 * ONES}, "sample_weights of fit 0 are all 0; give"),
        ({"C": 0.0}, "C=0 is no inverse strength; give a finite C above 0"),
        ({"C": -1.0}, "C=-1 is no inverse strength; give a finite C above 0"),
        ({"C": np.nan}, "C=nan is no inverse strength; give a finite C above 0"),
        ({"C": 1e-300}, "C reaches from 1e-300 to 1e-300; give values from 1e-100 to 1e\\+100"),
        ({"C": "a"}, "C is of type <U1; give numbers"),
        ({"C": None}, "C is of type object; give numbers"),
        ({"X": 1e-200 * X}, "the largest value of X is .*e-200, which no embedding has"),
        ({"X": 1e200 * X}, "the largest value of X is .*e\\+200, which no embedding has"),
        ({"X": (1e35 * X).astype(np.float32)}, "which no embedding has; scale X so that it lies"),
        ({"X": torch.zeros(20, 3, device="meta")}, "tensor of layout torch.strided on meta"),
        ({"X": torch.ones(20, 3).to_sparse()}, "tensor of layout torch.sparse_coo on cpu; give a"),
        ({"X": torch.ones(20, 3).to(torch.float8_e4m3fn)}, "give floats of 16 bits at least"),
        ({"X": torch.full((20, 3), np.nan)}, "not finite in 20 of 20 rows, the first is row 0"),
        ({"sample_weights": 1e-300 * ONES}, "sample_weights above 0 reach from 1e-300 to 1e-300"),
        ({"sample_weights": ONES.astype(str)}, "sample_weights are <U32; give numbers"),
        ({"n_classes": 2.0}, "n_classes=2.0 is no number of classes; give a whole number"),
        ({"max_iter": 1.5}, "max_iter=1.5, tol=1e-08 can end no fit; give a whole max_iter"),
        ({"max_iter": None}, "max_iter=None, tol=1e-08 can end no fit; give a whole max_iter"),
        ({"tol": np.inf}, "tol=inf can end no fit; give a whole max_iter"),
        ({"start": 3}, "start is a int; give weights and intercepts of shapes"),
        (
            {"start": (np.zeros((1, 3)), np.zeros((1, 1)))},
            r"start has shapes \[\(1, 3\), \(1, 1\)\]",
        ),
        ({"start": (np.full((1, 1, 3), np.nan), np.zeros((1, 1)))}, "start is not finite, or"),
        ({"C": np.ones(2)}, r"C has shape \(2,\); give one number, or one for each of the 1 fits"),
        ({"objective": "l1"}, "objective='l1' is unknown; use one of uni, l2"),
        ({"n_classes": 1}, "n_classes=1 leaves nothing to tell apart; give at least 2"),
        ({"max_iter": -1}, "max_iter=-1, tol=1e-08 can end no fit; give"),
        ({"tol": 0.0}, "max_iter=1000, tol=0.0 can end no fit; give"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(change, message):
    arguments = {"X": X, "codes": CODES, "sample_weights": ONES, "n_classes": 2, "C": 1.0} | change
    with pytest.raises(ProbesError, match=message) as caught:
        solve(
            arguments.pop("X"), arguments.pop("codes"), arguments.pop("sample_weights"), **arguments
        )
    assert "\n" not in str(caught.value)
