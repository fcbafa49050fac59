"""What is to be embedded: lanes of chunks, one lane for each encoder, over the rows of one dataset.

Rows are positions in the annotation table; every list of them is ascending. Batches never cross a
chunk, so that what is in a batch depends neither on where a run was interrupted nor on how patches
are read.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Lane", "requested_rows", "shares"]


@dataclass(frozen=True, eq=False)
class Lane:
    """The chunks that one encoder is to fill.

    Parameters
    ----------
    place : int
        Number of the encoder in the run.
    chunks : list of ndarray of int64
        Rows of each chunk that is to be filled, ascending from chunk to chunk.
    numbers : list of int
        Which chunk of the run each of them is.
    """

    place: int
    chunks: list
    numbers: list

    @property
    def n_rows(self):
        """Number of rows to be embedded."""
        return sum(map(len, self.chunks))

    def batches(self, batch_size):
        """Rows of each batch, in order.

        Examples
        --------
        >>> lane = Lane(0, [np.arange(5), np.arange(5, 7)], [0, 1])
        >>> [batch.tolist() for batch in lane.batches(3)]
        [[0, 1, 2], [3, 4], [5, 6]]
        """
        return [
            rows[start : start + batch_size]
            for rows in self.chunks
            for start in range(0, len(rows), batch_size)
        ]


def requested_rows(lanes, batch_size):
    """Rows in the order and the portions in which patches are read, each row once.

    Parameters
    ----------
    lanes : list of Lane
        Their batches may end at different rows.
    batch_size : int
        Patches in a batch.

    Returns
    -------
    list of ndarray of int64
        The batches of the first lane, and the rows that only others need between these.

    Examples
    --------
    >>> lanes = [Lane(0, [np.arange(3, 7)], [0]), Lane(1, [np.arange(0, 9)], [0])]
    >>> [rows.tolist() for rows in requested_rows(lanes, 2)]
    [[0, 1], [2], [3, 4], [5, 6], [7, 8]]
    """
    rows = np.unique(np.concatenate([rows for lane in lanes for rows in lane.chunks]))
    leading = next(lane for lane in lanes if lane.chunks)
    batches = leading.batches(batch_size)
    borders = np.array([(batch[0], batch[-1] + 1) for batch in batches]).ravel()
    portions = np.split(rows, np.unique(np.searchsorted(rows, borders)))
    return [
        portion[start : start + batch_size]
        for portion in portions
        for start in range(0, len(portion), batch_size)
    ]


def shares(lanes, n):
    """Divide lanes among devices: each gets neighbouring chunks, and every chunk has one owner.

    Parameters
    ----------
    lanes : list of Lane
        All that is to be done.
    n : int
        Number of devices.

    Returns
    -------
    list of list of Lane
        For each device, its part of every lane; parts that have nothing to do are left out.

    Examples
    --------
    >>> lane = Lane(0, [np.arange(k, k + 2) for k in range(0, 10, 2)], [0, 1, 2, 3, 4])
    >>> [[part.numbers for part in share] for share in shares([lane], 2)]
    [[[0, 1, 2]], [[3, 4]]]
    """
    divided = [[] for _ in range(n)]
    for lane in lanes:
        divided_places = np.array_split(np.arange(len(lane.chunks)), n)
        for share, places in zip(divided, divided_places, strict=True):
            if places.size:
                chunks = [lane.chunks[place] for place in places]
                share.append(Lane(lane.place, chunks, [lane.numbers[place] for place in places]))
    return [share for share in divided if share]
