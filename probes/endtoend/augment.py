"""Random changes to training patches, drawn one by one and made to a whole batch at once.

What is drawn depends on a seed, the epoch and the number of the draw, never on the batch, the
worker, the device or the order. No change brings in black corners: patches are turned while they
are larger than the network's input, or by quarter turns, and moved within the margin they have.

Shape suffixes: B patches, H height, W width, C channels (3), D drawn numbers of a patch.
"""

import math

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample, pad

from probes.errors import ProbesError

__all__ = ["centre_crop", "change", "draw", "move", "source_px", "unchanged"]

# Ganz et al. name the kinds; these strengths and chances are those of their later code.
JITTER = 0.1
JITTER_CHANCE = 0.5
BLUR_REACH_PX = 2  # a kernel of 5
BLUR_SIGMA_PX = (0.1, 1.0)
BLUR_CHANCE = 0.1
FLIP_CHANCE = 0.5
ROTATION_DEGREES = 180
ROTATION_CHANCE = 0.5

# What is drawn for a patch. Brightness, contrast and saturation are factors, hue a share of the
# circle; blur is sigma in pixels, 0 for none.
DRAWN = (
    "degrees",
    "flip_x",
    "flip_y",
    "right_px",
    "down_px",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "blur_px",
)
COLUMN = {name: number for number, name in enumerate(DRAWN)}
RIGHT_DOWN = slice(COLUMN["right_px"], COLUMN["down_px"] + 1)
FACTORS = slice(COLUMN["brightness"], COLUMN["saturation"] + 1)
COLOURS = slice(COLUMN["brightness"], COLUMN["hue"] + 1)
SLACK_PX = 1e-6  # of rounding, in whether a patch has a pixel of margin
GRAY = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision weighs them


def source_px(patch_px: int) -> int:
    """Tell how large to cut patches that are turned by any angle, then cropped.

    Parameters
    ----------
    patch_px
        Side of the network's input in pixels.

    Returns
    -------
    int
        Side of the patch to cut, in pixels: the diagonal of the input, rounded up to an even
        number where the input is even, so that its centre is what is cut at the input's own size.

    Examples
    --------
    >>> source_px(224), source_px(33)
    (318, 47)
    """
    diagonal_px = math.ceil(patch_px * math.sqrt(2))
    return diagonal_px + (diagonal_px - patch_px) % 2


def centre_crop(pixels, patch_px: int):
    """Cut out the centre, keeping pixel ``px // 2`` of the source at ``patch_px // 2``.

    A patch that was cut ``px // 2`` pixels left of its annotation and then cropped is therefore
    the same as one cut at ``patch_px`` directly, for even and odd sizes.

    Parameters
    ----------
    pixels
        Array or tensor, square in its axes 1 and 2: (n, px, px, 3).
    patch_px
        Side to keep, in pixels; at most px.

    Raises
    ------
    ProbesError
        If the source is smaller than the crop.

    Examples
    --------
    >>> centre_crop(np.zeros((2, 9, 9, 3), np.uint8), 4).shape
    (2, 4, 4, 3)
    """
    px = pixels.shape[1]
    if px < patch_px:
        raise ProbesError(
            f"patch_px={patch_px} is asked and the patches are {px} px wide; "
            f"cut larger patches or give patch_px={px}"
        )
    start = px // 2 - patch_px // 2
    return pixels[:, start : start + patch_px, start : start + patch_px]


def unchanged(n: int) -> np.ndarray:
    """Return the numbers (n, D) that leave n patches as they are.

    Examples
    --------
    >>> unchanged(2).shape
    (2, 10)
    """
    drawn_BD = np.zeros((n, len(DRAWN)), np.float32)
    drawn_BD[:, FACTORS] = 1
    return drawn_BD


