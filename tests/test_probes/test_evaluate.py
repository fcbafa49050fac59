import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import probes
from probes.errors import ProbesError, SplitError
from probes.metrics import auroc
from probes.protocols import InMemory

CLASSES = np.array(["a", "b"])


def two_columns(scores):
    return np.stack([1 - np.asarray(scores), scores], axis=1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_auroc_is_the_share_of_pairs_in_the_right_order_ties_counting_half(rows):
    positive = np.array([row[0] for row in rows])
    scores = np.array([row[1] for row in rows]) / 5
    value = auroc(CLASSES[positive.astype(int)], two_columns(scores), CLASSES)
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    if pairs:
        assert value == pytest.approx(np.mean(pairs))
    else:
        assert math.isnan(value)


def test_auroc_does_not_depend_on_which_class_is_called_positive():
    rng = np.random.default_rng(0)
    labels, scores = CLASSES[rng.integers(0, 2, 50)], rng.random(50)
    swapped = np.where(labels == "a", "b", "a")
    assert auroc(labels, two_columns(scores), CLASSES) == pytest.approx(
        auroc(swapped, two_columns(1 - scores), CLASSES)
    )


def test_three_classes_average_over_pairs_of_classes():
    """Hand and Till by hand: A(i, j) of each pair on the rows of these two classes."""
    labels = np.array(["a", "a", "b", "b", "c", "c"])
    p = np.array(
        [
            [0.6, 0.3, 0.1],
            [0.2, 0.7, 0.1],
            [0.3, 0.5, 0.2],
            [0.1, 0.6, 0.3],
            [0.4, 0.1, 0.5],
            [0.1, 0.1, 0.8],
        ]
    )

    def above(column, own, other):
        pairs = [
            (x > y) + 0.5 * (x == y)
            for x in p[labels == own, column]
            for y in p[labels == other, column]
        ]
        return np.mean(pairs)

    names = ["a", "b", "c"]
    expected = np.mean(
        [
            (above(i, names[i], names[j]) + above(j, names[j], names[i])) / 2
            for i in range(3)
            for j in range(i)
        ]
    )
    assert auroc(labels, p, np.array(names)) == pytest.approx(expected)


class Column:
    """A model that takes its probability from the first column."""

    classes_ = CLASSES

    def predict_proba(self, X):
        return two_columns(X[:, 0])


def test_only_the_test_part_is_read_in_blocks_and_in_its_order():
    asked = []

    def read(ids):
        asked.append(len(ids))
        return np.asarray(ids, float)[:, None] / 10_000

    split = SimpleNamespace(test=np.arange(2_500)[::-1])
    table = SimpleNamespace(labels_of=lambda ids: CLASSES[(ids > 1_000).astype(int)])
    score = probes.evaluate(Column(), SimpleNamespace(read=read), table, split)
    assert asked == [1_024, 1_024, 452]
    assert score.auroc == 1.0
    assert score.n_test == 2_500
    assert score.probabilities[0, 1] == pytest.approx(0.2499)
    some = score.among(score.ids <= 1_000)
    assert math.isnan(some.auroc)
    assert some.n_test == 1_001
    assert some.metrics["auroc"].reason == (
        "all 1001 labels are 'a'; there is no other class to tell them from"
    )


def test_a_score_holds_every_metric_and_the_auroc_it_names():
    labels, scores = CLASSES[[0, 1, 1, 0]], [0.2, 0.6, 0.4, 0.5]
    score = probes.Score(0.75, np.arange(4), labels, two_columns(scores), CLASSES)
    assert list(score.metrics) == list(probes.metrics.METRICS)
    assert score.metrics["auroc"].value == score.auroc
    assert score.metrics["brier"].value == pytest.approx((0.04 + 0.16 + 0.36 + 0.25) / 4)
    assert score.metrics is score.metrics
    assert score.among(labels == "b").metrics["balanced_accuracy"].reason.startswith("all 2 labels")


def test_a_label_that_the_model_does_not_know_leaves_the_auroc_undefined():
    table = SimpleNamespace(labels_of=lambda ids: np.array(["a", "b", "c"]))
    source = SimpleNamespace(read=lambda ids: np.array([[0.1], [0.7], [0.3]]))
    score = probes.evaluate(Column(), source, table, SimpleNamespace(test=np.arange(3)))
    assert math.isnan(score.auroc)
    assert score.metrics["auroc"].reason == "labels hold 'c', and there is no probability of that"


def test_an_empty_test_part_is_refused():
    with pytest.raises(SplitError, match="test part of the split is empty"):
        probes.evaluate(Column(), None, None, SimpleNamespace(test=np.array([], int)))


def test_embeddings_that_were_read_are_still_known_by_their_encoder(make_table, make_source):
    table = make_table()
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    known = [replace(make_source(table), model=name, digest=f"sha256:{name}") for name in "ab"]
    own, other = (InMemory.of(source, splits) for source in known)
    assert (own.model, own.digest) == ("a", "sha256:a")
    probe = probes.LogisticProbe("l2").fit_source(own, table, splits[0])
    assert 0 < probes.evaluate(probe, own, table, splits[0]).auroc < 1
    with pytest.raises(ProbesError, match="the probe was fitted on embeddings of sha256:a, those"):
        probes.evaluate(probe, other, table, splits[0])
