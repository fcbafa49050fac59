"""Errors that probes raises on purpose, each one line that a user can act on.

::

    ProbesError (ValueError)
    ├── SplitError      a part is empty, or the split is of another dataset
    ├── OneClassError   a training part holds one class only
    ├── WeightsError    weights to start from are not here, or not of the network
    ├── CheckpointError checkpoints are of another training, or cannot be read
    ├── LossError       the loss of a training is no number any more
    ├── ResultsError    a table of results that cannot be read, or not compared
    ├── AuditError      what an audit is asked for cannot be found, or dropped
    │   └── PositionError   positions of annotations are missing, or make no sense
    └── MissingExtraError (ImportError)   an optional library is not installed

    CollapsedProbeWarning (UserWarning)   a probe whose optimum is to predict the same for all
"""

import importlib

__all__ = [
    "AuditError",
    "CheckpointError",
    "CollapsedProbeWarning",
    "LossError",
    "MissingExtraError",
    "OneClassError",
    "PositionError",
    "ProbesError",
    "ResultsError",
    "SplitError",
    "WeightsError",
    "require",
]


class ProbesError(ValueError):
    """Root of all errors raised here."""


class SplitError(ProbesError):
    """A split that cannot be drawn, read, or used on these annotations."""


class OneClassError(ProbesError):
    """A training part with one class only: there is nothing to tell apart."""


class ResultsError(ProbesError):
    """A table of results that cannot be read, or that does not hold what is asked of it."""


class WeightsError(ProbesError):
    """Weights to start from that are not on this machine, or do not fit the network."""


class CheckpointError(ProbesError):
    """Checkpoints of another training, or such that cannot be read."""


class LossError(ProbesError):
    """A training whose loss is no finite number any more."""


class AuditError(ProbesError):
    """What an audit is asked for cannot be found in these annotations, or not dropped."""


class PositionError(AuditError):
    """Positions of annotations that are missing, or make no sense."""


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
