"""Learning curves: how good a probe is by the number of annotations it was trained on."""

from probes.errors import SplitError
from probes.means import means_by
from probes.results import Results
from probes.trainings import fit_and_score

__all__ = ["LearningCurve", "learning_curve"]


class LearningCurve(Results):
    """Results of one or more models over training sizes and repeats."""

    def summary(self):
        """Mean and standard deviation (n - 1) over repeats, one row per model and size.

        The columns are those of :func:`probes.means.means_by`.
        """
        return means_by(self.to_frame(), ["size"])

    def plot(self, ax=None):
        """Draw the curve; returns the matplotlib axes."""
        from probes.plotting import plot_learning_curves

        return plot_learning_curves(self.to_frame(), ax)


def learning_curve(sources, annotations, splits, **options):
    """Fit a probe on every split, logistic ones in one solve, and test each.

    Parameters
    ----------
    sources : Source or sequence of Source
        Embeddings; one after another is read.
    annotations : LabelTable
        The labels.
    splits : Splits
        As :func:`probes.monte_carlo` or :func:`probes.grouped` makes them.
    **options
        As for :func:`probes.fit_and_score`: ``probe``, ``metrics``, ``known``, ``place``,
        ``keep_scores``, and the parameters of the probe, such as ``objective`` and ``C``.

    Returns
    -------
    LearningCurve

    Raises
    ------
    SplitError
        If the splits are of other annotations, or have training domains.

    Examples
    --------
    >>> import numpy as np, probes
    >>> from types import SimpleNamespace
    >>> ids = np.arange(200)
    >>> labels = np.where(ids % 2, "mitotic figure", "look-alike")
    >>> table = SimpleNamespace(name="toy", digest="", ids=ids, labels=labels,
    ...                         labels_of=lambda asked: labels[asked])
    >>> X = np.random.default_rng(0).normal(size=(200, 4)) + 2 * (ids % 2)[:, None]
    >>> source = SimpleNamespace(ids=ids, read=lambda asked: X[asked])
    >>> splits = probes.monte_carlo(table, repeats=3, train=[0.1, 1.0])
    >>> curve = learning_curve(source, table, splits, objective="l2")
    >>> curve.summary()[["size", "n_train", "repeats"]].values.tolist()
    [[0.1, 13.0, 3.0], [1.0, 128.0, 3.0]]
    """
    _check_mixed(splits)
    results = fit_and_score(sources, annotations, {"learning_curve": splits}, **options)
    return LearningCurve(results.rows, results.scores, results.notes)


def _check_mixed(splits):
    """Refuse to average over what is in domain and out of domain."""
    shifted = [split.name for split in splits if split.train_domain]
    if shifted:
        raise SplitError(
            f"{len(shifted)} of {len(splits)} splits name a training domain, the first is "
            f"{shifted[0]}; give these to cross_domain ('featstore domains')"
        )
