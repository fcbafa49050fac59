"""Judge embeddings: splits, linear probes, learning curves and domain matrices.

Reads any source of rows by annotation ID; a store of featstore is one. Importing this package
loads neither scikit-learn nor pandas: parts are imported when they are first used.
"""

from probes import errors, metrics
from probes.evaluate import (  # the function evaluate, over the module of its name
    Score,
    evaluate,
    result_row,
    result_rows,
)
from probes.splits import Split, Splits, grouped, load_splits, monte_carlo, single_domain

__all__ = [
    "DomainMatrix",
    "KNNProbe",
    "LearningCurve",
    "LogisticProbe",
    "RegularizationPath",
    "Score",
    "SimpleShot",
    "Split",
    "Splits",
    "cross_domain",
    "errors",
    "evaluate",
    "grouped",
    "learning_curve",
    "load_splits",
    "metrics",
    "monte_carlo",
    "regularization_path",
    "result_row",
    "result_rows",
    "single_domain",
]

_HOMES = {
    "DomainMatrix": "probes.domains",
    "KNNProbe": "probes.neighbours",
    "LearningCurve": "probes.curves",
    "LogisticProbe": "probes.logistic",
    "RegularizationPath": "probes.paths",
    "SimpleShot": "probes.neighbours",
    "cross_domain": "probes.domains",
    "learning_curve": "probes.curves",
    "regularization_path": "probes.paths",
}


def __getattr__(name):
    """Import scikit-learn and what stands on it when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
