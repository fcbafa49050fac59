"""Judge embeddings: splits, linear probes, learning curves and domain matrices.

Reads any source of rows by annotation ID; a store of featstore is one. Importing this package
loads neither scikit-learn nor pandas: parts are imported when they are first used.
"""

from probes import errors, metrics
from probes.audit import AUDIT_COLUMNS, Audit, audit  # the function audit, over its package
from probes.evaluate import (  # the function evaluate, over the module of its name
    Score,
    evaluate,
)
from probes.published import published  # the function, over the module of its name
from probes.results import RESULT_COLUMNS, Results, result_row, result_rows
from probes.splits import (
    Split,
    Splits,
    grouped,
    leave_one_domain_out,
    load_splits,
    monte_carlo,
    predefined,
    preset,
    single_domain,
)

__all__ = [
    "AUDIT_COLUMNS",
    "RESULT_COLUMNS",
    "Audit",
    "Comparison",
    "DomainMatrix",
    "DomainProbe",
    "KNNProbe",
    "LeakageCost",
    "LearningCurve",
    "LogisticProbe",
    "RegularizationPath",
    "Results",
    "Score",
    "SimpleShot",
    "Split",
    "Splits",
    "audit",
    "compare",
    "cross_domain",
    "domain_probe",
    "errors",
    "evaluate",
    "fit_and_score",
    "grouped",
    "leakage_cost",
    "learning_curve",
    "leave_one_domain_out",
    "load_splits",
    "metrics",
    "monte_carlo",
    "predefined",
    "preset",
    "published",
    "regularization_path",
    "result_row",
    "result_rows",
    "single_domain",
]

_HOMES = {
    "Comparison": "probes.comparing",
    "DomainMatrix": "probes.domains",
    "DomainProbe": "probes.domainprobe",
    "KNNProbe": "probes.neighbours",
    "LeakageCost": "probes.leakage",
    "LearningCurve": "probes.curves",
    "LogisticProbe": "probes.logistic",
    "RegularizationPath": "probes.paths",
    "SimpleShot": "probes.neighbours",
    "compare": "probes.comparing",
    "cross_domain": "probes.domains",
    "domain_probe": "probes.domainprobe",
    "fit_and_score": "probes.trainings",
    "leakage_cost": "probes.leakage",
    "learning_curve": "probes.curves",
    "regularization_path": "probes.paths",
}


def __getattr__(name):
    """Import scikit-learn and what stands on it when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
