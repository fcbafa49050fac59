"""How well the domain can be read off the embeddings, beside how well the task can.

A probe is fitted on a column, such as the tumour type or the scanner, in place of the label. Where
that succeeds, an encoder holds what a probe of the task could lean on in one domain, and miss in
another.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from probes.errors import SplitError
from probes.protocols import as_texts, positions
from probes.results import Results, means_by
from probes.splits import grouped, monte_carlo
from probes.splits.draws import Cells
from probes.splits.split import digest_of
from probes.trainings import fit_and_score, told_apart

__all__ = ["DomainProbe", "domain_probe"]

EXPERIMENT = "domain_probe"
METRICS = ("auroc", "balanced_accuracy")


@dataclass(frozen=True, eq=False)
class DomainProbe(Results):
    """Results of probes of a domain, and of the task on the same splits.

    Rows of the domain are of the experiment 'domain_probe domain', or of the column's name, those
    of the task of 'domain_probe label'.

    Parameters
    ----------
    classes : dict of str to tuple of str
        What there is to tell apart, by target: the values of the column, and the labels.
    """

    classes: dict = field(default_factory=dict)

    def summary(self):
        """Mean and standard deviation (n - 1) over repeats, one row per model, target and size.

        The columns are those of :func:`probes.results.means_by`, with ``target``, and ``classes``,
        the number of values to tell apart: one in so many is the balanced accuracy of chance.
        """
        frame = self.to_frame()
        targets = frame["experiment"].str.removeprefix(f"{EXPERIMENT} ")
        numbers = targets.map({target: len(names) for target, names in self.classes.items()})
        # both targets are of the same dataset, whose digest is over other labels for each
        frame = frame.assign(target=targets, classes=numbers, dataset_digest="")
        return means_by(frame, ["target", "classes", "size"])


def domain_probe(
    sources,
    annotations,
    splits=None,
    *,
    column="domain",
    group="slide",
    repeats=5,
    test=0.2,
    val=0.2,
    seed=42,
    metrics=METRICS,
    **fitting,
):
    """Fit probes of a column, and of the task on the same splits.

    Parameters
    ----------
    sources : Source or sequence of Source
        Embeddings.
    annotations : LabelTable
        The labels, and the column.
    splits : Splits, optional
        Where both are fitted and tested; by default they are drawn, with a share of every value of
        the column in each part as nearly as groups allow.
    column : str
        What is read off the embeddings.
    group : str or None
        Column whose values stay in one part of splits that are drawn. With None annotations are
        drawn one by one: cells of a slide are then on both sides, and a probe that knows the slide
        knows its domain.
    repeats, test, val, seed
        As for :func:`probes.grouped`.
    metrics : sequence of str
        Of more than two values, AUROC is the mean over pairs of them (one against one), and
        balanced accuracy over values.
    **fitting
        ``probe``, ``known``, ``place``, ``keep_scores``, ``say`` and the probe's parameters; as for
        :func:`probes.fit_and_score`.

    Returns
    -------
    DomainProbe

    Raises
    ------
    SplitError
        If the column has one value only or none for some annotations, a value lies in one group
        only, or a training part of given splits lacks a value.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> ids = np.arange(200)
    >>> columns = {"slide": ids // 10, "domain": np.where(ids // 10 % 2, "A", "B")}
    >>> labels = np.where(ids % 2, "mitotic figure", "look-alike")
    >>> table = SimpleNamespace(name="toy", digest="", ids=ids, labels=labels,
    ...                         labels_of=lambda asked: labels[asked], column=columns.get)
    >>> X = np.random.default_rng(0).normal(size=(200, 4))
    >>> X[:, 0] += 9 * (columns["domain"] == "A")
    >>> source = SimpleNamespace(ids=ids, read=lambda asked: X[asked], model="m", digest="sha256:m")
    >>> found = domain_probe(source, table, repeats=2, objective="l2").summary()
    >>> found[["target", "classes"]].values.tolist(), found["auroc_mean"].round(1).tolist()
    ([['domain', 2], ['label', 2]], [1.0, 0.5])
    """
    if column == "label":
        raise SplitError("column='label' is the task itself; name another column, such as domain")
    target = _Target.of(annotations, column)
    if splits is None:
        drawn = {"repeats": repeats, "test": test, "val": val, "train": (1.0,), "seed": seed}
        splits = _drawn(target, group, stratify="label", one_class="redraw", **drawn)
    else:
        splits.check(annotations)
        _check_values(target, splits)
    tables = {column: target, "label": annotations}
    found = dict.fromkeys(tables, Results())
    for source in map(_ReadOnce, told_apart(sources)):
        for name, table in tables.items():
            asked = {f"{EXPERIMENT} {name}": _splits_of(splits, table)}
            part = fit_and_score(source, table, asked, metrics=metrics, **fitting)
            found[name] = found[name].merged(part)
    both = found[column].merged(found["label"])
    classes = {column: target.values, "label": tuple(np.unique(annotations.labels).tolist())}
    return DomainProbe(both.rows, both.scores, both.notes, classes)


class _ReadOnce:
    """A source that keeps what was read last, for two targets on the same splits."""

    def __init__(self, source):
        self._source = source
        self._ids, self._rows = None, None
        self.ids = source.ids
        self.model, self.digest = getattr(source, "model", ""), getattr(source, "digest", "")

    def read(self, ids):
        if self._ids is None or not np.array_equal(ids, self._ids):
            self._ids, self._rows = ids, self._source.read(ids)
        return self._rows


@dataclass(frozen=True, eq=False)
class _Target:
    """Annotations whose label is a column of theirs, in the order of their IDs."""

    cells: Cells
    title: str
    labels: np.ndarray

    @classmethod
    def of(cls, annotations, column):
        """Take a column for the label; refuse one that leaves nothing to tell apart."""
        cells = Cells.of(annotations)
        labels = as_texts(cells.full_column(column))
        if len(np.unique(labels)) < 2:
            raise SplitError(
                f"all {len(labels)} annotations of {annotations.name!r} have the {column} "
                f"{labels.tolist()[0]!r}; two or more are needed to tell them apart"
            )
        return cls(cells, column, labels)

    @property
    def name(self):
        return self.cells.annotations.name

    @property
    def ids(self):
        return self.cells.ids

    @property
    def digest(self):
        """SHA-256 over the IDs and the column."""
        return digest_of(self.ids, self.labels)

    @property
    def values(self):
        return tuple(np.unique(self.labels).tolist())

    def column(self, name):
        return self.labels if name == "label" else self.cells.column(name)

    def labels_of(self, ids):
        return self.labels[positions(self.ids, ids)]


def _drawn(target, group, **options):
    if group is None:
        return monte_carlo(target, **options)
    groups = target.cells.full_column(group)
    for value in target.values:
        own = np.unique(groups[target.labels == value])
        if len(own) < 2:
            raise SplitError(
                f"the {target.title} {value!r} of {target.name!r} lies in one {group}, "
                f"{own.tolist()[0]!r}, and cannot be both trained on and tested; leave it out, or "
                "give group=None"
            )
    return grouped(target, group=group, **options)


def _check_values(target, splits):
    """Refuse splits on which a value of the column cannot be learned."""
    for split in splits:
        missing = sorted(set(target.values) - set(target.labels_of(split.train).tolist()))
        if missing:
            raise SplitError(
                f"{split.name}: no training annotation has the {target.title} {missing[0]!r}; give "
                "splits that mix them, or none to have some drawn"
            )


def _splits_of(splits, table):
    """Return the same splits, as those of a table with other labels of the same annotations."""
    labels = Cells.of(table).labels
    return replace(splits, dataset_digest=table.digest, labels=labels)
