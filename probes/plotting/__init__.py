"""Figures of results. Numbers come in as tables; nothing is computed here beyond means.

Every function draws on axes that it is given, or on a new figure, and returns the axes: an array of
them where there is more than one panel. Names come from stores of other labs and are drawn as they
are: never as formulas, and cut where they are too long.
"""

from probes.plotting.agreement import plot_calibration, plot_roc
from probes.plotting.costs import plot_leakage_cost
from probes.plotting.curves import plot_learning_curves
from probes.plotting.matrices import plot_domain_matrix
from probes.plotting.paths import plot_regularization_path

__all__ = [
    "plot_calibration",
    "plot_domain_matrix",
    "plot_leakage_cost",
    "plot_learning_curves",
    "plot_regularization_path",
    "plot_roc",
]
