"""One tidy table of results, the same for probes and networks, and kept beside it what was said.

A row is one metric of one training on one test part. Rows name what they are of by digests (split,
encoder, labels) and by a recipe, so that a rerun knows which trainings are there and equal, and
results of different things are never averaged. How files are written is in probes.resultfiles.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from probes import resultfiles
from probes.errors import SplitError
from probes.means import means_by, places
from probes.protocols import as_texts, positions
from probes.resultrows import KEY, RESULT_COLUMNS, check_metrics, result_row, result_rows
from probes.scores import (
    SCORE_COLUMNS,
    TRAINING,
    merged_scores,
    score_frame,
    trainings_of,
    without,
)

__all__ = [
    "KEY",
    "RESULT_COLUMNS",
    "Results",
    "check_metrics",
    "domains_tested",
    "experiment_of",
    "means_by",
    "places",
    "result_row",
    "result_rows",
    "training_results",
]


def experiment_of(split):
    """Name the experiment of the paper that a split belongs to, by whether it has a domain."""
    return "cross_domain" if split.train_domain else "learning_curve"


def domains_tested(split, annotations, column="domain"):
    """Domains of the test part, each of which has rows of its own.

    Parameters
    ----------
    split : Split
    annotations : LabelTable
    column : str
        Column of the domains.

    Returns
    -------
    tuple of str
        Sorted; one '' where the split has no training domain, and all are tested together.

    Raises
    ------
    SplitError
        If an annotation of the test part has no domain.
    """
    if not split.train_domain:
        return ("",)
    return tuple(np.unique(_domains(split, annotations, column)).tolist())


def _domains(split, annotations, column):
    """Domain of each annotation of the test part, as a text."""
    names = as_texts(annotations.column(column))[positions(annotations.ids, split.test)]
    if (names == "").any():
        raise SplitError(
            f"{split.name}: {np.sum(names == '')} of {len(names)} annotations to test have no "
            f"{column} any more; name it, or make new splits"
        )
    return names


def training_results(
    score,
    split,
    *,
    annotations,
    experiment="",
    metrics=("auroc",),
    column="domain",
    keep_scores=False,
    **cells,
):
    """Results of one training: rows of each test domain, or of the whole test part.

    Parameters
    ----------
    score : Score or None
        On the whole test part; None where nothing could be trained, and then ``reason`` says why.
    split, annotations, **cells
        As for :func:`result_row`.
    experiment : str
        By default that of :func:`experiment_of`.
    metrics : sequence of str
        Names of :data:`probes.metrics.METRICS`.
    column : str
        Column of the domains, where the split has a training domain.
    keep_scores : bool
        Whether per-annotation scores are kept.

    Returns
    -------
    Results

    Raises
    ------
    ProbesError
        If a metric is unknown.
    """
    cells |= {"annotations": annotations, "metrics": metrics}
    cells |= {"experiment": experiment or experiment_of(split)}
    rows = []
    for domain in domains_tested(split, annotations, column):
        part, n_test = score, len(split.test)
        if domain:
            inside = _domains(split, annotations, column) == domain
            part, n_test = score and score.among(inside), int(inside.sum())
        rows += result_rows(part, split, test_domain=domain, n_test=n_test, **cells)
    kept = score_frame(score, rows[0]) if keep_scores and score else None
    return Results(tuple(rows), kept)


@dataclass(frozen=True, eq=False)
class Results:
    """Rows of results, of any number of models, datasets and experiments.

    Parameters
    ----------
    rows : tuple of dict
        With the keys :data:`RESULT_COLUMNS`.
    scores : DataFrame, optional
        What was said of each annotation tested, where that is kept: columns
        :data:`probes.scores.SCORE_COLUMNS`, and ``p <class>`` for every class.
    notes : tuple of str
        What was not fitted again, and what was there and differed; not kept in files.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> split = SimpleNamespace(repeat=0, size=1.0, train_domain="", train=[1, 2], val=[], test=[3],
    ...                         digest="sha256:1")
    >>> cells = {"model": "uni", "experiment": "learning_curve",
    ...          "annotations": SimpleNamespace(name="toy", digest="sha256:0")}
    >>> score = SimpleNamespace(auroc=0.75, n_test=1)
    >>> results = Results((result_row(score, split, **cells),))
    >>> results.holds(split=split, **cells), results.holds(split=split, **cells | {"model": "b"})
    (True, False)
    """

    rows: tuple = ()
    scores: object = field(default=None, repr=False)
    notes: tuple = field(default=(), repr=False)

    def __len__(self):
        return len(self.rows)

    def to_frame(self):
        """Return a pandas DataFrame, one row per row."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=list(RESULT_COLUMNS))

    def summary(self):
        """Mean and standard deviation (n - 1) of every metric; see :func:`means_by`.

        By size where a row has no test domain; where it has one, by whether that is the training
        domain.
        """
        frame = self.to_frame()
        return means_by(frame.assign(tested=places(frame)), ("experiment", "size", "tested"))

    def where(self, **cells):
        """Keep the rows, and the scores of these trainings, that have these values.

        Parameters
        ----------
        **cells
            A value, or a collection of values, by the name of its column.

        Examples
        --------
        >>> rows = [dict.fromkeys(RESULT_COLUMNS, "") | {"model": name} for name in "abc"]
        >>> [row["model"] for row in Results(tuple(rows)).where(model={"a", "c"}).rows]
        ['a', 'c']
        """
        wanted = {
            name: set(value) if isinstance(value, set | frozenset | list | tuple) else {value}
            for name, value in cells.items()
        }
        rows = tuple(
            row for row in self.rows if all(row[name] in values for name, values in wanted.items())
        )
        gone = trainings_of(self.scores) - {_training(row) for row in rows}
        return replace(self, rows=rows, scores=without(self.scores, gone))

    def merged(self, other):
        """Return both tables as one; of rows of equal :data:`KEY` those of ``other`` are kept.

        So are scores of equal trainings; where nothing says what encoder a training was of, those
        that are here may be of another, and go.
        """
        rows = {_key(row): row for row in (*self.rows, *other.rows)}
        unnamed = {_training(row) for row in other.rows if not row["encoder"]}
        scores = merged_scores(without(self.scores, unnamed), other.scores)
        notes = (*self.notes, *other.notes)
        return replace(self, rows=tuple(rows.values()), scores=scores, notes=notes)

    def holds(
        self,
        *,
        model,
        annotations,
        experiment,
        split,
        encoder="",
        recipe="",
        metrics=("auroc",),
        test_domains=None,
        scores=False,
    ):
        """Whether every row that a training would give is there.

        Parameters
        ----------
        model, experiment, encoder, recipe
            As for :func:`result_row`.
        annotations : LabelTable
            Its name and digest are compared.
        split : Split
            Its digest, repeat and size are compared.
        metrics : sequence of str
            All must be there.
        test_domains : sequence of str, optional
            All must be there; by default any are enough.
        scores : bool
            Whether per-annotation scores must be there as well.
        """
        training = _cells_of(model, annotations, experiment, split.digest, encoder, recipe)
        drawn = (*training, split.repeat, split.size)
        there = [self._tested.get((*drawn, metric), set()) for metric in metrics]
        if not all(there):
            return False
        if test_domains is not None and not all(set(test_domains) <= domains for domains in there):
            return False
        return not scores or training in self._scored

    @cached_property
    def _tested(self):
        """Test domains by training, draw and metric."""
        tested = {}
        for row in self.rows:
            key = (*_training(row), row["repeat"], row["size"], row["metric"])
            tested.setdefault(key, set()).add(row["test_domain"])
        return tested

    @cached_property
    def _scored(self):
        """Trainings whose per-annotation scores are there."""
        return trainings_of(self.scores)

    def save(self, path):
        """Write what is here, whole or not at all.

        Parameters
        ----------
        path : path-like
            A folder, which gets ``results.csv``, with pyarrow ``results.parquet`` (the same rows),
            and ``scores.parquet`` where scores are kept; or one file that ends in ``.csv`` or
            ``.parquet``, of rows alone. What was there is replaced: see :meth:`add_to`.

        Raises
        ------
        MissingExtraError
            If Parquet is asked for, or there are scores, and pyarrow is not installed.
        """
        resultfiles.write(path, self.to_frame(), self.scores)

    def add_to(self, path):
        """Merge into what is at a place, or make it; returns all that is there then.

        The place is read again and locked meanwhile, so that two programs that add to it at the
        same time lose nothing.
        """
        with resultfiles.locked(path):
            there = Results.load(path) if resultfiles.is_there(path) else Results()
            together = there.merged(self)
            together.save(path)
        return together

    @classmethod
    def load(cls, path):
        """Read results that :meth:`save` wrote; files may come from anyone.

        Parameters
        ----------
        path : path-like
            A folder, or a file that ends in ``.csv`` or ``.parquet``. Of a folder the CSV is read;
            the Parquet file is a copy for other tools.

        Raises
        ------
        ResultsError
            If there are none, a column is missing, or a value is not of its type.
        """
        rows, scores = resultfiles.read(path, RESULT_COLUMNS, SCORE_COLUMNS)
        return cls(tuple({_key(row): row for row in rows}.values()), scores)


def _cells_of(model, annotations, experiment, split_digest, encoder, recipe):
    """Put what tells a training apart in the order of :data:`probes.scores.TRAINING`."""
    digest = getattr(annotations, "digest", "")
    return (model, annotations.name, digest, experiment, split_digest, encoder, recipe)


def _training(row):
    return tuple(row[name] for name in TRAINING)


def _key(row):
    return tuple(row[name] for name in KEY)
