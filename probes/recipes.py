"""Recipes: one short text of what was fitted, so that equal trainings are known as equal."""

import json

import numpy as np

from probes.errors import ProbesError

__all__ = ["recipe_of"]

# In this order; the first two always, the others where they are not the default.
DECIDE = ("objective", "C", "standardize", "class_weight", "select_by", "solver", "max_iter")


def recipe_of(probe="logistic", **parameters):
    """Say what a probe is, by every parameter that decides the result, in a fixed order.

    Parameters
    ----------
    probe : {'logistic', 'knn', 'simpleshot'}
        What is fitted.
    **parameters
        As for :class:`probes.LogisticProbe`, :class:`probes.KNNProbe` or
        :class:`probes.SimpleShot`.

    Returns
    -------
    str

    Raises
    ------
    ProbesError
        If there is no such probe.

    Examples
    --------
    >>> recipe_of()
    'logistic objective=uni C=uni'
    >>> recipe_of(objective="l2", C=[0.01, 1], standardize=True)
    'logistic objective=l2 C=0.01,1 standardize=True'
    >>> recipe_of("knn")
    'knn n_neighbors=20'
    """
    if probe == "logistic":
        from probes.logistic import LogisticProbe

        return " ".join(["logistic", *_logistic_words(LogisticProbe(**parameters).get_params())])
    from probes.neighbours import COMPANIONS

    if probe not in COMPANIONS:
        known = ", ".join(map(repr, ("logistic", *COMPANIONS)))
        raise ProbesError(f"probe={probe!r} is unknown; use one of {known}")
    given = COMPANIONS[probe](**parameters).get_params()
    return " ".join([probe, *(f"{name}={_text(value)}" for name, value in sorted(given.items()))])


def _logistic_words(given):
    from probes.logistic import LogisticProbe

    standard = LogisticProbe().get_params()
    if given["C"] is None:
        given["C"] = "uni" if given["objective"] == "uni" else 1.0
    for name in DECIDE:
        always = name in ("objective", "C")
        if name == "select_by" and not _is_grid(given["C"]):
            continue  # there is nothing to select
        if always or given[name] != standard[name]:
            yield f"{name}={_text(given[name])}"


def _is_grid(C):
    return np.ndim(C) > 0


def _text(value):
    """Write a value without blanks, and numbers so that no digit is lost."""
    if isinstance(value, dict):
        ordered = {str(name): float(value[name]) for name in sorted(value, key=str)}
        return json.dumps(ordered, separators=(",", ":")).replace(" ", "_")
    if isinstance(value, bool | str) or value is None:
        return str(value)
    return ",".join(repr(float(each)).removesuffix(".0") for each in np.ravel(value))
