"""What several models said of the same annotations, as it was kept."""

from dataclasses import dataclass

import numpy as np

from probes.errors import ProbesError, ResultsError
from probes.protocols import as_texts, positions

__all__ = ["JointScores", "KeptScores"]

# What tells trainings on the same annotations apart.
TRAINED = ["experiment", "split", "model", "recipe", "encoder"]


@dataclass(frozen=True, eq=False)
class JointScores:
    """What some models said of the same annotations.

    Parameters
    ----------
    ids, labels : ndarray of shape (n,)
    classes : tuple of str
        Columns of what is said; with two the second is the positive one.
    groups : ndarray of shape (n,) or None
        What is drawn together, such as slides.
    said : dict of str to ndarray of shape (n, n_classes)
        Probabilities by model.
    """

    ids: np.ndarray
    labels: np.ndarray
    classes: tuple
    groups: np.ndarray | None
    said: dict


@dataclass(frozen=True, eq=False)
class KeptScores:
    """Per-annotation scores by training, and what is known of their annotations."""

    frames: dict
    annotations: object
    by: str | None
    domain: str

    @classmethod
    def of(cls, scores, annotations, by, domain):
        """Take the scores of these annotations."""
        if scores is None:
            return cls({}, annotations, by, domain)
        own = scores[(scores["dataset_digest"] == annotations.digest).to_numpy()]
        rows = own.groupby(TRAINED, observed=True).indices if len(own) else {}
        return cls({key: own.iloc[places] for key, places in rows.items()}, annotations, by, domain)

    def on(self, group):
        """Find what the models in these rows said of their common test part; None if nothing is."""
        found = {}
        for row in group.to_dict("records"):
            frame = self.frames.get(tuple(row[name] for name in TRAINED))
            if frame is not None:
                found[row["compared"]] = frame.sort_values("id", kind="stable")
        if not found:
            return None
        ids = next(iter(found.values()))["id"].to_numpy()
        for model, frame in found.items():
            if not np.array_equal(frame["id"].to_numpy(), ids):
                raise ResultsError(
                    f"the scores of {model} are of other annotations than its split tests; the "
                    "table of scores is damaged, fit again"
                )
        return self._part(ids, found, group["test_domain"].iloc[0])

    def _part(self, ids, found, test_domain):
        one = next(iter(found.values()))
        places = self._places(ids)
        chosen = np.ones(len(ids), bool)
        if test_domain:
            chosen = as_texts(self.annotations.column(self.domain))[places] == test_domain
        if not chosen.any():
            raise ResultsError(
                f"no annotation that was tested has the {self.domain} {test_domain!r}; name the "
                "column that the test domains are of: domain=COLUMN (--domain)"
            )
        groups = None if self.by is None else self.annotations.column(self.by)[places][chosen]
        columns = sorted(name for name in one if name.startswith("p ") and one[name].notna().any())
        return JointScores(
            ids[chosen],
            as_texts(self.annotations.labels)[places][chosen],
            tuple(name.removeprefix("p ") for name in columns),
            groups,
            {model: frame[columns].to_numpy()[chosen] for model, frame in found.items()},
        )

    def _places(self, ids):
        known = self.annotations.ids
        if known.dtype.kind in "iu" and ids.dtype.kind not in "iu":
            known = known.astype(str)  # numbers become texts where they are kept beside texts
        try:
            return positions(known, ids)
        except ProbesError as error:
            raise ResultsError(
                f"scores are of annotations that {self.annotations.name!r} does not hold; the "
                "table of scores is damaged, fit again"
            ) from error
