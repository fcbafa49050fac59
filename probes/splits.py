"""Which annotations train, validate and test.

A split holds annotation IDs, never row numbers, so one file serves every store that holds the same
annotations, every encoder and the end-to-end trainer.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from probes.errors import OneClassError, SplitError

__all__ = ["Split", "Splits", "grouped", "load_splits", "monte_carlo", "single_domain"]

FORMAT = "featstore-splits/1"
PAPER_SIZES = (0.001, 0.01, 0.1, 1.0)  # Ganz et al., section 3


@dataclass(frozen=True, eq=False)
class Split:
    """Train, validation and test IDs of one training.

    Parameters
    ----------
    train, val, test : ndarray
        Annotation IDs; no ID is in two of them.
    repeat : int
        Number of the draw, from 0.
    size : float
        Share of the training pool that was drawn, in (0, 1].
    train_domain : str
        Domain of the training annotations, or '' where all domains were mixed.

    Examples
    --------
    >>> split = Split(np.array([1, 2]), np.array([3]), np.array([4, 5]))
    >>> split.test
    array([4, 5])
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    repeat: int = 0
    size: float = 1.0
    train_domain: str = ""

    @property
    def digest(self):
        """SHA-256 over the IDs of the three parts, in their order."""
        state = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            state.update("\n".join(np.asarray(part).astype(str).tolist()).encode())
            state.update(b"\0")
        return "sha256:" + state.hexdigest()

    @property
    def name(self):
        """How messages name this split."""
        domain = f", trained on {self.train_domain}" if self.train_domain else ""
        return f"repeat {self.repeat}, size {self.size:g}{domain}"


@dataclass(frozen=True, eq=False)
class Splits(Sequence):
    """Splits of one dataset, made by one rule from one seed.

    Parameters
    ----------
    dataset, dataset_digest : str
        What was split.
    rule : str
        Maker of the splits.
    seed : int
        Seed of the draws.
    options : dict
        The maker's other arguments.
    members : tuple of Split
        The splits, ordered by repeat, then size or domain.

    Examples
    --------
    >>> splits = Splits("demo", "sha256:0", "by hand", 0, {}, (Split([1, 2], [], [3]),))
    >>> len(splits), splits[-1].test
    (1, [3])
    """

    dataset: str
    dataset_digest: str
    rule: str
    seed: int
    options: dict
    members: tuple = field(repr=False)

    def __len__(self):
        return len(self.members)

    def __getitem__(self, place):
        return self.members[place]

    def check(self, annotations):
        """Refuse annotations other than those that were split.

        Raises
        ------
        SplitError
            If the digests differ.
        """
        if annotations.digest != self.dataset_digest:
            raise SplitError(
                f"these splits are of {self.dataset!r} ({self.dataset_digest[:15]}...); "
                f"{annotations.name!r} ({annotations.digest[:15]}..., {len(annotations.ids)} "
                "annotations) holds others. Make new ones with 'featstore split'"
            )

    def save(self, path):
        """Write a JSON file that :func:`load_splits` reads."""
        heading = {
            "format": FORMAT,
            "dataset": self.dataset,
            "dataset_digest": self.dataset_digest,
            "rule": self.rule,
            "seed": self.seed,
            "options": self.options,
        }
        lines = ",\n".join(json.dumps(_split_to_json(split)) for split in self.members)
        head = json.dumps(heading, indent=1).removesuffix("\n}")
        partial = Path(f"{path}.partial")
        partial.write_text(f'{head},\n "splits": [\n{lines}\n]}}\n', encoding="utf-8")
        partial.replace(path)


