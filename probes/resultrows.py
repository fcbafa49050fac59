"""Rows of results: one metric of one training on one test part, of probes and networks alike."""

import numpy as np

from probes.errors import ProbesError
from probes.metrics import METRICS
from probes.scores import TRAINING

__all__ = ["KEY", "RESULT_COLUMNS", "check_metrics", "result_row", "result_rows"]

RESULT_COLUMNS = (
    "model",
    "dataset",
    "experiment",
    "repeat",
    "size",
    "train_domain",
    "test_domain",
    "metric",
    "value",
    "reason",
    "n_train",
    "n_val",
    "n_test",
    "split",
    "encoder",
    "recipe",
    "converged",
    "collapsed",
    "dataset_digest",
)

# What tells rows apart.
KEY = (*TRAINING, "repeat", "size", "test_domain", "metric")


def result_row(
    score,
    split,
    *,
    model,
    annotations,
    experiment,
    recipe="",
    test_domain="",
    encoder="",
    converged=True,
    collapsed=False,
    metric="auroc",
    reason="",
    n_test=None,
):
    """One line of a table of results, the same for probes and networks.

    Parameters
    ----------
    score : Score or None
        What :func:`probes.evaluate` returned; None where nothing could be trained, and then
        ``reason`` says why.
    split : Split
        Which it was of.
    model, experiment, recipe, test_domain, encoder, converged, collapsed
        Cells of the columns of their names.
    annotations : LabelTable
        Its name and digest fill the columns ``dataset`` and ``dataset_digest``.
    metric : str
        A name of :data:`probes.metrics.METRICS`.
    reason : str
        Why there is no score.
    n_test : int, optional
        Annotations that were tested, where that is not the whole test part and there is no score.

    Returns
    -------
    dict
        With the keys :data:`RESULT_COLUMNS`.

    Raises
    ------
    ProbesError
        If the metric is unknown, or there is neither a score nor a reason.
    """
    _check_metric(metric)
    value, reason = _value(score, split, metric, reason)
    if score is not None:
        n_test = score.n_test
    values = (
        model,
        annotations.name,
        experiment,
        split.repeat,
        split.size,
        split.train_domain,
        test_domain,
        metric,
        value,
        reason,
        len(split.train),
        len(split.val),
        len(split.test) if n_test is None else n_test,
        split.digest,
        encoder,
        recipe,
        converged,
        collapsed,
        getattr(annotations, "digest", ""),
    )
    return dict(zip(RESULT_COLUMNS, values, strict=True))


def result_rows(score, split, *, metrics=("auroc",), **cells):
    """Lines of a table of results, one per metric.

    Parameters
    ----------
    score, split, **cells
        As for :func:`result_row`.
    metrics : sequence of str
        Names of :data:`probes.metrics.METRICS`.

    Returns
    -------
    list of dict
        With the keys :data:`RESULT_COLUMNS`, in the order of ``metrics``.

    Raises
    ------
    ProbesError
        If a metric is unknown.
    """
    return [result_row(score, split, metric=metric, **cells) for metric in metrics]


def check_metrics(metrics):
    """Give names of metrics as a tuple, each once; refuse what is none.

    Examples
    --------
    >>> check_metrics("auroc"), check_metrics(["brier", "auroc", "brier"])
    (('auroc',), ('brier', 'auroc'))
    """
    names = tuple(dict.fromkeys([metrics] if isinstance(metrics, str) else metrics))
    for name in names:
        _check_metric(name)
    if not names:
        raise ProbesError(f"metrics are empty; give one or more of {', '.join(METRICS)}")
    return names


def _check_metric(metric):
    if metric not in METRICS:
        raise ProbesError(f"metric={metric!r} is unknown; give one of {', '.join(METRICS)}")


def _value(score, split, metric, reason):
    """Value, and why it is NaN."""
    if score is None:
        if not reason:
            raise ProbesError(f"{split.name} has neither a score nor a reason why; give one")
        return np.nan, reason
    if metric == "auroc":
        value = score.auroc  # known already
    else:
        value = METRICS[metric](score.labels, score.probabilities, score.classes)
    return value, score.metrics[metric].reason if np.isnan(value) else ""
