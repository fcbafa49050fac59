"""Files of splits: JSON, or Parquet for other tools. A file that is read may come from anyone.

JSON (docs/splits.md describes it): what was split, by what rule, and the splits first, for people;
then every ID once, and lists of places among them. Training sets that are nested are the first
places of one list, and places that follow each other are a pair, so that IDs are written about once
per repeat.
"""

import json
from pathlib import Path

import numpy as np

from probes.errors import SplitError
from probes.protocols import plain_ids
from probes.splits.split import PARTS, Split, Splits, heading

__all__ = ["FORMAT", "load_splits", "save_splits"]

FORMAT = "featstore-splits/2"
# Of a file that is meant well: 72,845 annotations in 20 splits take 3 MB and 1.5 million places.
MOST_BYTES = 2**28
MOST_PLACES = 50_000_000
SHORTEST_RUN = 3  # places that follow each other and are written as a pair


def save_splits(splits, path):
    """Write splits; see :meth:`probes.Splits.save`."""
    if Path(path).suffix == ".parquet":
        from probes.splits.parquet import write_parquet

        write_parquet(splits, path)
        return
    partial = Path(f"{path}.partial")
    partial.write_text(_as_json(splits), encoding="utf-8")
    partial.replace(path)


def load_splits(path):
    """Read splits that :meth:`Splits.save` wrote.

    Parameters
    ----------
    path : path-like
        JSON, or Parquet where the name ends so.

    Returns
    -------
    Splits

    Raises
    ------
    SplitError
        If the file is not one of splits, was changed by hand, or is damaged.
    MissingExtraError
        If it is Parquet and pyarrow is not installed.
    """
    _check_file(path)
    if Path(path).suffix == ".parquet":
        from probes.splits.parquet import read_parquet

        return read_parquet(path)
    content = _read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SplitError(
            f"{path} is not a file of splits of the format {FORMAT!r}; 'featstore split' makes one"
        )
    return checked(path, lambda: _from_json(content))


def _check_file(path):
    """Refuse what is not there, no file, or larger than any file of splits."""
    try:
        size = Path(path).stat().st_size
        is_file = Path(path).is_file()
        if is_file:
            Path(path).open("rb").close()
    except OSError as error:
        raise SplitError(f"cannot read the splits {path}: {error.strerror}") from error
    if not is_file or size > MOST_BYTES:
        found = f"has {size:,} bytes" if is_file else "is no regular file"
        raise SplitError(f"{path} {found}; a file of splits has at most {MOST_BYTES:,}")


def checked(path, read):
    """Read what may be anything, and say in one line what is wrong with it."""
    try:
        return read()
    except KeyError as error:
        raise SplitError(f"the splits {path} are damaged: {error} is missing") from error
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SplitError(f"the splits {path} are damaged: {error}") from error


# ---- JSON


def _as_json(splits):
    lists, refs = _lists([_places(splits, each, part) for each in splits.members for part in PARTS])
    refs = iter(refs)
    rows = [split_head(each) | {part: next(refs) for part in PARTS} for each in splits.members]
    head = {"format": FORMAT, **heading(splits), "digest": splits.digest}
    blocks = {
        "splits": _lines(rows),
        "lists": _lines([_runs(places) for places in lists], separators=(",", ":")),
        **{name: _compact(values) for name, values in labels_to_json(splits).items()},
        "ids": _compact(splits.ids.tolist()),
    }
    text = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
    return text + "".join(f',\n "{name}": {block}' for name, block in blocks.items()) + "\n}\n"


def split_head(split):
    """Say of a split what a file does beside its IDs."""
    return {
        "repeat": split.repeat,
        "size": float(split.size),
        "train_domain": split.train_domain,
        "redraws": split.redraws,
        "digest": split.digest,
    }


def labels_to_json(splits):
    """Labels as a list of classes, and the place of each annotation's class in it."""
    if splits.labels is None:
        return {"classes": [], "labels": []}
    classes, codes = np.unique(splits.labels, return_inverse=True)
    return {"classes": classes.tolist(), "labels": codes.tolist()}


