"""Write a small file in the form of Hamamatsu's NDPI, whose levels are JPEGs with restart markers.

https://openslide.org/formats/hamamatsu/ and libtiff's documents describe it: a classic TIFF whose
offsets have 64 bits (the high ones of all tags stand behind the directory), one strip to a level,
and the places of the restart markers in a tag, by which parts of the strip are decoded alone.
"""

import io
import struct

import numpy as np
from PIL import Image

ASCII, SHORT, LONG, RATIONAL, SLONG, FLOAT = 2, 3, 4, 5, 9, 11
SIZES = {ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, SLONG: 4, FLOAT: 4}
CODES = {ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "I", SLONG: "i", FLOAT: "f"}
BLOCKS_PER_INTERVAL = 4  # of 8 x 8 px: parts of 32 x 8 px


def write_ndpi(path, levels, *, mpp, objective):
    """Write levels (uint8, width a multiple of 32, height of 8), and a picture of the glass."""
    content = bytearray(b"II*\0" + bytes(8))
    pointer = 4
    for number, pixels in enumerate([*levels, np.full((64, 96, 3), 200, np.uint8)]):
        is_glass = number == len(levels)
        down = levels[0].shape[1] / pixels.shape[1]
        lens = -1.0 if is_glass else objective / down
        offset = len(content)
        jpeg, starts = _jpeg(pixels)
        content += jpeg
        tags = _tags(pixels, offset, len(jpeg), starts, mpp * down, lens)
        start, following = _append_directory(content, tags)
        struct.pack_into("<Q", content, pointer, start)
        pointer = following
    path.write_bytes(content)
    return path


def _jpeg(pixels):
    file = io.BytesIO()
    options = {"quality": 95, "subsampling": 0, "restart_marker_blocks": BLOCKS_PER_INTERVAL}
    Image.fromarray(pixels).save(file, "JPEG", **options)
    data = file.getvalue()
    scan = data.index(b"\xff\xda")
    first = scan + 2 + struct.unpack(">H", data[scan + 2 : scan + 4])[0]
    restarts = [
        place + 2
        for place in range(first, len(data) - 1)
        if data[place] == 0xFF and 0xD0 <= data[place + 1] <= 0xD7
    ]
    return data, [first, *restarts]


def _tags(pixels, offset, n_bytes, starts, mpp, lens):
    height, width = pixels.shape[:2]
    per_cm = (round(1e7 / mpp), 1_000)
    return [
        (254, LONG, [0]),
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [8, 8, 8]),
        (259, SHORT, [7]),
        (262, SHORT, [6]),
        (271, ASCII, [*b"Hamamatsu", 0]),
        (273, LONG, [offset]),
        (277, SHORT, [3]),
        (278, LONG, [height]),
        (279, LONG, [n_bytes]),
        (282, RATIONAL, per_cm),
        (283, RATIONAL, per_cm),
        (284, SHORT, [1]),
        (296, SHORT, [3]),
        (65420, LONG, [1]),
        (65421, FLOAT, [lens]),
        (65424, SLONG, [0]),
        (65426, LONG, starts),
    ]


def _append_directory(content, tags):
    """Append values and a directory; return where it is, and where the next one's place goes."""
    entries = []
    for tag, kind, values in tags:
        packed = struct.pack(f"<{len(values)}{CODES[kind]}", *values)
        n_values = len(packed) // SIZES[kind]
        if len(packed) > 4:
            packed, content[len(content) :] = struct.pack("<I", len(content)), packed
        entries.append(struct.pack("<HHI", tag, kind, n_values) + packed.ljust(4, b"\0"))
    start = len(content)
    content += struct.pack("<H", len(tags)) + b"".join(entries)
    content += bytes(8) + bytes(4 * len(tags))
    return start, start + 2 + 12 * len(tags)
