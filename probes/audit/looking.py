"""Look at annotations for what one of them shares with others: a group, pixels, an embedding."""

from dataclasses import dataclass, field

import numpy as np

from probes.audit.duplicates import equal_rows, near_blocks, read_rows
from probes.audit.parts import bit_planes, bits_of, of_groups, of_neighbours
from probes.audit.windows import Windows, column_of, unnamed
from probes.errors import AuditError, PositionError

__all__ = ["Findings", "at_embeddings", "at_groups", "at_positions"]

PARTS_AT_ONCE = 2**25  # bytes of the parts of neighbours that are held together
MITOTIC_FIGURE = "mitotic figure"


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found, by name of the finding.

    Parameters
    ----------
    reached : dict of str to ndarray of uint8, shape (n, n_splits)
        Parts, as bits, of the annotations that each annotation shares something with.
    held : dict of str to ndarray of bool, shape (n,)
        Whether the patch of an annotation holds something, whoever else is in a split.
    counted : dict of str to ndarray of bool, shape (n,)
        The annotations that a finding is of, where that is not all of them.
    not_audited : dict of str to str
        Why a finding is not known.
    settings : dict of str to value
        What findings depend on.
    """

    reached: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)
    counted: dict = field(default_factory=dict)
    not_audited: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)

    def __or__(self, more):
        """Put the findings of two looks together."""
        return Findings(*(vars(self)[name] | vars(more)[name] for name in vars(self)))


def at_groups(annotations, parts, groups):
    """Look which parts hold cells of one slide, case or whatever ``groups`` names.

    Parameters
    ----------
    annotations : LabelTable
    parts : ndarray of uint8, shape (n, n_splits)
        See :mod:`probes.audit.parts`.
    groups : sequence of str
        Columns. One that is missing, or says nothing of some annotations, is not audited.

    Returns
    -------
    Findings
        ``same-slide`` and so on.
    """
    name, reached, not_audited = annotations.name, {}, {}
    for group in groups:
        values = column_of(annotations, group)
        lost = 0 if values is None else int(unnamed(values).sum())
        if values is None:
            not_audited[f"same-{group}"] = f"{name!r} has no column {group!r}"
        elif lost:
            not_audited[f"same-{group}"] = (
                f"{lost} of {len(values)} annotations of {name!r} have no {group}; name it"
            )
        else:
            reached[f"same-{group}"] = of_groups(values, parts)
    return Findings(reached=reached, not_audited=not_audited)


def at_positions(annotations, parts, *, patch_px, mpp, image=None, positive=None):
    """Look which patches share pixels, and whose centres they hold.

    Parameters
    ----------
    annotations, parts
        As for :func:`at_groups`.
    patch_px, mpp, image
        As for :meth:`probes.audit.windows.Windows.of`.
    positive : str, optional
        Label of the cells that a patch of another label should not hold.

    Returns
    -------
    Findings
        ``overlapping``, ``contains-another`` and ``contains-mitotic``, not audited where positions
        are missing.

    Raises
    ------
    AuditError
        If ``patch_px`` or ``mpp`` is no size, or no annotation has the label ``positive``.
    """
    positive = _positive_label(annotations, positive)
    is_positive = annotations.labels == positive
    try:
        windows = Windows.of(annotations, patch_px=patch_px, mpp=mpp, image=image)
        overlapping, another, mitotic = _around(windows, parts, is_positive)
    except PositionError as error:
        names = ("overlapping", "contains-another", "contains-mitotic")
        return Findings(not_audited=dict.fromkeys(names, str(error)))
    held, counted, not_audited = {"contains-another": another}, {}, {}
    if positive is None:
        not_audited["contains-mitotic"] = "it is not known which label is the positive one; name it"
    else:
        held["contains-mitotic"] = mitotic & ~is_positive
        counted["contains-mitotic"] = ~is_positive
    settings = {"patch_px": int(patch_px), "mpp": float(mpp), "positive": positive}
    settings["annotations_of_unknown_mpp"] = windows.n_assumed
    return Findings({"overlapping": overlapping}, held, counted, not_audited, settings)


def at_embeddings(annotations, parts, source, near):
    """Look which parts hold the same embedding, or nearly the same.

    Parameters
    ----------
    annotations, parts
        As for :func:`at_groups`.
    source : Source or None
        Embeddings of all annotations that are in a part.
    near : float
        Cosine, between 0 and 1.

    Returns
    -------
    Findings
        ``duplicates`` and ``near-duplicates``, which hold the former; not audited where there is
        no source.

    Raises
    ------
    AuditError
        If ``near`` is not between 0 and 1, or embeddings are not finite.
    """
    names = ("duplicates", "near-duplicates")
    if source is None:
        return Findings(not_audited=dict.fromkeys(names, "no embeddings were given"))
    rows = np.flatnonzero(parts.any(axis=1))
    values = read_rows(source, annotations.ids[rows])
    equal = of_groups(equal_rows(values), parts[rows])
    nearby = equal | _of_near_rows(values, near, parts[rows])
    reached = {name: np.zeros_like(parts) for name in names}
    for name, found in zip(names, (equal, nearby), strict=True):
        reached[name][rows] = found
    of_source = {name: getattr(source, name, "") for name in ("model", "digest")}
    settings = {"near": float(near), "model": of_source["model"], "encoder": of_source["digest"]}
    return Findings(reached=reached, settings=settings)


def _positive_label(annotations, asked):
    """Label asked for, else mitotic figure, else the second of two; None where none is known."""
    labels = np.unique(annotations.labels).tolist()
    if asked is not None and asked not in labels:
        raise AuditError(
            f"no annotation of {annotations.name!r} is a {asked!r}; labels are "
            f"{', '.join(map(str, labels))}"
        )
    if asked is None and MITOTIC_FIGURE in labels:
        return MITOTIC_FIGURE
    return labels[-1] if asked is None and len(labels) == 2 else asked


def _around(windows, parts, is_positive):
    """Parts of overlapping patches; whether a patch holds another centre, and a positive one."""
    n, n_splits = parts.shape
    reached = np.zeros_like(parts)
    another, with_positive = np.zeros(n, bool), np.zeros(n, bool)
    for rows, others in windows.pairs(at_once=max(1, PARTS_AT_ONCE // max(n_splits, 16))):
        place, found = of_neighbours(rows, others, parts)
        reached[place] = found  # no row is in two blocks
        inside = windows.hold(rows, others)
        another[rows[inside]] = True
        with_positive[rows[inside & is_positive[others]]] = True
    return reached, another, with_positive


def _of_near_rows(values, near, parts):
    """Parts of rows whose cosine with a row is at least ``near``."""
    members, reached = bit_planes(parts), np.zeros_like(parts)
    for rows, others, is_near in near_blocks(values, near):
        if is_near.any():
            weights = is_near.astype(np.float32)
            reached[rows] |= bits_of(weights @ members[others])
            reached[others] |= bits_of(weights.T @ members[rows])
    return reached
