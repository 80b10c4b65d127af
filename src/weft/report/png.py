"""Pictures as PNG files inside a page, by the standard library alone.

Source: Portable Network Graphics, third edition (W3C, 2025): eight bits a channel, each row as
what it differs by from the one above (filter 2), which compresses well.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InputError
from weft.report.markup import Markup, tag

__all__ = ["Picture", "embedded", "png"]

Picture: TypeAlias = NDArray[np.uint8]
"""Red, green and blue of each pixel [height, width, 3]."""

_TRUE_COLOUR, _UP = 2, 2


def png(picture: Picture) -> bytes:
    """A PNG file.

    Raises:
        InputError: the picture is empty or has another shape.

    Example:
        >>> png(np.zeros((2, 3, 3), dtype=np.uint8))[1:4]
        b'PNG'
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InputError(
            need="a picture of three channels, [height, width, 3]",
            got=f"shape {list(picture.shape)}",
            hint="repeat a grey channel three times, and leave transparency out",
        )
    height, width, _ = picture.shape
    rows = picture.reshape(height, width * 3)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    filters = np.full((height, 1), _UP, dtype=np.uint8)
    data = zlib.compress(np.hstack([filters, rows - above]).tobytes(), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, _TRUE_COLOUR, 0, 0, 0)
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def embedded(picture: Picture, description: str) -> Markup:
    """The picture as an element of a page.

    Args:
        picture: what is shown.
        description: for those who cannot see it.
    """
    text = base64.b64encode(png(picture)).decode()
    return tag("img", src=f"data:image/png;base64,{text}", alt=description, class_="frame")
