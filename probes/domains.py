"""Domain shift: train on one domain, test on every domain."""

from probes.errors import SplitError
from probes.means import means_by, places
from probes.results import Results
from probes.splits import single_domain
from probes.trainings import fit_and_score

__all__ = ["DomainMatrix", "cross_domain"]


class DomainMatrix(Results):
    """Results of one or more models over pairs of domains and repeats."""

    def matrix(self, metric="auroc"):
        """Mean over repeats: training domains down, test domains across.

        Parameters
        ----------
        metric : str
            Which of those that were computed.

        Returns
        -------
        DataFrame
            With several models, training domains of each model below each other.
        """
        return domain_means(self.to_frame(), metric)

    def summary(self):
        """In-domain and out-of-domain mean and standard deviation (n - 1), as in Table 2.

        The standard deviation is over all pairs of domains and repeats, of which there are ``n``.
        The other columns are those of :func:`probes.means.means_by`.
        """
        frame = self.to_frame()
        table = means_by(frame.assign(tested=places(frame)), ["tested"])
        table = table.sort_values(["model", "tested"], kind="stable", ignore_index=True)
        return table.rename(columns={"repeats": "n"})

    def plot(self, ax=None):
        """Draw the matrix of one model; returns the matplotlib axes."""
        from probes.plotting import plot_domain_matrix

        return plot_domain_matrix(self.to_frame(), ax)


def cross_domain(
    sources, annotations, splits=None, *, repeats=5, test=0.2, val=0.2, seed=42, **options
):
    """Fit probes on single domains, logistic ones in one solve, and test each on every domain.

    Parameters
    ----------
    sources : Source or sequence of Source
        Embeddings; one after another is read.
    annotations : LabelTable
        With the column ``domain``.
    splits : Splits, optional
        With training domains; by default :func:`probes.single_domain` draws them.
    repeats, test, val, seed
        As for :func:`probes.single_domain`; of no effect where splits are given.
    **options
        As for :func:`probes.learning_curve`.

    Returns
    -------
    DomainMatrix
        In-domain values are of the held-out part of the training domain.

    Raises
    ------
    SplitError
        If there are fewer than two domains, or splits without training domain.

    Examples
    --------
    >>> import numpy as np, probes
    >>> from types import SimpleNamespace
    >>> ids = np.arange(200)
    >>> labels = np.where(ids % 2, "mitotic figure", "look-alike")
    >>> table = SimpleNamespace(name="toy", digest="", ids=ids, labels=labels,
    ...                         labels_of=lambda asked: labels[asked],
    ...                         column=lambda name: np.where(ids < 100, "A", "B"))
    >>> sign = np.where(ids % 2, 1, -1) * np.where(ids < 100, 1, -1)  # B is the other way round
    >>> X = np.random.default_rng(0).normal(size=(200, 4)) + 3 * sign[:, None]
    >>> source = SimpleNamespace(ids=ids, read=lambda asked: X[asked])
    >>> cross_domain(source, table, objective="l2").matrix().round(1).values.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if splits is None:
        splits = single_domain(annotations, repeats=repeats, test=test, val=val, seed=seed)
    _check_domains(splits)
    results = fit_and_score(sources, annotations, {"cross_domain": splits}, **options)
    return DomainMatrix(results.rows, results.scores, results.notes)


def _check_domains(splits):
    mixed = [split.name for split in splits if not split.train_domain]
    if mixed:
        raise SplitError(
            f"{len(mixed)} of {len(splits)} splits name no training domain, the first is "
            f"{mixed[0]}; give splits of 'single_domain' or 'leave_one_domain_out'"
        )


def domain_means(frame, metric="auroc"):
    """Mean by training domain (rows; with several models below each other) and test domain."""
    index = ["train_domain"] if frame["model"].nunique() < 2 else ["model", "train_domain"]
    chosen = frame[frame["metric"] == metric]
    return chosen.pivot_table(index=index, columns="test_domain", values="value", aggfunc="mean")
