"""Every error that featstore raises on purpose, each one line that a user can act on.

::

    FeatstoreError
    ├── StoreError (ValueError)            not a store, a bad key, a format that is too new
    │   ├── NotInStoreError (LookupError)  no such dataset, embeddings or annotation ID
    │   ├── AlreadyInStoreError            a dataset of that name is there
    │   ├── DamagedChunkError              a chunk that is not what was written
    │   ├── DigestError                    other encoder, other annotations: never mixed
    │   └── LockedError                    another process is writing
    ├── AnnotationError (ValueError)       duplicate IDs, an unknown label, a missing column
    ├── ImageError (OSError)               missing, unreadable, without resolution
    ├── EncoderError (ValueError)          unknown name, other weights, a value that is not finite
    └── MissingExtraError (ImportError)    a part of the installation is not there

    KnownCountsWarning (UserWarning)       a published file that gives other numbers than published
    UpsampledPatchesWarning (UserWarning)  patches that show no more than their images do
"""

import importlib

__all__ = [
    "AlreadyInStoreError",
    "AnnotationError",
    "DamagedChunkError",
    "DigestError",
    "EncoderError",
    "FeatstoreError",
    "ImageError",
    "KnownCountsWarning",
    "LockedError",
    "MissingExtraError",
    "NotInStoreError",
    "StoreError",
    "UpsampledPatchesWarning",
    "require",
]


class FeatstoreError(Exception):
    """Root of all errors raised here."""


class StoreError(FeatstoreError, ValueError):
    """The store, or what is asked of it, is not as it must be."""


class NotInStoreError(StoreError, LookupError):
    """A dataset, an array or an annotation ID that the store does not hold."""


class AlreadyInStoreError(StoreError):
    """A name that is taken; nothing is overwritten."""


class DamagedChunkError(StoreError):
    """A chunk of embeddings or patches that does not hold what was written."""


class LockedError(StoreError):
    """An array that another process is writing to."""


class DigestError(StoreError):
    """Rows of two different encoders or datasets would be mixed."""


class AnnotationError(FeatstoreError, ValueError):
    """An annotation file, or a column of it, cannot be used as it is."""


class ImageError(FeatstoreError, OSError):
    """An image that is missing, unreadable, or says nothing of its resolution."""


class EncoderError(FeatstoreError, ValueError):
    """An encoder that cannot be built, or that gave something unusable."""


class MissingExtraError(FeatstoreError, ImportError):
    """An optional library is asked for and not installed."""


class KnownCountsWarning(UserWarning):
    """A published annotation file gives other numbers than were published with it."""


class UpsampledPatchesWarning(UserWarning):
    """Patches are asked for at a finer resolution than their images have."""


def require(module, *, extra, purpose):
    """Import an optional module, or say which extra brings it.

    Parameters
    ----------
    module : str
        Dotted module name.
    extra : str
        Extra of this distribution that installs it.
    purpose : str
        What the module is needed for, as the start of a sentence.

    Returns
    -------
    module

    Raises
    ------
    MissingExtraError
        If the module cannot be imported.

    Examples
    --------
    >>> require("math", extra="extract", purpose="extraction").sqrt(4.0)
    2.0
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {module}, which cannot be imported ({error}): "
            f"pip install 'featstore-probes[{extra}]'"
        ) from error
