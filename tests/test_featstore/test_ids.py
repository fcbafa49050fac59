import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import AnnotationError, NotInStoreError
from featstore.ids import IdIndex, as_ids
from tests.strategies import annotation_ids


@given(annotation_ids, st.data())
def test_each_id_is_found_where_it_stands_in_any_order_and_twice(ids, data):
    places = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=50))
    index = IdIndex(as_ids(ids), "test")
    assert index.positions([ids[place] for place in places]).tolist() == places


def test_long_ids_in_numpys_variable_width_strings_are_found():
    ids = [f"slide-with-a-long-name-{n:04d}" for n in range(200)]
    asked = np.array(ids[::-1], dtype=np.dtypes.StringDType())
    found = IdIndex(as_ids(np.array(ids, dtype=np.dtypes.StringDType())), "test").positions(asked)
    assert found.tolist() == list(range(199, -1, -1))


def test_an_id_that_is_not_there_is_named_with_its_holder():
    with pytest.raises(NotInStoreError, match=r"1 of 2 .* not in dataset 'demo' \(first: 9\)"):
        IdIndex(as_ids([1, 2]), "dataset 'demo'").positions([1, 9])


def test_strings_are_not_looked_for_among_integers():
    with pytest.raises(NotInStoreError, match="has integers as IDs; asked for strings"):
        IdIndex(as_ids([1, 2]), "demo").positions(["1"])


@pytest.mark.parametrize("bad", ["", "two\nlines", "nul\0"])
def test_ids_that_cannot_be_written_are_refused(bad):
    with pytest.raises(AnnotationError, match="empty or holds a control character"):
        as_ids(["fine", bad])


def test_duplicates_are_each_named_once():
    assert IdIndex(as_ids([4, 1, 4, 2, 1, 4]), "test").duplicates().tolist() == [1, 4]


def test_integers_beyond_64_bits_are_refused_not_wrapped():
    with pytest.raises(AnnotationError, match="does not fit 64 bits"):
        as_ids([2**63])
    with pytest.raises(AnnotationError, match="does not fit 64 bits"):
        as_ids(np.array([2**63], dtype=np.uint64))
