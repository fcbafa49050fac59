from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import probes
from probes.errors import SplitError
from tests.strategies import annotation_ids
from tests.test_probes.conftest import Table
from tests.test_probes.splitting import (
    column_of,
    counts,
    in_another_order,
    is_disjoint,
    parts,
    read_midogpp,
)


@settings(max_examples=60)
@given(
    n=st.integers(60, 400),
    test=st.floats(0.05, 0.6),
    val=st.floats(0, 0.5),
    seed=st.integers(0, 100),
    slides=st.none() | st.integers(4, 30),
    stratify=st.sampled_from([None, "label", "domain", "slide"]),
)
def test_parts_share_no_id_and_training_sets_are_nested(
    make_table, n, test, val, seed, slides, stratify
):
    table = make_table(n, n_slides=slides or 10)
    shares = {"repeats": 2, "test": test, "val": val, "train": (0.5, 1.0), "seed": seed}
    make = probes.monte_carlo if slides is None else probes.grouped
    try:
        splits = make(table, **shares, stratify=stratify, one_class="keep")
    except SplitError:
        return
    known = set(table.ids.tolist())
    for split in splits:
        assert is_disjoint(split)
        assert set().union(*parts(split)) <= known
    for small, large in zip(splits[::2], splits[1::2], strict=True):
        for part_of_small, part_of_large in zip(parts(small), parts(large), strict=True):
            assert part_of_small <= part_of_large
        assert small.test.tolist() == large.test.tolist()
        assert parts(large)[0] | parts(large)[1] | parts(large)[2] == known


@pytest.mark.parametrize(
    ("n", "n_test", "n_train"),
    [(20_552, 4_110, [13, 132, 1_316, 13_154]), (72_845, 14_569, [47, 467, 4_663, 46_621])],
)
def test_the_papers_datasets_give_the_papers_sizes(make_table, n, n_test, n_train):
    splits = probes.monte_carlo(make_table(n), repeats=1)
    assert [len(split.train) for split in splits] == n_train
    assert {len(split.test) for split in splits} == {n_test}
    largest = splits[-1]
    assert len(largest.train) + len(largest.val) + len(largest.test) == n


def test_a_fifth_of_the_draw_validates_rounded_down(make_table):
    split = probes.monte_carlo(make_table(500), repeats=1, train=[0.25])[0]
    assert (len(split.train), len(split.val)) == (80, 20)
    for stratify in (None, "label"):  # 0.29 * 100 is 28.999999999999996
        split = probes.monte_carlo(
            make_table(125), repeats=1, val=0.29, train=[1.0], stratify=stratify
        )[0]
        assert (len(split.train), len(split.val)) == (71, 29)


def test_the_same_seed_draws_the_same_and_another_seed_does_not(make_table):
    table = make_table()
    first, again, other = (
        probes.monte_carlo(table, train=(0.1, 1.0), seed=seed) for seed in (1, 1, 2)
    )
    assert [split.digest for split in first] == [split.digest for split in again]
    assert first[0].digest != other[0].digest
    assert len({split.digest for split in first}) == len(first) == 10


def test_repeats_test_different_annotations(make_table):
    splits = probes.monte_carlo(make_table(), train=[1.0])
    assert len({tuple(sorted(split.test.tolist())) for split in splits}) == 5


@pytest.mark.parametrize("stratify", [None, "label", "domain"])
@pytest.mark.parametrize("nested", [True, False])
def test_no_slide_is_in_two_parts_of_a_grouped_split(make_table, stratify, nested):
    table = make_table()
    slide_of = column_of(table, "slide")
    for split in probes.grouped(table, train=(0.1, 1.0), stratify=stratify, nested=nested):
        train, val, tested = ({slide_of[i] for i in part} for part in parts(split))
        assert len(train) + len(val) + len(tested) == len(train | val | tested)
        assert 0.15 < len(split.test) / 600 < 0.25


def test_grouping_needs_three_groups(make_table):
    with pytest.raises(SplitError, match="has 2 values of 'slide'; at least 3 are needed"):
        probes.grouped(make_table(n_slides=2))


