"""What metrics are given: labels of any kind, many fits of many classes, and what is refused."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import ProbesError
from probes.metrics import (
    METRICS,
    all_metrics,
    auroc,
    average_precision,
    bootstrap,
    bootstrap_difference,
    brier,
    calibration_error,
    delong_interval,
    delong_test,
    sensitivity_at_specificity,
)
from tests.test_probes.scored import many_classes, scored

SAME_LABELS = [
    [False, True, True, False, True],
    [0, 1, 1, 0, 1],
    [0.0, 1.0, 1.0, 0.0, 1.0],
    np.array([0, 1, 1, 0, 1], np.uint8),
    np.array([False, True, True, False, True], object),
    pd.Series([0, 1, 1, 0, 1], index=[9, 8, 7, 6, 5]),
]


def turned(p, seed):
    """Three fits of other probabilities, each with all its rows in another order."""
    rng = np.random.default_rng(seed)
    return np.stack([p, p[rng.permutation(len(p))], p[rng.permutation(len(p))]], axis=1)


@pytest.mark.parametrize("labels", SAME_LABELS, ids=lambda labels: type(labels).__name__)
def test_truth_may_be_written_in_any_way(labels):
    scores = pd.Series([0.1, 0.9, 0.4, 0.4, 0.7])
    for metric in METRICS.values():
        assert metric(labels, scores) == metric(SAME_LABELS[0], scores.to_numpy())
    assert auroc(labels, np.float16(scores)) == auroc(labels, list(scores)) == 5.5 / 6


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25)
@given(case=many_classes())
def test_many_fits_of_many_classes_are_as_each_alone(name, case):
    labels, p, names = case
    p_NFC = turned(p, len(labels))
    weights_NR = np.random.default_rng(0).integers(0, 3, (len(labels), 4))
    alone = [METRICS[name](labels, p_NFC[:, fit], names) for fit in range(3)]
    found = METRICS[name](labels, p_NFC, names)
    assert found.shape == (3,)
    np.testing.assert_allclose(found, alone, rtol=1e-14)
    weighted = METRICS[name](labels, p_NFC, names, weights=weights_NR)
    assert weighted.shape == (3, 4)
    for fit in range(3):
        np.testing.assert_allclose(
            weighted[fit], METRICS[name](labels, p_NFC[:, fit], names, weights=weights_NR)
        )


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25)
@given(case=many_classes())
def test_a_class_without_weight_leaves_undefined_what_compares_classes(name, case):
    """By leaving the rows out, and by their weight of 0."""
    labels, p, names = case
    kept = labels != names[0]
    by_weight = METRICS[name](labels, p, names, weights=kept.astype(int))
    by_rows = METRICS[name](labels[kept], p[kept], names)
    np.testing.assert_allclose(by_weight, by_rows, atol=1e-12)
    assert math.isnan(by_weight) == (name not in ("brier", "calibration_error"))


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25)
@given(case=many_classes(), seed=st.integers(0, 99))
def test_columns_in_another_order_change_nothing_where_their_names_go_with_them(name, case, seed):
    labels, p, names = case
    p = p + np.linspace(0, 1e-6, p.size).reshape(p.shape)  # the first of equal columns is called
    p = p / p.sum(axis=1, keepdims=True)
    order = np.random.default_rng(seed).permutation(len(names))
    assert METRICS[name](labels, p[:, order], names[order]) == pytest.approx(
        METRICS[name](labels, p, names), nan_ok=True
    )


@settings(max_examples=50)
@given(case=scored())
def test_many_fits_of_two_named_classes_are_the_second_columns(case):
    names = np.array(["look-alike", "mitotic figure"])
    labels, scores_NF = names[case.labels.astype(int)], case.scores
    p_NFC = np.stack([1 - scores_NF, scores_NF], axis=2)
    for metric in METRICS.values():
        np.testing.assert_array_equal(metric(labels, p_NFC, names), metric(case.labels, scores_NF))
    turned_around = auroc(labels, p_NFC[..., ::-1], names[::-1])
    np.testing.assert_allclose(turned_around, auroc(case.labels, scores_NF))
    by_name = delong_interval(labels, p_NFC, names)
    np.testing.assert_array_equal(by_name.low, delong_interval(case.labels, scores_NF).low)


@settings(max_examples=50)
@given(case=scored(), seed=st.integers(0, 99))
def test_fractions_as_weights_leave_a_share_within_0_and_1(case, seed):
    """A perfect order: sums in another order may come to a little more than the whole."""
    weights = np.random.default_rng(seed).random((len(case.labels), 5)) + 1e-3
    perfect = case.labels + 0.25 * (np.arange(len(case.labels)) % 3)
    for metric in (auroc, average_precision, sensitivity_at_specificity):
        found = metric(case.labels, perfect, weights=weights)
        assert (found <= 1).all()
        np.testing.assert_allclose(found, 1)


def test_a_specificity_that_was_computed_is_reached_too():
    """0.1 + 0.2 is a little more than 3 / 10, and tenths as weights do not sum to 1."""
    labels, scores = np.array([0] * 10 + [1]), np.append(np.arange(10), 2.5)
    assert 0.1 + 0.2 > 3 / 10
    assert sensitivity_at_specificity(labels, scores, specificity=0.1 + 0.2) == 1.0
    assert sensitivity_at_specificity(labels, scores, specificity=0.31) == 0.0
    for weight in (0.1, 1 / 3, 1e-3):
        weights = np.full(11, weight)
        assert sensitivity_at_specificity(labels, scores, specificity=0.3, weights=weights) == 1.0


@pytest.mark.parametrize("bins", [1, 2, 6, 7, 9, 10, 15, 20, 49])
def test_a_probability_on_an_edge_is_in_the_bin_below_whatever_the_number_of_bins(bins):
    """Of an edge's own annotation and one a little above it, each is a bin of its own."""
    for edge in range(1, bins):
        said = np.array([edge / bins, np.nextafter(edge / bins, 1)])
        apart = calibration_error([1, 0], said, bins=bins)
        assert apart == pytest.approx((1 - said[0] + said[1]) / 2)
        together = calibration_error([1, 0], [said[0], np.nextafter(said[0], 0)], bins=bins)
        assert together == pytest.approx(abs(1 - 2 * said[0]) / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: auroc(np.array(["a", None, 1], object), [0.1, 0.2, 0.3]),
            "hold 'a', None, 1; giv",
        ),
        (lambda: auroc([0, math.nan], [0.1, 0.2]), r"labels hold 0.0, nan; give True"),
        (lambda: auroc([0, 1], ["x", "y"]), "scores are no array of numbers"),
        (lambda: auroc([0, 1], [[1], [1, 2]]), "scores are no array of numbers"),
        (lambda: auroc([0, 1], [0.1, 0.2], weights=["a", "b"]), "weights are no array of numbers"),
        (lambda: auroc([0, 1], np.zeros((2, 0))), r"scores of shape \(2, 0\)"),
        (lambda: auroc(1, 0.5), r"labels of shape \(\); give one"),
        (lambda: auroc([0, 1], 0.5), r"scores of shape \(\) for 2 labels"),
        (lambda: auroc(["a", "b"], np.ones((2, 1, 3)), ["a", "b"]), r"give \(2, 2\), a column"),
        (lambda: auroc(["a", "b"], np.ones((2, 2)), ["a", "a"]), "name two or more, each once"),
        (lambda: auroc(["a", "a"], np.ones((2, 1)), ["a"]), "name two or more, each once"),
        (lambda: all_metrics([0, 1], np.full((2, 3), 0.5)), "probabilities of 3 fits; give one"),
        (lambda: brier(["a", "b"], np.ones((2, 2)), ["a", "b"]), "sum to 2 to 2; this metric"),
        (
            lambda: calibration_error(["a", "b"], np.full((2, 3), 0.3), ["a", "b", "c"]),
            "sum to 0.9 to 0.9; this metric needs rows that sum to 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(ProbesError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_probabilities_in_half_precision_sum_to_1_well_enough():
    p = np.random.default_rng(0).dirichlet(np.ones(7), size=500)
    labels = p.argmax(axis=1)
    rounded = brier(labels, p.astype(np.float16), range(7))
    assert rounded == pytest.approx(brier(labels, p, range(7)), abs=1e-3)


@pytest.mark.parametrize(
    "call",
    [
        lambda groups: bootstrap("auroc", [0, 1, 0], [0.1, 0.9, 0.3], groups=groups),
        lambda groups: delong_interval([0, 1, 0], [0.1, 0.9, 0.3], groups=groups),
        lambda groups: delong_test([0, 1, 0], [0.1, 0.9, 0.3], [0.3, 0.2, 0.1], groups=groups),
    ],
)
def test_a_slide_without_a_name_is_refused_and_not_taken_for_one_slide(call):
    for missing in (
        [math.nan, math.nan, 1.0],
        ["a", None, None],
        pd.Series([pd.NA, "a", pd.NA]),
    ):
        with pytest.raises(ProbesError, match="groups are missing for 2 of 3 labels; name every"):
            call(missing)
    with pytest.raises(ProbesError, match=r"groups of shape \(2,\) for 3 labels; give \(3,\)"):
        call(["a", "b"])


@pytest.mark.parametrize("seed", [None, -1, 1.5, np.random.default_rng(0)])
def test_draws_that_nobody_could_repeat_are_refused(seed):
    """Two models drawn apart would not be paired."""
    with pytest.raises(ProbesError, match=r"cannot be drawn from again; give a whole number"):
        bootstrap_difference("auroc", [0, 1], [0.1, 0.9], [0.2, 0.3], seed=seed)
