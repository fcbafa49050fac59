"""Each metric against scikit-learn or its definition, for many fits and weightings at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from probes.errors import ProbesError
from probes.metrics import (
    METRICS,
    Value,
    all_metrics,
    auroc,
    average_precision,
    balanced_accuracy,
    brier,
    calibration_error,
    f1,
    sensitivity_at_specificity,
)
from tests.test_probes.scored import many_classes, read_reader_study, scored


@pytest.fixture(scope="module")
def reader_study(real_data):
    return read_reader_study(real_data)


ONE_CLASS_IS_ENOUGH = {"brier", "calibration_error"}


def sensitivity_by_definition(labels, scores, specificity=0.9):
    """Every threshold in turn, on counts."""
    found = []
    for threshold in [np.inf, *scores]:
        called = scores >= threshold
        if (~called & ~labels).sum() / (~labels).sum() >= specificity:
            found.append((called & labels).sum() / labels.sum())
    return max(found)


def calibration_error_by_definition(labels, scores, bins=15):
    """scikit-learn's reliability diagram, its bins in order weighted by how many are in each."""
    true, said = calibration_curve(labels, scores, n_bins=bins)
    bin_of = [max(next(b for b in range(bins + 1) if s <= b / bins), 1) for s in scores]
    _, counts = np.unique(bin_of, return_counts=True)
    return np.sum(counts * np.abs(true - said)) / len(labels)


DEFINITIONS = {
    "auroc": reference.roc_auc_score,
    "average_precision": reference.average_precision_score,
    "balanced_accuracy": lambda y, p: reference.balanced_accuracy_score(y, p >= 0.5),
    "f1": lambda y, p: reference.f1_score(y, p >= 0.5),
    "sensitivity_at_specificity": sensitivity_by_definition,
    "brier": reference.brier_score_loss,
    "calibration_error": calibration_error_by_definition,
}


def test_every_metric_has_a_definition_to_be_compared_with():
    assert list(DEFINITIONS) == list(METRICS)


@pytest.mark.parametrize("name", METRICS)
@given(case=scored())
def test_a_metric_is_for_each_fit_what_its_definition_gives(name, case):
    expected = [DEFINITIONS[name](case.labels, scores) for scores in case.scores.T]
    found = METRICS[name](case.labels, case.scores)
    assert found.shape == (case.scores.shape[1],)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    alone = METRICS[name](case.labels, case.scores[:, 0])
    assert isinstance(alone, float)
    assert alone == pytest.approx(found[0], abs=1e-15)


@pytest.mark.parametrize("name", METRICS)
@given(case=scored())
def test_a_weight_counts_an_annotation_as_often_as_repeating_it(name, case):
    found = METRICS[name](case.labels, case.scores, weights=case.weights)
    assert found.shape == (case.scores.shape[1], case.weights.shape[1])
    for weighting, weights in enumerate(case.weights.T):
        rows = np.repeat(np.arange(len(weights)), weights)
        repeated = METRICS[name](case.labels[rows], case.scores[rows])
        np.testing.assert_allclose(found[:, weighting], repeated, atol=1e-12)


@given(case=scored())
def test_fractions_as_weights_count_as_in_scikit_learn(case):
    weights = case.weights[:, 0] / 7 + 0.01
    labels, scores = case.labels, case.scores[:, 0]
    for metric, theirs, values in [
        (auroc, reference.roc_auc_score, scores),
        (average_precision, reference.average_precision_score, scores),
        (brier, reference.brier_score_loss, scores),
        (balanced_accuracy, reference.balanced_accuracy_score, scores >= 0.5),
        (f1, reference.f1_score, scores >= 0.5),
    ]:
        expected = theirs(labels, values, sample_weight=weights)
        assert metric(labels, scores, weights=weights) == pytest.approx(expected)


@given(case=scored())
def test_the_order_of_annotations_and_a_rising_function_of_scores_change_no_ranking(case):
    turned = np.random.default_rng(0).permutation(len(case.labels))
    for metric in (auroc, average_precision, sensitivity_at_specificity):
        found = metric(case.labels, case.scores)
        np.testing.assert_array_equal(found, metric(case.labels, np.exp(3 * case.scores)))
        np.testing.assert_allclose(found, metric(case.labels[turned], case.scores[turned]))


@given(case=scored(), specificity=st.sampled_from([0.0, 0.5, 2 / 3, 0.7, 0.9, 1.0]))
def test_sensitivity_is_the_largest_of_any_threshold_that_is_specific_enough(case, specificity):
    found = sensitivity_at_specificity(case.labels, case.scores, specificity=specificity)
    expected = [
        sensitivity_by_definition(case.labels, scores, specificity) for scores in case.scores.T
    ]
    np.testing.assert_allclose(found, expected)


