"""The bootstrap against a loop that repeats rows, by annotation and by slide."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from probes.errors import ProbesError
from probes.metrics import (
    METRICS,
    auroc,
    bootstrap,
    bootstrap_difference,
    delong_interval,
    sensitivity_at_specificity,
)
from tests.test_probes.scored import read_reader_study, scored


@pytest.fixture(scope="module")
def reader_study(real_data):
    return read_reader_study(real_data)


def by_repeating_rows(metric, labels, scores, slides, *, repeats, seed):
    """Draw slides and put all rows of each, as often as it was drawn, one after another."""
    names = list(dict.fromkeys(slides.tolist()))
    rng, values = np.random.default_rng(seed), []
    for drawn in rng.integers(len(names), size=(repeats, len(names))):
        rows = np.concatenate([np.flatnonzero(slides == names[slide]) for slide in drawn])
        one_class = labels[rows].all() or not labels[rows].any()
        values.append(np.nan if one_class else metric(labels[rows], scores[rows]))
    return np.array(values)


@pytest.fixture
def cells():
    """200 cells on 25 slides that shift the scores of all their cells, by three fits."""
    rng = np.random.default_rng(3)
    slides = rng.integers(0, 25, 200)
    labels = rng.random(200) < 0.4
    shift = rng.normal(size=(25, 3))[slides]
    scores = 1.5 * labels[:, None] + shift + rng.normal(size=(200, 3)) / 2
    return labels, 1 / (1 + np.exp(-scores.round(1))), np.array([f"slide {s}" for s in slides])


@pytest.mark.parametrize("by", ["slide", "annotation"])
@pytest.mark.parametrize("metric", [roc_auc_score, average_precision_score])
def test_draws_are_those_of_a_loop_that_repeats_rows(cells, metric, by):
    labels, scores_NF, slides = cells
    name = {roc_auc_score: "auroc"}.get(metric, "average_precision")
    groups = slides if by == "slide" else None
    found = bootstrap(name, labels, scores_NF, groups=groups, repeats=230, seed=9)
    assert found.values.shape == (230, 3)
    assert found.n_drawn == (25 if by == "slide" else 200)
    units = slides if by == "slide" else np.arange(200)
    for fit, scores in enumerate(scores_NF.T):
        expected = by_repeating_rows(metric, labels, scores, units, repeats=230, seed=9)
        np.testing.assert_allclose(found.values[:, fit], expected, atol=1e-12)
        assert (found.low[fit], found.high[fit]) == pytest.approx(
            tuple(np.percentile(expected, [2.5, 97.5]))
        )
        assert found.standard_error[fit] == pytest.approx(np.std(expected, ddof=1))
        assert found.estimate[fit] == pytest.approx(metric(labels, scores))


@pytest.mark.parametrize("name", METRICS)
@given(case=scored(), slides=st.lists(st.integers(0, 4), min_size=25, max_size=25))
def test_every_metric_of_a_draw_is_that_of_the_repeated_rows(name, case, slides):
    slides = np.array(slides)[: len(case.labels)]
    scores = case.scores[:, 0]
    found = bootstrap(name, case.labels, scores, groups=slides, repeats=8, seed=1)
    expected = by_repeating_rows(METRICS[name], case.labels, scores, slides, repeats=8, seed=1)
    defined = ~np.isnan(expected)
    np.testing.assert_allclose(found.values[defined], expected[defined], atol=1e-12)
    if name not in ("brier", "calibration_error"):
        assert found.n_left_out == (~defined).sum()
        assert np.isnan(found.values[~defined]).all()


def test_slides_of_one_annotation_each_are_the_plain_bootstrap_whatever_their_names(cells):
    labels, scores_NF, _ = cells
    plain = bootstrap("auroc", labels, scores_NF, repeats=150, seed=4)
    names = np.random.default_rng(0).permutation(200).astype(str)
    by_name = bootstrap("auroc", labels, scores_NF, groups=names, repeats=150, seed=4)
    np.testing.assert_array_equal(plain.values, by_name.values)
    assert plain.n_drawn == by_name.n_drawn == 200


def test_a_seed_decides_the_draws_and_more_draws_go_on_from_fewer(cells):
    labels, scores_NF, slides = cells
    draw = partial(bootstrap, "auroc", labels, scores_NF, groups=slides)
    few, many, other = draw(repeats=120), draw(repeats=350), draw(repeats=120, seed=43)
    np.testing.assert_array_equal(few.values, many.values[:120])
    assert (few.seed, other.seed) == (42, 43)
    assert (few.values != other.values).all(axis=1).mean() > 0.9


def test_an_interval_by_slide_is_wider_where_cells_of_a_slide_are_alike(cells):
    labels, scores_NF, slides = cells
    by_cell = bootstrap("auroc", labels, scores_NF)
    by_slide = bootstrap("auroc", labels, scores_NF, groups=slides)
    np.testing.assert_array_equal(by_cell.estimate, by_slide.estimate)
    assert (by_slide.standard_error > 1.2 * by_cell.standard_error).all()


def test_slides_that_are_copies_of_one_cell_give_the_interval_of_the_cells():
    """Ten copies of each cell are no more information; only the bootstrap by slide knows."""
    rng = np.random.default_rng(5)
    labels = rng.random(80) < 0.5
    scores = labels + rng.normal(size=80)
    rows = np.repeat(np.arange(80), 10)
    once = bootstrap("auroc", labels, scores)
    copied = bootstrap("auroc", labels[rows], scores[rows], groups=rows)
    np.testing.assert_allclose(copied.values, once.values, atol=1e-14)
    as_if_new = delong_interval(labels[rows], scores[rows])
    assert as_if_new.standard_error < once.standard_error / 2.5


def test_two_models_are_compared_on_the_same_draws(cells):
    labels, scores_NF, slides = cells
    a, b = scores_NF[:, 0], scores_NF[:, 1]
    found = bootstrap_difference("auroc", labels, a, b, groups=slides, repeats=200)
    each = bootstrap("auroc", labels, scores_NF[:, :2], groups=slides, repeats=200)
    np.testing.assert_allclose(found.values, each.values[:, 0] - each.values[:, 1], atol=1e-15)
    assert found.estimate == pytest.approx(auroc(labels, a) - auroc(labels, b))
    assert found.low < found.estimate < found.high
    same = bootstrap_difference("auroc", labels, scores_NF, scores_NF, repeats=50)
    assert not same.values.any()
    assert same.standard_error.tolist() == [0, 0, 0]
    assert np.isnan([same.low, same.high, same.p]).all()
    assert all(reason.startswith("every draw gives the same value") for reason in same.reason)
    with pytest.raises(ProbesError, match="give two of the same shape"):
        bootstrap_difference("auroc", labels, a, scores_NF)


def test_all_pairs_of_fits_are_compared_on_one_set_of_draws(cells):
    labels, scores_NF, slides = cells
    drawn = bootstrap("auroc", labels, scores_NF, groups=slides, repeats=300)
    first, second = np.triu_indices(3, 1)
    found = drawn.difference(first, second)
    for place, (a, b) in enumerate(zip(first, second, strict=True)):
        alone = bootstrap_difference(
            "auroc", labels, scores_NF[:, a], scores_NF[:, b], groups=slides, repeats=300
        )
        one = drawn.difference(a, b)
        assert found.reason[place] == one.reason == alone.reason == ""
        for name in ("estimate", "low", "high", "standard_error", "p"):
            assert isinstance(getattr(one, name), float)
            assert getattr(one, name) == getattr(alone, name)
            assert getattr(one, name) == pytest.approx(getattr(found, name)[place])
        np.testing.assert_array_equal(alone.values, found.values[:, place])
    with pytest.raises(ProbesError, match=r"of one fit; give scores of shape \(n, fits\)"):
        bootstrap("auroc", labels, scores_NF[:, 0]).difference(0, 1)


def test_p_counts_the_draws_on_the_other_side_of_zero(cells):
    """By counting; below 0.05 where the interval leaves out 0, and not else."""
    labels, scores_NF, slides = cells
    noise = np.random.default_rng(1).normal(size=(200, 40)) * np.linspace(0.01, 0.3, 40)
    a = np.repeat(scores_NF[:, :1], 40, axis=1)
    found = bootstrap_difference("auroc", labels, a, a + noise, groups=slides, repeats=399)
    p = [min(2 * (1 + min((d <= 0).sum(), (d >= 0).sum())) / 400, 1) for d in found.values.T]
    np.testing.assert_allclose(found.p, p)
    outside = (found.low > 0) | (found.high < 0)
    assert 5 < outside.sum() < 35
    clear = np.abs(found.p - 0.05) > 2 / 400
    np.testing.assert_array_equal((found.p < 0.05)[clear], outside[clear])
    other_way = bootstrap_difference("auroc", labels, a + noise, a, groups=slides, repeats=399)
    np.testing.assert_array_equal(other_way.p, found.p)
    assert found.p.min() >= 2 / 400


def test_p_is_1_where_most_draws_hold_no_difference():
    """One pair in another order, which a draw holds with (1 - 1 / e)^2 = 0.4."""
    labels, a = np.arange(30) % 2 == 1, np.arange(30.0)
    b = a.copy()
    b[[10, 11]] = a[[11, 10]]
    found = bootstrap_difference("auroc", labels, a, b, repeats=500)
    assert (found.values == 0).mean() > 0.5
    assert found.p == 1.0


def test_many_classes_of_two_models_are_compared_on_the_same_draws():
    rng = np.random.default_rng(4)
    names, codes, slides = np.array(["a", "b", "c"]), rng.integers(0, 3, 90), np.arange(90) // 6
    p = rng.random((90, 2, 3)) + [[[0.2], [1.5]]] * (codes[:, None] == np.arange(3))[:, None]
    p /= p.sum(axis=2, keepdims=True)
    found = bootstrap_difference(
        "auroc", names[codes], p[:, 1], p[:, 0], names, groups=slides, repeats=60
    )
    each = [
        bootstrap("auroc", names[codes], p[:, fit], names, groups=slides, repeats=60).values
        for fit in (0, 1)
    ]
    np.testing.assert_allclose(found.values, each[1] - each[0], atol=1e-15)
    assert found.p == 2 / 61
    assert found.low > 0


def test_equal_models_differ_by_slide_about_as_often_as_p_says():
    """200 pairs whose scores shift by slide; half of 40 slides hold mostly mitotic figures."""
    rng = np.random.default_rng(6)
    slides = np.repeat(np.arange(40), 5)
    labels = rng.random(200) < np.where(slides % 2, 0.8, 0.1)
    a, b = (
        labels[:, None] + rng.normal(size=(40, 200))[slides] + rng.normal(size=(200, 200))
        for _ in range(2)
    )
    by_slide = bootstrap_difference("auroc", labels, a, b, groups=slides, repeats=400)
    by_cell = bootstrap_difference("auroc", labels, a, b, repeats=400)
    assert 0.01 < (by_slide.p < 0.05).mean() < 0.1 < (by_cell.p < 0.05).mean()


def test_many_annotations_are_drawn_a_few_draws_at_once_and_the_same():
    """90,000 annotations on 7 slides: more than fit at once, and 7 is odd."""
    rng = np.random.default_rng(9)
    labels, slides = rng.random(90_000) < 0.3, np.arange(90_000) % 7
    scores = labels + rng.normal(size=90_000)
    found = bootstrap("auroc", labels, scores, groups=slides, repeats=95, seed=3)
    for draw, drawn in enumerate(np.random.default_rng(3).integers(7, size=(95, 7))):
        if draw in (0, 87, 88, 89, 94):
            weights = np.bincount(drawn, minlength=7)[slides]
            expected = roc_auc_score(labels, scores, sample_weight=weights)
            assert found.values[draw] == pytest.approx(expected, abs=1e-12)


def test_draws_of_one_class_are_left_out_and_counted():
    """By hand: each draw of six has none of the two positives with probability (4 / 6)^6."""
    labels, scores = [1, 1, 0, 0, 0, 0], [0.9, 0.3, 0.4, 0.2, 0.1, 0.6]
    found = bootstrap("auroc", labels, scores, repeats=4_000)
    expected = (4 / 6) ** 6 + (2 / 6) ** 6
    assert found.n_left_out / 4_000 == pytest.approx(expected, abs=0.015)
    assert found.n_left_out == np.isnan(found.values).sum()
    assert found.reason == ""
    kept = found.values[~np.isnan(found.values)]
    assert found.high == pytest.approx(np.percentile(kept, 97.5))
    assert found.standard_error == pytest.approx(kept.std(ddof=1))


def test_where_no_interval_follows_it_is_nan_and_says_why():
    one_slide = bootstrap("auroc", [0, 1, 1], [0.1, 0.9, 0.05], groups=["s", "s", "s"])
    assert one_slide.estimate == 0.5
    assert math.isnan(one_slide.low)
    assert one_slide.reason.startswith("there is one slide")
    one_class = bootstrap("auroc", [1, 1], [0.1, 0.9])
    assert math.isnan(one_class.estimate)
    assert one_class.n_left_out == one_class.repeats == 1_000
    assert one_class.reason.startswith("all 2 labels are 1; there is no other class")
    assert bootstrap("auroc", [], []).reason == "there is no annotation to test on"
    paired = bootstrap_difference("auroc", [1, 1], [0.1, 0.9], [0.2, 0.3])
    assert paired.reason == one_class.reason
    assert np.isnan([paired.estimate, paired.low, paired.high, paired.p]).all()
    three = np.full((3, 3), 1 / 3), ["a", "b", "c"]
    not_for_three = bootstrap("sensitivity_at_specificity", ["a", "b", "c"], *three)
    assert not_for_three.reason == "the metric is undefined on these annotations"
    too_few = bootstrap("auroc", [0, 1, 0, 1], [0.1, 0.9, 0.2, 0.3], repeats=2, seed=11)
    assert (too_few.n_left_out, too_few.estimate) == (1, 1.0)
    assert math.isnan(too_few.low)
    assert too_few.reason == "the metric is undefined in 1 of 2 draws; make more"


def test_a_class_on_one_slide_says_nothing_of_other_slides():
    """All kept draws hold that slide; what needs one class only is not concerned."""
    labels, scores = np.arange(100) < 10, np.random.default_rng(0).random(100)
    slides = np.arange(100) // 10
    found = bootstrap("auroc", labels, scores, groups=slides)
    assert 0.3 < found.n_left_out / found.repeats < 0.42  # (9 / 10)^10 = 0.35
    assert np.isnan([found.low, found.high, found.standard_error]).all()
    assert found.reason == "all 10 labels 1 are on one slide; two slides with each are needed"
    assert bootstrap("brier", labels, scores, groups=slides).reason == ""
    assert bootstrap("auroc", labels, scores).reason == ""
    lonely = bootstrap("auroc", labels[9:], scores[9:])
    assert lonely.reason == "there is 1 label 1; two of each class are needed"
    names = np.array(["look-alike", "mitotic figure"])
    by_name = bootstrap(
        "auroc",
        names[labels.astype(int)],
        np.stack([1 - scores, scores], axis=1),
        names,
        groups=slides,
    )
    assert by_name.reason.startswith("all 10 labels 'mitotic figure' are on one slide")
    paired = bootstrap_difference("auroc", labels, scores, scores**2 % 0.1, groups=slides)
    assert math.isnan(paired.p)
    assert paired.reason == found.reason


def test_draws_that_are_all_alike_give_no_interval_to_that_fit_alone():
    """A perfect order stays perfect in every draw, which is no proof that it is perfect."""
    labels = np.arange(20) >= 10
    drawn = bootstrap("auroc", labels, np.stack([np.arange(20), np.arange(20) % 7], axis=1))
    assert drawn.estimate.tolist()[0] == 1.0
    assert np.isnan(drawn.low).tolist() == np.isnan(drawn.high).tolist() == [True, False]
    assert drawn.reason.tolist() == [
        "every draw gives the same value, from which no interval follows",
        "",
    ]
    assert drawn.standard_error[0] == 0 < drawn.standard_error[1]
    always = bootstrap("brier", labels, np.full(20, 0.3) + 0.4 * labels)  # 0.09, up to rounding
    assert (always.estimate, always.standard_error) == (pytest.approx(0.09), 0)
    assert math.isnan(always.low)


def test_a_metric_of_ones_own_is_drawn_too(cells):
    labels, scores_NF, _ = cells
    own = partial(sensitivity_at_specificity, specificity=0.5)
    found = bootstrap(own, labels, scores_NF, repeats=20)
    np.testing.assert_array_equal(found.estimate, own(labels, scores_NF))


def test_three_classes_are_drawn_by_slide():
    rng = np.random.default_rng(2)
    codes, slides = rng.integers(0, 3, 90), rng.integers(0, 12, 90)
    p = rng.random((90, 3)) + (codes[:, None] == np.arange(3))
    p, names = p / p.sum(axis=1, keepdims=True), np.array(["a", "b", "c"])
    found = bootstrap("auroc", names[codes], p, names, groups=slides, repeats=5, seed=6)
    for value, drawn in zip(
        found.values, np.random.default_rng(6).integers(12, size=(5, 12)), strict=True
    ):
        order = list(dict.fromkeys(slides.tolist()))
        rows = np.concatenate([np.flatnonzero(slides == order[slide]) for slide in drawn])
        theirs = roc_auc_score(names[codes][rows], p[rows], multi_class="ovo", labels=names)
        assert value == pytest.approx(theirs)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ProbesError, match=r"metric='auc' is unknown; give one of auroc, "):
        bootstrap("auc", [0, 1], [0.1, 0.9])
    with pytest.raises(ProbesError, match=r"groups of shape \(1,\) for 2 labels"):
        bootstrap("auroc", [0, 1], [0.1, 0.9], groups=["s"])
    with pytest.raises(ProbesError, match="repeats=1 gives no interval"):
        bootstrap("auroc", [0, 1], [0.1, 0.9], repeats=1)
    with pytest.raises(ProbesError, match="confidence=0 "):
        bootstrap("auroc", [0, 1], [0.1, 0.9], confidence=0)


@pytest.mark.parametrize("unit", ["regions", "slides"])
def test_readers_drawn_by_slide_or_region_are_as_the_loop_has_them(reader_study, unit):
    modality = reader_study["scanner.B"]
    truth, votes, groups = modality.truth, modality.said.sum(axis=1), getattr(modality, unit)
    found = bootstrap("auroc", truth, votes, groups=groups, repeats=300, seed=0)
    assert found.n_drawn == {"regions": 38, "slides": 4}[unit]
    expected = by_repeating_rows(roc_auc_score, truth, votes, groups, repeats=300, seed=0)
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    assert found.low < found.estimate < found.high