def load_splits(path):
    """Read splits that :meth:`Splits.save` wrote.

    Raises
    ------
    SplitError
        If the file is not one of splits.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SplitError(f"cannot read the splits {path}: {error.strerror}") from error
    except ValueError as error:
        raise SplitError(f"{path} is not a file of splits: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SplitError(
            f"{path} is not a file of splits of the format {FORMAT!r}; 'featstore split' makes one"
        )
    try:
        members = tuple(_split_from_json(values) for values in content.pop("splits"))
        del content["format"]
        splits = Splits(members=members, **content)
        if not members or not isinstance(splits.dataset_digest, str):
            raise ValueError("they hold no splits, or no digest of their dataset")
        return splits
    except (KeyError, TypeError, ValueError) as error:
        reason = "a field is missing" if isinstance(error, TypeError) else error
        raise SplitError(f"the splits {path} are damaged: {reason}") from error


def monte_carlo(annotations, *, repeats=5, test=0.2, val=0.2, train=PAPER_SIZES, seed=42):
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
    seed : int
        Seed of the draws.

    Returns
    -------
    Splits
        ``repeats * len(train)`` of them, by repeat, then size. In one repeat, the smaller training
        sets are parts of the larger ones, and so are the validation sets.

    Raises
    ------
    SplitError
        If a size leaves nothing to train on.
    OneClassError
        If a draw misses a class altogether.

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
    _check_draws(repeats=repeats, seed=seed, train=train, test=test, val=val)
    members = []
    for repeat in range(repeats):
        order = _generator(seed, repeat).permutation(len(annotations.ids))
        n_test = round(test * len(order))
        tested, pool = order[:n_test], order[n_test:]
        for size in sorted(train):
            training, validation = _nested_draw(pool, size, val)
            rows = (training, validation, tested)
            members.append(_split(annotations, rows, repeat=repeat, size=size))
    options = {"repeats": repeats, "test": test, "val": val, "train": sorted(train)}
    return _splits(annotations, "monte_carlo", seed, options, members)


def grouped(
    annotations, *, group="slide", repeats=5, test=0.2, val=0.2, train=PAPER_SIZES, seed=42
):
    """Draw random splits in which no slide (or case, ...) is in two parts.

    Parameters
    ----------
    annotations : LabelTable
        What to split.
    group : str
        Column whose values stay together.
    repeats, test, val, train, seed
        As for :func:`monte_carlo`. Whole groups are tested and validate, so their shares are met
        as nearly as the groups allow; sizes draw single annotations of the groups that train.

    Returns
    -------
    Splits

    Raises
    ------
    SplitError
        If there are fewer than three groups, or a size leaves nothing to train on.
    OneClassError
        If a draw misses a class altogether.

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
    _check_draws(repeats=repeats, seed=seed, train=train, test=test, val=val)
    group_of_row = np.unique(annotations.column(group), return_inverse=True)[1]
    if group_of_row.max() < 2:
        raise SplitError(
            f"{annotations.name!r} has {group_of_row.max() + 1} values of {group!r}; at least 3 "
            "are needed for train, validation and test"
        )
    members = []
    for repeat in range(repeats):
        generator = _generator(seed, repeat)
        tested, pool = _take_groups(group_of_row, np.arange(len(group_of_row)), test, generator)
        validation, training = _take_groups(group_of_row, pool, val, generator)
        for size in sorted(train):
            drawn = [part[: round(size * len(part))] for part in (training, validation)]
            members.append(_split(annotations, (*drawn, tested), repeat=repeat, size=size))
    options = {"group": group, "repeats": repeats, "test": test, "val": val, "train": sorted(train)}
    return _splits(annotations, "grouped", seed, options, members)


def single_domain(annotations, *, repeats=5, test=0.2, val=0.2, seed=42):
    """Train on one domain, test on the held-out part of it and on all others.

    Parameters
    ----------
    annotations : LabelTable
        With the column ``domain``.
    repeats : int
        Draws per domain.
    test : float
        Share of the training domain that is held out.
    val : float
        Share of the rest of the training domain that validates.
    seed : int
        Seed of the draws.

    Returns
    -------
    Splits
        By repeat, then domain. The test part holds the held-out annotations of the training
        domain and all annotations of the other domains.

    Raises
    ------
    SplitError
        If there are fewer than two domains.

    Notes
    -----
    The second experiment of Ganz et al., section 3: 5 domains x 5 repeats = 25 trainings.
    """
    _check_draws(repeats=repeats, seed=seed, test=test, val=val)
    domains = annotations.column("domain")
    names = np.unique(domains)
    unknown = np.sum(domains == "") if domains.dtype.kind == "U" else np.isnan(domains).sum()
    if unknown:
        raise SplitError(
            f"{unknown} of {len(domains)} annotations of {annotations.name!r} have no domain; name "
            "them all, or leave these out"
        )
    if len(names) < 2:
        raise SplitError(
            f"{annotations.name!r} has one domain, {names.tolist()[0]!r}; two or more are needed"
        )
    members = []
    for repeat in range(repeats):
        for place, name in enumerate(names.tolist()):
            rows = _generator(seed, repeat, place).permutation(np.flatnonzero(domains == name))
            n_test = round(test * len(rows))
            training, validation = _nested_draw(rows[n_test:], 1.0, val)
            tested = np.concatenate([rows[:n_test], np.flatnonzero(domains != name)])
            members.append(
                _split(
                    annotations, (training, validation, tested), repeat=repeat, train_domain=name
                )
            )
    options = {"repeats": repeats, "test": test, "val": val}
    return _splits(annotations, "single_domain", seed, options, members)


