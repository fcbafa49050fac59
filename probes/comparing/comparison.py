"""Comparisons of all pairs of models, split by split and over repeats."""

from dataclasses import dataclass, field

import numpy as np

from probes.comparing.corrections import CORRECTIONS
from probes.comparing.joint import KeptScores
from probes.comparing.tables import (
    SETTING,
    TEST,
    place_table,
    repeat_table,
    split_rows,
    split_table,
)
from probes.errors import ProbesError, ResultsError
from probes.means import check_draws, labelled
from probes.results import check_metrics

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Paired tests of all pairs of models.

    Parameters
    ----------
    splits : DataFrame
        One row per pair and test part: ``difference`` is the metric of the ``first`` less that of
        the ``second``. DeLong's test takes annotations for independent; the bootstrap draws whole
        groups. Adjusted p-values are for all pairs and settings of the same repeat.
    repeats : DataFrame
        One row per pair and setting: mean and standard deviation (n - 1) of the difference over
        repeats, ``t`` and ``p`` of the corrected resampled t-test (see
        :func:`probes.comparing.resampled_t_test`), adjusted for all rows. ``naive_p`` is the paired
        t-test, there to be seen and not to be used. ``shared_test`` is the share of a test part
        that is tested in another repeat too, on average.
    places : DataFrame
        As in Table 2, where there are test domains: one row per pair, in domain and out of domain,
        of the mean over ``pairs`` of training and test domain, over the repeats in which each of
        these has a value.
    metric, correction : str
        What was compared, and the correction for many comparisons.
    by : str or None
        Column whose values are drawn together.
    draws, seed : int
        Of the bootstrap.
    """

    splits: object = field(repr=False)
    repeats: object = field(repr=False)
    places: object = field(repr=False)
    metric: str
    correction: str
    by: str | None
    draws: int
    seed: int

    @property
    def note(self):
        """What the tables can and cannot say, in plain words."""
        shared = self.repeats["shared_test"].mean()
        known = "" if np.isnan(shared) else f" (here {100 * shared:.0f} % of each test part)"
        return (
            "Repeats are not independent samples: their test parts share annotations"
            f"{known}, and so do their training parts. naive_p takes them for independent and "
            "finds differences too often; p widens the variance by n_test / n_train (Nadeau and "
            "Bengio 2003). Repeats do not make up for few slides: bootstrap_low and "
            "bootstrap_high say how far a difference varies with what was tested, drawn by "
            f"{self.by or 'annotation'}."
        )

    def to_frame(self):
        """Return the table over repeats."""
        return self.repeats


def compare(
    results,
    annotations,
    *,
    metric="auroc",
    by="slide",
    domain="domain",
    correction="holm",
    draws=1000,
    seed=42,
):
    """Test whether models differ, for every pair of them, on the splits that both were tested on.

    Parameters
    ----------
    results : Results
        Of two or more models; with per-annotation scores (``keep_scores=True``) for all tests, and
        without them for the t-test over repeats alone.
    annotations : LabelTable
        What was tested; results of other datasets are left aside.
    metric : str
        A name of :data:`probes.metrics.METRICS` whose rows are there. DeLong's test is of AUROC.
    by : str or None
        Column of annotations whose values are drawn together; None draws annotations one by one.
    domain : str
        Column of annotations that the test domains are of.
    correction : {'holm', 'bh', 'none'}
        See :func:`probes.comparing.adjusted`.
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    Comparison

    Raises
    ------
    ResultsError
        If there are not two models with results of these annotations on a common split, or one
        repeat is on several splits.
    ProbesError
        If the metric or the correction is unknown.

    Examples
    --------
    >>> import probes
    >>> from types import SimpleNamespace
    >>> rng, ids = np.random.default_rng(0), np.arange(300)
    >>> labels = np.where(ids % 2, "mitotic figure", "look-alike")
    >>> table = SimpleNamespace(name="toy", digest="sha256:0", ids=ids, labels=labels,
    ...                         labels_of=lambda asked: labels[asked],
    ...                         column=lambda name: ids // 10)
    >>> def encoder(name, signal):
    ...     X = rng.normal(size=(300, 4)) + signal * (ids % 2)[:, None]
    ...     return probes.protocols.InMemory(ids, X, name, "sha256:" + name)
    >>> splits = probes.monte_carlo(table, train=[1.0])
    >>> both = [encoder("good", 1.0), encoder("poor", 0.3)]
    >>> curve = probes.learning_curve(both, table, splits, objective="l2", keep_scores=True)
    >>> found = compare(curve, table)
    >>> len(found.splits), len(found.repeats), bool(found.repeats["p"].iloc[0] < 0.05)
    (5, 1, True)
    """
    (metric,) = check_metrics(metric)
    if correction not in CORRECTIONS:
        raise ProbesError(
            f"correction={correction!r} is unknown; use one of {', '.join(CORRECTIONS)}"
        )
    frame = _comparable(results, annotations, metric)
    said = KeptScores.of(results.scores, annotations, by, domain)
    tested = {"metric": metric, "draws": draws, "seed": seed}
    rows, parts = [], {}
    for place, group in frame.groupby(list(TEST), sort=False):
        if len(group) < 2:
            continue
        parts[place] = part = said.on(group)
        rows += split_rows(group, part, **tested)
    if not rows:
        raise ResultsError(
            f"no two of {', '.join(frame['compared'].unique())} were tested on a common split; run "
            "them on the same splits"
        )
    splits = split_table(rows, correction)
    repeats = repeat_table(splits, frame, parts, correction)
    by_place = place_table(splits, frame, correction)
    return Comparison(splits, repeats, by_place, metric, correction, by, draws, seed)


def _comparable(results, annotations, metric):
    """Rows of these annotations and this metric, with the column ``compared`` that names models."""
    frame = results.to_frame()
    own = frame[
        (frame["dataset_digest"] == annotations.digest) & (frame["dataset"] == annotations.name)
    ]
    if not len(own):
        raise ResultsError(
            f"there are no results of {annotations.name!r} ({annotations.digest[:15]}...) among "
            f"those of {', '.join(map(repr, frame['dataset'].unique())) or 'nothing'}; give the "
            "annotations that were tested"
        )
    chosen = own[own["metric"] == metric]
    chosen = chosen.assign(compared=labelled(chosen)["model"])
    if chosen["compared"].nunique() < 2:
        there = ", ".join(chosen["compared"].unique()) or "no model"
        raise ResultsError(
            f"there are results of {there} in {metric}; a comparison needs two models"
        )
    check_draws(chosen, ["compared", *SETTING])
    return chosen
