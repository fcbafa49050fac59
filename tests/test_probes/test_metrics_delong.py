"""DeLong's covariance against its definition on all pairs, and its intervals against the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from probes.errors import ProbesError
from probes.metrics import auroc, bootstrap, bootstrap_difference, delong_interval, delong_test
from probes.metrics import delong_covariance as covariance_of
from tests.test_probes.scored import read_reader_study, scored


@pytest.fixture(scope="module")
def reader_study(real_data):
    return read_reader_study(real_data)


def by_slide_by_definition(labels, scores_NF, slides):
    """Obuchowski (1997), slide by slide in her notation: S10, S01 and S11, O(n^2)."""
    n_fits, m, n = scores_NF.shape[1], labels.sum(), (~labels).sum()
    wins = [
        np.heaviside(scores[labels][:, None] - scores[~labels][None], 0.5) for scores in scores_NF.T
    ]
    theta = np.array([w.mean() for w in wins])
    s10, s01, s11 = (np.zeros((n_fits, n_fits)) for _ in range(3))
    names = np.unique(slides)
    for slide in names:
        x, y = slides[labels] == slide, slides[~labels] == slide
        v10 = np.array([w.mean(axis=1)[x].sum() for w in wins]) - x.sum() * theta
        v01 = np.array([w.mean(axis=0)[y].sum() for w in wins]) - y.sum() * theta
        s10 += np.outer(v10, v10)
        s01 += np.outer(v01, v01)
        s11 += np.outer(v10, v01)
    i10, i01, i = (len(np.unique(part)) for part in (slides[labels], slides[~labels], slides))
    s10, s01, s11 = s10 * i10 / (i10 - 1) / m, s01 * i01 / (i01 - 1) / n, s11 * i / (i - 1)
    return s10 / m + s01 / n + (s11 + s11.T) / (m * n)


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
            assert found.reason[fit].startswith("the variance is 0")
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
        half = norm.ppf(0.975) * error
        assert (found.low, found.high) == pytest.approx(
            (found.difference - half, found.difference + half)
        )
        wide = delong_test(labels, a, b, confidence=0.99)
        assert wide.low < found.low < found.high < wide.high
        assert found.p == pytest.approx(2 * norm.sf(abs(found.z)))
        assert (other_way.z, other_way.p) == pytest.approx((-found.z, found.p))
    else:
        assert math.isnan(found.p)
        assert found.reason.startswith("the variance of the difference is 0")


@given(case=scored(), slides=st.lists(st.integers(0, 5), min_size=27, max_size=27))
def test_the_covariance_by_slide_is_obuchowskis(case, slides):
    labels, scores_NF = two_of_each(case)
    slides = np.array(slides)[: len(labels)]
    slides[:4] = 0, 1, 2, 3  # labels start with one of each
    labels[:4] = False, True, False, True
    aurocs, covariance = covariance_of(labels, scores_NF, groups=slides)
    np.testing.assert_allclose(aurocs, auroc(labels, scores_NF), atol=1e-14)
    expected = by_slide_by_definition(labels, scores_NF, slides)
    np.testing.assert_allclose(covariance, expected, atol=1e-14)
    names = np.array([f"slide {9 - slide}" for slide in slides])
    found = delong_interval(labels, scores_NF, groups=names)
    variance = np.diagonal(expected)
    np.testing.assert_allclose(found.standard_error**2, variance, atol=1e-14)
    first, last = scores_NF[:, 0], scores_NF[:, -1]
    paired = delong_test(labels, first, last, groups=names)
    of_difference = variance[0] + variance[-1] - 2 * expected[0, -1]
    assert paired.standard_error**2 == pytest.approx(of_difference, abs=1e-14)


@given(case=scored())
def test_slides_of_one_annotation_each_change_nothing(case):
    labels, scores_NF = two_of_each(case)
    for alone in (np.arange(len(labels)), [f"s{place}" for place in range(len(labels))]):
        _, covariance = covariance_of(labels, scores_NF, groups=alone)
        np.testing.assert_allclose(covariance, by_definition(labels, scores_NF)[1], atol=1e-14)


def test_ten_copies_of_each_cell_are_no_more_information_by_slide():
    rng = np.random.default_rng(5)
    labels = rng.random(80) < 0.5
    scores = labels[:, None] + rng.normal(size=(80, 2))
    rows = np.repeat(np.arange(80), 10)
    once, copied = (
        delong_test(labels, *scores.T),
        delong_test(labels[rows], *scores[rows].T, groups=rows),
    )
    assert (copied.z, copied.p) == pytest.approx((once.z, once.p))
    assert delong_test(labels[rows], *scores[rows].T).z == pytest.approx(once.z * 10**0.5, rel=0.02)


@pytest.mark.parametrize("n", [3, 7, 41, 59, 83])
def test_a_difference_that_is_the_same_for_each_annotation_has_no_test_and_no_z_of_10_to_the_16(n):
    """Every positive passes one other more, and every other is passed by one more: variance 0."""
    labels = np.repeat([True, False], n)
    others = 2 * np.arange(n) + 1.0
    behind, ahead = np.append(2.0 * np.arange(n), others), np.append(others + 0.5, others)
    found = delong_test(labels, ahead, behind)
    assert found.difference == pytest.approx(1 / n)
    assert (found.standard_error, found.reason) == (
        0.0,
        "the variance of the difference is 0, so there is no test",
    )
    assert np.isnan([found.z, found.p, found.low, found.high]).all()
    many = delong_test(labels, ahead[:, None], behind[:, None], groups=np.arange(2 * n) % n)
    assert many.standard_error.tolist() == [0.0]


def test_a_difference_that_is_the_same_on_each_slide_has_no_test_by_slide():
    """49 of each class on each of 3 slides; one passes one: 49 times 1 / 49 is not 1 in floats."""
    slides, labels = np.repeat(np.arange(3), 98), np.tile(np.repeat([True, False], 49), 3)
    behind = np.zeros(294)
    first_of_slide, first_other = 98 * np.arange(3), 98 * np.arange(3) + 49
    behind[first_of_slide], behind[first_other] = np.arange(3) + 1.0, np.arange(3) + 1.5
    ahead = behind.copy()
    ahead[first_of_slide] += 0.75
    found = delong_test(labels, ahead, behind, groups=slides)
    assert found.difference == pytest.approx(3 / 147**2)
    assert found.standard_error == 0
    assert found.reason == "the variance of the difference is 0, so there is no test"
    assert delong_test(labels, ahead, behind).standard_error > 0


def test_a_class_on_one_slide_has_no_variance_by_slide_and_says_so():
    labels, scores = [0, 0, 0, 1, 1], [0.1, 0.4, 0.3, 0.2, 0.5]
    found = delong_interval(labels, scores, groups=["s", "t", "u", "u", "u"])
    assert found.estimate == auroc(labels, scores)
    assert np.isnan([found.low, found.high, found.standard_error]).all()
    assert found.reason == "all 2 labels 1 are on one slide; two slides with each are needed"
    paired = delong_test(labels, scores, scores[::-1], groups=["s", "s", "s", "t", "u"])
    assert math.isnan(paired.p)
    assert paired.reason == "all 3 labels 0 are on one slide; two slides with each are needed"


def test_many_pairs_are_tested_as_each_alone():
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.4
    a, b = (labels[:, None] + rng.normal(size=(60, 3)) for _ in range(2))
    together = delong_test(labels, a, b)
    for fit in range(3):
        alone = delong_test(labels, a[:, fit], b[:, fit])
        assert alone.reason == together.reason[fit] == ""
        for name in ("difference", "low", "high", "standard_error", "z", "p"):
            assert isinstance(getattr(alone, name), float)
            assert getattr(alone, name) == pytest.approx(getattr(together, name)[fit], rel=1e-12)
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
        assert found.reason == "the variance is 0, from which no interval follows"
        assert found.standard_error == 0
    lonely = delong_interval([0, 0, 1], [0.1, 0.9, 0.8])
    assert lonely.estimate == 0.5
    assert math.isnan(lonely.low)
    assert lonely.reason == "there is 1 label 1; two of each class are needed"
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


def test_intervals_by_slide_cover_where_those_by_cell_do_not():
    """2,000 samples of 60 slides of 6 cells; mitotic figures crowd on every other slide.

    Scores shift by slide as much as they scatter, so pairs of one slide are in order more often.
    """
    rng = np.random.default_rng(11)
    slides = np.repeat(np.arange(60), 6)
    labels = rng.random(360) < np.where(slides % 2, 0.8, 0.1)
    scores = (
        1.5 * labels[:, None] + rng.normal(size=(60, 2_000))[slides] + rng.normal(size=(360, 2_000))
    )
    same_slide = slides[labels][:, None] == slides[~labels]
    truth = np.where(same_slide, norm.cdf(1.5 / 2**0.5), norm.cdf(1.5 / 2)).mean()
    by_slide, by_cell = (delong_interval(labels, scores, groups=by) for by in (slides, None))
    covered = [((each.low <= truth) & (truth <= each.high)).mean() for each in (by_slide, by_cell)]
    assert covered[1] < 0.85 < 0.92 < covered[0] < 0.97
    assert by_slide.estimate.std() == pytest.approx(by_slide.standard_error.mean(), rel=0.05)


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


@pytest.mark.parametrize(
    "modality", ["microscope", "scanner.A", "scanner.B", "scanner.C", "scanner.D"]
)
def test_standard_errors_of_readers_by_region_are_obuchowskis_and_the_bootstraps(
    reader_study, modality
):
    """155 candidates in 38 regions; the bootstrap is that of a loop in its own tests."""
    study, glass = reader_study[modality], reader_study["microscope"]
    truth, said_NF, regions = study.truth, study.said, study.regions
    found = delong_interval(truth, said_NF, groups=regions)
    expected = by_slide_by_definition(truth, said_NF, regions)
    np.testing.assert_allclose(found.standard_error**2, np.diagonal(expected))
    drawn = bootstrap("auroc", truth, said_NF, groups=regions, repeats=4_000)
    np.testing.assert_allclose(found.standard_error, drawn.standard_error, rtol=0.08)
    np.testing.assert_allclose(found.low, drawn.low, atol=0.03)
    np.testing.assert_allclose(found.high, drawn.high, atol=0.03)
    if modality != "microscope":
        paired = delong_test(truth, glass.said, said_NF, groups=regions)
        redrawn = bootstrap_difference(
            "auroc", truth, glass.said, said_NF, groups=regions, repeats=2_000
        )
        np.testing.assert_allclose(paired.standard_error, redrawn.standard_error, rtol=0.08)
        np.testing.assert_allclose(paired.p, redrawn.p, atol=0.08)