def _check_draws(*, repeats, seed, train=(1.0,), **shares):
    """Refuse numbers that no split can be drawn by."""
    _check_shares(**shares)
    sizes = list(train)
    if not sizes or len(set(sizes)) < len(sizes) or not all(0 < size <= 1 for size in sizes):
        raise SplitError(
            f"train={tuple(sizes)} are not sizes; give distinct shares above 0, up to 1"
        )
    if repeats < 1 or seed < 0:
        raise SplitError(
            f"repeats={repeats}, seed={seed} draw nothing; give repeats of at least 1 and a "
            "seed of at least 0"
        )


def _generator(*seeds):
    return np.random.default_rng(seeds)


def _check_shares(**shares):
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise SplitError(f"{name}={share} is not a share; give a number from 0 to under 1")


def _nested_draw(pool, size, val):
    """Draw the first part of a pool, sending every 1/val-th of it to validation.

    What place k is for depends on k alone, so that a larger draw holds a smaller one, part by part.
    """
    drawn = pool[: round(size * len(pool))]
    quota = np.floor(np.arange(len(drawn) + 1) * val + 1e-9)  # 1e-9: 0.2 * 5 is 1
    validates = np.diff(quota) > 0
    return drawn[~validates], drawn[validates]


def _take_groups(group_of_row, rows, share, generator):
    """Part rows into whole groups that come nearest to a share, and the rest; both shuffled."""
    shuffled = generator.permutation(rows)
    if share == 0:
        return rows[:0], shuffled
    groups, sizes = np.unique(group_of_row[rows], return_counts=True)
    if len(groups) < 2:
        raise SplitError(
            f"one group of {len(rows)} annotations is left to train and validate, and cannot be "
            "parted; give val=0, or a smaller test share"
        )
    order = generator.permutation(len(groups))
    filled = np.cumsum(sizes[order])[:-1]  # one group at least is left over
    n_taken = 1 + int(np.argmin(np.abs(filled - share * len(rows))))
    taken = np.isin(group_of_row[shuffled], groups[order[:n_taken]])
    return shuffled[taken], shuffled[~taken]


def _split(annotations, rows, *, repeat, size=1.0, train_domain=""):
    training, validation, tested = (annotations.ids[part] for part in rows)
    split = Split(training, validation, tested, repeat, size, train_domain)
    _check_training(annotations, rows[0], split)
    return split


def _check_training(annotations, training, split):
    if len(training) == 0:
        needed = math.ceil(2 / max(len(annotations.ids) - len(split.test), 1) * 1000) / 1000
        raise SplitError(
            f"{split.name}: train={split.size:g} leaves 0 of {len(annotations.ids)} annotations to "
            f"train on; give a fraction of at least {needed:g}"
        )
    missing = np.setdiff1d(annotations.labels, annotations.labels[training])
    if missing.size or len(np.unique(annotations.labels[training])) < 2:
        lacks = f"no {missing.tolist()[0]!r}" if missing.size else "one class only"
        raise OneClassError(
            f"{split.name}: the {len(training)} training annotations drawn hold {lacks}; "
            "take a larger size or another --seed"
        )


def _splits(annotations, rule, seed, options, members):
    return Splits(annotations.name, annotations.digest, rule, seed, options, tuple(members))


def _split_to_json(split):
    parts = {part: np.asarray(getattr(split, part)).tolist() for part in ("train", "val", "test")}
    return {
        "repeat": split.repeat,
        "size": split.size,
        "train_domain": split.train_domain,
        "digest": split.digest,
        **parts,
    }


def _split_from_json(values):
    parts = [
        np.array(values[part], dtype=None if values[part] else np.int64)
        for part in ("train", "val", "test")
    ]
    split = Split(*parts, int(values["repeat"]), float(values["size"]), str(values["train_domain"]))
    everything = np.concatenate([part.astype(str) for part in parts])
    if len(np.unique(everything)) < len(everything):
        raise ValueError(f"an ID of {split.name} stands twice")
    if split.digest != values["digest"]:
        raise ValueError(f"the IDs of {split.name} are not those that were written")
    return split
