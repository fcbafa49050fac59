import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import probes
from probes.audit.duplicates import equal_rows, near_blocks
from probes.errors import AuditError
from probes.protocols import InMemory


def near_pairs(values, near, **options):
    found = set()
    for rows, others, is_near in near_blocks(values, near, **options):
        assert is_near.shape == (len(rows), len(others))
        for place, other in zip(*np.nonzero(is_near), strict=True):
            found.add(frozenset((int(rows[place]), int(others[other]))))
    return {pair for pair in found if len(pair) == 2}


@settings(max_examples=60)
@given(
    n=st.integers(1, 40),
    dim=st.integers(1, 6),
    spread=st.sampled_from([1.0, 0.05, 0.005]),
    near=st.sampled_from([0.9, 0.99, 0.9999]),
    block=st.sampled_from([1, 3, 8, 1_024]),
    seed=st.integers(0, 999),
)
def test_near_pairs_are_those_of_all_cosines(n, dim, spread, near, block, seed):
    rng = np.random.default_rng(seed)
    values = (1 + spread * rng.normal(size=(n, dim))) * rng.uniform(0.1, 10, (n, 1))
    values[rng.random(n) < 0.1] = 0
    values = values.astype(np.float32)
    lengths = np.linalg.norm(values.astype(float), axis=1)
    exact = values.astype(float) @ values.astype(float).T
    cosines = np.divide(exact, np.outer(lengths, lengths), out=0 * exact, where=exact != 0)
    found = near_pairs(values, near, rows_at_once=block)
    for row in range(n):
        for other in range(row):
            if abs(cosines[row, other] - near) > 1e-6:  # float32 cannot tell nearer ones
                assert (frozenset((row, other)) in found) == (cosines[row, other] > near)


def test_blocks_that_lie_apart_are_not_multiplied():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3_000, 16)).astype(np.float32)
    values[:, 0] *= 10
    values[7] = values[2_900] * 3
    multiplied = [
        len(rows) * len(others) for rows, others, _ in near_blocks(values, 0.9999, rows_at_once=100)
    ]
    assert sum(multiplied) < 0.2 * 3_000**2
    assert frozenset((7, 2_900)) in near_pairs(values, 0.9999, rows_at_once=100)


def test_equal_rows_have_one_number_and_no_others_do():
    values = np.array([[1, 2], [1, 2.0000002], [0, -0.0], [1, 2], [-0.0, 0]], np.float32)
    assert equal_rows(values).tolist() == [0, 1, 2, 0, 2]


@pytest.fixture
def planted(make_table, make_source):
    """200 annotations of which 12 tested ones have a twin: 5 equal, 7 scaled and jittered."""
    table = make_table(200)
    split = probes.monte_carlo(table, repeats=1, train=[1.0])
    test, train = split[0].test[:12], split[0].train[:12]
    row_of = {key: row for row, key in enumerate(table.ids.tolist())}
    values = make_source(table, dim=32).values.copy()
    for number, (tested, trained) in enumerate(zip(test.tolist(), train.tolist(), strict=True)):
        twin = values[row_of[trained]]
        values[row_of[tested]] = twin if number < 5 else 1.5 * twin + 1e-2
    return table, split, InMemory(table.ids, values)


def shares(audit):
    table = audit.summary().set_index(["finding", "against"])
    return {
        name: round(table.loc[(name, "train"), "share"] * 40)
        for name in ("duplicates", "near-duplicates")
    }


def test_twins_across_parts_are_found_and_none_where_none_was_planted(planted, make_source):
    table, splits, source = planted
    assert shares(probes.audit(table, splits, source=source)) == {
        "duplicates": 5,
        "near-duplicates": 12,
    }
    plain = make_source(table, dim=32)
    assert shares(probes.audit(table, splits, source=plain)) == {
        "duplicates": 0,
        "near-duplicates": 0,
    }
    strict = probes.audit(table, splits, source=source, near=0.999995)
    assert shares(strict)["near-duplicates"] == 5


@pytest.mark.parametrize("trained", [0.0, 0.031])
def test_parts_that_fill_blocks_of_their_own_are_compared(make_table, trained):
    """1,024 training rows, a block, lie along an arc before or behind 300 tested ones."""
    table = make_table(1_324)
    split = probes.Split(table.ids[:1_024], np.array([], int), table.ids[1_024:])
    splits = probes.Splits("toy", table.digest, "by hand", 0, {}, (split,))
    angles = np.concatenate([np.linspace(0, 0.01, 1_024) + trained, np.linspace(0.02, 0.03, 300)])
    values = np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    audit = probes.audit(table, splits, source=InMemory(table.ids, values), near=0.999)
    found = audit.summary().set_index(["finding", "against"])["share"]
    assert found["near-duplicates", "train"] == 1
    assert found["duplicates", "train"] == 0


def test_a_twin_in_the_same_part_is_none_between_parts(make_table, make_source):
    table = make_table(200)
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    values = make_source(table, dim=8).values.copy()
    tested = np.isin(table.ids, splits[0].test)
    values[tested] = values[tested][0]
    assert shares(probes.audit(table, splits, source=InMemory(table.ids, values))) == {
        "duplicates": 0,
        "near-duplicates": 0,
    }


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e19])
def test_near_rows_are_found_at_any_length(scale):
    """Squares of these do not fit float32."""
    values = (np.random.default_rng(0).normal(size=(40, 8)) * scale).astype(np.float32)
    values[7] = 1.5 * values[3]
    assert near_pairs(values, 0.9999) == {frozenset((3, 7))}


def test_no_rows_are_near_to_none():
    assert near_pairs(np.empty((0, 4), np.float32), 0.9) == set()


def test_embeddings_of_half_precision_are_compared(planted):
    table, splits, source = planted
    half = InMemory(table.ids, source.values.astype(np.float16))
    assert shares(probes.audit(table, splits, source=half)) == {
        "duplicates": 5,
        "near-duplicates": 12,
    }


def test_rows_of_zeros_are_duplicates_of_each_other(make_table):
    table = make_table(200)
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    source = InMemory(table.ids, np.zeros((200, 4), np.float32))
    assert shares(probes.audit(table, splits, source=source)) == {
        "duplicates": 40,
        "near-duplicates": 40,
    }


def test_only_embeddings_of_annotations_in_a_part_are_read(make_table, make_source):
    table = make_table(200)
    splits = probes.monte_carlo(table, repeats=1, train=[0.2])
    needed = np.concatenate([splits[0].train, splits[0].val, splits[0].test])
    whole = make_source(table)

    class Some:
        ids = needed

        def read(self, ids):
            assert set(np.asarray(ids).tolist()) <= set(needed.tolist())
            return whole.read(ids)

    assert shares(probes.audit(table, splits, source=Some()))["duplicates"] == 0


def test_what_cannot_be_compared_is_refused(make_table, make_source):
    table = make_table(100)
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    source = make_source(table)
    for near in (0, 1, -0.5, np.nan):
        with pytest.raises(AuditError, match="is no cosine of near rows"):
            probes.audit(table, splits, source=source, near=near)
    values = source.values.copy()
    values[3, 2] = np.inf
    with pytest.raises(AuditError, match=f"1 of 100 embeddings .* .first: ID {table.ids[3]}"):
        probes.audit(table, splits, source=InMemory(table.ids, values))
    patches = InMemory(table.ids, np.zeros((100, 4, 4, 3), np.uint8))
    with pytest.raises(AuditError, match=r"rows of shape \(4, 4, 3\); embeddings of shape"):
        probes.audit(table, splits, source=patches)