def test_a_specificity_is_reached_by_counting_and_not_missed_by_rounding():
    """1 - 8 / 10 is a little less than 0.2, and 2 / 10 is not: the true negatives decide."""
    labels = np.array([0] * 10 + [1])
    one_above, eight_above = np.append(np.arange(10), 8.5), np.append(np.arange(10), 1.5)
    assert sensitivity_at_specificity(labels, one_above, specificity=0.9) == 1.0
    assert sensitivity_at_specificity(labels, one_above, specificity=0.91) == 0.0
    assert sensitivity_at_specificity(labels, eight_above, specificity=0.2) == 1.0


def test_equal_scores_are_called_together():
    labels = np.array([0, 0, 1, 1])
    assert sensitivity_at_specificity(labels, [0.2, 0.8, 0.8, 0.9], specificity=1.0) == 0.5
    assert sensitivity_at_specificity(labels, [0.5] * 4, specificity=0.9) == 0.0
    assert auroc(labels, [0.5] * 4) == 0.5
    assert average_precision(labels, [0.5] * 4) == 0.5


def test_a_score_at_the_threshold_is_positive():
    assert balanced_accuracy([0, 1], [0.4, 0.5]) == 1.0
    assert f1([0, 1], [0.4, 0.5]) == 1.0
    assert balanced_accuracy([0, 1], [0.4, 0.5], threshold=0.6) == 0.5
    assert f1([0, 1], [0.4, 0.5], threshold=0.6) == 0.0


def test_bins_of_calibration_are_closed_above():
    """By hand: with two bins 0.5 is in the lower, as 0 is; 1 is in the upper."""
    assert calibration_error([0, 1, 1, 1], [0.0, 0.5, 0.6, 1.0], bins=2) == pytest.approx(
        abs(0 - 0.0 + 1 - 0.5) / 4 + abs(1 - 0.6 + 1 - 1.0) / 4
    )
    assert calibration_error([1, 0], [0.5, 0.51], bins=2) == pytest.approx(0.505)
    assert calibration_error([1, 0], [0.5, 0.51], bins=1) == pytest.approx(0.005)


@given(case=many_classes())
def test_more_than_two_classes_are_as_in_scikit_learn(case):
    labels, p, names = case
    one_hot = labels[:, None] == names
    called, confidence = names[p.argmax(axis=1)], p.max(axis=1)
    expected = {
        "auroc": reference.roc_auc_score(labels, p, multi_class="ovo", labels=names),
        "average_precision": reference.average_precision_score(one_hot, p, average="macro"),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, called),
        "f1": reference.f1_score(labels, called, average="macro", zero_division=0),
        "brier": ((p - one_hot) ** 2).sum(axis=1).mean(),
        "calibration_error": calibration_error_by_definition(called == labels, confidence),
    }
    for name, value in expected.items():
        assert METRICS[name](labels, p, names) == pytest.approx(value, abs=1e-12), name
    assert math.isnan(sensitivity_at_specificity(labels, p, names))
    assert "two classes, and there are" in (
        all_metrics(labels, p, names)["sensitivity_at_specificity"].reason
    )


@pytest.mark.parametrize("name", METRICS)
@given(case=many_classes())
def test_a_weight_repeats_an_annotation_of_many_classes_too(name, case):
    labels, p, names = case
    weights = np.random.default_rng(len(labels)).integers(1, 4, len(labels))
    rows = np.repeat(np.arange(len(labels)), weights)
    assert METRICS[name](labels, p, names, weights=weights) == pytest.approx(
        METRICS[name](labels[rows], p[rows], names), nan_ok=True
    )


@given(case=scored())
def test_the_names_of_two_classes_change_nothing(case):
    names = np.array(["look-alike", "mitotic figure"])
    scores = case.scores[:, 0]
    named = names[case.labels.astype(int)], np.stack([1 - scores, scores], axis=1), names
    for name, value in all_metrics(*named).items():
        assert value == all_metrics(case.labels, scores)[name]


