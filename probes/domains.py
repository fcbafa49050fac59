"""Domain shift: train on one domain, test on every domain."""

from dataclasses import dataclass

from probes.evaluate import RESULT_COLUMNS, evaluate, result_row
from probes.neighbours import fit_probes, model_name
from probes.protocols import InMemory, positions
from probes.splits import single_domain

__all__ = ["DomainMatrix", "cross_domain"]


@dataclass(frozen=True, eq=False)
class DomainMatrix:
    """Results of one model over pairs of domains and repeats.

    Parameters
    ----------
    rows : tuple of dict
        One per training and test domain; see :data:`probes.evaluate.RESULT_COLUMNS`.
    """

    rows: tuple

    def to_frame(self):
        """Return a pandas DataFrame, one row per training and test domain."""
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=list(RESULT_COLUMNS))

    def matrix(self):
        """Mean AUROC over repeats: training domains down, test domains across."""
        return domain_means(self.to_frame())

    def summary(self):
        """In-domain and out-of-domain mean and standard deviation (n - 1), as in Table 2.

        The standard deviation is over all pairs of domains and repeats.
        """
        frame = self.to_frame()
        inside = frame["train_domain"] == frame["test_domain"]
        place = inside.map({True: "in domain", False: "out of domain"}).rename("tested")
        table = frame.groupby(["model", place]).agg(
            auroc_mean=("value", "mean"),
            auroc_sd=("value", "std"),
            n=("value", "size"),
            collapsed=("collapsed", "sum"),
        )
        return table.reset_index()

    def plot(self, ax=None):
        """Draw the matrix; returns the matplotlib axes."""
        from probes.plotting import plot_domain_matrix

        return plot_domain_matrix(self.to_frame(), ax)


def cross_domain(
    source, annotations, *, repeats=5, test=0.2, val=0.2, seed=42, probe="logistic", **parameters
):
    """Fit probes on single domains, logistic ones in one solve, and test each on every domain.

    Parameters
    ----------
    source : Source
        Embeddings.
    annotations : LabelTable
        With the column ``domain``.
    repeats, test, val, seed
        As for :func:`probes.single_domain`.
    probe, **parameters
        As for :func:`probes.learning_curve`.

    Returns
    -------
    DomainMatrix
        In-domain values are of the held-out part of the training domain.

    Raises
    ------
    SplitError
        If there are fewer than two domains.
    """
    splits = single_domain(annotations, repeats=repeats, test=test, val=val, seed=seed)
    rows = InMemory.of(source, splits)
    digest = getattr(source, "digest", "")
    probes = fit_probes(probe, rows, annotations, splits, digest=digest, **parameters)
    names = {"model": model_name(source, probe), "encoder": digest}
    return DomainMatrix(
        tuple(
            row
            for fitted, split in zip(probes, splits, strict=True)
            for row in _rows_by_domain(fitted, split, names, rows, annotations)
        )
    )


def _rows_by_domain(fitted, split, names, rows, annotations):
    score = evaluate(fitted, rows, annotations, split)
    domains = annotations.column("domain")[positions(annotations.ids, split.test)]
    for domain in sorted(set(domains.tolist())):
        yield result_row(
            score.among(domains == domain),
            split,
            **names,
            annotations=annotations,
            experiment="cross_domain",
            test_domain=domain,
            converged=fitted.converged_,
            collapsed=fitted.collapsed_,
        )


def domain_means(frame):
    """Mean AUROC by training domain (rows) and test domain (columns)."""
    return frame.pivot_table(
        index="train_domain", columns="test_domain", values="value", aggfunc="mean"
    )
