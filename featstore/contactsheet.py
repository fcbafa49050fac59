"""A contact sheet: patches side by side with their IDs, so that a person sees what was cut.

A notch in the middle of each side of a patch points at its centre, where the annotation is said to
be.
"""

from dataclasses import dataclass

import numpy as np

from featstore.errors import ImageError, require

__all__ = ["Group", "choose", "draw_contact_sheet"]

THUMBNAIL_PX = 128
GAP_PX, MARGIN_PX, NOTCH_PX, FRAME_PX = 10, 18, 6, 3
TITLE_PX, HEADING_PX, ID_PX = 20, 15, 11  # heights of the letters
COLUMNS = 8
HIGHEST_PX = 30_000  # a larger picture opens nowhere; JPEG ends at 65,500
# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is faint on white
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, PAPER = "#222222", "#FFFFFF"
BAR_UM = 10


@dataclass(frozen=True)
class Group:
    """Annotations that stand together on the sheet.

    Parameters
    ----------
    label, domain : str
        What they have in common; the domain may be empty.
    ids : ndarray
        Those that are shown.
    n : int
        How many there are.
    """

    label: str
    domain: str
    ids: np.ndarray
    n: int

    @property
    def heading(self):
        """Line above the group."""
        name = " - ".join(part for part in (self.label, self.domain) if part)
        return f"{name}  ({len(self.ids):,} of {self.n:,})"


def choose(annotations, *, ids=None, per_group=COLUMNS, seed=0):
    """Choose annotations of each label and domain.

    Parameters
    ----------
    annotations : AnnotationTable
        Of a dataset.
    ids : array-like, optional
        Show these alone.
    per_group : int
        How many of each group, drawn at random; with ``ids`` all of them.
    seed : int
        Decides which.

    Returns
    -------
    list of Group
        By domain, then label.

    Examples
    --------
    >>> from featstore import AnnotationTable
    >>> cells = AnnotationTable("d", [1, 2, 3], ["b", "a", "b"], {"domain": ["X", "X", "X"]})
    >>> [(group.heading, group.ids.tolist()) for group in choose(cells, per_group=1)]
    [('a - X  (1 of 1)', [2]), ('b - X  (1 of 2)', [3])]
    """
    table = annotations if ids is None else annotations.take(list(dict.fromkeys(ids)))
    rng = np.random.default_rng(seed)
    has_domains = "domain" in table.columns
    domains = table.domains if has_domains else np.full(len(table), "")
    groups = []
    for domain, label in sorted(set(zip(domains.tolist(), table.labels.tolist(), strict=True))):
        here = table.ids[(domains == domain) & (table.labels == label)]
        shown = here if ids is not None else _drawn(here, per_group, rng)
        groups.append(Group(label, domain, shown, len(here)))
    return groups


def _drawn(ids, n, rng):
    if len(ids) <= n:
        return ids
    return ids[np.sort(rng.choice(len(ids), n, replace=False))]


def draw_contact_sheet(patches, groups, *, title):
    """Draw patches group by group, each with its ID below.

    Parameters
    ----------
    patches : Patches or CachedPatches
        Give the pixels.
    groups : sequence of Group
        As :func:`choose` gives them.
    title : str
        First line of the sheet.

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    ImageError
        If the sheet would be more than 30,000 px high.
    """
    sheet = _Sheet(groups)
    sheet.write(title, TITLE_PX)
    sheet.draw_scale(patches)
    colours = _colours(groups)
    for group in groups:
        sheet.write(group.heading, HEADING_PX)
        sheet.draw_group(patches.read(group.ids), group.ids.tolist(), colours[group.label])
    return sheet.image


def _colours(groups):
    labels = sorted({group.label for group in groups})
    return {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(labels)}