def draw(numbers, *, any_angle: bool, seed: int, epoch: int) -> np.ndarray:
    """Draw what happens to some of the patches of an epoch.

    Parameters
    ----------
    numbers
        Each patch's number among those of the epoch, shape (n,).
    any_angle
        Turn by any angle, else by quarters: whether the patches have the margin.
    seed, epoch
        Non-negative; with a patch's number they decide what is drawn for it.

    Returns
    -------
    ndarray of float32, shape (n, D)

    Examples
    --------
    >>> alone = draw([7], any_angle=True, seed=0, epoch=2)
    >>> bool((draw([5, 6, 7], any_angle=True, seed=0, epoch=2)[2] == alone[0]).all())
    True
    """
    drawn_BD = unchanged(len(numbers))
    for row, number in zip(drawn_BD, numbers, strict=True):
        happens, values = _drawn(np.random.default_rng((seed, epoch, int(number))), any_angle)
        row[happens] = values[happens]
    return drawn_BD


def move(drawn_BD, jitter_px: int, numbers, *, seed: int, epoch: int) -> None:
    """Draw by how many whole pixels each centre moves, up to ``jitter_px`` to each side.

    Parameters
    ----------
    drawn_BD
        What ``draw`` returned; changed in place.
    jitter_px
        At least 0.
    numbers, seed, epoch
        As for ``draw``.
    """
    for row, number in zip(drawn_BD, numbers, strict=True):
        # A stream of its own: with and without moving, the rest of what is drawn is the same.
        generator = np.random.default_rng((seed, epoch, int(number), 1))
        row[RIGHT_DOWN] = generator.integers(-jitter_px, jitter_px, size=2, endpoint=True)


def _drawn(generator, any_angle):
    """Draw one patch: which of its numbers change, and to what."""
    chances = generator.random(5)
    angle, quarter = generator.uniform(-ROTATION_DEGREES, ROTATION_DEGREES), generator.integers(4)
    values = unchanged(1)[0]
    values[COLUMN["degrees"]] = angle if any_angle else 90 * quarter
    values[[COLUMN["flip_x"], COLUMN["flip_y"]]] = 1
    values[FACTORS] = generator.uniform(1 - JITTER, 1 + JITTER, 3)
    values[COLUMN["hue"]] = generator.uniform(-JITTER, JITTER)
    values[COLUMN["blur_px"]] = generator.uniform(*BLUR_SIGMA_PX)
    happens = np.zeros(len(DRAWN), bool)
    happens[COLUMN["degrees"]] = chances[0] < ROTATION_CHANCE
    happens[COLUMN["flip_x"]] = chances[1] < FLIP_CHANCE
    happens[COLUMN["flip_y"]] = chances[2] < FLIP_CHANCE
    happens[COLOURS] = chances[3] < JITTER_CHANCE
    happens[COLUMN["blur_px"]] = chances[4] < BLUR_CHANCE
    return happens, values


def change(pixels_BHWC: torch.Tensor, drawn_BD, patch_px: int) -> torch.Tensor:
    """Turn, move, flip, crop, colour and blur a batch of patches, on the device they are on.

    Parameters
    ----------
    pixels_BHWC
        uint8 (n, px, px, 3), px at least ``patch_px``.
    drawn_BD
        What ``draw`` returned, an array or a tensor on the CPU.
    patch_px
        Side of the result in pixels.

    Returns
    -------
    torch.Tensor
        uint8 (n, patch_px, patch_px, 3).

    Notes
    -----
    Colours change in the order brightness, contrast, saturation, hue; torchvision's ColorJitter
    draws an order. A patch that is neither turned nor coloured nor blurred keeps its bytes.

    Examples
    --------
    >>> white = torch.full((2, 100, 100, 3), 255, dtype=torch.uint8)
    >>> change(white, draw([7, 8], any_angle=True, seed=0, epoch=3), 64).shape
    torch.Size([2, 64, 64, 3])
    """
    drawn_BD = torch.as_tensor(drawn_BD)
    centre_crop(pixels_BHWC, patch_px)  # refuses patches that are too small
    changed_BHWC = _cropped(pixels_BHWC, drawn_BD, patch_px)
    is_coloured = (drawn_BD[:, COLOURS] != torch.from_numpy(unchanged(1))[:, COLOURS]).any(1)
    is_changed = is_coloured | (drawn_BD[:, [COLUMN["degrees"], COLUMN["blur_px"]]] != 0).any(1)
    rows = torch.nonzero(is_changed)[:, 0]
    if len(rows):
        there = rows.to(pixels_BHWC.device)
        changed_BHWC[there] = _changed(
            pixels_BHWC[there], changed_BHWC[there], drawn_BD[rows], is_coloured[rows]
        )
    return changed_BHWC


