"""Which patches are in which step of a training: all of it follows from the seed.

A step's batch is the same whatever came before, so a training goes on in the middle of an epoch
as if it had never stopped, and every process of several knows the batches of the others.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

__all__ = ["Batch", "EachOnce", "Plan", "SlideThenClass", "Steps"]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step sees.

    Parameters
    ----------
    epoch : int
        From 0.
    numbers : ndarray of int, shape (n,)
        Number of each patch among those of the epoch.
    positions : ndarray of int, shape (n,)
        Its place in the training part.
    n_whole : int
        Patches of the whole batch, of which this may be one process's share.
    """

    epoch: int
    numbers: np.ndarray
    positions: np.ndarray
    n_whole: int

    def share(self, rank, n_processes):
        """Return what one of several processes takes of the batch."""
        mine = slice(rank, None, n_processes)
        return Batch(self.epoch, self.numbers[mine], self.positions[mine], self.n_whole)


@dataclass(frozen=True)
class EachOnce:
    """Every annotation of the training part once per epoch, in a new order.

    Parameters
    ----------
    n_per_epoch : int
        Size of the training part.

    Examples
    --------
    >>> sorted(EachOnce(4).positions(seed=0, epoch=1).tolist())
    [0, 1, 2, 3]
    """

    n_per_epoch: int

    def positions(self, *, seed, epoch):
        """Draw the order of an epoch, shape (n_per_epoch,)."""
        return np.random.default_rng((seed, epoch)).permutation(self.n_per_epoch)


class SlideThenClass:
    """A slide uniformly, then one of the classes it holds uniformly, then one of those annotations.

    Parameters
    ----------
    slides, codes : array-like of shape (n,)
        Slide and class of each annotation of the training part.
    n_per_epoch : int
        Annotations drawn per epoch.

    Notes
    -----
    The scheme of the authors' later code, with classes drawn among those that the slide holds in
    the training part: a class that it lacks cannot be drawn there.

    Examples
    --------
    >>> drawn = SlideThenClass(["s", "s", "t"], [0, 1, 1], 600).positions(seed=0, epoch=0)
    >>> 250 < (drawn == 2).sum() < 350  # half the draws are slide t, which holds one annotation
    np.True_
    """

    def __init__(self, slides, codes, n_per_epoch):
        self.n_per_epoch = n_per_epoch
        keys = np.stack([np.unique(slides, return_inverse=True)[1], np.asarray(codes)], 1)
        cells, cell_of = np.unique(keys, axis=0, return_inverse=True)  # pairs of slide and class
        self._order = np.argsort(cell_of, kind="stable")
        self._sizes = np.bincount(cell_of)
        self._n_cells = np.bincount(cells[:, 0])  # per slide

    def positions(self, *, seed, epoch):
        """Draw an epoch, shape (n_per_epoch,)."""
        generator = np.random.default_rng((seed, epoch))
        slides = generator.integers(len(self._n_cells), size=self.n_per_epoch)
        firsts = np.cumsum(self._n_cells) - self._n_cells
        cells = firsts[slides] + generator.integers(self._n_cells[slides])
        starts = np.cumsum(self._sizes) - self._sizes
        return self._order[starts[cells] + generator.integers(self._sizes[cells])]


class Plan:
    """Every batch of a training by its step.

    Batches of an epoch differ in size by one at most, so none is left with a single patch and no
    annotation is left out.

    Parameters
    ----------
    sampling
        ``EachOnce`` or ``SlideThenClass``.
    batch_size, epochs, seed : int

    Examples
    --------
    >>> plan = Plan(EachOnce(5), batch_size=2, epochs=3, seed=0)
    >>> plan.steps_per_epoch, plan.n_steps, plan.batch(8).epoch
    (3, 9, 2)
    """

    def __init__(self, sampling, *, batch_size, epochs, seed):
        self._sampling = sampling
        self._seed = seed
        self.n_per_epoch = sampling.n_per_epoch
        self.steps_per_epoch = math.ceil(sampling.n_per_epoch / batch_size)
        self.n_steps = self.steps_per_epoch * epochs
        self._drawn = (-1, [])  # the epoch drawn last

    def batch(self, step):
        """Return the batch of a step, counted from 0."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self._batches(epoch))
        numbers, positions = self._drawn[1][within]
        return Batch(epoch, numbers, positions, len(numbers))

    def _batches(self, epoch):
        drawn = self._sampling.positions(seed=self._seed, epoch=epoch)
        numbers = np.array_split(np.arange(len(drawn)), self.steps_per_epoch)
        return list(zip(numbers, np.array_split(drawn, self.steps_per_epoch), strict=True))


class Steps(Sampler):
    """The batches of a training from a step on, or one process's share of each.

    One iteration runs through all epochs, so workers read ahead beyond the end of an epoch.
    """

    def __init__(self, plan, *, first, rank, n_processes):
        self._plan = plan
        self._first = first
        self._share = rank, n_processes

    def __len__(self):
        return self._plan.n_steps - self._first

    def __iter__(self):
        for step in range(self._first, self._plan.n_steps):
            yield self._plan.batch(step).share(*self._share)
