"""Splits drawn at random over all domains: by annotation, or by slide or another group."""

import numpy as np

from probes.errors import SplitError
from probes.splits.draws import Cells, generator, part, take_groups
from probes.splits.trainings import Trainings, by_annotation, by_group, check_draws, splits_of

__all__ = ["PAPER_SIZES", "grouped", "monte_carlo"]

PAPER_SIZES = (0.001, 0.01, 0.1, 1.0)  # Ganz et al., section 3


def monte_carlo(
    annotations,
    *,
    repeats=5,
    test=0.2,
    val=0.2,
    train=PAPER_SIZES,
    nested=True,
    stratify=None,
    one_class="refuse",
    seed=42,
):
    """Draw random splits, once per repeat and size.

    Parameters
    ----------
    annotations : LabelTable
        What to split.
    repeats : int
        Number of draws of the test part.
    test : float
        Share of all annotations that is tested, rounded to the nearest number; one test part per
        repeat, the same for all sizes.
    val : float
        Share of the drawn training annotations that validates, rounded down.
    train : sequence of float
        Sizes: shares of what is not tested, rounded to the nearest number.
    nested : bool
        Whether the smaller training sets of a repeat are parts of the larger ones, and so its
        validation sets; else each size is drawn from scratch.
    stratify : str, optional
        Column, such as 'label' or 'domain', of which every value keeps, to within one annotation,
        the share that it has in what is drawn from: all annotations, what is not tested, or the
        next larger training set.
    one_class : {'refuse', 'redraw', 'keep'}
        What becomes of a training part in which a class is missing: an error; new draws of what is
        not tested, seeded by (seed, repeat, 1), (seed, repeat, 2), ..., until every class is
        there, their number kept as ``redraws``; or nothing.
    seed : int
        Seed of the draws.

    Returns
    -------
    Splits
        ``repeats * len(train)`` of them, by repeat, then size.

    Raises
    ------
    SplitError
        If a size leaves nothing to train on.
    OneClassError
        If a draw misses a class, and that is refused, or no new draw helps.

    Notes
    -----
    The experiment of Ganz et al., section 3. The authors redraw for each size; nested draws
    compare sizes on the same annotations.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> ids = np.arange(20_552)
    >>> table = SimpleNamespace(name="midog2022", digest="", ids=ids,
    ...                         labels=np.where(ids % 2, "a", "b"))
    >>> [len(split.train) for split in monte_carlo(table, repeats=1)]
    [13, 132, 1316, 13154]
    """
    options = {
        "repeats": repeats,
        "test": test,
        "val": val,
        "train": list(train),
        "nested": nested,
        "stratify": stratify,
        "one_class": one_class,
    }
    check_draws(options, seed)
    cells = Cells.of(annotations)
    strata = cells.codes(stratify)
    trainings = Trainings(cells, options["train"], by_annotation(val, strata), nested, one_class)
    rows, members = np.arange(len(cells.ids)), []
    for repeat in range(repeats):
        rng = generator(seed, repeat)
        tested, pool = part(rows, round(test * len(rows)), strata, rng)
        members += trainings.of(pool, tested, rng, (seed, repeat), repeat=repeat)
    return splits_of(cells, "monte_carlo", seed, options, members)


def grouped(
    annotations,
    *,
    group="slide",
    repeats=5,
    test=0.2,
    val=0.2,
    train=PAPER_SIZES,
    nested=True,
    stratify=None,
    one_class="refuse",
    seed=42,
):
    """Draw random splits in which no slide (or case, ...) is in two parts.

    Parameters
    ----------
    annotations : LabelTable
        What to split.
    group : str
        Column whose values stay together.
    repeats, test, val, train, nested, one_class, seed
        As for :func:`monte_carlo`. Whole groups are tested and validate, so their shares are met
        as nearly as the groups allow; sizes draw single annotations of the groups that train.
    stratify : str, optional
        Column whose values should keep their shares. Of a hundred random choices of groups that
        one is taken which comes nearest; sizes keep them as in :func:`monte_carlo`.

    Returns
    -------
    Splits

    Raises
    ------
    SplitError
        If there are fewer than three groups, an annotation has none, or a size leaves nothing to
        train on.
    OneClassError
        As for :func:`monte_carlo`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> ids = np.arange(100)
    >>> table = SimpleNamespace(name="demo", digest="", ids=ids, labels=np.where(ids % 2, "a", "b"),
    ...                         column=lambda name: ids // 10)
    >>> split = grouped(table, repeats=1, train=[1.0])[0]
    >>> sorted(set(split.test // 10) & set(split.train // 10)), len(split.test)
    ([], 20)
    """
    options = {
        "group": group,
        "repeats": repeats,
        "test": test,
        "val": val,
        "train": list(train),
        "nested": nested,
        "stratify": stratify,
        "one_class": one_class,
    }
    check_draws(options, seed)
    cells = Cells.of(annotations)
    strata, groups = cells.codes(stratify), _groups(cells, group)
    trainings = Trainings(cells, options["train"], by_group(groups, val, strata), nested, one_class)
    members = []
    for repeat in range(repeats):
        rng = generator(seed, repeat)
        tested, pool = take_groups(groups, np.arange(len(groups)), test, strata, rng)
        members += trainings.of(pool, tested, rng, (seed, repeat), repeat=repeat)
    return splits_of(cells, "grouped", seed, options, members)


def _groups(cells, column):
    names, groups = np.unique(cells.full_column(column), return_inverse=True)
    if len(names) < 3:
        raise SplitError(
            f"{cells.annotations.name!r} has {len(names)} values of {column!r}; at least 3 are "
            "needed for train, validation and test"
        )
    return groups