def _cropped(pixels_BHWC, drawn_BD, patch_px):
    """Move and flip by whole pixels, as every patch is that is not turned."""
    moved_B2 = _moved(drawn_BD, pixels_BHWC.shape[1], patch_px).int().tolist()
    first = pixels_BHWC.shape[1] // 2 - patch_px // 2
    if any(right or down for right, down in moved_B2):
        cropped_BHWC = torch.stack(
            [
                pixels_HWC[first + down :, first + right :][:patch_px, :patch_px]
                for pixels_HWC, (right, down) in zip(pixels_BHWC, moved_B2, strict=True)
            ]
        )
    else:
        cropped_BHWC = centre_crop(pixels_BHWC, patch_px).clone()
    for axis, name in ((2, "flip_x"), (1, "flip_y")):
        flipped_B = drawn_BD[:, COLUMN[name]] != 0
        if flipped_B.any():
            there_B111 = flipped_B.to(cropped_BHWC.device)[:, None, None, None]
            cropped_BHWC = torch.where(there_B111, cropped_BHWC.flip(axis), cropped_BHWC)
    return cropped_BHWC


def _changed(pixels_BHWC, cropped_BHWC, drawn_BD, is_coloured_B):
    """Turn, colour and blur patches, of which both the whole and the crop are given."""
    pixels_BCHW = cropped_BHWC.permute(0, 3, 1, 2).to(
        torch.float32, memory_format=torch.contiguous_format
    )
    turned = torch.nonzero(drawn_BD[:, COLUMN["degrees"]])[:, 0]
    if len(turned):
        there = turned.to(pixels_BCHW.device)
        pixels_BCHW[there] = _turned(pixels_BHWC[there], drawn_BD[turned], cropped_BHWC.shape[1])
    pixels_BCHW = _some(pixels_BCHW, is_coloured_B, _coloured, drawn_BD[:, COLOURS])
    sigmas_B1 = drawn_BD[:, COLUMN["blur_px"], None]
    pixels_BCHW = _some(pixels_BCHW, sigmas_B1[:, 0] > 0, _blurred, sigmas_B1)
    return pixels_BCHW.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _some(pixels_BCHW, chosen_B, action, numbers_BD):
    """Do to some patches of a batch what each one's numbers say; which ones, the CPU knows."""
    rows = torch.nonzero(chosen_B)[:, 0]
    if len(rows) == 0:
        return pixels_BCHW
    there = rows.to(pixels_BCHW.device)
    numbers_BD111 = numbers_BD[rows].to(there.device)[:, :, None, None, None]
    pixels_BCHW[there] = action(pixels_BCHW[there], *numbers_BD111.unbind(1))
    return pixels_BCHW


def _turned(pixels_BHWC, drawn_BD, patch_px):
    """Turn, move, flip and crop in one sampling: float32 (n, 3, patch_px, patch_px), 0 to 255."""
    theta_B23 = _sampled_places(drawn_BD.double(), pixels_BHWC.shape[1], patch_px)
    size = (len(pixels_BHWC), 3, patch_px, patch_px)
    places_BHW2 = affine_grid(theta_B23.float().to(pixels_BHWC.device), size, align_corners=True)
    source_BCHW = pixels_BHWC.permute(0, 3, 1, 2).to(
        torch.float32, memory_format=torch.contiguous_format
    )
    return grid_sample(source_BCHW, places_BHW2, padding_mode="border", align_corners=True)


