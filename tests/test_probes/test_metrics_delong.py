"""DeLong's covariance against its definition on all pairs, and its intervals against the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import norm

from probes.errors import ProbesError
from probes.metrics import auroc, bootstrap, bootstrap_difference, delong_interval, delong_test
from probes.metrics import delong_covariance as covariance_of
from tests.test_probes.scored import read_reader_study, scored


@pytest.fixture(scope="module")
def reader_study(real_data):
    return read_reader_study(real_data)


def by_definition(labels, scores_NF):
    """Structural components as DeLong et al. (1988) define them: every pair compared, O(n^2)."""
    of_pairs_FPM = np.stack(
        [
            np.heaviside(scores[labels][:, None] - scores[~labels][None], 0.5)
            for scores in scores_NF.T
        ]
    )
    v10_FP, v01_FM = of_pairs_FPM.mean(axis=2), of_pairs_FPM.mean(axis=1)
    s10, s01 = np.atleast_2d(np.cov(v10_FP)), np.atleast_2d(np.cov(v01_FM))
    return of_pairs_FPM.mean(axis=(1, 2)), s10 / v10_FP.shape[1] + s01 / v01_FM.shape[1]


def two_of_each(case):
    """Make sure of what a variance needs."""
    labels = np.append(case.labels, [False, True])
    return labels, np.concatenate([case.scores, np.full((2, case.scores.shape[1]), 0.5)])


@given(case=scored())
def test_the_covariance_is_that_of_all_pairs(case):
    labels, scores_NF = two_of_each(case)
    aurocs, covariance = covariance_of(labels, scores_NF)
    expected_aurocs, expected = by_definition(labels, scores_NF)
    np.testing.assert_allclose(aurocs, expected_aurocs, atol=1e-14)
    np.testing.assert_allclose(aurocs, auroc(labels, scores_NF), atol=1e-14)
    np.testing.assert_allclose(covariance, expected, atol=1e-14)


@given(case=scored())
def test_an_interval_is_normal_on_the_logit_and_holds_the_estimate(case):
    labels, scores_NF = two_of_each(case)
    found = delong_interval(labels, scores_NF, confidence=0.9)
    aurocs, covariance = by_definition(labels, scores_NF)
    for fit, estimate in enumerate(aurocs):
        error = math.sqrt(max(covariance[fit, fit], 0))
        if error < 1e-9:
            assert found.reason[fit].startswith("DeLong's variance is 0")
            assert np.isnan([found.low[fit], found.high[fit]]).all()
            continue
        scale = error / (estimate * (1 - estimate))
        logit = math.log(estimate / (1 - estimate))
        low, high = (1 / (1 + np.exp(-(logit + sign * 1.6448536 * scale))) for sign in (-1, 1))
        assert found.reason[fit] == ""
        assert 0 <= found.low[fit] <= estimate <= found.high[fit] <= 1
        assert (found.low[fit], found.high[fit]) == pytest.approx((low, high))
        assert found.standard_error[fit] == pytest.approx(error)


@given(case=scored())
def test_a_test_is_of_the_difference_with_its_covariance_and_turns_around(case):
    labels, scores_NF = two_of_each(case)
    a, b = scores_NF[:, 0], scores_NF[:, -1] ** 2 + np.arange(len(labels)) / 50
    found, other_way = delong_test(labels, a, b), delong_test(labels, b, a)
    aurocs, covariance = by_definition(labels, np.stack([a, b], axis=1))
    error = math.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0))
    assert found.difference == pytest.approx(aurocs[0] - aurocs[1], abs=1e-14)
    assert found.standard_error == pytest.approx(error, abs=1e-8)
    if error > 1e-7:
        assert found.z == pytest.approx(found.difference / error)
        assert found.p == pytest.approx(2 * norm.sf(abs(found.z)))
        assert (other_way.z, other_way.p) == pytest.approx((-found.z, found.p))
    else:
        assert math.isnan(found.p)
        assert found.reason.startswith("the variance of the difference is 0")


def test_many_pairs_are_tested_as_each_alone():
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.4
    a, b = (labels[:, None] + rng.normal(size=(60, 3)) for _ in range(2))
    together = delong_test(labels, a, b)
    for fit in range(3):
        alone = delong_test(labels, a[:, fit], b[:, fit])
        assert (alone.difference, alone.z, alone.p, alone.reason) == (
            together.difference[fit],
            together.z[fit],
            together.p[fit],
            together.reason[fit],
        )
    aurocs, covariance = covariance_of(labels, np.hstack([a, b]))
    assert together.standard_error[1] == pytest.approx(
        math.sqrt(covariance[1, 1] + covariance[4, 4] - 2 * covariance[1, 4])
    )
    assert together.difference[1] == pytest.approx(aurocs[1] - aurocs[4])


def test_where_no_interval_follows_it_is_nan_and_says_why():
    perfect = delong_interval([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    constant = delong_interval([0, 0, 0, 1, 1, 1], [0.3] * 6)
    for found, estimate in [(perfect, 1.0), (constant, 0.5)]:
        assert found.estimate == estimate
        assert np.isnan([found.low, found.high]).all()
        assert found.reason == "DeLong's variance is 0, from which no interval follows"
    lonely = delong_interval([0, 0, 1], [0.1, 0.9, 0.8])
    assert lonely.estimate == 0.5
    assert math.isnan(lonely.low)
    assert lonely.reason == "there is 1 label 1; DeLong's variance needs two of each class"
    one_class = delong_interval([1, 1, 1], [0.1, 0.9, 0.8])
    assert np.isnan([one_class.estimate, one_class.low, one_class.high]).all()
    assert one_class.reason.startswith("all 3 labels are 1")
    same = delong_test([0, 1, 0, 1], [0.1, 0.7, 0.9, 0.8], [1, 7, 9, 8])
    assert (same.difference, same.reason) == (
        0.0,
        "the variance of the difference is 0, so there is no test",
    )
    assert np.isnan([same.z, same.p]).all()
    undefined = delong_test([1, 1], [0.1, 0.7], [0.1, 0.2])
    assert math.isnan(undefined.difference)
    assert undefined.reason.startswith("all 2 labels are 1")


def test_one_of_many_fits_may_have_no_interval():
    scores = np.array([[0.1, 0.3], [0.7, 0.3], [0.6, 0.3], [0.9, 0.3]])
    found = delong_interval([0, 0, 1, 1], scores)
    assert (found.reason != "").tolist() == [False, True]
    assert np.isnan(found.low).tolist() == [False, True]


def test_more_classes_and_other_shapes_are_refused():
    p = np.full((3, 3), 1 / 3)
    with pytest.raises(ProbesError, match=r"of two classes, and there are 3; use .*bootstrap"):
        delong_interval(["a", "b", "c"], p, ["a", "b", "c"])
    with pytest.raises(ProbesError, match="give two of the same shape"):
        delong_test([0, 1], [0.1, 0.2], [[0.1], [0.2]])
    with pytest.raises(ProbesError, match="confidence=95 is no share"):
        delong_interval([0, 1], [0.1, 0.2], confidence=95)


def test_classes_by_name_give_the_same_interval():
    rng = np.random.default_rng(1)
    positive, scores = rng.random(40) < 0.5, rng.random(40)
    named = delong_interval(
        np.where(positive, "b", "a"), np.stack([1 - scores, scores], axis=1), ["a", "b"]
    )
    plain = delong_interval(positive, scores)
    assert (named.low, named.high) == (plain.low, plain.high)


@pytest.mark.parametrize(("distance", "n"), [(1.0, 60), (2.0, 100)])
def test_intervals_cover_the_true_auroc_as_often_as_they_say(distance, n):
    """2,000 samples of two normal distributions, whose AUROC is known, as so many fits."""
    labels = np.arange(n) % 2 == 0
    scores = np.random.default_rng(7).normal(size=(n, 2_000)) + distance * labels[:, None]
    truth = norm.cdf(distance / math.sqrt(2))
    found = delong_interval(labels, scores)
    assert (found.reason == "").all()
    covered = ((found.low <= truth) & (truth <= found.high)).mean()
    assert 0.935 < covered < 0.97
    assert found.estimate.std() == pytest.approx(found.standard_error.mean(), rel=0.05)


def test_models_that_are_equally_good_differ_in_one_of_twenty_tests():
    rng = np.random.default_rng(8)
    labels = np.arange(100) % 3 == 0
    shared = rng.normal(size=(100, 2_000)) + labels[:, None]
    a, b = (shared + rng.normal(size=shared.shape) for _ in range(2))
    assert 0.035 < (delong_test(labels, a, b).p < 0.05).mean() < 0.065


def test_standard_errors_of_readers_are_those_of_the_bootstrap(reader_study):
    for modality in reader_study.values():
        found = delong_interval(modality.truth, modality.said)
        drawn = bootstrap("auroc", modality.truth, modality.said, repeats=3_000)
        assert drawn.n_left_out == 0
        np.testing.assert_allclose(found.standard_error, drawn.standard_error, rtol=0.06)
        np.testing.assert_allclose(found.low, drawn.low, atol=0.02)
        np.testing.assert_allclose(found.high, drawn.high, atol=0.02)


def test_readers_at_the_microscope_and_at_a_scan_are_compared_as_by_the_bootstrap(reader_study):
    truth, glass_NF = reader_study["microscope"].truth, reader_study["microscope"].said
    for name in ("scanner.A", "scanner.B", "scanner.C", "scanner.D"):
        scan_NF = reader_study[name].said
        np.testing.assert_array_equal(reader_study[name].truth, truth)
        found = delong_test(truth, glass_NF, scan_NF)
        drawn = bootstrap_difference("auroc", truth, glass_NF, scan_NF, repeats=3_000)
        np.testing.assert_allclose(found.difference, drawn.estimate, atol=1e-14)
        np.testing.assert_allclose(found.standard_error, drawn.standard_error, rtol=0.06)
        _, covariance = by_definition(truth, np.hstack([glass_NF, scan_NF]))
        variance = np.diagonal(covariance)
        expected = variance[:5] + variance[5:] - 2 * np.diagonal(covariance[:5, 5:])
        np.testing.assert_allclose(found.standard_error**2, expected)
