"""Paired tests between models: levels under the null, planted differences, and what has no test."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

import probes
from probes.comparing import adjusted, resampled_t_test
from probes.errors import ProbesError, ResultsError
from probes.metrics import auroc
from probes.results import training_results

# ---- over repeats


def null_differences(n_simulations, rng):
    """AUROC differences of two equally good models on five random test parts of a fifth each."""
    n, n_test = 200, 40
    labels = np.arange(n) % 2 == 1
    scores = labels[:, None] + rng.normal(size=(n, 2 * n_simulations))
    tested = np.stack([rng.permutation(n) < n_test for _ in range(5)], axis=1)
    values = auroc(labels, scores, weights=tested.astype(float))
    return values[:n_simulations] - values[n_simulations:]


def test_under_the_null_the_corrected_test_keeps_its_level_and_the_naive_one_does_not():
    """By theory: test parts that share a fifth give the naive test 13.8 % at a level of 5 %."""
    rng = np.random.default_rng(0)
    differences = np.concatenate([null_differences(100, rng) for _ in range(40)])
    found = resampled_t_test(differences, n_train=160, n_test=40)
    assert found.p.shape == (4_000,)
    corrected, naive = (np.mean(p < 0.05) for p in (found.p, found.naive_p))
    assert 0.035 < corrected < 0.065
    assert 0.11 < naive < 0.17


def test_the_naive_test_is_the_paired_t_test():
    one, other = np.random.default_rng(0).random((2, 6, 5))
    found = resampled_t_test(one - other, n_train=80, n_test=20)
    expected = ttest_rel(one, other, axis=1)
    assert found.naive_t == pytest.approx(expected.statistic)
    assert found.naive_p == pytest.approx(expected.pvalue)


def test_the_corrected_test_by_hand():
    """Differences 1, 2, 3 (mean 2, variance 1); 1/3 + 1/4 = 7/12; t(2) has a closed form."""
    found = resampled_t_test([1.0, 2.0, 3.0], n_train=80, n_test=20)
    t = 2 / math.sqrt(7 / 12)
    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert (found.difference, found.sd, found.repeats) == (2.0, 1.0, 3)


@pytest.mark.parametrize(
    ("differences", "repeats", "reason"),
    [
        ([0.1, 0.1, 0.1], 3, "all repeats differ by the same"),
        ([0.1], 1, "needs two repeats or more"),
        ([0.1, math.nan], 1, "needs two repeats or more"),
        ([math.nan, math.nan], 0, "needs two repeats or more"),
    ],
)
def test_where_there_is_no_test_there_is_no_p_but_a_reason(differences, repeats, reason):
    found = resampled_t_test(differences, n_train=80, n_test=20)
    assert math.isnan(found.p)
    assert math.isnan(found.naive_p)
    assert found.repeats == repeats
    assert reason in found.reason


def test_values_that_are_no_numbers_are_left_out():
    pairs = resampled_t_test([[1, 2, math.nan, 3], [1, 2, 3, 4]], n_train=80, n_test=20)
    alone = resampled_t_test([1, 2, 3], n_train=80, n_test=20)
    assert (pairs.t[0], pairs.p[0], pairs.repeats[0]) == (alone.t, alone.p, 3)
    with pytest.raises(ProbesError, match="n_train=0, n_test=20 are no sizes"):
        resampled_t_test([1, 2, 3], n_train=0, n_test=20)


# ---- corrections


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, then 0.022 x 2 may not fall below 0.06, and 0.5 x 1."""
    assert adjusted([0.02, 0.5, 0.01, 0.022]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert adjusted([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert adjusted([]).tolist() == []


def test_benjamini_and_hochberg_by_hand_and_nothing_for_nothing():
    """0.04 x 4 / 4; 0.03 x 4 / 3 = 0.04; 0.02 x 4 / 2 = 0.04; 0.005 x 4 / 1."""
    assert adjusted([0.03, 0.005, 0.04, 0.02], "bh") == pytest.approx([0.04, 0.02, 0.04, 0.04])
    assert adjusted([0.03, 0.005], "none").tolist() == [0.03, 0.005]
    with pytest.raises(ProbesError, match="correction='bonferroni' is unknown"):
        adjusted([0.1], "bonferroni")


def test_a_test_that_was_not_made_counts_for_nothing():
    both = adjusted([0.01, math.nan, 0.04])
    assert both[[0, 2]].tolist() == adjusted([0.01, 0.04]).tolist()
    assert math.isnan(both[1])


# ---- models


@pytest.fixture
def table(make_table):
    return make_table(500)


@pytest.fixture
def encoder(table, make_source):
    def make(name, **settings):
        made = make_source(table, **({"seed": len(name)} | settings))
        return replace(made, model=name, digest=f"sha256:{name}")

    return make


@pytest.fixture
def curves(table, encoder):
    """A good, a poor and another good encoder on three repeats of two sizes, with scores."""
    splits = probes.monte_carlo(table, repeats=3, train=(0.2, 1.0))
    sources = [
        encoder("good", signal=1.2),
        encoder("bad", signal=0.3),
        encoder("equal", signal=1.2),
    ]
    return probes.learning_curve(sources, table, splits, objective="l2", keep_scores=True)


def test_every_pair_is_tested_on_every_split_and_over_repeats(curves, table):
    found = probes.compare(curves, table)
    pairs = [("good", "bad"), ("good", "equal"), ("bad", "equal")]
    for frame, n in ((found.splits, 6), (found.repeats, 2)):
        assert frame.groupby(["first", "second"]).size().to_dict() == dict.fromkeys(pairs, n)
    at_full = found.repeats[found.repeats["size"] == 1].set_index(["first", "second"])
    assert at_full.loc[pairs[0], "difference"] > 0.1
    assert at_full.loc[pairs[2], "difference"] < -0.1
    assert at_full.loc[pairs[0], "p"] < 0.05 < at_full.loc[pairs[1], "p"]
    assert (found.repeats["naive_p"] < found.repeats["p"]).all()
    tested = found.splits[found.splits["size"] == 1].set_index(["first", "second"])
    for test in ("delong", "bootstrap"):
        assert (tested.loc[[pairs[0]], f"{test}_p_adjusted"] < 0.01).all()
        assert (tested.loc[[pairs[1]], f"{test}_p_adjusted"] > 0.05).all()


def test_values_and_differences_are_those_of_the_results(curves, table):
    found = probes.compare(curves, table)
    values = curves.to_frame().set_index(["model", "split"])["value"]
    for row in found.splits.itertuples():
        one, other = values[row.first, row.split], values[row.second, row.split]
        assert (row.first_value, row.second_value) == (one, other)
        assert row.difference == one - other
    of_pair = found.splits.groupby(["first", "second", "size"])["difference"]
    over = found.repeats.set_index(["first", "second", "size"])
    assert over["difference"].to_dict() == pytest.approx(of_pair.mean().to_dict())
    assert over["sd"].to_dict() == pytest.approx(of_pair.std(ddof=1).to_dict())


def test_repeats_are_corrected_by_the_share_that_is_tested_whatever_the_size(curves, table):
    """Sizes are drawn from one pool: a fifth of it does not make test parts overlap more."""
    found = probes.compare(curves, table)
    for (_, _, size), row in found.repeats.set_index(["first", "second", "size"]).iterrows():
        by_hand = resampled_t_test(
            found.splits[
                (found.splits["first"] == row.name[0])
                & (found.splits["second"] == row.name[1])
                & (found.splits["size"] == size)
            ]["difference"],
            n_train=320,  # 0.8 x 0.8 x 500
            n_test=100,
        )
        assert row["p"] == pytest.approx(by_hand.p)


def all_pairs_delong(labels, one, other):
    """Variance of the difference by its definition: every positive against every other."""
    wins = [np.heaviside(scores[labels][:, None] - scores[~labels], 0.5) for scores in (one, other)]
    gap = wins[0] - wins[1]
    return (
        gap.mean(axis=1).var(ddof=1) / labels.sum() + gap.mean(axis=0).var(ddof=1) / (~labels).sum()
    )


def test_delong_is_that_of_every_pair_of_annotations(curves, table):
    found = probes.compare(curves, table)
    said = curves.scores.set_index(["model", "split"]).sort_index()
    for row in found.splits.itertuples():
        one, other = (said.loc[(model, row.split)] for model in (row.first, row.second))
        assert one["id"].tolist() == other["id"].tolist()
        labels = (one["label"] == "mitotic figure").to_numpy()
        scores = [frame["p mitotic figure"].to_numpy() for frame in (one, other)]
        assert row.delong_se**2 == pytest.approx(all_pairs_delong(labels, *scores))


def test_a_difference_that_lies_on_some_slides_is_less_sure_by_slide(make_table):
    """One model tells the classes on every other slide only, the other a little on each."""
    table = make_table(1_200, n_slides=24)
    rng, slides = np.random.default_rng(0), table.column("slide").astype(int)
    sign = np.where(table.labels == "mitotic figure", 1, -1)
    split = probes.Split(np.arange(2), [], table.ids)
    results = probes.Results()
    for model, signal in (("some", 2.5 * (slides % 2)), ("each", 0.5)):
        positive = 1 / (1 + np.exp(-(signal * sign + rng.normal(size=len(sign)))))
        classes = np.array(["look-alike", "mitotic figure"])
        said = np.stack([1 - positive, positive], axis=1)
        score = probes.Score(
            auroc(table.labels, said, classes), table.ids, table.labels, said, classes
        )
        cells = {"model": model, "annotations": table, "keep_scores": True}
        results = results.merged(training_results(score, split, **cells))
    widths = {}
    for by in ("slide", None):
        row = probes.compare(results, table, by=by).splits.iloc[0]
        widths[by] = row["bootstrap_high"] - row["bootstrap_low"]
        assert row["bootstrap_low"] < row["difference"] < row["bootstrap_high"]
        assert row["n_groups"] == (24 if by else 1_200)
    assert widths["slide"] > 1.5 * widths[None]
    assert widths[None] == pytest.approx(2 * 1.96 * row["delong_se"], rel=0.1)  # both by annotation


def test_p_values_of_one_repeat_are_adjusted_together(curves, table):
    found = probes.compare(curves, table, draws=50)
    for _, repeat in found.splits.groupby("repeat"):
        for test in ("delong", "bootstrap"):
            expected = adjusted(repeat[f"{test}_p"].to_numpy())
            assert repeat[f"{test}_p_adjusted"].to_numpy() == pytest.approx(expected)
    assert found.repeats["p_adjusted"].to_numpy() == pytest.approx(
        adjusted(found.repeats["p"].to_numpy())
    )
    none = probes.compare(curves, table, draws=50, correction="none").repeats
    assert (none["p_adjusted"] == none["p"]).all()


def test_the_share_of_annotations_that_repeats_share_is_counted(curves, table):
    found = probes.compare(curves, table, draws=50)
    tested = [
        set(frame["id"])
        for _, frame in curves.scores[curves.scores["model"] == "good"].groupby(
            "split", observed=True
        )
    ]
    tested = [part for place, part in enumerate(tested) if part not in tested[:place]]
    shares = [len(a & b) / 100 for k, a in enumerate(tested) for b in tested[:k]]
    assert len(shares) == 3
    assert found.repeats["shared_test"].to_numpy() == pytest.approx(np.mean(shares))
    assert f"(here {100 * np.mean(shares):.0f} % of each test part)" in found.note


def test_tests_come_back_from_files_as_they_were(curves, table, tmp_path):
    curves.save(tmp_path / "r")
    before = probes.compare(curves, table, draws=50)
    after = probes.compare(probes.Results.load(tmp_path / "r"), table, draws=50)
    pd.testing.assert_frame_equal(before.splits, after.splits)
    pd.testing.assert_frame_equal(before.repeats, after.repeats)


def test_the_order_in_which_scores_are_kept_is_of_no_matter(curves, table):
    shuffled = curves.scores.sample(frac=1, random_state=0)
    before = probes.compare(curves, table, draws=50)
    after = probes.compare(replace(curves, scores=shuffled), table, draws=50)
    assert after.splits["delong_p"].tolist() == pytest.approx(before.splits["delong_p"].tolist())


# ---- what has no test


def test_without_scores_only_repeats_are_tested(curves, table):
    found = probes.compare(probes.Results(curves.rows), table)
    assert found.splits[["delong_p", "bootstrap_p"]].isna().all(axis=None)
    assert set(found.splits["reason"]) == {
        "no per-annotation scores are kept; fit again with keep_scores=True (--keep-scores)"
    }
    assert found.repeats["p"].notna().all()
    assert found.repeats["shared_test"].isna().all()
    whole = probes.compare(curves, table, draws=50).repeats
    assert found.repeats["p"].tolist() == whole["p"].tolist()


def test_repeats_that_test_the_same_annotations_are_not_tested_by_a_t_test(table, encoder):
    both = [encoder("good"), encoder("bad", signal=0.3)]
    options = {"objective": "l2", "repeats": 3, "keep_scores": True}
    result = probes.cross_domain(both, table, **options)
    found = probes.compare(result, table, draws=50)
    inside = found.repeats["train_domain"] == found.repeats["test_domain"]
    assert found.repeats.loc[inside, "p"].notna().all()
    outside = found.repeats[~inside]
    assert outside[["t", "p", "naive_p"]].isna().all(axis=None)
    assert all(reason.startswith("the same annotations are tested") for reason in outside["reason"])
    assert (outside["shared_test"] == 1).all()
    assert found.splits["bootstrap_p"].notna().all()
    bare = probes.compare(probes.Results(result.rows), table).repeats
    assert bare["p"].isna().tolist() == found.repeats["p"].isna().tolist()
    sizes = pd.Series(table.column("domain")).value_counts()
    for row in found.splits.itertuples():
        own = row.train_domain == row.test_domain
        assert row.n_test == (
            round(0.2 * sizes[row.test_domain]) if own else sizes[row.test_domain]
        )


def test_equal_models_one_slide_and_other_metrics_say_why(curves, table):
    twin = [row | {"model": "twin"} for row in curves.where(model="good").rows]
    said = curves.where(model="good").scores
    said = said.assign(model=pd.Categorical(["twin"] * len(said)))
    both = curves.where(model="good").merged(probes.Results(tuple(twin), said))
    equal = probes.compare(both, table, draws=50)
    assert set(equal.splits["reason"]) == {
        "DeLong: the variance of the difference is 0, so there is no test; "
        "bootstrap: every draw gives the same value, from which no interval follows"
    }
    assert equal.splits[["delong_p", "bootstrap_p"]].isna().all(axis=None)
    assert "all repeats differ by the same" in equal.repeats["reason"].iloc[0]
    table.columns["case"] = np.zeros(len(table.ids), int)
    alone = probes.compare(curves, table, by="case", draws=50).splits
    assert alone["delong_p"].notna().all()
    assert alone["bootstrap_p"].isna().all()
    assert set(alone["reason"]) == {
        "bootstrap: there is one slide or annotation to draw from, and every draw is the same"
    }
    assert set(alone["n_groups"]) == {1}
    with pytest.raises(ResultsError, match="there are results of no model in brier"):
        probes.compare(curves, table, metric="brier")


def test_any_metric_is_compared_and_delong_is_of_auroc_alone(table, encoder):
    splits = probes.monte_carlo(table, repeats=2, train=[1.0])
    both = [encoder("good"), encoder("bad", signal=0.3)]
    options = {"objective": "l2", "metrics": ["auroc", "brier"], "keep_scores": True}
    curve = probes.learning_curve(both, table, splits, **options)
    found = probes.compare(curve, table, metric="brier", draws=200)
    assert (found.splits["difference"] < -0.02).all()  # less is better
    assert (found.splits["bootstrap_p"] < 0.01).all()
    assert found.splits["delong_p"].isna().all()
    assert set(found.splits["reason"]) == {"DeLong: DeLong's test is of AUROC"}


def test_a_perfect_model_is_compared_though_its_own_draws_never_vary(table, encoder):
    perfect = encoder("perfect", signal=50)
    splits = probes.monte_carlo(table, repeats=2, train=[1.0])
    both = [perfect, encoder("bad", signal=0.3)]
    curve = probes.learning_curve(both, table, splits, objective="l2", keep_scores=True)
    found = probes.compare(curve, table, draws=100).splits
    assert found["first_value"].tolist() == [1.0, 1.0]
    assert (found[["delong_p", "bootstrap_p"]] < 1e-4).all(axis=None)


def test_three_classes_are_compared_by_the_bootstrap(table, encoder):
    table.labels = np.where(np.arange(len(table.ids)) % 4 == 0, "apoptotic body", table.labels)
    splits = probes.monte_carlo(table, repeats=2, train=[1.0])
    both = [encoder("good"), encoder("bad", signal=0.2)]
    curve = probes.learning_curve(both, table, splits, objective="l2", keep_scores=True)
    found = probes.compare(curve, table, draws=50).splits
    assert found["bootstrap_p"].notna().all()
    assert found["delong_p"].isna().all()
    assert "DeLong's test is of two classes, and there are 3" in found["reason"].iloc[0]


def test_a_model_with_two_recipes_is_two_models(table, encoder):
    splits = probes.monte_carlo(table, repeats=2, train=[1.0])
    one, other = (
        probes.learning_curve(encoder("good"), table, splits, objective="l2", C=C)
        for C in (1.0, 0.001)
    )
    found = probes.compare(one.merged(other), table).repeats
    assert found[["first", "second"]].to_numpy().tolist() == [
        ["good (logistic objective=l2 C=1)", "good (logistic objective=l2 C=0.001)"]
    ]


def test_what_cannot_be_compared_is_refused(curves, table, encoder, make_table):
    with pytest.raises(
        ResultsError, match="there are results of good in auroc; a comparison needs"
    ):
        probes.compare(curves.where(model="good"), table)
    other = make_table(100, seed=3)
    other.name, other.digest = "other", "sha256:other"
    with pytest.raises(
        ResultsError, match=r"there are no results of 'other' .* among those of 'toy'"
    ):
        probes.compare(curves, other)
    elsewhere = probes.monte_carlo(table, repeats=1, train=[1.0], seed=7)
    far = probes.learning_curve(encoder("far"), table, elsewhere, objective="l2")
    with pytest.raises(ResultsError, match="no two of good, far were tested on a common split"):
        probes.compare(curves.where(model="good").merged(far), table)
    with pytest.raises(ProbesError, match="correction='best' is unknown; use one of holm"):
        probes.compare(curves, table, correction="best")


def test_draws_of_several_rules_are_not_compared_as_repeats(curves, table, encoder):
    others = probes.grouped(table, repeats=3, train=[1.0])
    models = [encoder("good", signal=1.2), encoder("bad", signal=0.3)]
    both = curves.merged(probes.learning_curve(models, table, others, objective="l2"))
    with pytest.raises(ResultsError, match=r"there are 2 splits of repeat 0, size 1 with results"):
        probes.compare(both, table)


def test_what_could_not_be_trained_says_so_in_every_comparison(curves, table):
    why = "all 13 training labels are 'look-alike'; there is nothing to tell apart"
    gone = {"value": math.nan, "reason": why}
    rows = [
        row | gone if row["model"] == "bad" and row["repeat"] == 0 else row for row in curves.rows
    ]
    scores = curves.scores[
        ~(
            (curves.scores["model"] == "bad")
            & curves.scores["split"].isin({row["split"] for row in rows if row["repeat"] == 0})
        )
    ]
    found = probes.compare(probes.Results(tuple(rows), scores), table, draws=50)
    of_bad = (found.splits[["first", "second"]] == "bad").any(axis=1)
    first = found.splits["repeat"] == 0
    assert set(found.splits.loc[of_bad & first, "reason"]) == {why}
    assert found.splits.loc[~(of_bad & first), "bootstrap_p"].notna().all()
    over = (found.repeats[["first", "second"]] == "bad").any(axis=1)
    assert set(found.repeats.loc[over, "repeats"]) == {2}
    assert set(found.repeats.loc[~over, "repeats"]) == {3}


def test_scores_of_other_annotations_are_refused(curves, table):
    moved = curves.scores.copy()
    moved.loc[moved["model"] == "bad", "id"] += 1
    with pytest.raises(ResultsError, match="the scores of bad are of other annotations"):
        probes.compare(replace(curves, scores=moved), table)
    unknown = curves.scores.assign(id=curves.scores["id"] + 10_000)
    with pytest.raises(ResultsError, match="scores are of annotations that 'toy' does not hold"):
        probes.compare(replace(curves, scores=unknown), table)


# ---- domains


def test_with_a_domain_left_out_repeats_share_what_was_held_out_of_all_others(table, encoder):
    """A fifth of each training domain is tested, so the share is that of all, not of one domain."""
    both = [encoder("good"), encoder("bad", signal=0.3)]
    splits = probes.leave_one_domain_out(table, repeats=3)
    found = probes.compare(probes.cross_domain(both, table, splits, objective="l2"), table)
    inside = found.repeats[found.repeats["reason"] == ""]
    assert len(inside) == 6
    for row in inside.itertuples():
        own = (found.splits["train_domain"] == row.train_domain) & (
            found.splits["test_domain"] == row.test_domain
        )
        by_hand = resampled_t_test(found.splits[own]["difference"], n_train=0.64, n_test=0.2)
        assert row.p == pytest.approx(by_hand.p, rel=0.05)  # parts are whole annotations


def test_means_over_pairs_of_domains_are_compared_as_in_table_2(table, encoder):
    both = [encoder("good"), encoder("bad", signal=0.3)]
    results = probes.cross_domain(both, table, repeats=3, objective="l2")
    found = probes.compare(results, table)
    frame = results.to_frame()
    frame["inside"] = frame["train_domain"] == frame["test_domain"]
    means = frame.groupby(["inside", "model", "repeat"])["value"].mean()
    for row in found.places.itertuples():
        inside = row.tested == "in domain"
        gaps = means[inside]["good"] - means[inside]["bad"]
        assert (row.difference, row.sd) == pytest.approx((gaps.mean(), gaps.std()))
        assert (row.pairs, row.repeats) == (3 if inside else 6, 3)
        if inside:
            by_hand = resampled_t_test(gaps, n_train=0.64, n_test=0.2)
            assert row.p == pytest.approx(by_hand.p, rel=0.05)
    rows = [
        row | {"value": math.nan, "reason": "why"} if place == 0 else row
        for place, row in enumerate(results.rows)
    ]
    some = probes.compare(probes.Results(tuple(rows)), table).places
    assert some["repeats"].tolist() == [2, 3]  # a mean over other pairs is another mean


def test_results_without_domains_have_no_means_over_them(curves, table):
    assert len(probes.compare(probes.Results(curves.rows), table).places) == 0


def test_domains_of_another_column_are_named(table, encoder):
    table.columns["scanner"] = np.array(["x", "y"])[table.column("slide").astype(int) % 2]
    splits = probes.single_domain(table, column="scanner", repeats=2)
    both = [encoder("good"), encoder("bad", signal=0.3)]
    results = probes.cross_domain(both, table, splits, objective="l2", keep_scores=True)
    with pytest.raises(ResultsError, match="no annotation that was tested has the domain 'x'; nam"):
        probes.compare(results, table)
    found = probes.compare(results, table, domain="scanner", draws=50).splits
    assert found["bootstrap_p"].notna().all()


def test_means_of_both_models_are_over_the_same_repeats(curves, table):
    rows = [
        row | {"value": math.nan, "reason": "why"}
        if row["model"] == "bad" and row["repeat"] == 0
        else row
        for row in curves.rows
    ]
    found = probes.compare(probes.Results(tuple(rows)), table).repeats
    assert (found["first_mean"] - found["second_mean"]).to_numpy() == pytest.approx(
        found["difference"].to_numpy()
    )


def test_labels_are_those_of_the_annotations_whatever_a_file_of_scores_says(curves, table):
    wrong = curves.scores.assign(label="look-alike")
    before = probes.compare(curves, table, draws=50).splits
    after = probes.compare(replace(curves, scores=wrong), table, draws=50).splits
    pd.testing.assert_frame_equal(before, after)
