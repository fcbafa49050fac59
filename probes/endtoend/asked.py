"""What is asked of every training of an experiment: under which names, and whether it is there."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.endtoend.recipe import PAPER_MPP, Recipe
from probes.results import domains_tested, experiment_of, training_results

__all__ = ["Asked", "Places", "cut_of"]


def cut_of(patches, recipe):
    """Say in words what of the patches is not as the recipe wants them; '' where nothing is.

    Networks on patches of another um/px, or without the margin for turns by any angle, are others.

    Parameters
    ----------
    patches
        A source of pixels; ``mpp`` and ``patch_px`` count where it has them.
    recipe : Recipe
        Says how large patches should be.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> cut_of(SimpleNamespace(mpp=0.25, patch_px=318), Recipe())
    ''
    >>> cut_of(SimpleNamespace(mpp=0.5, patch_px=224), Recipe())
    'mpp=0.5 cut_px=224'
    """
    mpp, px = getattr(patches, "mpp", None), getattr(patches, "patch_px", recipe.source_px)
    differing = []
    if mpp != PAPER_MPP:
        differing.append("mpp=unknown" if mpp is None else f"mpp={float(mpp)!r}")
    if px < recipe.source_px:
        differing.append(f"cut_px={px}")
    return " ".join(differing)


@dataclass(frozen=True)
class Places:
    """Where results, networks, checkpoints and logs go; None for nowhere.

    Examples
    --------
    >>> Places("out").checkpoints_of("a"), Places("out.csv").checkpoints_of("a")
    (PosixPath('out/checkpoints/a'), PosixPath('out.csv.checkpoints/a'))
    """

    folder: object = None
    networks: object = None
    checkpoints: object = None
    logs: object = None

    def network_of(self, name):
        """File of a network."""
        return None if self.networks is None else Path(self.networks) / f"{name}.safetensors"

    def checkpoints_of(self, name):
        """Folder of the checkpoints of one training: beside what is kept of it."""
        if self.checkpoints is not None:
            return Path(self.checkpoints) / name
        if self.folder is not None and Path(self.folder).suffix in (".csv", ".parquet"):
            return Path(f"{self.folder}.checkpoints") / name
        home = self.networks if self.folder is None else self.folder
        return None if home is None else Path(home) / "checkpoints" / name

    def logs_of(self, name):
        """Folder of the logs of one training."""
        return None if self.logs is None else Path(self.logs) / name


@dataclass(frozen=True, eq=False)
class Asked:
    """What every split of an experiment is trained with, and how its results are named.

    Parameters
    ----------
    annotations : LabelTable
        The labels.
    recipe : Recipe
        Resolved.
    model : str or None
        Name in the results; None for that of the network.
    metrics : tuple of str
        Of the results.
    keep_scores : bool
        Whether per-annotation scores are kept.
    places : Places
        Where what is kept goes.
    cut : str
        Of :func:`cut_of`.
    domain_column : str
        Column by which splits have training domains.
    keeps_one_class : bool
        Whether the splits were made so that a training part may hold one class.
    """

    annotations: object
    recipe: Recipe
    model: str | None
    metrics: tuple
    keep_scores: bool
    places: Places
    cut: str = ""
    domain_column: str = "domain"
    keeps_one_class: bool = False

    @property
    def _network(self):
        return self.recipe.network.removeprefix("timm:")

    @property
    def _named(self):
        """Cells of every row."""
        return {
            "model": self.model or f"end-to-end {self._network}",
            "encoder": self.recipe.digest,
            "recipe": f"{self.recipe.text} {self.cut}".rstrip(),
        }

    def name(self, split):
        """Name of a training in files: for people what it is, and a digest of all that it is."""
        domain = re.sub(r"[^a-z0-9]+", "-", split.train_domain.lower()).strip("-")
        part = f"{domain}-repeat{split.repeat}" if domain else f"repeat{split.repeat}"
        size = "" if domain else f"-size{split.size:g}"
        labels = getattr(self.annotations, "digest", "")
        whole = [self.recipe.digest, self.cut, split.digest, labels]
        digest = hashlib.sha256("\n".join(whole).encode()).hexdigest()
        return f"{self._network}-{part}{size}-{digest[:8]}"

    def is_there(self, split, known):
        """Whether all that a training would give is there and equal."""
        network = self.places.network_of(self.name(split))
        cells = {
            "annotations": self.annotations,
            "experiment": experiment_of(split),
            "split": split,
            "metrics": self.metrics,
            "test_domains": domains_tested(split, self.annotations, self.domain_column),
            **self._named,
        }
        if self.keeps_one_class and self._has_one_class(split):
            return known.holds(**cells)
        has_network = network is None or network.is_file()
        return has_network and known.holds(scores=self.keep_scores, **cells)

    def _has_one_class(self, split):
        return len(np.unique(self.annotations.labels_of(split.train))) < 2

    def results(self, split, score, reason=""):
        """Results of one training, as those of a probe on this split."""
        return training_results(
            score,
            split,
            annotations=self.annotations,
            metrics=self.metrics,
            column=self.domain_column,
            keep_scores=self.keep_scores,
            reason=reason,
            **self._named,
        )

    def only(self, results, splits):
        """Keep what is of these splits, in their order, and scores where these were asked."""
        order = {split.digest: place for place, split in enumerate(splits)}
        kept = results.where(
            dataset=self.annotations.name,
            dataset_digest=getattr(self.annotations, "digest", ""),
            split=set(order),
            metric=set(self.metrics),
            **self._named,
        )
        rows = sorted(kept.rows, key=lambda row: order[row["split"]])
        return tuple(rows), kept.scores if self.keep_scores else None

    def others(self, results, splits):
        """Name the recipes of rows that are of this model and these splits, and of another."""
        mine, digests = self._named, {split.digest for split in splits}
        return sorted(
            {
                row["recipe"]
                for row in results.where(model=mine["model"], split=digests).rows
                if row["recipe"] != mine["recipe"]
            }
        )
