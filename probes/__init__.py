"""Judge embeddings: splits, linear probes, learning curves and domain matrices.

Reads any source of rows by annotation ID; a store of featstore is one. Importing this package
loads neither scikit-learn nor pandas: parts are imported when they are first used.
"""

from probes import errors
from probes.evaluate import Score, evaluate, result_row  # the function, over the module of its name
from probes.splits import Split, Splits, grouped, load_splits, monte_carlo, single_domain

__all__ = [
    "DomainMatrix",
    "LearningCurve",
    "LogisticProbe",
    "Score",
    "Split",
    "Splits",
    "cross_domain",
    "errors",
    "evaluate",
    "grouped",
    "learning_curve",
    "load_splits",
    "monte_carlo",
    "result_row",
    "single_domain",
]

_HOMES = {
    "DomainMatrix": "probes.domains",
    "LearningCurve": "probes.curves",
    "LogisticProbe": "probes.logistic",
    "cross_domain": "probes.domains",
    "learning_curve": "probes.curves",
}


def __getattr__(name):
    """Import scikit-learn and what stands on it when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
