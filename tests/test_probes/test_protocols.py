"""Where annotations stand among others, whatever their IDs are like."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.errors import ProbesError
from probes.protocols import InMemory, positions


@given(st.lists(st.integers(-(2**40), 2**40), unique=True, min_size=1), st.randoms())
def test_every_id_is_found_where_it_stands(ids, random):
    asked = random.choices(ids, k=5)
    assert positions(np.array(ids), np.array(asked)).tolist() == [ids.index(each) for each in asked]
    long = np.array([f"annotation-number-{each}" for each in ids], np.dtypes.StringDType())
    texts = [f"annotation-number-{each}" for each in asked]
    assert positions(long, texts).tolist() == [ids.index(each) for each in asked]


@pytest.mark.parametrize("unknown", [5, 25, 99])
def test_an_id_that_is_not_there_is_named_and_no_other_row_is_given(unknown):
    message = f"2 of 3 annotations are not among the 3 that are there: ID {unknown} and more"
    with pytest.raises(ProbesError, match=message):
        positions(np.array([30, 10, 20]), np.array([10, unknown, unknown]))
    with pytest.raises(ProbesError, match=f"1 of 1 annotations is not among .*: ID {unknown}$"):
        InMemory(np.array([30, 10, 20]), np.zeros((3, 2))).read([unknown])


def test_numbers_are_no_texts_and_of_nothing_nothing_is_asked():
    with pytest.raises(ProbesError, match="ID '7'"):
        positions(np.array([7]), np.array(["7"]))
    with pytest.raises(ProbesError, match="not among the 0 that are there: ID 7"):
        positions(np.array([], int), np.array([7]))
    assert positions(np.array(["a"]), []).tolist() == []
