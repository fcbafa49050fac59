"""Means and standard deviations of results over repeats, and never of different things."""

import numpy as np

from probes.errors import ResultsError
from probes.resultrows import KEY
from probes.splits import in_domain

__all__ = ["check_draws", "labelled", "means_by", "places"]

# Rows that differ in one of these are no repeats of each other.
APART = ("dataset", "dataset_digest", "encoder", "recipe")


def labelled(frame):
    """Add what else tells them apart to the names of models with several encoders or recipes.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"model": "uni", "encoder": "sha256:0", "recipe": ["C=1", "C=2"]})
    >>> labelled(frame)["model"].tolist()
    ['uni (C=1)', 'uni (C=2)']
    """
    labels = frame["model"].astype(str)
    for column, length in (("recipe", None), ("encoder", len("sha256:") + 8)):
        several = frame.groupby("model")[column].transform("nunique") > 1
        labels = labels.where(
            ~several, labels + " (" + frame[column].astype(str).str[:length] + ")"
        )
    return frame.assign(model=labels)


def places(frame):
    """Tell of rows whether they are in domain or out of domain; '' where no test domain is named.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = {"train_domain": ["lung", "lung", ""], "test_domain": ["lung", "skin", ""]}
    >>> places(pd.DataFrame(columns)).tolist()
    ['in domain', 'out of domain', '']
    """
    pairs = zip(frame["train_domain"], frame["test_domain"], strict=True)
    return np.array([_place(trained, tested) for trained, tested in pairs], dtype=object)


def _place(trained, tested):
    if not tested:
        return ""
    return "in domain" if in_domain(trained, tested) else "out of domain"


def means_by(frame, by):
    """Mean and standard deviation (n - 1) of every metric over rows that are repeats of another.

    Parameters
    ----------
    frame : DataFrame
        With :data:`probes.RESULT_COLUMNS`, of any number of models.
    by : sequence of str
        Columns whose values stay apart. The model always does, and so do dataset, encoder and
        recipe: these are columns of the result where there is more than one.

    Returns
    -------
    DataFrame
        Columns model, those of ``by``, n_train and n_test (means), repeats (rows of a metric), for
        every metric ``<metric>_mean``, ``_sd`` and ``_n`` (values that are numbers: those that are
        NaN count in no mean), and collapsed (rows of probes that did).

    Raises
    ------
    ResultsError
        If rows of the same repeat are on several splits: no mean is over one experiment then.
    """
    apart = [name for name in APART if _has_several(frame, name)]
    keys = ["model", *apart, *by]
    check_draws(frame, keys)
    tested = frame.drop_duplicates([name for name in KEY if name != "metric"])
    columns = [
        tested.groupby(keys, sort=False).agg(
            n_train=("n_train", "mean"), n_test=("n_test", "mean"), repeats=("value", "size")
        )
    ]
    for metric in dict.fromkeys(frame["metric"]):
        values = frame[frame["metric"] == metric].groupby(keys, sort=False)["value"]
        names = {f"{metric}_mean": "mean", f"{metric}_sd": "std", f"{metric}_n": "count"}
        columns.append(values.agg(**names))
    columns.append(tested.groupby(keys, sort=False).agg(collapsed=("collapsed", "sum")))
    return columns[0].join(columns[1:]).reset_index()


def _has_several(frame, name):
    """Whether there are several datasets, or a model has several of what else is never mixed."""
    if name == "dataset":
        return frame[name].nunique() > 1
    return bool((frame.groupby("model")[name].nunique() > 1).any())


def check_draws(frame, keys):
    """Refuse to average over draws of different rules, or datasets cleaned in different ways.

    Parameters
    ----------
    frame : DataFrame
        With :data:`probes.RESULT_COLUMNS`.
    keys : sequence of str
        Columns whose values stay apart; the first names models.

    Raises
    ------
    ResultsError
        If rows of the same repeat are on several splits.
    """
    names = list(dict.fromkeys([*keys, "repeat", "size", "train_domain", "test_domain"]))
    n_splits = frame.groupby(names, sort=False)["split"].nunique()
    if (n_splits > 1).any():
        twice = dict(zip(names, n_splits.idxmax(), strict=True))
        raise ResultsError(
            f"there are {n_splits.max()} splits of repeat {twice['repeat']}, size "
            f"{twice['size']:g} with results of {twice[names[0]]}; they are of different draws: "
            "keep those of one, or give each an experiment of its own"
        )
