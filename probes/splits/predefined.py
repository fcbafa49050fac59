"""Splits that somebody else has made: a column of the table, or a published file."""

import numpy as np

from probes.errors import SplitError
from probes.protocols import as_texts
from probes.splits.draws import Cells, generator
from probes.splits.partfile import read_parts
from probes.splits.trainings import Trainings, by_annotation, by_group, check_draws, splits_of

__all__ = ["predefined"]

FIRST = 3  # names that a message gives of many
PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def predefined(
    annotations,
    *,
    column=None,
    file=None,
    key=None,
    part=None,
    by=None,
    names=None,
    unknown="refuse",
    repeats=1,
    val=0.2,
    train=(1.0,),
    group=None,
    stratify=None,
    one_class="refuse",
    seed=42,
):
    """Take the parts that a column or a published file names.

    Parameters
    ----------
    annotations : LabelTable
        What to split.
    column : str, optional
        Column of the annotations whose values name the parts, such as 'split'.
    file : path-like, optional
        Instead of a column: a CSV, separated by commas, semicolons or tabs, that names the part of
        each annotation or slide.
    key, part : str, optional
        Columns of the file: which annotation or slide, and its part. By default the first that is
        called id, slide, case, image or file (or much like it), and split, part, subset, set or
        dataset.
    by : str, optional
        Column of the annotations that the key names: by default 'id' where the key is called so,
        else 'slide'. Slides are the same where their names are, or else where their names are
        without ending and leading zeros: 1 is 001.tiff.
    names : mapping of str to str, optional
        What further names of parts mean: 'train', 'val', 'test', or '' for neither. Known are
        train, training, val, valid, validation, test and testing, in capitals too.
    unknown : {'refuse', 'ignore'}
        What becomes of a key of the file that the annotations do not have.
    repeats : int
        Draws of what has to be drawn: sizes, and validation where no part validates.
    val : float
        Share of training that validates, rounded down, where no part is named so.
    train : sequence of float
        Sizes: shares of the training part. A validation part that is named is whole at all sizes.
    group : str, optional
        Column of which no value is in both training and a validation part that is drawn.
    stratify, one_class, seed
        As for :func:`probes.monte_carlo`.

    Returns
    -------
    Splits
        ``repeats * len(train)`` of them, by repeat, then size. The options say whether validation
        was drawn, and of a file its name and SHA-256.

    Raises
    ------
    SplitError
        If an annotation has no part, a part has another name or is empty, or the file cannot be
        read, names a key twice or one that is not there.
    OneClassError
        As for :func:`probes.monte_carlo`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> ids = np.arange(10)
    >>> table = SimpleNamespace(name="demo", digest="", ids=ids, labels=np.where(ids % 2, "a", "b"),
    ...                         column=lambda name: np.where(ids < 8, "train", "test"))
    >>> split = predefined(table, column="split")[0]
    >>> len(split.train), len(split.val), split.test
    (7, 1, array([8, 9]))
    """
    options = {
        "repeats": repeats,
        "val": val,
        "train": list(train),
        "group": group,
        "stratify": stratify,
        "one_class": one_class,
    }
    check_draws(options, seed)
    if (column is None) == (file is None):
        raise SplitError("predefined splits come from column=NAME or from file=PATH; give one")
    cells = Cells.of(annotations)
    if file is None:
        origin, found = {"column": column}, as_texts(cells.column(column))
    else:
        origin, found = _from_file(cells, file, key, part, by, unknown)
    rows = _rows(cells, found, names or {}, origin)
    options |= origin | {"val_drawn": not len(rows["val"])}
    trainings = Trainings(cells, options["train"], _draw(cells, rows, options), one_class=one_class)
    members = []
    for repeat in range(repeats):
        rng = generator(seed, repeat)
        pool = rng.permutation(rows["train"])
        members += trainings.of(pool, rows["test"], rng, (seed, repeat), repeat=repeat)
    return splits_of(cells, "predefined", seed, options, members)


def _draw(cells, rows, options):
    """Draw sizes of the training part, and validation from it where no part validates."""
    val, strata, group = options["val"], cells.codes(options["stratify"]), options["group"]
    if not options["val_drawn"]:
        draw = by_annotation(0.0, strata)
        return lambda *drawn: [(training, rows["val"]) for training, _ in draw(*drawn)]
    if group is None:
        return by_annotation(val, strata)
    groups = np.unique(cells.full_column(group), return_inverse=True)[1]
    return by_group(groups, val, strata)


