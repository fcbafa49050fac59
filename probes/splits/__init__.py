"""Which annotations train, validate and test.

A split holds annotation IDs, never row numbers, so one file serves every store that holds the same
annotations, every encoder and the end-to-end trainer. The same annotations in another order give
the same splits.
"""

from probes.splits.domains import in_domain, leave_one_domain_out, single_domain
from probes.splits.files import load_splits
from probes.splits.makers import PAPER_SIZES, grouped, monte_carlo
from probes.splits.predefined import predefined
from probes.splits.presets import PRESETS, Preset, preset
from probes.splits.split import Split, Splits

__all__ = [
    "PAPER_SIZES",
    "PRESETS",
    "Preset",
    "Split",
    "Splits",
    "grouped",
    "in_domain",
    "leave_one_domain_out",
    "load_splits",
    "monte_carlo",
    "predefined",
    "preset",
    "single_domain",
]
