"""Splits that shift the domain: train on one domain, or on all but one, and test on the others."""

import numpy as np

from probes.errors import SplitError
from probes.protocols import as_texts
from probes.splits.draws import Cells, generator, part
from probes.splits.trainings import Trainings, by_annotation, check_draws, splits_of

__all__ = ["in_domain", "leave_one_domain_out", "single_domain"]

ALL_BUT = "all but "


def single_domain(
    annotations,
    *,
    column="domain",
    repeats=5,
    test=0.2,
    val=0.2,
    stratify=None,
    one_class="refuse",
    seed=42,
):
    """Train on one domain, test on the held-out part of it and on all others.

    Parameters
    ----------
    annotations : LabelTable
        What to split.
    column : str
        Column that holds the domains.
    repeats : int
        Draws per domain.
    test : float
        Share of the training domain that is held out.
    val : float
        Share of the rest of the training domain that validates.
    stratify, one_class, seed
        As for :func:`probes.monte_carlo`; further draws are seeded by (seed, repeat, place of the
        domain, number of the redraw).

    Returns
    -------
    Splits
        By repeat, then domain. The test part holds the held-out annotations of the training
        domain and all annotations of the other domains.

    Raises
    ------
    SplitError
        If there are fewer than two domains, or an annotation has none.
    OneClassError
        As for :func:`probes.monte_carlo`.

    Notes
    -----
    The second experiment of Ganz et al., section 3: 5 domains x 5 repeats = 25 trainings.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> ids = np.arange(20)
    >>> table = SimpleNamespace(name="demo", digest="", ids=ids, labels=np.where(ids % 2, "a", "b"),
    ...                         column=lambda name: np.where(ids < 10, "lung", "skin"))
    >>> split = single_domain(table, repeats=1)[0]
    >>> split.train_domain, len(split.train), len(split.val), sorted(split.test.tolist())[-10:]
    ('lung', 7, 1, [10, 11, 12, 13, 14, 15, 16, 17, 18, 19])
    """
    options = {
        "column": column,
        "repeats": repeats,
        "test": test,
        "val": val,
        "stratify": stratify,
        "one_class": one_class,
    }
    return _by_domain(annotations, "single_domain", seed, options)


def leave_one_domain_out(
    annotations,
    *,
    column="domain",
    repeats=5,
    test=0.2,
    val=0.2,
    stratify=None,
    one_class="refuse",
    seed=42,
):
    """Train on all domains but one, test on that one and on a held-out part of the others.

    Parameters
    ----------
    annotations, column, repeats, stratify, one_class, seed
        As for :func:`single_domain`.
    test : float
        Share of the training domains, taken together, that is held out.
    val : float
        Share of the rest of the training domains that validates.

    Returns
    -------
    Splits
        By repeat, then domain. ``train_domain`` is 'all but lung' where lung is left out. The test
        part holds the held-out annotations of the training domains and all of the one left out;
        :func:`in_domain` tells which is which.

    Raises
    ------
    SplitError, OneClassError
        As for :func:`single_domain`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> ids = np.arange(20)
    >>> table = SimpleNamespace(name="demo", digest="", ids=ids, labels=np.where(ids % 2, "a", "b"),
    ...                         column=lambda name: np.where(ids < 10, "lung", "skin"))
    >>> split = leave_one_domain_out(table, repeats=1)[0]
    >>> split.train_domain, len(split.train), len(split.val), len(split.test)
    ('all but lung', 7, 1, 12)
    """
    options = {
        "column": column,
        "repeats": repeats,
        "test": test,
        "val": val,
        "stratify": stratify,
        "one_class": one_class,
    }
    return _by_domain(annotations, "leave_one_domain_out", seed, options)


def in_domain(train_domain, test_domain):
    """Whether annotations of the test domain were among those that could be trained on.

    Examples
    --------
    >>> in_domain("lung", "lung"), in_domain("lung", "skin")
    (True, False)
    >>> in_domain("all but lung", "lung"), in_domain("all but lung", "skin"), in_domain("", "skin")
    (False, True, True)
    """
    if train_domain.startswith(ALL_BUT):
        return test_domain != train_domain.removeprefix(ALL_BUT)
    return train_domain in ("", test_domain)


def _by_domain(annotations, rule, seed, options):
    check_draws(options, seed)
    cells = Cells.of(annotations)
    domain_of_row = as_texts(cells.full_column(options["column"]))
    names = np.unique(domain_of_row).tolist()
    if len(names) < 2:
        raise SplitError(
            f"{annotations.name!r} has one domain, {names[0]!r}; two or more are needed"
        )
    misread = [name for name in names if name.startswith(ALL_BUT)]
    if misread:
        raise SplitError(
            f"{annotations.name!r} has a domain {misread[0]!r}, which is how splits name all "
            "domains but one; give it another name"
        )
    strata, members = cells.codes(options["stratify"]), []
    draw = by_annotation(options["val"], strata)
    trainings = Trainings(cells, (1.0,), draw, one_class=options["one_class"])
    for repeat in range(options["repeats"]):
        for place, name in enumerate(names):
            here = domain_of_row == name
            trains, label = (here, name) if rule == "single_domain" else (~here, ALL_BUT + name)
            rows, others = np.flatnonzero(trains), np.flatnonzero(~trains)
            seeds = (seed, repeat, place)
            rng = generator(*seeds)
            held_out, pool = part(rows, round(options["test"] * len(rows)), strata, rng)
            tested = np.concatenate([held_out, others])
            members += trainings.of(pool, tested, rng, seeds, repeat=repeat, train_domain=label)
    return splits_of(cells, rule, seed, options, members)
