"""Clean splits: those that were audited, less the annotations that have a finding."""

from dataclasses import replace

import numpy as np

from probes.audit.parts import TEST, TRAIN, VAL
from probes.errors import AuditError, OneClassError, SplitError

__all__ = ["thinned"]

# For each choice: the parts that give up annotations, and those they share something with.
THINNED = {"test": (TEST, TRAIN | VAL), "train": (TRAIN | VAL, TEST)}
NAMES = {TRAIN: "train", VAL: "val", TEST: "test"}


def thinned(audit, splits, findings, thin):
    """Drop annotations from one side of each split; see :meth:`probes.audit.Audit.without`."""
    _check(audit, splits, findings, thin)
    part, against = THINNED[thin]
    dropped = np.any([audit.of(each, part=part, against=against) for each in findings], axis=0)
    if thin == "test":
        dropped = _shared_by_equal_test_parts(dropped, audit.parts)
    members = tuple(
        _thinned(audit, split, number, dropped[:, number], findings)
        for number, split in enumerate(splits)
    )
    return replace(splits, members=members, **_record(audit, splits, findings, thin))


def _check(audit, splits, findings, thin):
    if splits is not audit.splits and splits.digest != audit.splits.digest:
        raise AuditError(
            f"these {len(splits)} splits of {splits.dataset!r} are not the {len(audit.splits)} of "
            f"{audit.splits.dataset!r} that were audited; audit them first"
        )
    if thin not in THINNED:
        raise AuditError(f"thin={thin!r} is no part; give 'test' or 'train'")
    if not findings:
        raise AuditError(f"name one finding or more to drop, of {', '.join(audit.names)}")
    for name in findings:
        if name in audit.not_audited:
            raise AuditError(f"{name!r} was not audited: {audit.not_audited[name]}")
        if name not in audit.names:
            raise AuditError(f"{name!r} is no finding; give one of {', '.join(audit.names)}")


def _shared_by_equal_test_parts(dropped, parts):
    """Drop from each split what any split of the same test part drops."""
    tested = np.packbits(parts == TEST, axis=0)
    number_of = np.unique(tested, axis=1, return_inverse=True)[1].ravel()
    together = dropped.copy()
    for number in np.unique(number_of):
        same = number_of == number
        together[:, same] = dropped[:, same].any(axis=1, keepdims=True)
    return together


def _thinned(audit, split, number, dropped, findings):
    """Leave the dropped rows out of the parts of one split, keeping the order of the rest."""
    gone = set(audit.ids[dropped].tolist())
    kept = {}
    for bit, name in NAMES.items():
        ids = np.asarray(getattr(split, name))
        stays = np.array([key not in gone for key in ids.tolist()], bool)
        if not stays.all():
            kept[name] = ids[stays]
            _check_left(audit, split, number, bit, dropped, findings)
    return replace(split, **kept)


def _check_left(audit, split, number, bit, dropped, findings):
    inside = (audit.parts[:, number] & bit) > 0
    before, after = (np.unique(audit.labels[rows]) for rows in (inside, inside & ~dropped))
    what = f"{split.name}: without {', '.join(findings)} the {NAMES[bit]} part"
    advice = "split by slide ('featstore split --group slide'), or thin the other part"
    if len(after) == 0:
        raise SplitError(f"{what} is empty, all {inside.sum()} annotations are dropped; {advice}")
    if len(after) == 1 < len(before) and bit != VAL:  # validation parts of one class are usual
        raise OneClassError(
            f"{what} holds {after.tolist()[0]!r} only, {(inside & ~dropped).sum()} of "
            f"{inside.sum()} annotations; {advice}"
        )


def _record(audit, splits, findings, thin):
    """Rule and options of the thinned splits, which say what was dropped, and how it was found."""
    earlier = splits.options.get("without", [])
    step = {"findings": list(findings), "thin": thin, "audit": audit.settings}
    rule = splits.rule.removesuffix(_without(earlier)) + _without([*earlier, step])
    return {"rule": rule, "options": splits.options | {"without": [*earlier, step]}}


def _without(steps):
    """End of a rule after these steps, in each of which findings were dropped."""
    names = dict.fromkeys(name for step in steps for name in step["findings"])
    return f" without {', '.join(names)}" if names else ""
