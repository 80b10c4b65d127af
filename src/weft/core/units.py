"""Numbers with units, as people write and read them.

Sizes are powers of 1024 when written with an i (GiB), powers of 1000 without (GB).
"""

from __future__ import annotations

import re

from weft.core.errors import InputError

__all__ = ["format_bytes", "format_count", "format_seconds", "parse_bytes"]

_BYTES = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgtp", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


def parse_bytes(text: str | float) -> int:
    """Read a size such as "80GiB", "1.5 GB" or a plain number of bytes.

    Raises:
        InputError: the text is not a number followed by a known unit, or is negative.

    Example:
        >>> parse_bytes("2 KiB"), parse_bytes("1.5kB"), parse_bytes(7)
        (2048, 1500, 7)
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-z]*)\s*", str(text).lower())
    try:
        if match is None:
            raise ValueError
        return int(float(match[1]) * _BYTES[match[2]])
    except (KeyError, ValueError):
        raise InputError(
            need="a size in bytes such as 80GiB, 1.5GB or 4096",
            got=repr(text),
            hint="use a number followed by B, kB, MB, GB, TB, KiB, MiB, GiB or TiB",
        ) from None


def format_bytes(num_bytes: float) -> str:
    """Size in the largest binary unit that leaves at least 1.

    Example:
        >>> format_bytes(80 * 2**30), format_bytes(512)
        ('80.0 GiB', '512 B')
    """
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(num_bytes) >= 1024**power:
            return f"{num_bytes / 1024**power:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def format_seconds(seconds: float) -> str:
    """Duration with three significant digits in s, ms or us.

    Example:
        >>> format_seconds(1.84), format_seconds(0.0123), format_seconds(4.2e-6)
        ('1.84 s', '12.3 ms', '4.2 us')
    """
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return "0 s" if seconds == 0 else f"{seconds / 1e-6:.3g} us"


def format_count(number: float) -> str:
    """Large count with k, M, B (billion) or T.

    Example:
        >>> format_count(8_030_261_248), format_count(42)
        ('8.03 B', '42')
    """
    for scale, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:g}"
