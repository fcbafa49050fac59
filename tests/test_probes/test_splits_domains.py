"""Splits by domain: one alone, or all but one."""

import numpy as np
import pytest

import probes
from probes.errors import SplitError
from probes.splits import in_domain
from tests.test_probes.splitting import column_of, counts, is_disjoint, parts, read_midogpp

MAKERS = (probes.single_domain, probes.leave_one_domain_out)


def own_ids(table, domain):
    return set(table.ids[table.column("domain") == domain].tolist())


@pytest.mark.parametrize("stratify", [None, "label"])
def test_a_single_domain_trains_on_itself_and_tests_everything_else(make_table, stratify):
    table = make_table()
    splits = probes.single_domain(table, repeats=2, stratify=stratify)
    assert [split.train_domain for split in splits] == ["A", "B", "C"] * 2
    for split in splits:
        train, val, tested = parts(split)
        own = own_ids(table, split.train_domain)
        assert is_disjoint(split)
        assert train | val | (tested & own) == own
        assert len(tested & own) == round(0.2 * len(own))
        assert len(val) == int(0.2 * (len(own) - len(tested & own)))
        assert tested - own == set(table.ids.tolist()) - own


@pytest.mark.parametrize("stratify", [None, "label", "domain"])
def test_a_domain_that_is_left_out_is_tested_whole_beside_a_part_of_the_others(
    make_table, stratify
):
    table = make_table()
    splits = probes.leave_one_domain_out(table, repeats=2, stratify=stratify)
    assert [split.train_domain for split in splits] == ["all but A", "all but B", "all but C"] * 2
    for split, left_out in zip(splits, "ABCABC", strict=True):
        train, val, tested = parts(split)
        out = own_ids(table, left_out)
        others = set(table.ids.tolist()) - out
        assert is_disjoint(split)
        assert train | val | (tested - out) == others
        assert tested & out == out
        assert len(tested - out) == round(0.2 * len(others))
        assert len(val) == int(0.2 * (len(others) - len(tested - out)))


def test_in_domain_is_what_could_be_trained_on(make_table):
    table = make_table()
    domain_of = column_of(table, "domain")
    for split in (*probes.leave_one_domain_out(table), *probes.single_domain(table)):
        trained = {domain_of[each] for each in split.train.tolist()}
        for domain in "ABC":
            assert in_domain(split.train_domain, domain) == (domain in trained)


@pytest.mark.parametrize("make", MAKERS)
def test_labels_keep_their_shares_within_the_training_domains(make_table, make):
    table = make_table(share=0.1)
    label_of = column_of(table, "label")
    for split in make(table, stratify="label"):
        rest = np.concatenate([split.train, split.val])
        for drawn in (split.train, split.val):
            due = counts(rest, label_of) * len(drawn) / len(rest)
            assert np.abs(counts(drawn, label_of) - due).max() <= 1


@pytest.mark.parametrize("make", MAKERS)
def test_repeats_hold_out_other_annotations_and_a_seed_draws_the_same_again(make_table, make):
    table = make_table()
    splits, again, other = (make(table, repeats=3, seed=seed) for seed in (1, 1, 2))
    assert [split.digest for split in splits] == [split.digest for split in again]
    assert len({split.digest for split in (*splits, *other)}) == 18


@pytest.mark.parametrize("make", MAKERS)
def test_domains_are_those_of_the_column_that_is_named(make_table, make):
    table = make_table()
    table.columns["scanner"] = np.array([1, 2])[np.arange(600) % 2]
    splits = make(table, column="scanner", repeats=1)
    assert [split.train_domain.removeprefix("all but ") for split in splits] == ["1", "2"]
    assert splits.options["column"] == "scanner"


@pytest.mark.parametrize("make", MAKERS)
def test_one_domain_alone_cannot_be_shifted(make_table, make):
    with pytest.raises(SplitError, match="has one domain, 'A'; two or more"):
        make(make_table(n_domains=1))


@pytest.mark.parametrize("make", MAKERS)
def test_cells_without_a_domain_stop_a_domain_experiment(make_table, make):
    table = make_table()
    table.columns["domain"] = np.where(np.arange(600) < 7, "", table.columns["domain"])
    with pytest.raises(SplitError, match="7 of 600 annotations of 'toy' have no domain"):
        make(table)


def test_the_real_tumours_of_midogpp_give_sizes_worked_out_by_hand(real_data):
    """Breast: 4,435, of which 887 are held out and 709.6 of 3,548 validate; 21,851 are others."""
    table = read_midogpp(real_data)
    single = {split.train_domain: split for split in probes.single_domain(table, repeats=1)}
    breast = single["human breast cancer"]
    assert [len(each) for each in (breast.train, breast.val, breast.test)] == [2_839, 709, 22_738]
    left_out = probes.leave_one_domain_out(table, repeats=1)
    assert len(single) == len(left_out) == 7
    breast = next(one for one in left_out if one.train_domain == "all but human breast cancer")
    # of 21,851 are 4,370.2 held out; 3,496.2 of 17,481 validate
    assert [len(each) for each in (breast.train, breast.val, breast.test)] == [13_985, 3_496, 8_805]


@pytest.mark.parametrize("make", MAKERS)
def test_a_column_of_objects_in_which_some_are_none_or_nan_lacks_these(make_table, make):
    table = make_table()
    domains = table.columns["domain"].astype(object)
    domains[:3], domains[3:5] = None, np.nan
    table.columns["domain"] = domains
    with pytest.raises(SplitError, match="5 of 600 annotations of 'toy' have no domain"):
        make(table)


def test_a_domain_that_reads_as_all_others_is_refused(make_table):
    table = make_table()
    table.columns["domain"] = np.where(table.column("domain") == "A", "all but B", "B")
    with pytest.raises(SplitError, match="'toy' has a domain 'all but B', which is how splits"):
        probes.single_domain(table)
