"""Trainings of probes on many splits, and of all that was asked only those that are not there.

One encoder is in memory at a time. It is read once, fitted in one solve for all splits of all
experiments, and met once more by all fits together when they are tested.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np

from probes.errors import ProbesError
from probes.evaluate import Score
from probes.logits import logits, probabilities
from probes.metrics import auroc
from probes.neighbours import fit_probes, model_name
from probes.protocols import InMemory, positions
from probes.recipes import recipe_of
from probes.resultfiles import is_file, is_there
from probes.results import KEY, Results, check_metrics, domains_tested, training_results
from probes.scores import TRAINING, stacked, trainings_of, without

__all__ = ["fit_and_score", "told_apart"]

logger = logging.getLogger(__name__)


def fit_and_score(
    sources,
    annotations,
    experiments,
    *,
    probe="logistic",
    metrics=("auroc",),
    known=None,
    place=None,
    keep_scores=False,
    say=logger.info,
    **parameters,
):
    """Fit a probe on every split of some experiments, for every encoder, and test each.

    Parameters
    ----------
    sources : Source or sequence of Source
        Embeddings; read one after another, so that one is in memory at a time.
    annotations : LabelTable
        The labels; and the domains, where splits have a training domain.
    experiments : dict of str to Splits
        By the name that they get in the column ``experiment``, as ``{"learning_curve": splits}``.
        Where a split has a training domain, every domain of its test part has rows of its own.
    probe : {'logistic', 'knn', 'simpleshot'}
        What is fitted. The name of a companion stands behind that of the model in tables.
    metrics : sequence of str
        Names of :data:`probes.metrics.METRICS`.
    known : Results, optional
        What is there and equal (model, digest of encoder, labels and split, recipe, experiment and
        metrics) is not fitted again. Embeddings without a digest always are.
    place : path-like, optional
        Results that are there are known as well; after every encoder what is new is added to them:
        see :meth:`probes.Results.add_to`.
    keep_scores : bool
        Whether per-annotation scores are kept.
    say : callable
        Is told, in one line each, what is not fitted again and why something is.
    **parameters
        As for :class:`probes.LogisticProbe` (``objective``, ``C``, ``solver``, ...),
        :class:`probes.KNNProbe` or :class:`probes.SimpleShot`.

    Returns
    -------
    Results
        Of what was asked alone, in the order of sources, experiments and splits.

    Raises
    ------
    SplitError
        If splits are of other annotations.
    ProbesError
        If two sources cannot be told apart, or a metric or parameter is unknown.

    Notes
    -----
    A training part in which a class is missing that is tested gives no probe: its values are NaN,
    with the reason. So are those of a test part in which a class is missing.

    Examples
    --------
    >>> import probes
    >>> from types import SimpleNamespace
    >>> ids = np.arange(200)
    >>> labels = np.where(ids % 2, "mitotic figure", "look-alike")
    >>> table = SimpleNamespace(name="toy", digest="", ids=ids, labels=labels,
    ...                         labels_of=lambda asked: labels[asked],
    ...                         column=lambda name: np.where(ids < 100, "A", "B"))
    >>> X = np.random.default_rng(0).normal(size=(200, 4)) + 2 * (ids % 2)[:, None]
    >>> source = SimpleNamespace(ids=ids, read=lambda asked: X[asked], model="m", digest="sha256:m")
    >>> asked = {"learning_curve": probes.monte_carlo(table, repeats=3, train=[0.1, 1.0]),
    ...          "cross_domain": probes.single_domain(table, repeats=2)}
    >>> results = fit_and_score(source, table, asked, objective="l2")
    >>> len(results)
    14
    >>> again = fit_and_score(source, table, asked, objective="l2", known=results, say=print)
    10 of 10 trainings of m are there and equal; nothing is fitted
    """
    metrics, recipe = check_metrics(metrics), recipe_of(probe, **parameters)
    if keep_scores and place is not None and is_file(place):
        raise ProbesError(f"{place} keeps no scores; give a folder")
    for splits in experiments.values():
        splits.check(annotations)
    asked = [
        _Training.of(name, split, annotations, splits.options.get("column", "domain"))
        for name, splits in experiments.items()
        for split in splits
    ]
    known, given = known or Results(), known
    if place is not None and is_there(place):
        known = Results.load(place).merged(known)
    elif place is not None:
        Results().add_to(place)  # what cannot be written is better known now
    parts = []
    for source in told_apart(sources):
        job = _Job(source, annotations, probe, parameters, recipe, metrics, keep_scores)
        part, n_fitted = _of_encoder(job, asked, known, say)
        if place is not None and (n_fitted or given):
            part.add_to(place)
        parts.append(part)
    return Results(
        tuple(row for part in parts for row in part.rows),
        stacked([part.scores for part in parts]),
        tuple(note for part in parts for note in part.notes),
    )


@dataclass(frozen=True, eq=False)
class _Training:
    """A split that is to be trained on, in the experiment it belongs to."""

    experiment: str
    split: object
    column: str
    domains: tuple

    @classmethod
    def of(cls, experiment, split, annotations, column):
        """Find the domains that have rows of their own."""
        return cls(experiment, split, column, domains_tested(split, annotations, column))

    def reason(self, annotations):
        """Why nothing can be trained; empty where something can."""
        split = self.split
        labels = np.unique(annotations.labels_of(split.train)).tolist()
        if len(labels) == 1:
            only = f"all {len(split.train)} training labels are {labels[0]!r}"
            return f"{only}; there is nothing to tell apart"
        tested = np.unique(annotations.labels_of(split.test)).tolist()
        unknown = [name for name in tested if name not in labels]
        if unknown:
            return f"none of {len(split.train)} training labels is {unknown[0]!r}, which is tested"
        return ""


@dataclass(frozen=True, eq=False)
class _Job:
    """One encoder, and what is asked of it."""

    source: object
    annotations: object
    probe: str
    parameters: dict
    recipe: str
    metrics: tuple
    keep_scores: bool

    @property
    def model(self):
        return model_name(self.source, self.probe)

    @property
    def digest(self):
        return getattr(self.source, "digest", "")

    def cells(self, training):
        """Cells of the rows of a training."""
        return {
            "model": self.model,
            "annotations": self.annotations,
            "experiment": training.experiment,
            "encoder": self.digest,
            "recipe": self.recipe,
        }

    def keys(self, training):
        """Keys of its rows, as :data:`probes.results.KEY` orders them."""
        digest = getattr(self.annotations, "digest", "")
        named = (self.model, self.annotations.name, digest, training.experiment)
        split = training.split
        named += (split.digest, self.digest, self.recipe, split.repeat, split.size)
        return [(*named, domain, name) for domain in training.domains for name in self.metrics]

    def is_known(self, training, known):
        """Whether all that a training would give is there and equal."""
        return bool(self.digest) and known.holds(
            split=training.split,
            metrics=self.metrics,
            test_domains=training.domains,
            scores=self.keep_scores and not training.reason(self.annotations),
            **self.cells(training),
        )


def told_apart(sources):
    """List the sources, of which there may be one; two that no table could tell apart are refused.

    Raises
    ------
    ProbesError
        If two have the same model and digest.
    """
    listed = [sources] if hasattr(sources, "read") else list(sources)
    names = [(getattr(each, "model", ""), getattr(each, "digest", "")) for each in listed]
    for name in names:
        if names.count(name) > 1:
            raise ProbesError(
                f"{names.count(name)} sources are named {name[0]!r} and have the digest "
                f"{name[1]!r}; give each a model name of its own"
            )
    return listed


# ---- one encoder


def _of_encoder(job, asked, known, say):
    """Results of all that was asked, and how many trainings were fitted for it."""
    new = [training for training in asked if not job.is_known(training, known)]
    notes = tuple(_notes(job, asked, new, known))
    for note in notes:
        say(note)
    fitted = _fitted(job, new) if new else Results()
    together = known.merged(fitted) if len(new) < len(asked) else fitted
    return replace(_only(together, job, asked), notes=notes), len(new)


def _notes(job, asked, new, known):
    """Say what is not fitted again, and what is there and differs."""
    n_known = len(asked) - len(new)
    if n_known:
        rest = f"{len(new)} more are fitted" if new else "nothing is fitted"
        yield f"{n_known} of {len(asked)} trainings of {job.model} are there and equal; {rest}"
    if new:
        yield from _differences(job, new, known)


def _differences(job, new, known):
    """Yield what differs in trainings that are there on the same splits, and stay beside."""
    wanted = {(training.experiment, training.split.digest) for training in new}
    own = {
        "encoder": job.digest,
        "recipe": job.recipe,
        "dataset_digest": getattr(job.annotations, "digest", ""),
    }
    there = [
        row
        for row in known.rows
        if (row["model"], row["dataset"]) == (job.model, job.annotations.name)
        and (row["experiment"], row["split"]) in wanted
    ]
    for name, value in own.items():
        for other in dict.fromkeys(row[name] for row in there if row[name] != value):
            n_other = len({row["split"] for row in there if row[name] == other})
            yield (
                f"{n_other} trainings of {job.model} are there with another {_NAMES[name]} "
                f"({_short(other)}; now {_short(value)}); they stay, and are not mixed with these"
            )


_NAMES = {"encoder": "encoder", "recipe": "recipe", "dataset_digest": "version of the dataset"}


def _short(value):
    return (
        value[:23] + "..." if len(value) > 23 and value.startswith("sha256:") else value or "none"
    )


def _only(results, job, asked):
    """Keep the rows that were asked, in their order, and scores where these were asked."""
    there = {tuple(row[name] for name in KEY): row for row in results.rows}
    keys = [key for training in asked for key in job.keys(training)]
    scores = None
    if job.keep_scores:
        wanted = {key[: len(TRAINING)] for key in keys}
        scores = without(results.scores, trainings_of(results.scores) - wanted)
    return Results(tuple(there[key] for key in keys), scores)


def _fitted(job, new):
    """Train and test what is not there."""
    reasons = [training.reason(job.annotations) for training in new]
    able = [training for training, reason in zip(new, reasons, strict=True) if not reason]
    tested = iter(_tested(job, able) if able else ())
    rows, frames = [], {}
    for training, reason in zip(new, reasons, strict=True):
        probe, score = (None, None) if reason else next(tested)
        part = _results(job, training, probe, score, reason)
        rows += part.rows
        frames[part.rows[0]["split"], training.experiment] = part.scores  # equal splits: once
    return Results(tuple(rows), stacked(frames.values()))


def _results(job, training, probe, score, reason):
    flags = {} if reason else {"converged": probe.converged_, "collapsed": probe.collapsed_}
    return training_results(
        score,
        training.split,
        metrics=job.metrics,
        column=training.column,
        keep_scores=job.keep_scores,
        reason=reason,
        **job.cells(training),
        **flags,
    )


def _tested(job, trainings):
    """Yield the probe of each training, and its score on the test part."""
    splits = [training.split for training in trainings]
    rows = InMemory.of(job.source, splits)
    probes = fit_probes(
        job.probe, rows, job.annotations, splits, digest=job.digest, **job.parameters
    )
    labels = job.annotations.labels_of(rows.ids)
    places = [positions(rows.ids, split.test) for split in splits]
    for fit, said in enumerate(_probabilities(probes, rows.values, places)):
        tested, classes = places[fit], probes[fit].classes_
        value = auroc(labels[tested], said, classes)
        yield probes[fit], Score(value, rows.ids[tested], labels[tested], said, classes)


def _probabilities(probes, X, places):
    """Yield what each probe says of its rows, (n_test, n_classes); linear ones in one product."""
    if not hasattr(probes[0], "coef_"):
        for probe, tested in zip(probes, places, strict=True):
            yield probe.predict_proba(X[tested])
        return
    weights = np.concatenate([probe.coef_ for probe in probes])
    intercepts = np.concatenate([probe.intercept_ for probe in probes])
    of_fits = logits(X, weights, intercepts).reshape(len(X), len(probes), -1)
    for fit, tested in enumerate(places):
        yield probabilities(of_fits[tested, fit])
