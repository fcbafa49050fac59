"""Experiments by name: what is drawn, where that comes from, and how it differs from there."""

from collections.abc import Callable
from dataclasses import dataclass, field

from probes.errors import SplitError
from probes.splits.domains import single_domain
from probes.splits.makers import PAPER_SIZES, grouped, monte_carlo

__all__ = ["PRESETS", "Preset", "preset"]


@dataclass(frozen=True)
class Preset:
    """Splits of a published experiment.

    Parameters
    ----------
    make : callable
        Maker of the splits.
    options : dict
        What it is called with, beside annotations and seed.
    trainings : str
        How many splits that gives.
    source : str
        Where the experiment is described.
    differs : str
        In what these splits are not those of its authors.
    """

    make: Callable = field(repr=False)
    options: dict
    trainings: str
    source: str
    differs: str


PAPER = {"repeats": 5, "test": 0.2, "val": 0.2}
OTHER_DRAWS = (
    "the authors' draws are not published, so these are others; in their later code the network is "
    "tested on other annotations than the probes, these files serve both"
)
PRESETS = {
    "ganz2024-sizes": Preset(
        monte_carlo,
        {**PAPER, "train": PAPER_SIZES},
        "20: 5 repeats x 4 sizes",
        "Ganz et al., section 3, first experiment",
        "the smaller training sets are parts of the larger ones, the authors draw each anew "
        "(nested=False); MIDOG's training sets have 13, 132, 1,316 and 13,154 annotations, in the "
        f"authors' later code one less each; {OTHER_DRAWS}",
    ),
    "ganz2024-domains": Preset(
        single_domain,
        PAPER,
        "25 of five domains: 5 repeats of each",
        "Ganz et al., section 3, second experiment",
        OTHER_DRAWS,
    ),
    "ganz2024-sizes-by-slide": Preset(
        grouped,
        {**PAPER, "group": "slide", "train": PAPER_SIZES},
        "20: 5 repeats x 4 sizes",
        "not in the paper: its first experiment without cells of one slide on both sides",
        "whole slides are tested and validate, so numbers of annotations follow from the slides",
    ),
}


def preset(name, annotations, *, one_class="refuse", seed=42):
    """Make the splits of a published experiment.

    Parameters
    ----------
    name : str
        One of :data:`PRESETS`.
    annotations : LabelTable
        What to split.
    one_class, seed
        As for :func:`probes.monte_carlo`.

    Returns
    -------
    Splits
        The same as from a call of the maker with these options.

    Raises
    ------
    SplitError
        If the name is unknown, or the maker refuses these annotations.

    Examples
    --------
    >>> PRESETS["ganz2024-domains"].trainings
    '25 of five domains: 5 repeats of each'
    """
    if name not in PRESETS:
        raise SplitError(f"preset {name!r} is unknown; there are {', '.join(PRESETS)}")
    found = PRESETS[name]
    return found.make(annotations, **found.options, one_class=one_class, seed=seed)
