"""Where embeddings came from: specification, dataset, run and versions."""

import importlib.metadata
import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from featstore.encoders.spec import EncoderSpec
from featstore.errors import DigestError

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


@dataclass(frozen=True)
class Provenance:
    """Everything needed to make the same embeddings again.

    Parameters
    ----------
    encoder : EncoderSpec
        The full specification.
    parts : dict of str to (start, stop)
        Named slices of an embedding.
    dataset : str
        Name of the dataset.
    dataset_digest : str
        Digest of its annotation table, as far as it is embedded.
    dataset_rows : int
        Rows of the table that the digest is of; the table may have grown since.
    run : dict
        Device, batch size and the like: what may move the last digits.
    versions : dict of str to str
        Versions of the libraries at work.
    created : str
        When the array was begun, UTC, ISO 8601.
    """

    encoder: EncoderSpec
    parts: dict
    dataset: str
    dataset_digest: str
    dataset_rows: int
    run: dict
    versions: dict
    created: str

    @classmethod
    def now(cls, encoder, parts, annotations, run):
        """Describe a run that begins now on this machine."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            encoder,
            parts,
            annotations.name,
            annotations.digest,
            len(annotations),
            run,
            versions(),
            created,
        )

    def of_all(self, annotations):
        """Return the provenance with the whole of a table embedded."""
        return replace(self, dataset_digest=annotations.digest, dataset_rows=len(annotations))

    def check_rows(self, annotations):
        """Refuse a table whose first rows are not those that were embedded.

        Raises
        ------
        DigestError
            If their digest differs.
        """
        if annotations.digest_of_first(self.dataset_rows) != self.dataset_digest:
            raise DigestError(
                f"the first {self.dataset_rows} annotations of {annotations.name!r} are not those "
                f"that {self.encoder.key!r} embedded; give the new embeddings another --name"
            )

    @property
    def digest(self):
        """Digest of the encoder's specification."""
        return self.encoder.digest

    def to_json(self):
        """Return plain JSON values."""
        return {
            "encoder": self.encoder.to_json(),
            "digest": self.digest,
            "parts": {name: list(slice_) for name, slice_ in self.parts.items()},
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
        return cls(
            encoder=EncoderSpec.from_json(values["encoder"]),
            parts={name: tuple(slice_) for name, slice_ in values["parts"].items()},
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
