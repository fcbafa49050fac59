import threading

import numpy as np
import pytest

from featstore.ahead import read_ahead, units_of
from featstore.errors import ImageError


class Numbered:
    """Patches whose pixels are their annotation's ID, which note who read what."""

    patch_px = 1024  # ten to a unit of 32 MiB

    def __init__(self, broken=()):
        self.broken = set(broken)
        self.asked = []
        self.threads = set()

    def read(self, ids):
        self.asked.append(ids.tolist())
        self.threads.add(threading.get_ident())
        if self.broken & set(ids.tolist()):
            raise ImageError("image of 30 is missing")
        return np.broadcast_to(np.uint8(ids)[:, None, None, None], (len(ids), 4, 4, 3))


REQUESTS = [np.arange(start, start + 4) for start in range(0, 40, 4)]


@pytest.mark.parametrize("threads", [1, 3])
def test_pixels_come_in_the_order_asked_and_neighbours_are_read_together(threads):
    patches = Numbered()
    found = [
        pixels[:, 0, 0, 0].tolist() for pixels in read_ahead(patches, REQUESTS, threads=threads)
    ]
    assert found == [ids.tolist() for ids in REQUESTS]
    assert sorted(map(len, patches.asked)) == [8] * 5
    assert threading.get_ident() not in patches.threads


def test_a_request_larger_than_a_unit_stays_whole_and_none_is_empty():
    units = units_of([np.arange(25), np.arange(1), np.arange(9), np.arange(2)], 1024)
    assert [[len(ids) for ids in unit] for unit in units] == [[25], [1, 9], [2]]


def test_no_more_is_read_than_threads_and_one_unit_ahead():
    patches = Numbered()
    ahead = read_ahead(patches, REQUESTS, threads=1)
    next(ahead)
    ahead.close()  # waits for the unit at work
    assert len(patches.asked) <= 2


def test_what_was_read_before_an_error_comes_before_it():
    ahead = read_ahead(Numbered(broken=[30]), REQUESTS, threads=2)
    found = []
    with pytest.raises(ImageError, match="image of 30"):
        found.extend(pixels[0, 0, 0, 0] for pixels in ahead)
    assert found == [0, 4, 8, 12, 16, 20]


def test_seconds_of_reading_and_preparation_are_told_once_for_each_unit():
    seconds = []
    prepared = list(
        read_ahead(Numbered(), REQUESTS, threads=1, prepare=np.negative, on_read=seconds.append)
    )
    assert len(seconds) == 5
    assert min(seconds) >= 0
    assert prepared[1][0, 0, 0, 0] == 252  # minus 4 as uint8
