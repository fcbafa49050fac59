"""What leakage is worth: one experiment on splits that leak, on clean ones and on grouped ones."""

from dataclasses import dataclass, field

import numpy as np

from probes.audit import audit
from probes.errors import AuditError
from probes.results import Results
from probes.splits import grouped
from probes.trainings import fit_and_score

__all__ = ["LeakageCost", "leakage_cost"]

GIVEN = "as given"


@dataclass(frozen=True, eq=False)
class LeakageCost:
    """Results of the same experiment on several designs of splits.

    Parameters
    ----------
    designs : dict of str to Splits
        What was compared; the first are the splits as given.
    redrawn : str
        The design whose repeats are other draws than those given.
    results : Results
        Of every training; the column ``experiment`` names the design.
    """

    designs: dict
    redrawn: str
    results: Results = field(repr=False)

    def to_frame(self):
        """Return a pandas DataFrame with :data:`probes.RESULT_COLUMNS`, one row per training."""
        return self.results.to_frame()

    def summary(self):
        """Metrics of each design, and their differences to the splits as given.

        Returns
        -------
        DataFrame
            One row per model, size and design. Columns model, size, design, n_train and n_test
            (means), repeats, and for every metric ``<metric>_mean``, ``_sd`` (n - 1), ``_n``
            (values that are numbers), ``_difference`` (to the splits as given; of AUROC below 0
            where leakage flatters) and ``_difference_se``.

        Notes
        -----
        The standard error is that of the mean difference by repeat, or where a design draws anew
        that of a difference of two means. Repeats share annotations, so of J repeats the variance
        of a mean is taken as ``(1 / J + n_test / n_rest) * sd**2``, where ``n_rest`` are all
        annotations that are not tested (Nadeau and Bengio, 2003). An interval of 95 % reaches 2.8
        standard errors to each side where there are 5 repeats (Student's t with J - 1 degrees of
        freedom).
        """
        import pandas as pd

        frame = self.to_frame()
        rows = []
        for (model, size), of_size in frame.groupby(["model", "size"], sort=False):
            given = of_size[of_size["experiment"] == GIVEN]
            for design, group in of_size.groupby("experiment", sort=False):
                cells = {"model": model, "size": size, "design": design} | _counts(group)
                for metric in dict.fromkeys(frame["metric"]):
                    here, there = (_by_repeat(each, metric) for each in (group, given))
                    cells |= _means(metric, here) | self._difference(metric, design, here, there)
                rows.append(cells)
        return pd.DataFrame(rows)

    def _difference(self, metric, design, here, there):
        """Mean difference of values to those given, and its standard error."""
        if design == self.redrawn:
            mean = here.mean() - there.mean()
            variance = self._variance(here) + self._variance(there)
        else:
            mean, variance = (here - there).mean(), self._variance(here - there)
        return {f"{metric}_difference": mean, f"{metric}_difference_se": np.sqrt(variance)}

    def _variance(self, values):
        """Variance of a mean over repeats, which share annotations."""
        given = self.designs[GIVEN]
        n_test = np.mean([len(split.test) for split in given])
        shared = n_test / (len(given.ids) - n_test)
        return (1 / values.count() + shared) * values.var() if values.count() > 1 else np.nan


def leakage_cost(
    sources,
    annotations,
    splits,
    *,
    found=None,
    drop=("overlapping",),
    thin=("train", "test"),
    group="slide",
    **parameters,
):
    """Run one experiment on splits as given, without what leaks, and grouped.

    Parameters
    ----------
    sources : Source or sequence of Source
        Embeddings, of one model or more.
    annotations : LabelTable
        With what the audit and the groups need.
    splits : Splits
        As :func:`probes.monte_carlo` makes them.
    found : Audit, optional
        Of these splits; by default that of :func:`probes.audit` with its defaults.
    drop : sequence of str
        Findings without which the splits are run again; see :meth:`probes.Audit.without`.
    thin : sequence of {'train', 'test'}
        Which part gives up annotations, a design for each; none where nothing is dropped.
    group : str
        Column of the grouped splits, which have the repeats, shares and sizes of those given.
    **parameters
        As for :func:`probes.fit_and_score`, of one solve for all designs.

    Returns
    -------
    LeakageCost

    Raises
    ------
    AuditError
        If a finding was not audited, or the splits do not say how they were drawn.
    SplitError, OneClassError
        If a design leaves a part empty, or with one class.

    Notes
    -----
    Every design changes something else as well. Thinned training parts are smaller, on the same
    tested annotations. Thinned test parts are other annotations, with the same training; sizes that
    share next to nothing with their test part show what that alone does. Grouped splits draw both
    anew, and never test a slide that trains.

    Examples
    --------
    >>> import probes
    >>> from types import SimpleNamespace
    >>> ids = np.arange(600)
    >>> columns = {"slide": ids // 20, "image": ids // 20, "x": 150 * (ids % 20), "y": 0 * ids}
    >>> labels = np.random.default_rng(0).permutation(np.where(ids % 2, "mitotic figure", "other"))
    >>> table = SimpleNamespace(name="toy", digest="", ids=ids, labels=labels,
    ...                         labels_of=lambda asked: labels[asked], column=columns.__getitem__)
    >>> X = np.random.default_rng(1).normal(size=(600, 4)) + (labels == "mitotic figure")[:, None]
    >>> source = SimpleNamespace(ids=ids, model="m", read=lambda asked: X[asked])
    >>> splits = probes.monte_carlo(table, repeats=2, train=[0.2])
    >>> cost = leakage_cost(source, table, splits, objective="l2")
    >>> cost.summary()[["design", "n_test"]].values.tolist()
    [['as given', 120.0], ['train without overlapping', 120.0],
     ['test without overlapping', 84.0], ['grouped by slide', 120.0]]
    """
    found = audit(annotations, splits) if found is None else found
    designs = {GIVEN: splits}
    for part in thin if drop else ():
        name = f"{part} without {', '.join(drop)}"
        designs[name] = found.without(splits, *drop, thin=part)
    redrawn = f"grouped by {group}"
    designs[redrawn] = grouped(annotations, group=group, seed=splits.seed, **_how_drawn(splits))
    results = fit_and_score(sources, annotations, designs, **parameters)
    return LeakageCost(designs, redrawn, results)


def _how_drawn(splits):
    """Arguments by which grouped splits are drawn as these were."""
    needed = ("repeats", "test", "val", "train")
    missing = [name for name in needed if name not in splits.options]
    if missing:
        raise AuditError(
            f"splits of the rule {splits.rule!r} do not say their {', '.join(missing)}, so grouped "
            "ones like them cannot be drawn; take those of 'featstore split --rule monte-carlo'"
        )
    names = (*needed, "nested", "stratify", "one_class")
    return {name: splits.options[name] for name in names if name in splits.options}


def _counts(group):
    n_train, n_test = group["n_train"].mean(), group["n_test"].mean()
    return {"n_train": n_train, "n_test": n_test, "repeats": group["repeat"].nunique()}


def _by_repeat(group, metric):
    return group[group["metric"] == metric].set_index("repeat")["value"]


def _means(metric, values):
    numbers = {"mean": values.mean(), "sd": values.std(), "n": int(values.count())}
    return {f"{metric}_{name}": number for name, number in numbers.items()}
