"""Numbers with units, as people write and read them.

Sizes are powers of 1024 when written with an i (GiB), powers of 1000 without (GB).
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from weft.core.errors import InputError

__all__ = ["format_bytes", "format_count", "format_seconds", "parse_bytes"]

_BYTES = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgtp", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


def parse_bytes(text: str | float) -> int:
    """Read a size such as "80GiB", "1.5 GB" or a plain number of bytes.

    Fractions of a byte are dropped; everything else is exact, however large.

    Raises:
        InputError: the text is not a number followed by a known unit, or is negative.

    Example:
        >>> parse_bytes("2 KiB"), parse_bytes("1.5kB"), parse_bytes(7)
        (2048, 1500, 7)
    """
    # Two digits of exponent are plenty, and keep a typing error from filling the memory.
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d{1,2})?)\s*([a-z]*)\s*", str(text).lower())
    try:
        if match is None:
            raise KeyError(text)
        return int(Decimal(match[1]) * _BYTES[match[2]])
    except (KeyError, InvalidOperation):
        raise InputError(
            need="a size in bytes such as 80GiB, 1.5GB or 4096",
            got=repr(text),
            hint="use a number followed by B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB or PiB",
        ) from None


def format_bytes(num_bytes: float) -> str:
    """Size in the largest binary unit that leaves at least 1.

    Example:
        >>> format_bytes(80 * 2**30), format_bytes(512)
        ('80.0 GiB', '512 B')
    """
    # Compared as printed: 1048575 bytes are 1.0 MiB, not 1024.0 KiB.
    if round(abs(num_bytes)) < 1024:
        return f"{num_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        num_bytes /= 1024
        if round(abs(num_bytes), 1) < 1024:
            return f"{num_bytes:.1f} {unit}"
    return f"{num_bytes / 1024:.1f} PiB"


def format_seconds(seconds: float) -> str:
    """Duration with three significant digits in s, ms or us.

    Example:
        >>> format_seconds(1.84), format_seconds(0.0123), format_seconds(4.2e-6)
        ('1.84 s', '12.3 ms', '4.2 us')
    """
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if _leaves_one(seconds / scale):
            return f"{_three_digits(seconds / scale)} {unit}"
    return "0 s" if seconds == 0 else f"{_three_digits(seconds / 1e-6)} us"


def format_count(number: float) -> str:
    """Large count with k, M, B (billion) or T.

    Example:
        >>> format_count(8_030_261_248), format_count(42)
        ('8.03 B', '42')
    """
    for scale, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if _leaves_one(number / scale):
            return f"{_three_digits(number / scale)} {unit}"
    return f"{number:g}"


def _leaves_one(value: float) -> bool:
    # As printed: 0.9996 of a unit reads "1", and reads badly as 1000 of the next one.
    return float(f"{abs(value):.3g}") >= 1.0


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