def _lines(rows, **style):
    return "[\n" + ",\n".join(json.dumps(row, **style) for row in rows) + "\n]"


def _compact(values):
    return json.dumps(values, separators=(",", ":"))


def _places(splits, split, part):
    """Where the IDs of a part stand among all."""
    ids = plain_ids(getattr(split, part))
    places = np.searchsorted(splits.ids, ids)
    known = places < len(splits.ids)
    known[known] = splits.ids[places[known]] == ids[known]
    if not known.all():
        raise SplitError(
            f"{ids[~known].tolist()[0]!r} of {split.name} is not among the IDs that were split"
        )
    return places


def _lists(parts):
    """Write every part as the first places of a list, with as few lists as that takes.

    Returns
    -------
    lists : list of ndarray
    refs : list of [list, number]
    """
    lists, refs = [], []
    for places in parts:
        number = next((n for n, one in enumerate(lists) if _starts_alike(one, places)), len(lists))
        if number == len(lists):
            lists.append(places)
        elif len(places) > len(lists[number]):
            lists[number] = places
        refs.append([number, len(places)])
    return lists, refs


def _starts_alike(one, other):
    shorter = min(len(one), len(other))
    if shorter == 0:
        return len(other) == 0
    return one[0] == other[0] and np.array_equal(one[:shorter], other[:shorter])


def _runs(places):
    """Write places, those that follow each other as a pair of the first and the last."""
    starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    ends = [*starts[1:], len(places)][: len(starts)]
    items = []
    for start, end in zip(starts, ends, strict=True):
        if end - start < SHORTEST_RUN:
            items += places[start:end].tolist()
        else:
            items.append(places[[start, end - 1]].tolist())
    return items