def test_a_size_that_leaves_nothing_says_what_would_do(make_table):
    with pytest.raises(
        SplitError,
        match=r"train=0.001 leaves 0 of 100 annotations to train on; give a "
        r"fraction of at least 0.025",
    ):
        probes.monte_carlo(make_table(100), train=[0.001])


def test_shares_outside_nought_to_one_are_refused(make_table):
    for shares in ({"test": 1.0}, {"val": -0.1}):
        with pytest.raises(SplitError, match="is not a share"):
            probes.monte_carlo(make_table(), **shares)


@pytest.mark.parametrize(
    "arguments",
    [
        {"train": (-0.1,)},
        {"train": (2.0,)},
        {"train": (1.0, 1.0)},
        {"train": ()},
        {"train": (float("nan"),)},
        {"repeats": 0},
        {"seed": -1},
        {"one_class": "skip"},
    ],
)
def test_options_that_no_split_can_be_drawn_by_are_refused(make_table, arguments):
    for maker in (probes.monte_carlo, probes.grouped):
        with pytest.raises(SplitError, match=r"are not sizes|draw nothing|'skip' is unknown; give"):
            maker(make_table(), **arguments)


def test_a_group_that_is_not_named_is_no_group(make_table):
    table = make_table()
    table.columns["slide"] = np.where(np.arange(600) < 3, "", table.columns["slide"])
    with pytest.raises(SplitError, match="3 of 600 annotations of 'toy' have no slide; name them"):
        probes.grouped(table)


# ---- of the datasets of the paper


def test_the_real_annotations_of_midogpp_give_sizes_worked_out_by_hand(real_data):
    """26,286: 5,257.2 are tested; of 21,029 are drawn 21.0, 210.3, 2,102.9 and all."""
    table = read_midogpp(real_data)
    for stratify in (None, "label", "domain"):
        splits = probes.monte_carlo(table, repeats=2, stratify=stratify)
        assert [(len(split.train), len(split.val)) for split in splits] == [
            (17, 4),
            (168, 42),
            (1_683, 420),
            (16_824, 4_205),
        ] * 2
        assert {len(split.test) for split in splits} == {5_257}


# ---- the order of rows


