"""Whether compiling an encoder repays the time that it takes."""

import os
import shutil
import time
from dataclasses import dataclass

from featstore.encoders.golden import golden_patches
from featstore.errors import EncoderError, require

torch = require("torch", extra="extract", purpose="extraction")

__all__ = ["CompileChoice", "choose_compiling"]

# Estimates from 2 CPU cores, `python -m tests.benchmarks extraction`: how long torch.compile takes
# to start and for each layer with weights, and how many times as fast a pass is then. They have not
# been measured on a GPU.
COMPILE_S = 8.0
COMPILE_S_PER_LAYER = 0.15
GAIN_CONVOLUTIONAL, GAIN_OTHER = 1.2, 1.08
MUST_REPAY = 1.5  # times the compile time, since both are estimates

# Patches of the pass that is timed; more would take a large encoder on a CPU too long.
TIMED_PATCHES = 8


@dataclass(frozen=True)
class CompileChoice:
    """Whether an encoder is compiled, and why.

    Parameters
    ----------
    compiled : bool
        Whether it is.
    reason : str
        In a few words, with both estimates.
    """

    compiled: bool
    reason: str


def choose_compiling(mode, forward, n_patches, *, n_devices=1):
    """Choose whether to compile an encoder for a number of patches.

    Parameters
    ----------
    mode : {'auto', 'on', 'off'}
        'auto' times one pass and compares what compiling costs and saves.
    forward : Forward
        The encoder, not compiled.
    n_patches : int
        What is still to be embedded.
    n_devices : int
        Devices that share the work; each compiles for itself.

    Returns
    -------
    CompileChoice

    Raises
    ------
    EncoderError
        If compiling was asked for on a CPU and there is no C++ compiler.

    Examples
    --------
    >>> choose_compiling("off", None, 10).compiled
    False
    """
    if mode == "off":
        return CompileChoice(False, "not asked for")
    lacking = _what_is_lacking(forward.encoder.device)
    if mode == "on":
        if lacking:
            raise EncoderError(f"--compile on needs a {lacking}; install one, or use --compile off")
        return CompileChoice(True, "asked for")
    if lacking:
        return CompileChoice(False, f"there is no {lacking}")
    return _weighed(forward, -(-n_patches // n_devices))


def _what_is_lacking(device):
    if device.type != "cpu":
        return ""
    asked = os.environ.get("CXX")
    names = (asked,) if asked else ("g++", "clang++", "cl")
    return "" if any(map(shutil.which, names)) else "C++ compiler"


def _weighed(forward, n_patches):
    network = forward.encoder.network
    convolutional = not hasattr(network, "num_prefix_tokens")
    layers = sum(isinstance(m, torch.nn.Linear | torch.nn.Conv2d) for m in network.modules())
    costs_s = COMPILE_S + COMPILE_S_PER_LAYER * layers
    takes_s = n_patches * _s_per_patch(forward)
    saves_s = takes_s * (1 - 1 / (GAIN_CONVOLUTIONAL if convolutional else GAIN_OTHER))
    repays = saves_s > MUST_REPAY * costs_s
    return CompileChoice(
        repays,
        f"of about {_duration(takes_s)}, compiling would save {_duration(saves_s)} and cost "
        f"{_duration(costs_s)}",
    )


def _s_per_patch(forward):
    """Time a pass of a few patches, after one that warms up."""
    n = min(TIMED_PATCHES, forward.batch_size)
    patches = golden_patches(forward.encoder.spec.input_px, n)
    forward.embed(patches)
    started_s = time.perf_counter()
    forward.embed(patches)
    return (time.perf_counter() - started_s) / n


def _duration(seconds):
    """Say a time as a person would.

    Examples
    --------
    >>> _duration(0.3), _duration(75), _duration(600), _duration(9000)
    ('0.3 s', '75 s', '10 min', '2.5 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