def _read_json(path):
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8"), parse_constant=_no_number)
    except RecursionError as error:
        raise SplitError(f"{path} is not a file of splits: it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise SplitError(f"{path} is not a file of splits: it is not UTF-8 text") from error
    except ValueError as error:
        raise SplitError(f"{path} is not a file of splits: {error}") from error


def _no_number(text):
    raise ValueError(f"it holds {text}")


def _from_json(content):
    ids = ids_from_json(field(content, "ids", list))
    runs = [_runs_from(items, len(ids)) for items in field(content, "lists", list)]
    refs = [
        [_ref_from(field(values, part, list), runs) for part in PARTS]
        for values in field(content, "splits", list)
    ]
    check_number([lengths.sum() for _, lengths in runs])
    check_number([count for of_split in refs for _, count in of_split])
    lists = [_expanded(*run) for run in runs]
    members = [
        split_from(values, ids, [lists[number][:count] for number, count in of_split])
        for values, of_split in zip(content["splits"], refs, strict=True)
    ]
    return splits_from(content, members, ids)


def _runs_from(items, n_ids):
    """Read a list of places and pairs of them as the first of each run, and its length."""
    if not isinstance(items, list):
        raise ValueError(f"a list of places is {_short(items)}")
    if set(map(type, items)) <= {int}:
        firsts = lasts = np.array(items, np.int64)
    else:
        firsts, lasts = _ends(items)
    if len(items) and not (firsts.min() >= 0 and lasts.max() < n_ids and (firsts <= lasts).all()):
        raise ValueError(f"a place is not one of 0 to {n_ids - 1}, or a pair descends")
    lengths = lasts - firsts + 1
    if lengths.sum() > n_ids:
        raise ValueError(f"a list holds {lengths.sum()} places of {n_ids}")
    return firsts, lengths


def _ends(items):
    """First and last place of each of some places and pairs."""
    pairs = [item if isinstance(item, list) else [item, item] for item in items]
    if not all(len(pair) == 2 and type(pair[0]) is type(pair[1]) is int for pair in pairs):
        raise ValueError("a place is neither a whole number nor a pair of them")
    return np.array(pairs, np.int64).T


def _expanded(firsts, lengths):
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(firsts, lengths) + within


def _ref_from(ref, runs):
    """Read which list a part is, and how many of its places."""
    if len(ref) != 2 or not all(type(number) is int for number in ref):
        raise ValueError(f"a part is {_short(ref)}, not a list's number and how many of it")
    number, count = ref
    if not 0 <= number < len(runs) or not 0 <= count <= runs[number][1].sum():
        raise ValueError(f"a part is {ref}, and no list is as long")
    return number, count


# ---- what JSON and Parquet share


def field(content, name, kind):
    """Return a field of the type that it must have."""
    if not isinstance(content, dict):
        raise ValueError(f"{_short(content)} stands where an object should")
    value = content[name]
    if type(value) is not kind:
        raise ValueError(f"{name!r} is {_short(value)}, which is no {kind.__name__}")
    return value


def _short(value):
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def check_number(counts):
    """Refuse more annotations, over all parts, than a file that is meant well has."""
    total = sum(counts)
    if total > MOST_PLACES:
        raise ValueError(f"they hold {total:,} annotations, more than {MOST_PLACES:,}")


def ids_from_json(values):
    """IDs that are all integers or all texts, ascending, none twice."""
    kinds = {type(value) for value in values}
    if not kinds <= {int} and kinds != {str}:
        raise ValueError("the IDs are neither all whole numbers nor all texts")
    if kinds == {int} and max(map(abs, values)) >= 2**63:
        raise ValueError("an ID does not fit 64 bits")
    ids = plain_ids(values)
    if len(ids) and not np.all(ids[1:] > ids[:-1]):
        raise ValueError("the IDs do not ascend, or one stands twice")
    return ids


def split_from(values, ids, places):
    """Make a split of what a file says of it; refuse one that was changed.

    Parameters
    ----------
    values : dict
        What :func:`split_head` has written.
    ids : ndarray
        All IDs.
    places : list of ndarray of int
        Where those of the three parts stand among them.
    """
    size, repeat, redraws = (
        field(values, name, kind)
        for name, kind in (("size", float), ("repeat", int), ("redraws", int))
    )
    split = Split(
        *(ids[part] for part in places), repeat, size, field(values, "train_domain", str), redraws
    )
    if not 0 < size <= 1 or min(repeat, redraws) < 0:
        raise ValueError(f"{split.name}, redraws {redraws} is no draw")
    if np.bincount(np.concatenate(places), minlength=1).max() > 1:
        raise ValueError(f"an ID of {split.name} stands twice")
    if split.digest != values["digest"]:
        raise ValueError(f"the IDs of {split.name} are not those that were written")
    return split


def splits_from(content, members, ids):
    """Put splits together with what a file says of them all; refuse a file that was changed."""
    if not members:
        raise ValueError("they hold no splits")
    splits = Splits(
        field(content, "dataset", str),
        field(content, "dataset_digest", str),
        field(content, "rule", str),
        field(content, "seed", int),
        field(content, "options", dict),
        tuple(members),
        ids,
        _labels_from(field(content, "classes", list), field(content, "labels", list), len(ids)),
    )
    if splits.digest != field(content, "digest", str):
        raise ValueError(
            f"their content has the digest {splits.digest:.15}..., not that of the file; it was "
            "changed: make it again with 'featstore split'"
        )
    return splits


def _labels_from(classes, codes, n_ids):
    if not classes and not codes:
        return None
    if len({type(name) for name in classes}) != 1 or type(classes[0]) not in (str, int, bool):
        raise ValueError(f"the classes are {_short(classes)}")
    if len(codes) != n_ids or not all(type(code) is int for code in codes):
        raise ValueError(f"{len(codes)} labels stand beside {n_ids} IDs, or one is no whole number")
    if codes and not 0 <= min(codes) <= max(codes) < len(classes):
        raise ValueError(f"a label is none of {len(classes)} classes")
    return np.array(classes)[np.array(codes, np.int64)]