@settings(max_examples=25)
@given(ids=annotation_ids, seed=st.integers(0, 9), stratify=st.none() | st.just("label"))
def test_the_same_annotations_in_another_order_give_the_same_splits(ids, seed, stratify):
    ids = np.array(ids)
    n = len(ids)
    columns = {"slide": np.arange(n) % 4, "domain": np.array(["A", "B"])[np.arange(n) % 2]}
    table = Table(ids, np.array(["a", "b"])[np.arange(n) // 2 % 2], columns)
    other = in_another_order(table, seed)
    for make in (probes.monte_carlo, probes.grouped, probes.single_domain):
        options = {"repeats": 1, "seed": seed, "one_class": "keep", "stratify": stratify}
        options |= {} if make is probes.single_domain else LARGE
        try:
            first = make(table, **options)
        except SplitError:
            with pytest.raises(SplitError):
                make(other, **options)
            continue
        again = make(other, **options)
        assert [split.digest for split in first] == [split.digest for split in again]


LARGE = {"train": (0.5, 1.0)}


# ---- draws that are not nested


def test_sizes_that_are_not_nested_are_drawn_anew_from_one_test_part(make_table):
    table = make_table(2_000)
    small, large = probes.monte_carlo(table, repeats=1, train=(0.5, 1.0), nested=False)
    assert small.test.tolist() == large.test.tolist()
    assert (len(small.train), len(small.val)) == (640, 160)
    nested = probes.monte_carlo(table, repeats=1, train=(0.5, 1.0))
    assert nested[0].test.tolist() == small.test.tolist()
    both = len(parts(small)[0] & parts(large)[1])
    assert 90 < both < 170  # a fifth of 640 by chance; none where they are nested
    assert not parts(nested[0])[0] & parts(nested[1])[1]


def test_what_a_size_draws_does_not_depend_on_the_other_sizes(make_table):
    table = make_table()
    for make in (probes.monte_carlo, probes.grouped):
        for nested in (True, False):
            alone = make(table, train=[0.3], nested=nested)
            among = make(table, train=[0.1, 0.3, 1.0], nested=nested)
            assert [split.digest for split in alone] == [split.digest for split in among[1::3]]


# ---- strata


@settings(max_examples=60)
@given(
    n=st.integers(40, 400),
    test=st.floats(0.05, 0.6),
    val=st.floats(0, 0.5),
    seed=st.integers(0, 100),
    column=st.sampled_from(["label", "domain", "slide"]),
)
def test_every_stratum_keeps_its_share_to_within_one_annotation(
    make_table, n, test, val, seed, column
):
    """Of what is drawn from: all for the test part, the rest, and then the next larger set."""
    table = make_table(n, n_slides=9, n_domains=4)
    sizes = (0.2, 0.6, 1.0)
    splits = probes.monte_carlo(
        table,
        repeats=1,
        test=test,
        val=val,
        train=sizes,
        stratify=column,
        one_class="keep",
        seed=seed,
    )
    value_of = column_of(table, column)

    def keeps_shares(drawn, of):
        due = counts(of, value_of) * len(drawn) / max(len(of), 1)
        return (np.abs(counts(drawn, value_of) - due) <= 1).all()

    largest = splits[-1]
    rest = np.concatenate([largest.train, largest.val])
    assert keeps_shares(largest.test, table.ids)
    assert keeps_shares(largest.val, rest)
    assert keeps_shares(largest.train, rest)
    for small, large in pairwise(splits):
        assert keeps_shares(small.train, large.train)
        assert keeps_shares(small.val, large.val)
    plain = probes.monte_carlo(
        table, repeats=1, test=test, val=val, train=sizes, one_class="keep", seed=seed
    )
    for split, other in zip(splits, plain, strict=True):
        assert list(map(len, parts(split))) == list(map(len, parts(other)))


def test_which_stratum_gets_the_odd_annotation_is_left_to_chance(make_table):
    """Four equal strata, 13 of them: a quarter of the 13th for each."""
    table = make_table(1_000)
    table.columns["case"] = np.arange(1_000) % 4
    splits = probes.monte_carlo(table, repeats=200, train=[13 / 800], val=0, stratify="case")
    value_of = column_of(table, "case")
    drawn = np.array([counts(split.train, value_of) for split in splits])
    assert (np.sort(drawn, axis=1) == [3, 3, 3, 4]).all()
    assert ((drawn == 4).sum(axis=0) > 30).all()


def test_groups_are_chosen_so_that_strata_keep_their_shares(make_table):
    """Half of the slides are almost all mitotic figures: a random choice of six is often uneven."""
    table = make_table(900)
    rng = np.random.default_rng(0)
    rich = table.column("slide").astype(int) % 2 == 1
    table.labels = np.where(rng.random(900) < np.where(rich, 0.95, 0.05), "mitotic figure", "other")
    value_of = column_of(table, "label")
    whole = counts(table.ids, value_of) / 900

    def unevenness(stratify):
        splits = probes.grouped(table, repeats=20, train=[1.0], stratify=stratify)
        return max(
            np.abs(counts(part, value_of) / len(part) - whole).max()
            for split in splits
            for part in (split.train, split.val, split.test)
        )

    assert unevenness("label") < 0.1 < 0.2 < unevenness(None)


def test_any_strata_may_be_rounded_up_together(make_table):
    """Four equal strata, 14 of them: each of the six pairs gets the odd two at times."""
    table = make_table(1_000)
    table.columns["case"] = np.arange(1_000) % 4
    splits = probes.monte_carlo(table, repeats=100, train=[14 / 800], val=0, stratify="case")
    value_of = column_of(table, "case")
    rounded_up = {tuple(np.flatnonzero(counts(split.train, value_of) == 4)) for split in splits}
    assert len(rounded_up) == 6
