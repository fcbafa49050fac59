"""What the parts of splits share: pixels, slides, embeddings.

An audit opens no image: positions are enough. Findings are kept by annotation and split, so that
shares are counted and clean splits made without looking again.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from probes.audit.looking import Findings, at_embeddings, at_groups, at_positions
from probes.audit.parts import TEST, TRAIN, VAL, parts_of
from probes.audit.windows import column_of, unnamed
from probes.errors import AuditError
from probes.splits import Splits

__all__ = ["AUDIT_COLUMNS", "Audit", "audit"]

FORMAT = "featstore-audit/1"
GROUPS = ("slide", "case", "patient")
PAPER_PX, PAPER_MPP = 224, 0.25  # Ganz et al., section 3
NEAR = 0.9999  # docs/audit.md: the same pixels embedded again have more; other cells have less

AUDIT_COLUMNS = (
    "dataset",
    "finding",
    "part",
    "against",
    "domain",
    "repeat",
    "size",
    "train_domain",
    "n",
    "found",
    "share",
    "split",
)
# part, its bit, what it is held against, the bits of that
SHARED = (
    ("test", TEST, "train+val", TRAIN | VAL),
    ("test", TEST, "train", TRAIN),
    ("val", VAL, "train", TRAIN),
)
HELD = (("test", TEST, "", 0), ("val", VAL, "", 0), ("train", TRAIN, "", 0))


@dataclass(frozen=True, eq=False)
class Audit:
    """What :func:`audit` found, by annotation and split.

    Parameters
    ----------
    splits : Splits
        What was audited.
    parts : ndarray of uint8, shape (n, n_splits)
        Part of each annotation; see :mod:`probes.audit.parts`.
    findings : probes.audit.looking.Findings
        By annotation.
    ids, labels : ndarray of shape (n,)
        Of the annotations.
    domains : ndarray of shape (n,) or None
        None where the table has no column ``domain``.
    largest : dict of str to tuple
        By column, such as slide: the largest group and its number of annotations.
    """

    splits: Splits
    parts: np.ndarray = field(repr=False)
    findings: Findings = field(repr=False)
    ids: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    domains: np.ndarray | None = field(repr=False)
    largest: dict = field(repr=False)

    @property
    def names(self):
        """Names of the findings, in the order of the tables."""
        return (*self.findings.reached, *self.findings.held)

    @cached_property
    def digests(self):
        """Digest of each split."""
        return tuple(split.digest for split in self.splits)

    @property
    def not_audited(self):
        """Why a finding is not known, by its name."""
        return dict(self.findings.not_audited)

    @property
    def settings(self):
        """Size of the patches, and all else that findings depend on."""
        return dict(self.findings.settings)

    def of(self, finding, *, part, against=0):
        """Which annotations of a part have a finding, in each split.

        Parameters
        ----------
        finding : str
            One of :attr:`names`.
        part, against : int
            Bits of :mod:`probes.audit.parts`: of the part, and of the parts that something is
            shared with. The latter count for nothing where a finding is of the patch alone.

        Returns
        -------
        ndarray of bool, shape (n, n_splits)
        """
        inside = (self.parts & part) > 0
        if finding in self.findings.held:
            return inside & self.findings.held[finding][:, None]
        return inside & ((self.findings.reached[finding] & against) > 0)

    def to_frame(self):
        """Return a pandas DataFrame with :data:`AUDIT_COLUMNS`.

        One row per finding, part, domain of that part ('' for all of it) and split. Of ``n``
        annotations of the part that the finding is of, ``found`` have it; ``share`` is NaN where
        ``n`` is 0. ``against`` is what the part shares something with: 'train', 'train+val', or ''
        where the finding is of the patch alone.
        """
        import pandas as pd

        rows = [row for finding in self.names for row in self._rows(finding)]
        return pd.DataFrame(rows, columns=list(AUDIT_COLUMNS))

    def summary(self, by="size"):
        """Shares of the test part, their mean and range over splits.

        Parameters
        ----------
        by : {'size', 'domain'}
            What divides the table: size, or, of the splits of the largest size, the domain of the
            tested patch, '' for all together.

        Returns
        -------
        DataFrame
            Columns finding, against, ``by``, splits, n (mean), share (mean), lowest, highest.

        Raises
        ------
        AuditError
            If ``by`` is another.
        """
        if by not in ("size", "domain"):
            raise AuditError(f"by={by!r} divides no table; give 'size' or 'domain'")
        frame = self.to_frame()
        frame = frame[frame["part"] == "test"]
        whole, largest = frame["domain"] == "", frame["size"] == frame["size"].max()
        frame = frame[whole if by == "size" else largest]
        table = frame.groupby(["finding", "against", by], sort=False).agg(
            splits=("share", "size"),
            n=("n", "mean"),
            share=("share", "mean"),
            lowest=("share", "min"),
            highest=("share", "max"),
        )
        return table.reset_index()

    def to_dict(self):
        """Return plain JSON values: settings, what is not known and why, and all rows."""
        rows = self.to_frame().astype(object)
        return {
            "format": FORMAT,
            "dataset": self.splits.dataset,
            "dataset_digest": self.splits.dataset_digest,
            "annotations": len(self.ids),
            "rule": self.splits.rule,
            "seed": self.splits.seed,
            "settings": self.settings,
            "not_audited": self.not_audited,
            "largest": {
                name: {"value": value, "annotations": n, "share": n / len(self.ids)}
                for name, (value, n) in self.largest.items()
            },
            "rows": rows.where(rows.notna(), None).to_dict("records"),
        }

    def without(self, splits, *findings, thin="test"):
        """Return the splits without the annotations that have a finding.

        Parameters
        ----------
        splits : Splits
            Those that were audited.
        *findings : str
            Names, such as 'overlapping'; one or more.
        thin : {'test', 'train'}
            What gives up annotations: the test part, or the training and the validation part.

        Returns
        -------
        Splits
            Repeats and sizes stay; rule and options say what was dropped.

        Raises
        ------
        AuditError
            If other splits were audited, or a finding is unknown or was not audited.
        SplitError
            If a part would be empty.
        OneClassError
            If a part would be left with one class.

        Notes
        -----
        Thinned test parts leave the training sets as they were, nested and of the sizes drawn.
        Splits that share a test part go on sharing one: what any of them must give up is dropped
        from all, so that sizes are compared on the same annotations. With ``thin='train'`` the
        test parts stay, and training sets stay nested but are smaller than their size says.
        """
        from probes.audit.thinning import thinned

        return thinned(self, splits, findings, thin)

    def _rows(self, finding):
        for part, bit, against, bits in HELD if finding in self.findings.held else SHARED:
            inside = (self.parts & bit) > 0
            if finding in self.findings.counted:
                inside &= self.findings.counted[finding][:, None]
            found = self.of(finding, part=bit, against=bits)
            for domain, among in self._domains:
                counts = zip(inside[among].sum(axis=0), found[among].sum(axis=0), strict=True)
                for number, (n, n_found) in enumerate(counts):
                    if n or (part == "test" and domain == ""):
                        cells = (finding, part, against, domain)
                        yield self._row(cells, number, int(n), int(n_found))

    def _row(self, cells, number, n, n_found):
        split = self.splits[number]
        share = n_found / n if n else np.nan
        of_split = (split.repeat, split.size, split.train_domain, n, n_found, share)
        values = (self.splits.dataset, *cells, *of_split, self.digests[number])
        return dict(zip(AUDIT_COLUMNS, values, strict=True))

    @cached_property
    def _domains(self):
        """Each domain and its rows; '' stands for all annotations."""
        if self.domains is None:
            return [("", slice(None))]
        names = np.unique(self.domains[~unnamed(self.domains)]).tolist()
        among = [(str(name), np.flatnonzero(self.domains == name)) for name in names]
        return [("", slice(None)), *among]


def audit(
    annotations,
    splits,
    *,
    patch_px=PAPER_PX,
    mpp=PAPER_MPP,
    image=None,
    groups=GROUPS,
    positive=None,
    source=None,
    near=NEAR,
):
    """Find what the parts of splits share with each other.

    Parameters
    ----------
    annotations : LabelTable
        What was split. Columns that are used where they are there: ``x`` and ``y`` (centres in
        pixels of the image), ``image`` or else ``slide``, ``mpp`` (um per pixel of the image),
        the ``groups``, ``domain``.
    splits : Splits
        Of these annotations.
    patch_px : int
        Width of a patch in pixels.
    mpp : float
        Um per pixel of a patch. An image of unknown um per pixel is taken to have as many.
    image : str, optional
        Column that tells which image positions are on; ``image``, or ``slide`` where there is no
        such column.
    groups : str or sequence of str
        Columns whose values should not be in two parts.
    positive : str, optional
        Label of the cells that a patch of another label should not hold: 'mitotic figure', or else
        the second of two labels, as for metrics.
    source : Source, optional
        Embeddings in which duplicates are looked for.
    near : float
        Cosine from which on two embeddings are near-duplicates, between 0 and 1.

    Returns
    -------
    Audit
        Its findings are ``same-slide`` and so on for each group; ``overlapping`` (a patch shares
        pixels with one of another part); ``duplicates`` and ``near-duplicates`` (equal embeddings;
        a cosine of at least ``near``); ``contains-another`` (a patch holds the centre of another
        annotation) and ``contains-mitotic`` (one of another label holds a positive centre).
        What cannot be found for want of a column is told in :attr:`Audit.not_audited`.

    Raises
    ------
    SplitError
        If the splits are of other annotations, or one is in two parts.
    AuditError
        If ``patch_px``, ``mpp``, ``near`` or ``positive`` cannot be, or an embedding is not finite.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from probes import Split
    >>> columns = {"image": np.array(["1"] * 4), "x": np.array([100, 323, 900, 1500]),
    ...            "y": np.array([100, 100, 100, 100])}
    >>> table = SimpleNamespace(name="toy", digest="", ids=np.array([1, 2, 3, 4]),
    ...                         labels=np.array(["look-alike", "mitotic figure"] * 2),
    ...                         column=columns.__getitem__)
    >>> split = Split(np.array([1, 4]), np.array([], int), np.array([2, 3]))
    >>> found = audit(table, Splits("toy", "", "by hand", 0, {}, (split,)))
    >>> found.summary()[["finding", "against", "share"]].values.tolist()
    [['overlapping', 'train+val', 0.5], ['overlapping', 'train', 0.5],
     ['contains-another', '', 0.0], ['contains-mitotic', '', 0.0]]
    >>> found.not_audited["same-slide"]
    "'toy' has no column 'slide'"
    """
    splits.check(annotations)
    parts = parts_of(annotations.ids, splits)
    groups = (groups,) if isinstance(groups, str) else groups
    where = {"patch_px": patch_px, "mpp": mpp, "image": image, "positive": positive}
    findings = (
        at_groups(annotations, parts, groups)
        | at_positions(annotations, parts, **where)
        | at_embeddings(annotations, parts, source, near)
    )
    domains = column_of(annotations, "domain")
    largest = {
        group: _largest(column_of(annotations, group))
        for group in groups
        if f"same-{group}" in findings.reached
    }
    return Audit(splits, parts, findings, annotations.ids, annotations.labels, domains, largest)


def _largest(values):
    """Return the most frequent value, and how often it is there.

    Examples
    --------
    >>> _largest(np.array(["a", "b", "b"]))
    ('b', 2)
    """
    names, counts = np.unique(values, return_counts=True)
    return names[counts.argmax()].item(), int(counts.max())
