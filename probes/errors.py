"""Errors that probes raises on purpose, each one line that a user can act on.

::

    ProbesError (ValueError)
    ├── SplitError      a part is empty, or the split is of another dataset
    ├── OneClassError   a training part holds one class only
    └── MissingExtraError (ImportError)   an optional library is not installed

    CollapsedProbeWarning (UserWarning)   a probe whose optimum is to predict the same for all
"""

import importlib

__all__ = [
    "CollapsedProbeWarning",
    "MissingExtraError",
    "OneClassError",
    "ProbesError",
    "SplitError",
    "require",
]


class ProbesError(ValueError):
    """Root of all errors raised here."""


class SplitError(ProbesError):
    """A split that cannot be drawn, read, or used on these annotations."""


class OneClassError(ProbesError):
    """A training part with one class only: there is nothing to tell apart."""


class MissingExtraError(ProbesError, ImportError):
    """An optional library is asked for and not installed."""


class CollapsedProbeWarning(UserWarning):
    """The penalty outweighs the signal: all weights of a probe are exactly zero."""


def require(module, *, extra, purpose):
    """Import an optional module, or say which extra of ``featstore-probes`` brings it.

    Raises
    ------
    MissingExtraError
        If the module cannot be imported.

    Examples
    --------
    >>> require("math", extra="plot", purpose="plotting").sqrt(4.0)
    2.0
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {module}, which cannot be imported ({error}): "
            f"pip install 'featstore-probes[{extra}]'"
        ) from error
