"""What is published about the public mitosis datasets: counts, image numbers, domains.

A file is taken for a release only where that is certain, or where the caller says so. A wrong
release gives every annotation a wrong domain, and nothing later would tell: the Aperio part of
MIDOG 2021, for one, is also given out as a file of its own with images 1 to 50.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featstore.annotations import LOOK_ALIKE, MITOTIC_FIGURE
from featstore.errors import AnnotationError, KnownCountsWarning

__all__ = [
    "CCMCT",
    "MIDOG_2021",
    "MIDOG_2022",
    "MIDOG_PLUSPLUS",
    "RELEASES",
    "Block",
    "Release",
    "canonical_domain",
    "check_counts",
    "recognise_midog",
    "release_named",
]

# One spelling each: tumour types as MIDOG 2022 has them, scanners as their makers have them.
DOMAIN_OF_ALIAS = {
    "canine lymphosarcoma": "canine lymphoma",  # MIDOG++.json; its own table says lymphoma
    "Hamammatsu XR": "Hamamatsu XR",  # datasets_xvalidation.csv of MIDOG++, which has both
    "Hammamatsu XR": "Hamamatsu XR",
}


@dataclass(frozen=True)
class Block:
    """Images of one domain: numbers ``first`` to ``last``.

    Parameters
    ----------
    first, last : int
        Image numbers, both included.
    domain : str
        Their domain.
    labelled : bool
        Whether annotations were published for them.
    """

    first: int
    last: int
    domain: str
    labelled: bool = True

    @property
    def numbers(self):
        """Image numbers of the block."""
        return range(self.first, self.last + 1)


@dataclass(frozen=True)
class Release:
    """A published dataset.

    Parameters
    ----------
    key : str
        Name that a user types.
    title : str
        Name that errors and notes use.
    counts : tuple of int
        Mitotic figures and look-alikes.
    n_images : int
        Images or slides with annotations.
    blocks : tuple of Block
        Domains by image number.
    by_domain : mapping of str to tuple of int
        Mitotic figures and look-alikes per domain, where they are published.
    subset_is_certain : bool
        Whether the numbers of the labelled images alone belong to no other release.
    """

    key: str
    title: str
    counts: tuple[int, int]
    n_images: int
    blocks: tuple[Block, ...] = ()
    by_domain: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    subset_is_certain: bool = True

    def domain_of(self, number):
        """Domain of an image number, '' for one that is not of this release.

        Examples
        --------
        >>> MIDOG_2021.domain_of(101), MIDOG_2022.domain_of(101), MIDOG_2021.domain_of(900)
        ('Aperio CS2', 'human breast cancer', '')
        """
        found = [block.domain for block in self.blocks if number in block.numbers]
        return found[0] if found else ""

    def image_numbers(self, *, labelled_only=False):
        """Numbers of all images, or of those with annotations."""
        blocks = [block for block in self.blocks if block.labelled or not labelled_only]
        return {number for block in blocks for number in block.numbers}


# Mitotic figures and look-alikes per tumour type in MIDOG 2022 (Aubreville et al., 2023) and
# MIDOG++ (Aubreville et al., Scientific Data 2023); the two differ by one look-alike twice.
BREAST, LUNG = "human breast cancer", "canine lung cancer"
LYMPHOMA, MAST_CELL = "canine lymphoma", "canine cutaneous mast cell tumor"
NEUROENDOCRINE, SARCOMA = "human neuroendocrine tumor", "canine soft tissue sarcoma"
MELANOMA = "human melanoma"
BY_DOMAIN_2022 = {
    BREAST: (1_721, 2_714),
    LUNG: (855, 952),
    LYMPHOMA: (3_959, 4_257),
    MAST_CELL: (2_327, 1_366),
    NEUROENDOCRINE: (639, 1_762),
}
BY_DOMAIN_PLUSPLUS = BY_DOMAIN_2022 | {
    LUNG: (855, 951),
    NEUROENDOCRINE: (639, 1_761),
    SARCOMA: (1_286, 2_375),
    MELANOMA: (1_150, 925),
}

MIDOG_2021 = Release(
    "midog2021",
    "MIDOG 2021",
    (1_721, 2_714),
    150,
    (
        Block(1, 50, "Hamamatsu XR"),
        Block(51, 100, "Hamamatsu S360"),
        Block(101, 150, "Aperio CS2"),
        Block(151, 200, "Leica GT450", labelled=False),
    ),
    subset_is_certain=False,  # images 1 to 150 are those of MIDOG 2022 and ++ too
)
MIDOG_2022 = Release(
    "midog2022",
    "MIDOG 2022",
    (9_501, 11_051),
    354,
    (
        Block(1, 150, BREAST),
        Block(151, 194, LUNG),
        Block(195, 249, LYMPHOMA),
        Block(250, 299, MAST_CELL),
        Block(300, 354, NEUROENDOCRINE),
        Block(355, 405, MELANOMA, labelled=False),
    ),
    BY_DOMAIN_2022,
)
MIDOG_PLUSPLUS = Release(
    "midog++",
    "MIDOG++",
    (11_937, 14_349),
    503,
    (
        Block(1, 150, BREAST),
        Block(151, 200, BREAST, labelled=False),
        Block(201, 244, LUNG),
        Block(245, 299, LYMPHOMA),
        Block(300, 349, MAST_CELL),
        Block(350, 404, NEUROENDOCRINE),
        Block(405, 504, SARCOMA),
        Block(505, 553, MELANOMA),
    ),
    BY_DOMAIN_PLUSPLUS,
)
# Bertram et al., Scientific Data 2019: the ODAEL variant of the canine mast cell tumour slides.
CCMCT = Release("ccmct", "CCMCT (ODAEL)", (44_880, 27_965), 32)

RELEASES = {release.key: release for release in (MIDOG_2021, MIDOG_2022, MIDOG_PLUSPLUS, CCMCT)}
MIDOG_RELEASES = (MIDOG_2021, MIDOG_2022, MIDOG_PLUSPLUS)


def canonical_domain(name):
    """Give the one spelling of a published domain; other names stay as they are.

    Examples
    --------
    >>> canonical_domain("canine lymphosarcoma"), canonical_domain("our scanner")
    ('canine lymphoma', 'our scanner')
    """
    return DOMAIN_OF_ALIAS.get(name, name)


def release_named(key, *, among=tuple(RELEASES)):
    """Give the release that a caller names.

    Parameters
    ----------
    key : str
        Such as 'midog2022'.
    among : tuple of str
        Names that are allowed where this is asked.

    Returns
    -------
    Release

    Raises
    ------
    AnnotationError
        If there is none of that name.

    Examples
    --------
    >>> release_named("midog++").counts
    (11937, 14349)
    """
    if key not in among:
        raise AnnotationError(f"no release {key!r} of such a file; known are {', '.join(among)}")
    return RELEASES[key]


def recognise_midog(file_of_image):
    """Tell which MIDOG release a file is, where that is certain.

    Parameters
    ----------
    file_of_image : mapping of int to str
        File name of each image number that the file lists.

    Returns
    -------
    Release or None
        The one whose images these are, all of them or all that have annotations, each called by
        its number as in ``007.tiff``; None where that is not so or fits two releases.

    Examples
    --------
    >>> recognise_midog({number: f"{number:03d}.tiff" for number in range(1, 406)}).title
    'MIDOG 2022'
    >>> recognise_midog({number: f"{number:03d}.tiff" for number in range(1, 151)}) is None
    True
    """
    numbers = set(file_of_image)
    if not all(_is_called_by_number(*item) for item in file_of_image.items()):
        return None
    fitting = [
        release
        for release in MIDOG_RELEASES
        if numbers == release.image_numbers()
        or (release.subset_is_certain and numbers == release.image_numbers(labelled_only=True))
    ]
    return fitting[0] if fitting else None


def check_image_names(release, file_of_image, path):
    """Refuse to take domains from image numbers that are not those of the release.

    Raises
    ------
    AnnotationError
        If an image is not called by its number, or the release has no such number.
    """
    numbers = release.image_numbers()
    for number, file in file_of_image.items():
        if number not in numbers or not _is_called_by_number(number, file):
            raise AnnotationError(
                f"image {number!r} of {path} is called {file!r}, which is no image of "
                f"{release.title}, where image 7 is called 007.tiff; leave the release away"
            )


def _is_called_by_number(number, file):
    is_number = isinstance(number, int) and not isinstance(number, bool)
    return is_number and Path(str(file)).stem == f"{number:03d}"


def check_counts(release, table, path):
    """Compare what was read with what was published, and warn where it differs.

    Parameters
    ----------
    release : Release
        What the file is.
    table : AnnotationTable
        What was read of it.
    path : path-like
        File, as the warning names it.

    Warns
    -----
    KnownCountsWarning
        If a number differs; the warning names both.
    """
    mitotic, alike = table.labels == MITOTIC_FIGURE, table.labels == LOOK_ALIKE
    differing = [
        f"{found:,} {kind} where {published:,} are published"
        for kind, found, published in zip(
            ("mitotic figures", "look-alikes"),
            (int(mitotic.sum()), int(alike.sum())),
            release.counts,
            strict=True,
        )
        if found != published
    ]
    differing += _differing_domains(release, table, mitotic, alike)
    if differing:
        warnings.warn(
            f"{path}, read as {release.title}, gives {'; '.join(differing)}",
            KnownCountsWarning,
            stacklevel=3,
        )


def _differing_domains(release, table, mitotic, alike):
    if "domain" not in table.columns:
        return []
    differing = []
    for domain, published in release.by_domain.items():
        here = table.domains == domain
        found = tuple(int(np.sum(here & rows)) for rows in (mitotic, alike))
        if found != published:
            differing.append(
                f"{found[0]:,} and {found[1]:,} in {domain} where {published[0]:,} and "
                f"{published[1]:,} are published"
            )
    return differing
