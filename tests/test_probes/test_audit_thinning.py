from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import probes
from featstore.annotations import AnnotationTable
from probes.errors import AuditError, OneClassError, SplitError

SIZES = (0.05, 0.3, 1.0)


@pytest.fixture
def table():
    """900 annotations on 30 slides, of which about half overlap another."""
    rng = np.random.default_rng(3)
    n = 900
    columns = {
        "x": rng.integers(0, 3_000, n) / 2,
        "y": rng.integers(0, 3_000, n) / 2,
        "image": rng.integers(0, 30, n).astype(str),
        "domain": np.array(["A", "B"])[rng.integers(0, 2, n)],
    }
    columns["slide"] = columns["image"]
    labels = np.where(rng.random(n) < 0.45, "mitotic figure", "look-alike")
    return AnnotationTable("toy", rng.permutation(n), labels, columns)


@pytest.fixture
def splits(table):
    return probes.monte_carlo(table, repeats=2, train=SIZES)


def audited(table, splits):
    return probes.audit(table, splits, patch_px=100)


def found_in_test(audit, finding):
    frame = audit.to_frame()
    chosen = (frame["finding"] == finding) & (frame["part"] == "test") & (frame["domain"] == "")
    return frame[chosen]["found"].sum()


@pytest.mark.parametrize("thin", ["test", "train"])
@pytest.mark.parametrize("finding", ["overlapping", "contains-another", "contains-mitotic"])
def test_clean_splits_have_nothing_left_of_what_was_dropped(table, splits, finding, thin):
    before = audited(table, splits)
    clean = before.without(splits, finding, thin=thin)
    of_patch = finding.startswith("contains")
    part = ("train", "val") if of_patch and thin == "train" else ("test",)
    after = audited(table, clean).to_frame()
    left = after[(after["finding"] == finding) & after["part"].isin(part)]
    assert found_in_test(before, finding) > 0
    assert left["found"].sum() == 0
    assert len(left) > 0


def test_a_thinned_test_part_leaves_training_as_it_was_and_sizes_share_one(table, splits):
    clean = audited(table, splits).without(splits, "overlapping")
    for old, new in zip(splits, clean, strict=True):
        assert new.train.tolist() == old.train.tolist()
        assert new.val.tolist() == old.val.tolist()
        assert 0 < len(new.test) < len(old.test)
        kept = set(new.test.tolist())
        assert new.test.tolist() == [key for key in old.test.tolist() if key in kept]
        assert (new.repeat, new.size, new.train_domain) == (old.repeat, old.size, old.train_domain)
        assert new.digest != old.digest
    for first in (0, 3):
        assert len({tuple(split.test.tolist()) for split in clean[first : first + 3]}) == 1


def test_a_thinned_training_part_leaves_the_test_as_it_was_and_stays_nested(table, splits):
    clean = audited(table, splits).without(splits, "overlapping", thin="train")
    for old, new in zip(splits, clean, strict=True):
        assert new.test.tolist() == old.test.tolist()
        assert len(new.train) + len(new.val) < len(old.train) + len(old.val)
    for small, large in pairwise(clean[:3]):
        assert set(small.train.tolist()) <= set(large.train.tolist())


def test_what_is_kept_is_every_annotation_without_the_finding(table, splits):
    audit = audited(table, splits)
    of_test = audit.findings.held["contains-another"]
    clean = audit.without(splits, "contains-another")
    kept = set(table.ids[~of_test].tolist())
    for old, new in zip(splits, clean, strict=True):
        assert set(new.test.tolist()) == set(old.test.tolist()) & kept


def test_several_findings_drop_what_has_one_of_them(table, splits):
    audit = audited(table, splits)
    both = audit.without(splits, "overlapping", "contains-mitotic")
    one_by_one = [audit.without(splits, name) for name in ("overlapping", "contains-mitotic")]
    for number, split in enumerate(both):
        kept = [set(each[number].test.tolist()) for each in one_by_one]
        assert set(split.test.tolist()) == kept[0] & kept[1]


def test_rule_and_options_say_what_was_dropped_and_come_back_from_the_file(table, splits, tmp_path):
    clean = audited(table, splits).without(splits, "overlapping")
    clean.save(tmp_path / "clean.json")
    back = probes.load_splits(tmp_path / "clean.json")
    back.check(table)
    assert back.rule == "monte_carlo without overlapping"
    assert [split.digest for split in back] == [split.digest for split in clean]
    assert (back.seed, back.options["repeats"], back.options["train"]) == (42, 2, list(SIZES))
    (step,) = back.options["without"]
    assert (step["findings"], step["thin"]) == (["overlapping"], "test")
    assert (step["audit"]["patch_px"], step["audit"]["mpp"]) == (100, 0.25)


