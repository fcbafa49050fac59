"""Um per pixel of an image, out of the tags of its format, or what stands there in its place.

Each number comes with its source. One that no scanner of cells has counts as none: a wrong
resolution spoils every number downstream, silently, while a missing one is asked for.
"""

import re
from dataclasses import dataclass

__all__ = ["NO_TAGS", "Resolution", "doubt", "of_density", "of_tiff", "stated"]

NO_TAGS = "no resolution tags"
UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}  # TIFF 6.0, ResolutionUnit: inch, centimetre
# A 100x oil objective gives about 0.05, a 1x overview 10.
STATED_RANGE = (0.05, 10.0)
# TIFF's tags know inch and centimetre only and are written by every program: 72 dpi, the default of
# many, is 352.8, and um/px written as dots per millimetre is off by ten. Scanners have 0.1 to 1.1.
TAGS_RANGE = (0.1, 1.2)
USUAL_RANGE = (0.2, 0.55)  # scans at 40x and at 20x, in which mitotic figures are annotated
SLIPS = {"off by ten": (10, 0.1), "inch for centimetre or back": (2.54, 1 / 2.54)}
SQUARE_PIXELS = 0.01  # largest relative difference of width and height that counts as none
UM_AT_1X = 10.0  # a scan at 40x has about 0.25 um/px
OBJECTIVE_RANGE = (0.45, 2.2)  # a second lens is 0.63 to 1.6; an inch for a centimetre 2.54
OME_UNITS = {"µm": 1, "μm": 1, "um": 1, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25_400}
NDPI_OBJECTIVE = 65421  # https://openslide.org/formats/hamamatsu/


@dataclass(frozen=True)
class Resolution:
    """What a file says of its resolution.

    Parameters
    ----------
    mpp : float or None
        Um per pixel; None where it does not say, or what it says cannot be meant.
    source : str
        Where the number stands.
    found : str
        Where there is none, what is there instead.
    """

    mpp: float | None
    source: str = "none"
    found: str = ""


def of_tiff(page):
    """Resolution of a TIFF, out of the first page.

    Parameters
    ----------
    page : tifffile.TiffPage
        Its description may be Aperio's or OME-XML, which go before the resolution tags.
    """
    description = page.description or ""
    objective = _aperio(description, "AppMag") or _ndpi_objective(page)
    aperio, ome = _aperio(description, "MPP"), _ome(description)
    if aperio is not None and _within(aperio, STATED_RANGE):
        return _plausible(aperio, "Aperio MPP", objective)
    if ome is not None:
        return stated(*ome, "OME-XML PhysicalSize")
    return _of_tags(page, objective)


def doubt(mpp):
    """Say which slip of units could stand behind a resolution that is possible and unusual.

    Examples
    --------
    >>> doubt(0.635), doubt(0.25)
    ('with inch for centimetre or back it would be 0.25', '')
    """
    return "" if _within(mpp, USUAL_RANGE) else _guess(mpp).removeprefix("; ")


def of_density(across, down, source):
    """Resolution of a PNG with a density in its header.

    Parameters
    ----------
    across, down : float
        Um per pixel along the two axes.
    source : str
        Name of the header's field.
    """
    return _checked(across, down, source, TAGS_RANGE)


def stated(across, down, source, objective=None):
    """Resolution that a file states in um, along the two axes.

    Examples
    --------
    >>> stated(0.2528, 0.2528, "OpenSlide mpp-x").mpp
    0.2528
    >>> stated(2.5, 2.5, "OpenSlide mpp-x", objective=40).found
    'OpenSlide mpp-x of 2.5 um/px, which does not go with 40x; with the unit off by ten it would be
    0.25'
    """
    return _checked(across, down, source, STATED_RANGE, objective)


def _of_tags(page, objective):
    across, down = _um_per_px(page, "XResolution"), _um_per_px(page, "YResolution")
    across, down = across or down, down or across
    if across is None:
        return Resolution(None, found=NO_TAGS)
    return _checked(across, down, "resolution tags", TAGS_RANGE, objective)


def _checked(across, down, source, limits, objective=None):
    if abs(across - down) > SQUARE_PIXELS * min(across, down):
        found = f"{source} of {across:.4g} x {down:.4g} um/px, which differ"
        return Resolution(None, found=found)
    if not _within(across, limits):
        found = f"{source} of {across:.4g} um/px, outside {limits[0]:g} to {limits[1]:g}"
        return Resolution(None, found=found + _guess(across))
    return _plausible(across, source, objective)


def _plausible(mpp, source, objective):
    """Hold um per pixel against the objective that the same file names."""
    if objective and objective > 0 and not _within(mpp * objective / UM_AT_1X, OBJECTIVE_RANGE):
        found = f"{source} of {mpp:.4g} um/px, which does not go with {objective:g}x"
        return Resolution(None, found=found + _guess(mpp))
    return Resolution(mpp, source)


def _within(value, limits):
    return limits[0] <= value <= limits[1]


def _guess(mpp):
    """Say which slip would explain a resolution that cannot be meant.

    Examples
    --------
    >>> _guess(2.5), _guess(0.0984), _guess(352.8)
    ('; with the unit off by ten it would be 0.25', '; with inch for centimetre ... 0.2499', '')
    """
    for slip, factors in SLIPS.items():
        for factor in factors:
            if _within(mpp * factor, USUAL_RANGE):
                what = f"the unit {slip}" if slip == "off by ten" else slip
                return f"; with {what} it would be {mpp * factor:.4g}"
    return ""


def _ndpi_objective(page):
    objective = page.tags.valueof(NDPI_OBJECTIVE)
    return objective if isinstance(objective, float) else None


def _aperio(description, field):
    """Read the number in a field of an Aperio description, None where it holds none.

    Examples
    --------
    >>> _aperio("Aperio |AppMag = 20|MPP = 0.4990", "MPP"), _aperio("Aperio |MPP = 0,4990", "MPP")
    (0.499, None)
    """
    value = re.search(rf"\|\s*{field}\s*=([^|]*)", description)
    number = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?", value[1].strip()) if value else None
    return float(number[0]) if number else None


def _ome(description):
    """Um per pixel along both axes in an OME-XML description, None where it has none.

    Examples
    --------
    >>> _ome('<OME><Image><Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm" '
    ...      'PhysicalSizeY="0.25" SizeX="9"/></Image></OME>')
    (0.25, 0.25)
    """
    pixels = re.search(r"<(?:\w+:)?Pixels\s([^>]*)>", description) if "<" in description else None
    if pixels is None:
        return None
    attributes = dict(re.findall(r'([A-Za-z]+)\s*=\s*"([^"]*)"', pixels[1]))
    sizes = [_ome_um(attributes, axis) for axis in "XY"]
    found = [size for size in sizes if size is not None]
    return (found[0], found[-1]) if found else None


def _ome_um(attributes, axis):
    unit = OME_UNITS.get(attributes.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        size = float(attributes[f"PhysicalSize{axis}"])
    except (KeyError, ValueError):
        return None
    return size * unit if unit and 0 < size < float("inf") else None


def _um_per_px(page, tag):
    """Um per pixel along one axis, None where the tags do not say."""
    unit = page.tags.valueof("ResolutionUnit", default=1)
    resolution = page.tags.valueof(tag, default=(0, 1))
    try:
        numerator, denominator = resolution
        return (UM_PER_UNIT[int(unit)] * denominator / numerator) or None
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