def _rows(cells, found, names, origin):
    """Rows of each part, ascending."""
    where = f"column {origin['column']!r}" if "column" in origin else origin["file"]
    meant = PART_NAMES | {name.strip().lower(): part for name, part in names.items()}
    said, codes = np.unique(np.char.strip(found), return_inverse=True)
    _check_names(cells, said, codes, meant, where)
    part_of_row = np.array([meant[name.lower()] for name in said.tolist()])[codes]
    rows = {part: np.flatnonzero(part_of_row == part) for part in ("train", "val", "test")}
    for part in ("train", "test"):
        if not len(rows[part]):
            raise SplitError(
                f"{where} names no {part} part of {cells.annotations.name!r}; it has "
                f"{', '.join(said.tolist())}"
            )
    return rows


def _check_names(cells, said, codes, meant, where):
    without = np.flatnonzero(said[codes] == "")
    if len(without) and "" not in meant:
        raise SplitError(
            f"{where} gives {len(without)} of {len(codes)} annotations of "
            f"{cells.annotations.name!r} no part ({_first(cells.ids[without])}); name one for "
            "each, or leave them out with names={'': ''} (--map-part =)"
        )
    odd = [name for name in said.tolist() if name.lower() not in meant]
    wrong = sorted(set(meant.values()) - {"train", "val", "test", ""})
    if odd or wrong:
        number = np.sum(np.isin(said[codes], odd)) if odd else 0
        raise SplitError(
            f"{where} names the parts {', '.join(odd)} ({number} annotations); parts are train, "
            f"val and test: say what others mean, such as names={{{odd[0]!r}: 'test'}}"
            if odd
            else f"names means {wrong[0]!r}, which is no part; parts are train, val and test, or ''"
        )


def _from_file(cells, path, key, part, by, unknown):
    """Part of every annotation, as a file says, '' where it does not; and what it was."""
    if unknown not in ("refuse", "ignore"):
        raise SplitError(f"unknown={unknown!r} is unknown; give 'refuse' or 'ignore'")
    table = read_parts(path, key=key, part=part)
    by = by or ("id" if table.key.lower().endswith("id") else "slide")
    known, codes = np.unique(
        as_texts(cells.ids if by == "id" else cells.full_column(by)), return_inverse=True
    )
    place_of = _matching(table, known.tolist(), by)
    others = [name for name in table.parts if name not in place_of]
    if others and unknown == "refuse":
        raise SplitError(
            f"{table.name} names {len(others)} of {len(table.parts)} {table.key} that "
            f"{cells.annotations.name!r} does not have ({_first(others)}); leave them out with "
            "unknown='ignore'"
        )
    parts = np.full(len(known), "", dtype=object)
    for name, place in place_of.items():
        parts[place] = table.parts[name]
    origin = {"file": table.name, "file_digest": table.digest, "by": by}
    return origin | {"key": table.key, "part": table.part}, parts.astype(str)[codes]


def _matching(table, known, by):
    """Place of each key of a file among the names that the annotations have."""
    exact = {name: place for place, name in enumerate(known)}
    place_of = {name: exact[name] for name in table.parts if name in exact}
    others = [name for name in table.parts if name not in exact]
    if others and by != "id":
        plain = _by_plain_name(known, f"the {by}s of the annotations")
        theirs = _by_plain_name(table.parts, table.name)
        found = {theirs[name]: exact[plain[name]] for name in theirs if name in plain}
        place_of |= {name: found[name] for name in others if name in found}
    return place_of


def _by_plain_name(names, where):
    plain = {}
    for name in names:
        short = _plain(name)
        if short in plain:
            raise SplitError(
                f"{plain[short]!r} and {name!r} are both {short!r} in {where}; rename one"
            )
        plain[short] = name
    return plain


def _plain(name):
    """Strip the name of a slide of folder, ending and leading zeros.

    Examples
    --------
    >>> _plain("images/001.tiff"), _plain("1"), _plain("TCGA-A1.v2")
    ('1', '1', 'TCGA-A1.v2')
    """
    stem = name.replace("\\", "/").rsplit("/", 1)[-1]
    head, dot, ending = stem.rpartition(".")
    if dot and ending.lower() in ENDINGS:
        stem = head
    return stem.lstrip("0") or "0"


ENDINGS = ("tif", "tiff", "svs", "ndpi", "mrxs", "png", "jpg", "jpeg", "bif", "scn", "vsi", "dcm")


def _first(names):
    named = ", ".join(map(repr, np.asarray(names).tolist()[:FIRST]))
    return f"first: {named}" if len(names) > FIRST else named
