"""Training and validation parts of what is not tested, and what becomes of draws of one class."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from probes.errors import OneClassError, SplitError
from probes.splits.draws import Cells, generator, nested_draws, ordered_for, take_groups
from probes.splits.split import Split, Splits

__all__ = ["ONE_CLASS", "Trainings", "by_annotation", "by_group", "check_draws", "splits_of"]

ONE_CLASS = ("refuse", "redraw", "keep")
MOST_REDRAWS = 1_000
SIZES_PER_ONE = 10**9  # a size times this seeds its draw, where every size has its own


def by_annotation(val, strata):
    """Draw single annotations; see :func:`probes.splits.draws.nested_draws`."""
    return lambda pool, sizes, rng: nested_draws(pool, sizes, val, strata, rng)


def by_group(groups, val, strata):
    """Draw whole groups that validate, and of each part single annotations of every size."""

    def draw(pool, sizes, rng):
        validation, training = take_groups(groups, pool, val, strata, rng)
        drawn = []
        for rows in (training, validation):
            counts = [round(size * len(rows)) for size in sizes]
            ordered = rows if strata is None else ordered_for(rows, counts, strata, rng)
            drawn.append([ordered[:n] for n in counts])
        return list(zip(*drawn, strict=True))

    return draw


@dataclass(frozen=True, eq=False)
class Trainings:
    """How the trainings of one test part are drawn.

    Parameters
    ----------
    cells : Cells
        What is split.
    sizes : sequence of float
        Shares of what is not tested.
    draw : callable
        ``draw(pool, sizes, rng)``, with shuffled rows and ascending sizes, gives training and
        validation rows of each size.
    nested : bool
        Whether all sizes are of one draw.
    one_class : {'refuse', 'redraw', 'keep'}
        What becomes of a training part in which a class is missing.
    """

    cells: Cells
    sizes: tuple
    draw: Callable
    nested: bool = True
    one_class: str = "refuse"

    def of(self, pool, tested, rng, seeds, **names):
        """Draw the splits of one test part, by ascending size.

        Parameters
        ----------
        pool, tested : ndarray of int
            Rows that are not tested, shuffled, and those that are.
        rng : numpy.random.Generator
            Of the first draw.
        seeds : tuple of int
            From which further draws are seeded: (\\*seeds, number of the redraw); where draws are
            not nested, (\\*seeds, size in billionths, number of the redraw).
        **names
            ``repeat`` and ``train_domain`` of the splits.

        Raises
        ------
        SplitError
            If a size leaves nothing to train on.
        OneClassError
            If a class is missing, and that is refused, or no new draw would help.
        """
        sizes = sorted(map(float, self.sizes))
        if self.nested:
            return self._drawn(sizes, pool, tested, rng, seeds, names)
        splits = []
        for size in sizes:
            own = (*seeds, round(size * SIZES_PER_ONE))
            shuffling = generator(*own)
            shuffled = shuffling.permutation(pool)
            splits += self._drawn([size], shuffled, tested, shuffling, own, names)
        return splits

    def _drawn(self, sizes, pool, tested, rng, seeds, names):
        """Draw once, or until every class is in every training part."""
        rows = self.draw(pool, sizes, rng)
        self._check_there(rows, sizes, tested, names)
        redraws = 0
        while self.one_class != "keep" and any(self._missing(each[0]) for each in rows):
            self._check_redraw(rows, sizes, pool, redraws, names)
            redraws += 1
            rng = generator(*seeds, redraws)
            rows = self.draw(rng.permutation(pool), sizes, rng)
        ids = self.cells.ids
        return [
            Split(ids[train], ids[val], ids[tested], size=size, redraws=redraws, **names)
            for size, (train, val) in zip(sizes, rows, strict=True)
        ]

    @cached_property
    def _classes(self):
        return np.unique(self.cells.labels)

    @cached_property
    def _codes(self):
        return np.searchsorted(self._classes, self.cells.labels)

    def _missing(self, rows):
        """Say what lacks of these rows, or nothing."""
        if len(self._classes) < 2:
            return "one class only"
        there = np.bincount(self._codes[rows], minlength=len(self._classes)) > 0
        return "" if there.all() else f"no {self._classes[~there].tolist()[0]!r}"

    def _check_there(self, rows, sizes, tested, names):
        n = len(self.cells.ids)
        for size, (training, _) in zip(sizes, rows, strict=True):
            if not len(training):
                needed = math.ceil(2 / max(n - len(tested), 1) * 1000) / 1000
                raise SplitError(
                    f"{_name(size, names)}: train={size:g} leaves 0 of {n} annotations to train "
                    f"on; give a fraction of at least {needed:g}"
                )

    def _check_redraw(self, rows, sizes, pool, redraws, names):
        """Refuse a draw in which a class is missing, unless a new one is asked for and may help."""
        found = [
            (size, training, lack)
            for size, (training, _) in zip(sizes, rows, strict=True)
            if (lack := self._missing(training))
        ]
        size, training, lack = found[0]
        drawn = f"the {len(training)} training annotations drawn hold {lack}"
        advice = "take a larger size or another --seed, or --one-class redraw"
        if self.one_class == "redraw":
            if self._missing(pool):
                drawn = f"the {len(pool)} annotations to draw from hold {self._missing(pool)}"
                advice = "no draw will; leave that class out, or use --one-class keep"
            elif redraws < MOST_REDRAWS:
                return
            else:
                drawn += f" even in redraw {redraws:,}"
                advice = "take a larger size or another --seed"
        raise OneClassError(f"{_name(size, names)}: {drawn}; {advice}")


def _name(size, names):
    return Split((), (), (), size=size, **names).name


def check_draws(options, seed):
    """Refuse options that no split can be drawn by.

    Parameters
    ----------
    options : dict
        Of these, as far as they are there: ``test`` and ``val``, ``train``, ``repeats`` and
        ``one_class``; see :func:`probes.monte_carlo`.
    seed : int

    Raises
    ------
    SplitError
        With the first that is wrong.
    """
    for name in ("test", "val"):
        if not 0 <= options.get(name, 0) < 1:
            raise SplitError(
                f"{name}={options[name]} is not a share; give a number from 0 to under 1"
            )
    sizes = list(options.get("train", [1.0]))
    if not sizes or len(set(sizes)) < len(sizes) or not all(0 < size <= 1 for size in sizes):
        raise SplitError(
            f"train={tuple(sizes)} are not sizes; give distinct shares above 0, up to 1"
        )
    if options["repeats"] < 1 or seed < 0:
        raise SplitError(
            f"repeats={options['repeats']}, seed={seed} draw nothing; give repeats of at least 1 "
            "and a seed of at least 0"
        )
    if options["one_class"] not in ONE_CLASS:
        raise SplitError(
            f"one_class={options['one_class']!r} is unknown; give one of {', '.join(ONE_CLASS)}"
        )


def splits_of(cells, rule, seed, options, members):
    """Put the members of a rule together with what they are of.

    Parameters
    ----------
    options : dict
        The maker's other arguments; sizes are sorted.
    """
    if "train" in options:
        options = options | {"train": sorted(map(float, options["train"]))}
    table = cells.annotations
    found = tuple(members)
    return Splits(
        table.name, table.digest, rule, int(seed), options, found, cells.ids, cells.labels
    )