def test_splits_that_are_thinned_again_keep_how_they_were_thinned_before(table, splits, tmp_path):
    clean = audited(table, splits).without(splits, "overlapping", thin="train")
    again = probes.audit(table, clean, patch_px=np.int64(120))
    again = again.without(clean, "contains-another", "overlapping")
    assert again.rule == "monte_carlo without overlapping, contains-another"
    again.save(tmp_path / "again.json")
    back = probes.load_splits(tmp_path / "again.json")
    assert (back.rule, back.digest) == (again.rule, again.digest)
    assert [
        (step["findings"], step["thin"], step["audit"]["patch_px"])
        for step in back.options["without"]
    ] == [(["overlapping"], "train", 100), (["contains-another", "overlapping"], "test", 120)]
    assert found_in_test(probes.audit(table, back, patch_px=120), "overlapping") == 0


def test_a_rule_that_says_without_keeps_its_words(table, splits):
    by_hand = replace(splits, rule="by hand without the second scanner")
    clean = audited(table, by_hand).without(by_hand, "overlapping")
    assert clean.rule == "by hand without the second scanner without overlapping"


def test_splits_of_another_dataset_with_equal_ids_are_refused(table, splits):
    audit = audited(table, splits)
    other = AnnotationTable("other", table.ids, table.labels, table.columns)
    drawn = probes.monte_carlo(other, repeats=2, train=SIZES)
    assert [split.digest for split in drawn] == [split.digest for split in splits]
    with pytest.raises(AuditError, match="these 6 splits of 'other' are not the 6 of 'toy' that"):
        audit.without(drawn, "overlapping")


def test_splits_that_come_back_from_a_file_are_those_that_were_audited(table, splits, tmp_path):
    splits.save(tmp_path / "splits.json")
    back = probes.load_splits(tmp_path / "splits.json")
    clean = audited(table, splits).without(back, "overlapping")
    assert found_in_test(audited(table, clean), "overlapping") == 0


def test_splits_with_nothing_to_drop_stay_as_they_are(table, splits):
    grouped = probes.grouped(table, repeats=1, train=[1.0])
    clean = audited(table, grouped).without(grouped, "same-slide", "overlapping")
    assert [split.digest for split in clean] == [split.digest for split in grouped]


def test_an_emptied_part_is_one_line_that_says_what_to_do(table, splits):
    audit = audited(table, splits)
    with pytest.raises(
        SplitError,
        match=r"repeat 0, size 0.05: without same-slide the test part is empty, all 180 "
        r"annotations are dropped; split by slide",
    ):
        audit.without(splits, "same-slide")
    with pytest.raises(SplitError, match="without same-slide the train part is empty"):
        audit.without(splits, "same-slide", thin="train")


def test_a_part_left_with_one_class_is_one_line():
    """Of 40 tested cells, the 20 mitotic figures lie on a training patch each."""
    x = np.concatenate([np.arange(40) * 1_000, np.arange(20) * 1_000 + 5, 50_000 + np.arange(2)])
    mitotic = np.concatenate([np.arange(40) < 20, np.arange(22) % 2 == 0])
    labels = np.where(mitotic, "mitotic figure", "look-alike")
    columns = {"x": x, "y": 0 * x, "image": ["1"] * 62}
    table = AnnotationTable("toy", np.arange(62), labels, columns)
    split = probes.Split(np.arange(40, 62), np.array([], int), np.arange(40))
    by_hand = probes.Splits("toy", table.digest, "by hand", 0, {}, (split,))
    audit = probes.audit(table, by_hand)
    with pytest.raises(
        OneClassError, match="the test part holds 'look-alike' only, 20 of 40 annotations"
    ):
        audit.without(by_hand, "overlapping")
    thinner = audit.without(by_hand, "overlapping", thin="train")[0]
    assert thinner.train.tolist() == [60, 61]


def test_what_cannot_be_dropped_is_refused(table, splits):
    audit = audited(table, splits)
    others = probes.monte_carlo(table, repeats=2, train=SIZES, seed=7)
    for arguments, options, message in [
        ((others, "overlapping"), {}, "these 6 splits of 'toy' are not the 6 of 'toy' that"),
        ((splits, "overlap"), {}, "'overlap' is no finding; give one of same-slide, overlapping"),
        ((splits, "same-case"), {}, "'same-case' was not audited: 'toy' has no column 'case'"),
        ((splits, "duplicates"), {}, "'duplicates' was not audited: no embeddings were given"),
        ((splits,), {}, "name one finding or more to drop, of same-slide"),
        ((splits, "overlapping"), {"thin": "val"}, "thin='val' is no part"),
    ]:
        with pytest.raises(AuditError, match=message):
            audit.without(*arguments, **options)


def test_single_domain_splits_are_thinned_domain_by_domain(table):
    splits = probes.single_domain(table, repeats=1)
    clean = audited(table, splits).without(splits, "overlapping")
    assert [split.train_domain for split in clean] == ["A", "B"]
    assert found_in_test(audited(table, clean), "overlapping") == 0