def _sampled_places(drawn_BD, px, patch_px):
    """Say where the result's pixels lie in the source, as ``affine_grid`` takes it: (n, 2, 3)."""
    radians_B = torch.deg2rad(drawn_BD[:, COLUMN["degrees"]])
    flips_B2 = 1 - 2 * drawn_BD[:, [COLUMN["flip_x"], COLUMN["flip_y"]]]
    cosines_B, sines_B = radians_B.cos(), radians_B.sin()
    half_px, last_px = (patch_px - 1) / 2, max(px - 1, 1)
    turn_B22 = torch.stack(
        [
            torch.stack([cosines_B * flips_B2[:, 0], -sines_B * flips_B2[:, 1]], 1),
            torch.stack([sines_B * flips_B2[:, 0], cosines_B * flips_B2[:, 1]], 1),
        ],
        1,
    )
    centre_px = px // 2 - patch_px // 2 + half_px
    offset_B2 = 2 * (centre_px + _moved(drawn_BD, px, patch_px)) / last_px - 1
    return torch.cat([turn_B22 * (2 * half_px / last_px), offset_B2[:, :, None]], 2)


def _moved(drawn_BD, px, patch_px):
    """Return by how many pixels centres move right and down, within what turned patches have."""
    radians_B = torch.deg2rad(drawn_BD[:, COLUMN["degrees"]].double())
    half_px = (patch_px - 1) / 2
    reach_B1 = half_px * (radians_B.cos().abs() + radians_B.sin().abs())[:, None]
    centre_px = px // 2 - patch_px // 2 + half_px
    return _within_margin(drawn_BD[:, RIGHT_DOWN].double(), reach_B1, centre_px, px)


def _within_margin(moved_B2, reach_B1, centre_px, px):
    """Shorten moves to whole pixels that the cut patch has."""
    least_B1 = torch.ceil(reach_B1 - centre_px - SLACK_PX).clamp(max=0)
    most_B1 = torch.floor(px - 1 - centre_px - reach_B1 + SLACK_PX).clamp(min=0)
    return moved_B2.clamp(least_B1, most_B1)


def _coloured(pixels_BCHW, brightness, contrast, saturation, hue):
    """Jitter colours of float pixels, 0 to 255, as torchvision's functions of these names do."""
    bright = (pixels_BCHW * brightness).clamp(0, 255)
    # Whole numbers have one sum in any order, and so on any number of threads.
    whole = _gray(bright).floor().long()
    mean = whole.sum((1, 2, 3), keepdim=True).float() / whole[0].numel()
    contrasted = (bright * contrast + mean * (1 - contrast)).clamp(0, 255)
    saturated = contrasted * saturation + _gray(contrasted) * (1 - saturation)
    return _hue_turned(saturated.clamp(0, 255), hue)


def _gray(pixels_BCHW):
    red, green, blue = pixels_BCHW.unbind(1)
    return (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue)[:, None]


def _hue_turned(pixels_BCHW, share):
    """Turn the hue by a share of the circle; value and saturation stay.

    A channel of a colour with hue h, value v and chroma c is v - c * clamp(min(k, 4 - k), 0, 1),
    k = (n + h) mod 6 with n = 5, 3, 1 for red, green and blue, h in sixths of the circle.
    """
    red, green, blue = pixels_BCHW.split(1, dim=1)
    value = pixels_BCHW.amax(1, keepdim=True)
    chroma = value - pixels_BCHW.amin(1, keepdim=True)
    divisor = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    offsets_13 = torch.tensor([5.0, 3.0, 1.0], device=pixels_BCHW.device).reshape(1, 3, 1, 1)
    k = (hue + 6 * share + offsets_13) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def _blurred(pixels_BCHW, sigma_px):
    """Blur with a Gaussian over 5 pixels, mirrored at the border as torchvision does."""
    reach = min(BLUR_REACH_PX, pixels_BCHW.shape[-1] - 1)
    offsets = torch.arange(-reach, reach + 1, device=pixels_BCHW.device)
    weights = torch.exp(-0.5 * (offsets / sigma_px[:, 0, 0]) ** 2)  # (n, 5)
    weights = (weights / weights.sum(1, keepdim=True)).T[:, :, None, None, None]
    padded = pad(pixels_BCHW, (reach,) * 4, mode="reflect")
    px = pixels_BCHW.shape[-1]
    rows = sum(weight * padded[:, :, k : k + px] for k, weight in enumerate(weights))
    return sum(weight * rows[..., k : k + px] for k, weight in enumerate(weights))
