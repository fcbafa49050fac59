import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import probes
from probes.errors import OneClassError, SplitError


def parts(split):
    return [set(part.tolist()) for part in (split.train, split.val, split.test)]


@settings(max_examples=40)
@given(
    n=st.integers(60, 400),
    test=st.floats(0.05, 0.6),
    val=st.floats(0, 0.5),
    seed=st.integers(0, 100),
    slides=st.none() | st.integers(4, 30),
)
def test_parts_share_no_id_and_training_sets_are_nested(make_table, n, test, val, seed, slides):
    table = make_table(n, n_slides=slides or 10)
    shares = {"repeats": 2, "test": test, "val": val, "train": (0.5, 1.0), "seed": seed}
    try:
        splits = (
            probes.monte_carlo(table, **shares)
            if slides is None
            else probes.grouped(table, **shares)
        )
    except (OneClassError, SplitError):
        return
    known = set(table.ids.tolist())
    for split in splits:
        train, val_ids, tested = parts(split)
        assert len(train) + len(val_ids) + len(tested) == len(train | val_ids | tested)
        assert train | val_ids | tested <= known
    for small, large in zip(splits[::2], splits[1::2], strict=True):
        for part_of_small, part_of_large in zip(parts(small), parts(large), strict=True):
            assert part_of_small <= part_of_large
        assert small.test.tolist() == large.test.tolist()


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


def test_no_slide_is_in_two_parts_of_a_grouped_split(make_table):
    table = make_table()
    slide_of = dict(zip(table.ids.tolist(), table.column("slide").tolist(), strict=True))
    for split in probes.grouped(table, group="slide", train=(0.1, 1.0)):
        train, val, tested = ({slide_of[i] for i in part} for part in parts(split))
        assert len(train) + len(val) + len(tested) == len(train | val | tested)
        assert 0.15 < len(split.test) / 600 < 0.25


def test_grouping_needs_three_groups(make_table):
    with pytest.raises(SplitError, match="has 2 values of 'slide'; at least 3 are needed"):
        probes.grouped(make_table(n_slides=2))


def test_a_single_domain_trains_on_itself_and_tests_everything_else(make_table):
    table = make_table()
    domain_of = dict(zip(table.ids.tolist(), table.column("domain").tolist(), strict=True))
    splits = probes.single_domain(table, repeats=2)
    assert [split.train_domain for split in splits] == ["A", "B", "C"] * 2
    for split in splits:
        train, val, tested = parts(split)
        own = {i for i, domain in domain_of.items() if domain == split.train_domain}
        assert train | val <= own
        assert len(tested & own) == round(0.2 * len(own))
        assert tested - own == set(domain_of) - own


def test_one_domain_alone_cannot_be_shifted(make_table):
    with pytest.raises(SplitError, match="has one domain, 'A'; two or more"):
        probes.single_domain(make_table(n_domains=1))


def test_a_draw_of_one_class_is_refused_by_repeat_and_size(make_table):
    with pytest.raises(
        OneClassError,
        match=r"repeat \d, size 0.01: the \d training annotations drawn "
        r"hold no '.*'; take a larger size or another --seed",
    ):
        probes.monte_carlo(make_table(share=0.02), repeats=20, train=[0.01])


def test_a_dataset_of_one_class_is_refused(make_table):
    with pytest.raises(OneClassError, match="one class only"):
        probes.monte_carlo(make_table(share=0), repeats=1, train=[1.0])


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


def test_splits_come_back_from_their_file(make_table, tmp_path):
    splits = probes.grouped(make_table(), train=(0.2, 1.0))
    splits.save(tmp_path / "splits.json")
    back = probes.load_splits(tmp_path / "splits.json")
    assert [split.digest for split in back] == [split.digest for split in splits]
    assert (back.dataset, back.rule, back.seed, back.options) == (
        "toy",
        "grouped",
        42,
        splits.options,
    )
    assert back[3].train.dtype == splits[3].train.dtype
    assert json.loads((tmp_path / "splits.json").read_text())["splits"][0]["repeat"] == 0


def test_files_that_are_not_splits_or_were_changed_are_refused(make_table, tmp_path):
    file = tmp_path / "splits.json"
    with pytest.raises(SplitError, match="cannot read the splits"):
        probes.load_splits(file)
    for text, message in [
        ("not json", "is not a file of splits"),
        ("[]", "is not a file of splits of"),
        ('{"format": "featstore-splits/1"}', "are damaged"),
    ]:
        file.write_text(text)
        with pytest.raises(SplitError, match=message):
            probes.load_splits(file)
    probes.monte_carlo(make_table(), repeats=1, train=[1.0]).save(file)
    content = json.loads(file.read_text())
    content["splits"][0]["test"].pop()
    file.write_text(json.dumps(content))
    with pytest.raises(SplitError, match="IDs of repeat 0, size 1 are not those that were written"):
        probes.load_splits(file)


def test_splits_of_another_dataset_are_refused(make_table):
    table, other = make_table(), make_table()
    splits = probes.monte_carlo(table, train=[1.0])
    splits.check(table)
    other.digest = "sha256:other"
    with pytest.raises(SplitError, match="these splits are of 'toy'"):
        splits.check(other)


def test_string_ids_stay_strings(make_table, tmp_path):
    table = make_table()
    table.ids = np.array([f"cell-{number:06d}-with-a-long-name" for number in table.ids])
    probes.monte_carlo(table, repeats=1, train=[1.0]).save(tmp_path / "s.json")
    back = probes.load_splits(tmp_path / "s.json")[0]
    assert set(back.test.tolist()) <= set(table.ids.tolist())
    assert np.array_equal(
        table.labels_of(back.test),
        table.labels[[table.ids.tolist().index(i) for i in back.test.tolist()]],
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"train": (-0.1,)},
        {"train": (2.0,)},
        {"train": (1.0, 1.0)},
        {"train": ()},
        {"repeats": 0},
        {"seed": -1},
    ],
)
def test_numbers_that_no_split_can_be_drawn_by_are_refused(make_table, arguments):
    for maker in (probes.monte_carlo, probes.grouped):
        with pytest.raises(SplitError, match=r"are not sizes|draw nothing"):
            maker(make_table(), **arguments)


def test_cells_without_a_domain_stop_a_domain_experiment(make_table):
    table = make_table()
    table.columns["domain"] = np.where(np.arange(600) < 7, "", table.columns["domain"])
    with pytest.raises(SplitError, match="7 of 600 annotations of 'toy' have no domain"):
        probes.single_domain(table)


def test_an_id_that_trains_and_tests_is_found_in_a_file_written_by_hand(make_table, tmp_path):
    split = probes.monte_carlo(make_table(), repeats=1, train=[1.0])[0]
    both = probes.Split(split.train, split.val, np.append(split.test, split.train[0]))
    probes.Splits("toy", "sha256:toy", "by hand", 0, {}, (both,)).save(tmp_path / "s.json")
    with pytest.raises(SplitError, match="an ID of repeat 0, size 1 stands twice"):
        probes.load_splits(tmp_path / "s.json")
    probes.Splits("toy", "sha256:toy", "by hand", 0, {}, ()).save(tmp_path / "s.json")
    with pytest.raises(SplitError, match="they hold no splits"):
        probes.load_splits(tmp_path / "s.json")