@pytest.mark.parametrize("label", [0, 1])
@given(scores=st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_one_class_leaves_ranking_and_decisions_undefined_and_says_why(label, scores):
    labels, scores = np.full(len(scores), label), np.array(scores) / 5
    for name, value in all_metrics(labels, scores).items():
        if name in ONE_CLASS_IS_ENOUGH:
            assert value.value == pytest.approx(
                {"brier": np.mean((scores - label) ** 2)}.get(name, value.value)
            )
            assert value.reason == ""
            assert np.isfinite(float(value))
        else:
            assert math.isnan(value.value), name
            assert value.reason.startswith(f"all {len(scores)} labels are {label}; there is no")
        assert np.isnan(METRICS[name](labels, scores[:, None])).tolist() == [
            name not in ONE_CLASS_IS_ENOUGH
        ]


def test_a_weighting_that_leaves_out_a_class_is_undefined_alone():
    weights = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1]])
    labels, scores = [1, 0, 0], [0.9, 0.1, 0.2]
    for name, metric in METRICS.items():
        undefined = np.isnan(metric(labels, scores, weights=weights)).tolist()
        assert undefined == [False, name not in ONE_CLASS_IS_ENOUGH, False], name
        nothing = metric(labels, scores, weights=np.zeros(3))
        assert math.isnan(nothing), name


def test_the_reason_names_what_is_missing():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    names = ["a", "b", "c"]
    assert all_metrics(["a", "b"], p, names)["auroc"].reason == (
        "none of 2 labels is 'c'; each of the 3 classes is needed"
    )
    assert all_metrics(["a", "z"], p, names)["brier"].reason == (
        "labels hold 'z', and there is no probability of that"
    )
    for value in all_metrics(np.array([]), np.array([])).values():
        assert value.reason == "there is no annotation to test on"
        assert math.isnan(value.value)
    assert not isinstance(Value(0.5), float)


@given(case=scored(both=False))
def test_a_value_is_nan_exactly_where_there_is_a_reason(case):
    for value in all_metrics(case.labels, case.scores[:, 0]).values():
        assert math.isnan(value.value) == bool(value.reason)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0, 1], [0.5, 0.5, 0.5]), {}, r"scores of shape \(3,\) for 2 labels; give \(2,\)"),
        (([0, 1], np.ones((2, 2, 2))), {}, r"shape \(2, 2, 2\)"),
        (([[0], [1]], [0.5, 0.5]), {}, r"labels of shape \(2, 1\)"),
        ((["a", "b"], [0.5, 0.5]), {}, "labels hold 'a', 'b'; give True or 1"),
        (([0, 2], [0.5, 0.5]), {}, "labels hold 0, 2"),
        ((["a", "b"], [0.5, 0.5], ["a", "b"]), {}, r"give \(2, 2\), a column per class"),
        (([0, 1], [0.5, np.nan]), {}, "1 of 2 scores are NaN"),
        (([0, 1], [0.5, 0.5]), {"weights": [1, -1]}, "weights range from -1 to 1"),
        (([0, 1], [0.5, 0.5]), {"weights": [1, np.nan]}, "weights range from"),
        (([0, 1], [0.5, 0.5]), {"weights": [1]}, r"weights of shape \(1,\) for 2 labels"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, options, message):
    for metric in METRICS.values():
        with pytest.raises(ProbesError, match=message):
            metric(*arguments, **options)


def test_metrics_of_probabilities_refuse_other_scores_and_bad_settings():
    for metric in (brier, calibration_error):
        with pytest.raises(ProbesError, match=r"scores range from -2 to 3"):
            metric([0, 1], [-2.0, 3.0])
    assert auroc([0, 1], [-2.0, np.inf]) == 1.0
    with pytest.raises(ProbesError, match=r"specificity=90 is no share"):
        sensitivity_at_specificity([0, 1], [0.1, 0.2], specificity=90)
    with pytest.raises(ProbesError, match="bins=0"):
        calibration_error([0, 1], [0.1, 0.2], bins=0)


def test_auroc_of_every_reader_and_modality_is_scikit_learns(reader_study):
    """A reader who says yes or no has an empirical AUC of (sensitivity + specificity) / 2."""
    assert set(reader_study) == {"microscope", "scanner.A", "scanner.B", "scanner.C", "scanner.D"}
    for modality in reader_study.values():
        truth, said_NF = modality.truth, modality.said
        assert (len(truth), truth.sum(), said_NF.shape[1]) == (155, 74, 5)
        found = auroc(truth, said_NF)
        theirs = [reference.roc_auc_score(truth, said) for said in said_NF.T]
        by_hand = (said_NF[truth].mean(axis=0) + 1 - said_NF[~truth].mean(axis=0)) / 2
        np.testing.assert_allclose(found, theirs, atol=1e-15)
        np.testing.assert_allclose(found, by_hand, atol=1e-15)
        votes = said_NF.sum(axis=1)
        assert auroc(truth, votes) == pytest.approx(reference.roc_auc_score(truth, votes))
    microscope = auroc(reader_study["microscope"].truth, reader_study["microscope"].said)
    assert microscope.round(4).tolist() == [0.7641, 0.7779, 0.8058, 0.8419, 0.802]
