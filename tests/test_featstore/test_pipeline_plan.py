import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featstore.pipeline.plan import Lane, requested_rows, shares


@st.composite
def lanes_of_one_dataset(draw):
    """One to three encoders with chunks of different heights, some of them filled already."""
    n_rows = draw(st.integers(1, 60))
    lanes = []
    for place in range(draw(st.integers(1, 3))):
        height = draw(st.integers(1, 20))
        chunks = np.split(np.arange(n_rows), range(height, n_rows, height))
        missing = [chunk for chunk in chunks if draw(st.booleans())]
        lanes.append(Lane(place, missing, list(range(len(missing)))))
    if not any(lane.chunks for lane in lanes):
        lanes[0] = Lane(0, [np.arange(n_rows)], [0])
    return lanes


@given(lanes_of_one_dataset(), st.integers(1, 9))
def test_each_row_that_an_encoder_lacks_is_asked_for_once_and_in_order(lanes, batch_size):
    portions = requested_rows(lanes, batch_size)
    wanted = {row for lane in lanes for chunk in lane.chunks for row in chunk.tolist()}
    assert np.concatenate(portions).tolist() == sorted(wanted)
    assert max(map(len, portions)) <= batch_size
    assert min(map(len, portions)) > 0


@given(lanes_of_one_dataset(), st.integers(1, 9))
def test_with_one_encoder_what_is_asked_for_are_its_batches(lanes, batch_size):
    lane = next(lane for lane in lanes if lane.chunks)
    portions = requested_rows([lane], batch_size)
    assert [rows.tolist() for rows in portions] == [b.tolist() for b in lane.batches(batch_size)]
    assert sum(map(len, lane.batches(batch_size))) == sum(map(len, lane.chunks))


@given(lanes_of_one_dataset(), st.integers(1, 4))
def test_every_chunk_has_one_owner_and_owners_have_neighbouring_chunks(lanes, n_devices):
    divided = shares(lanes, n_devices)
    assert len(divided) <= n_devices
    owned = [(lane.place, number) for share in divided for lane in share for number in lane.numbers]
    assert sorted(owned) == [(lane.place, number) for lane in lanes for number in lane.numbers]
    for share in divided:
        for lane in share:
            assert lane.numbers == list(range(lane.numbers[0], lane.numbers[-1] + 1))
