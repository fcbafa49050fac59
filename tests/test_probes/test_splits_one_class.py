"""What becomes of training draws in which a class is missing."""

from itertools import pairwise

import numpy as np
import pytest

import probes
from probes.errors import OneClassError
from tests.test_probes.splitting import column_of, is_disjoint, parts

RARE = {"repeats": 20, "train": (0.02, 0.1, 1.0)}  # 3 % of 600 are mitotic figures: 8 draws of 8


@pytest.fixture
def rare(make_table):
    return make_table(share=0.03)


def holds_all(table, split):
    label_of = column_of(table, "label")
    return {label_of[each] for each in split.train.tolist()} == set(label_of.values())


def test_a_draw_of_one_class_is_refused_by_default_naming_repeat_and_size(rare):
    for make in (probes.monte_carlo, probes.grouped):
        with pytest.raises(
            OneClassError,
            match=r"repeat \d+, size 0.02: the \d+ training annotations drawn hold no 'mitotic "
            r"figure'; take a larger size or another --seed, or --one-class redraw",
        ):
            make(rare, **RARE)


@pytest.mark.parametrize("make", [probes.monte_carlo, probes.grouped])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("stratify", [None, "domain"])
def test_a_redraw_holds_every_class_and_leaves_the_test_part_and_other_draws(
    rare, make, nested, stratify
):
    options = {**RARE, "nested": nested, "stratify": stratify}
    kept, redrawn = (make(rare, **options, one_class=rule) for rule in ("keep", "redraw"))
    assert all(holds_all(rare, split) and is_disjoint(split) for split in redrawn)
    assert [split.test.tolist() for split in kept] == [split.test.tolist() for split in redrawn]
    again = [split.redraws > 0 for split in redrawn]
    assert 0 < sum(again) < len(again)
    for before, after in zip(kept, redrawn, strict=True):
        assert before.redraws == 0
        assert (before.digest == after.digest) == (after.redraws == 0)
    if nested:
        for repeat in range(20):
            splits = [split for split in redrawn if split.repeat == repeat]
            assert len({split.redraws for split in splits}) == 1
            for small, large in pairwise(splits):
                assert all(map(set.issubset, parts(small), parts(large)))


def test_a_draw_that_is_kept_may_hold_one_class(rare):
    kept = probes.monte_carlo(rare, **RARE, one_class="keep")
    lacking = [split for split in kept if not holds_all(rare, split)]
    assert {split.size for split in lacking} == {0.02, 0.1}


def test_a_class_that_is_missing_of_three_counts_as_one_class_does(make_table):
    table = make_table()
    table.labels = np.where(np.arange(600) < 12, "atypical figure", table.labels)
    with pytest.raises(OneClassError, match="hold no 'atypical figure'"):
        probes.monte_carlo(table, repeats=20, train=[0.05])
    redrawn = probes.monte_carlo(table, repeats=20, train=[0.05], one_class="redraw")
    assert all(holds_all(table, split) for split in redrawn)


def test_domains_are_drawn_again_one_by_one(make_table):
    table = make_table(share=0.03)
    for make in (probes.single_domain, probes.leave_one_domain_out):
        for seed in range(100):
            redrawn = make(table, seed=seed, val=0.7, one_class="redraw")
            if any(split.redraws for split in redrawn):
                break
        assert 0 < sum(split.redraws > 0 for split in redrawn) < len(redrawn)
        assert all(holds_all(table, split) for split in redrawn)


def test_a_dataset_of_one_class_is_refused(make_table):
    with pytest.raises(OneClassError, match="one class only; take a larger"):
        probes.monte_carlo(make_table(share=0), repeats=1, train=[1.0])


def test_a_redraw_that_cannot_help_is_refused_at_once(make_table):
    table = make_table()
    table.labels = np.where(table.column("domain") == "B", "look-alike", table.labels)
    with pytest.raises(
        OneClassError,
        match=r"trained on B: the \d+ annotations to draw from hold no 'mitotic figure'; no draw "
        "will; leave that class out, or use --one-class keep",
    ):
        probes.single_domain(table, one_class="redraw")


def test_redraws_end(make_table):
    """Three annotations are drawn, of four classes."""
    table = make_table(400)
    table.labels = np.array(["a", "b", "c", "d"])[np.arange(400) % 4]
    with pytest.raises(
        OneClassError, match=r"hold no '.' even in redraw 1,000; take a larger size"
    ):
        probes.monte_carlo(table, repeats=1, train=[0.01], val=0.3, one_class="redraw")


def test_redraws_are_kept_in_the_file_and_the_table(rare, tmp_path):
    redrawn = probes.monte_carlo(rare, **RARE, one_class="redraw")
    redrawn.save(tmp_path / "s.json")
    back = probes.load_splits(tmp_path / "s.json")
    numbers = [split.redraws for split in redrawn]
    assert [split.redraws for split in back] == back.to_frame()["redraws"].tolist() == numbers
    assert back.options["one_class"] == "redraw"