class _Sheet:
    """A picture that is filled from the top downwards."""

    def __init__(self, groups):
        self._pil = {
            name: require(f"PIL.{name}", extra="extract", purpose="drawing patches")
            for name in ("Image", "ImageDraw", "ImageFont")
        }
        n_rows = sum(-(-len(group.ids) // COLUMNS) for group in groups)
        height = 2 * MARGIN_PX + TITLE_PX + HEADING_PX + GAP_PX + n_rows * self._row_px
        height += len(groups) * (HEADING_PX + GAP_PX)
        if height > HIGHEST_PX:
            raise ImageError(
                f"a sheet of {len(groups):,} groups in {n_rows:,} rows would be {height:,} px "
                "high; show fewer, by ID or with --per-group"
            )
        width = 2 * MARGIN_PX + COLUMNS * (THUMBNAIL_PX + GAP_PX) - GAP_PX
        self.image = self._pil["Image"].new("RGB", (width, height), PAPER)
        self._draw = self._pil["ImageDraw"].Draw(self.image)
        self._y = MARGIN_PX

    @property
    def _row_px(self):
        return THUMBNAIL_PX + ID_PX + 2 * GAP_PX

    def _font(self, size_px):
        return self._pil["ImageFont"].load_default(size_px)

    def write(self, text, size_px):
        """Write a line at the left."""
        room = self.image.width - 2 * MARGIN_PX
        self._draw.text((MARGIN_PX, self._y), self._fitting(text, size_px, room),
                        fill=INK, font=self._font(size_px))  # fmt: skip
        self._y += size_px + GAP_PX

    def _fitting(self, text, size_px, room_px):
        """Cut a text in its middle until it fits."""
        text = " ".join(text.split())
        kept, shown = len(text), text
        while self._draw.textlength(shown, self._font(size_px)) > room_px and kept > 2:
            kept -= 1
            shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        return shown

    def draw_scale(self, patches):
        """Say how large a patch is, with a bar where that is known."""
        text = f"each {patches.patch_px} px wide"
        if patches.mpp is not None:
            text += f" at {patches.mpp:g} um/px: {patches.patch_px * patches.mpp:g} um"
            bar_px = round(BAR_UM / patches.mpp * THUMBNAIL_PX / patches.patch_px)
            right, y = self.image.width - MARGIN_PX, self._y + HEADING_PX // 2
            self._draw.line([(right - bar_px, y), (right, y)], fill=INK, width=3)
            label = f"{BAR_UM} um"
            width = self._draw.textlength(label, self._font(HEADING_PX))
            self._draw.text(
                (right - bar_px - GAP_PX - width, self._y),
                label,
                fill=INK,
                font=self._font(HEADING_PX),
            )
        self.write(text, HEADING_PX)

    def draw_group(self, pixels, ids, colour):
        """Draw patches in rows, each with its ID below."""
        for place, (patch, name) in enumerate(zip(pixels, ids, strict=True)):
            column = place % COLUMNS
            if place and column == 0:
                self._y += self._row_px
            self._draw_patch(patch, str(name), MARGIN_PX + column * (THUMBNAIL_PX + GAP_PX), colour)
        self._y += self._row_px

    def _draw_patch(self, patch, name, x, colour):
        size = (THUMBNAIL_PX,) * 2
        thumbnail = self._pil["Image"].fromarray(patch).resize(size, reducing_gap=3.0)
        self.image.paste(thumbnail, (x, self._y))
        last = THUMBNAIL_PX - 1
        box = [x, self._y, x + last, self._y + last]
        self._draw.rectangle(box, outline=colour, width=FRAME_PX)
        for notch in _notches(*box):
            self._draw.polygon(notch, fill=colour)
        text = self._fitting(name, ID_PX, THUMBNAIL_PX)
        width = self._draw.textlength(text, self._font(ID_PX))
        place = (x + (THUMBNAIL_PX - width) / 2, self._y + THUMBNAIL_PX + GAP_PX // 3)
        self._draw.text(place, text, fill=INK, font=self._font(ID_PX))


def _notches(left, top, right, bottom):
    """Triangles on the frame that point at the middle, as lists of corners."""
    x, y, n = (left + right) / 2, (top + bottom) / 2, NOTCH_PX
    return [
        [(x - n, top), (x + n, top), (x, top + 2 * n)],
        [(x - n, bottom), (x + n, bottom), (x, bottom - 2 * n)],
        [(left, y - n), (left, y + n), (left + 2 * n, y)],
        [(right, y - n), (right, y + n), (right - 2 * n, y)],
    ]
