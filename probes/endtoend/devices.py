"""Where a network is trained: devices, precision, processes."""

import contextlib
import logging
import warnings

import torch

from probes.errors import ProbesError, require

__all__ = ["checked_precision", "one_line", "quiet_lightning", "start_fabric", "torch_device"]

PRECISIONS = ("32", "bf16-mixed", "16-mixed", "auto")


def torch_device(device: str) -> torch.device:
    """Choose the device: ``"auto"`` is the first GPU where there is one, else the CPU.

    Raises
    ------
    ProbesError
        If the device is not known or not there.

    Examples
    --------
    >>> torch_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else _mps_or_cpu()
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ProbesError(
            f"device={device!r} cannot be used ({one_line(error)}); "
            "give 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error


def _mps_or_cpu():
    return "mps" if torch.backends.mps.is_available() else "cpu"


def checked_precision(precision, device):
    """Return the precision, with ``"auto"`` settled for a device.

    Raises
    ------
    ProbesError
        If it is not known, or not to be had there.

    Examples
    --------
    >>> checked_precision("auto", "cpu")
    '32'
    """
    precision = str(precision)
    if precision not in PRECISIONS:
        raise ProbesError(f"precision={precision!r}; give {', '.join(PRECISIONS)}")
    on_gpu = torch_device(device).type == "cuda"
    if precision == "16-mixed" and not on_gpu:
        raise ProbesError(
            f"precision='16-mixed' needs a GPU and device={device!r}; give 'bf16-mixed' or '32'"
        )
    if precision != "auto":
        return precision
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32"


def start_fabric(precision, device, devices, loggers=()):
    """Set up Lightning Fabric for one device, or for several with a process each.

    Parameters
    ----------
    precision
        As a resolved recipe has it.
    device
        As for ``torch_device``.
    devices
        How many; on the CPU, processes.
    loggers
        Of Fabric.

    Raises
    ------
    ProbesError
        If there are fewer devices, or one of them was named.
    """
    # Not at the head of this file: who only loads a network does not wait for it.
    fabric = require("lightning.fabric", extra="train", purpose="end-to-end training")
    chosen = torch_device(device)
    one = 1 if chosen.index is None or chosen.type != "cuda" else [chosen.index]
    if devices > 1:
        _check_several(device, chosen, devices)
    with quiet_lightning():
        return fabric.Fabric(
            accelerator=chosen.type,
            devices=one if devices == 1 else devices,
            strategy="auto" if devices == 1 else "ddp_spawn",
            precision=_of_fabric(precision),
            loggers=list(loggers),
        )


def _of_fabric(precision):
    return "32-true" if precision == "32" else precision


def _check_several(device, chosen, devices):
    there = torch.cuda.device_count() if chosen.type == "cuda" else devices
    named = ":" in device
    if chosen.type == "mps" or there < devices or named:
        raise ProbesError(
            f"devices={devices} and device={device!r} were asked for; give device='cuda' with at "
            f"most {torch.cuda.device_count()} devices here, or device='cpu' for processes"
        )


@contextlib.contextmanager
def quiet_lightning():
    """Keep back Lightning's notes on hardware, and warnings that a user can do nothing about."""
    logs = [logging.getLogger(name) for name in ("lightning.fabric", "lightning.pytorch")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 uses what torch 2.14 deprecates; it is theirs to change.
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def one_line(error):
    """Put an error's message on one line, short enough to read.

    Examples
    --------
    >>> one_line(ValueError("two" + chr(10) + "lines"))
    'two lines'
    """
    return " ".join(str(error).split())[:200]
