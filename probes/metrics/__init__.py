"""Figures of merit of predicted probabilities, and how sure one can be of them.

Every metric is a function of labels and scores that takes many fits at once, and many weightings
of the annotations at once, which is what a bootstrap is. A value that is undefined is NaN;
:func:`all_metrics` says why. Nothing here knows of models, splits or stores.
"""

from probes.metrics.bootstrap import Bootstrap, BootstrapTest, bootstrap, bootstrap_difference
from probes.metrics.calibration import brier, calibration_error
from probes.metrics.delong import (
    DeLongTest,
    Interval,
    delong_covariance,
    delong_interval,
    delong_test,
)
from probes.metrics.ranking import auroc, average_precision, sensitivity_at_specificity
from probes.metrics.summary import METRICS, Value, all_metrics
from probes.metrics.thresholds import balanced_accuracy, f1

__all__ = [
    "METRICS",
    "Bootstrap",
    "BootstrapTest",
    "DeLongTest",
    "Interval",
    "Value",
    "all_metrics",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "bootstrap",
    "bootstrap_difference",
    "brier",
    "calibration_error",
    "delong_covariance",
    "delong_interval",
    "delong_test",
    "f1",
    "sensitivity_at_specificity",
]
