"""Where embeddings and cached patches came from: specification, dataset, run and versions."""

import importlib.metadata
import platform
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from featstore.encoders.spec import EncoderSpec
from featstore.errors import DigestError
from featstore.windows import CutSpec

__all__ = ["Provenance", "versions"]

LIBRARIES = (
    "featstore-probes",
    "numpy",
    "zarr",
    "torch",
    "torchvision",
    "timm",
    "tifffile",
    "imagecodecs",
    "pillow",
)


# Under which name each kind of specification stands in the attributes, and what is said of rows
# that were made of other annotations.
SPECS = {"encoder": EncoderSpec, "cut": CutSpec}
OTHER_ROWS = {
    "encoder": "that were embedded; give the new embeddings another --name",
    "cut": "that patches were cut of; cut them again with 'featstore cut --replace'",
}


@dataclass(frozen=True)
class Provenance:
    """Everything needed to make the same rows again.

    Parameters
    ----------
    spec : EncoderSpec or CutSpec
        The full specification: of the encoder, or of how patches are cut.
    dataset : str
        Name of the dataset.
    dataset_digest : str
        Digest of its annotation table, as far as it is embedded or cut.
    dataset_rows : int
        Rows of the table that the digest is of; the table may have grown since.
    run : dict
        Device, batch size and the like: what may move the last digits.
    versions : dict of str to str
        Versions of the libraries at work.
    created : str
        When the array was begun, UTC, ISO 8601.
    parts : dict of str to (start, stop)
        Named slices of an embedding; patches have none.
    """

    spec: EncoderSpec | CutSpec
    dataset: str
    dataset_digest: str
    dataset_rows: int
    run: dict
    versions: dict
    created: str
    parts: dict = field(default_factory=dict)

    @classmethod
    def now(cls, spec, annotations, run, *, parts=None):
        """Describe a run that begins now on this machine."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            spec,
            annotations.name,
            annotations.digest,
            len(annotations),
            run,
            versions(),
            created,
            parts or {},
        )

    def of_all(self, annotations):
        """Return the provenance with the whole of a table embedded, or cut."""
        return replace(self, dataset_digest=annotations.digest, dataset_rows=len(annotations))

    def of_view(self, view):
        """Return the provenance of a view of the rows: its pooling, its length, its own parts.

        Parameters
        ----------
        view : featstore.store.parts.View
            Of what the provenance is of.
        """
        spec = self.spec.at(pooling=view.pooling, dim=view.dim)
        return replace(self, spec=spec, parts=view.parts)

    def check_rows(self, annotations):
        """Refuse a table whose first rows are not those that were embedded, or cut.

        Raises
        ------
        DigestError
            If their digest differs.
        """
        if annotations.digest_of_first(self.dataset_rows) != self.dataset_digest:
            raise DigestError(
                f"the first {self.dataset_rows} annotations of {annotations.name!r} are not those "
                f"{OTHER_ROWS[self.kind]}"
            )

    def awaited(self, rows, rows_per_chunk):
        """Whether rows are still to come in a chunk that ended where the table once did.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Rows of the array.
        rows_per_chunk : int
            Rows in one chunk.

        Returns
        -------
        ndarray of bool, shape (m,)
        """
        chunk_end = -(-self.dataset_rows // rows_per_chunk) * rows_per_chunk
        return (rows >= self.dataset_rows) & (rows < chunk_end)

    @property
    def kind(self):
        """'encoder' or 'cut': what the specification is of."""
        return "cut" if isinstance(self.spec, CutSpec) else "encoder"

    @property
    def encoder(self):
        """Specification of the encoder, where it is of embeddings."""
        return self.spec

    @property
    def digest(self):
        """Digest of the specification."""
        return self.spec.digest

    def to_json(self):
        """Return plain JSON values."""
        parts = {name: list(slice_) for name, slice_ in self.parts.items()}
        return {
            self.kind: self.spec.to_json(),
            "digest": self.digest,
            **({"parts": parts} if self.kind == "encoder" else {}),
            "dataset": self.dataset,
            "dataset_digest": self.dataset_digest,
            "dataset_rows": self.dataset_rows,
            "run": self.run,
            "versions": self.versions,
            "created": self.created,
        }

    @classmethod
    def from_json(cls, values):
        """Read what :meth:`to_json` gave.

        Raises
        ------
        KeyError, TypeError
            If a field is missing.
        """
        kind = "cut" if "cut" in values else "encoder"
        parts = values["parts"] if kind == "encoder" else {}
        return cls(
            spec=SPECS[kind].from_json(values[kind]),
            parts={name: tuple(slice_) for name, slice_ in parts.items()},
            dataset=values["dataset"],
            dataset_digest=values["dataset_digest"],
            dataset_rows=values["dataset_rows"],
            run=values["run"],
            versions=values["versions"],
            created=values["created"],
        )


def versions():
    """Versions of Python and of those libraries that are installed.

    Examples
    --------
    >>> sorted(versions())[0]
    'featstore-probes'
    """
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
