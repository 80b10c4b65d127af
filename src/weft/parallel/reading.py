"""Reading JSON values strictly: each of its type and range, or an error that names the field."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from weft.core.errors import FileError

__all__ = [
    "count_reader",
    "list_reader",
    "read_amount",
    "read_fixed",
    "read_number",
    "read_record",
    "read_text",
    "shortened",
    "unreadable",
]

T = TypeVar("T")

_LARGEST = sys.float_info.max


def shortened(value: object) -> str:
    """A value in few words."""
    text = reprlib.repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def unreadable(key: str, need: str, got: object) -> FileError:
    """The error for a field that is not what it has to be."""
    return FileError(
        need=f"{key}: {need}",
        got=shortened(got),
        hint="the file was not written by weft, or was edited; plan again",
    )


def read_record(raw: object, key: str, names: Iterable[str]) -> dict[str, object]:
    """A mapping with these keys and no others."""
    if not isinstance(raw, dict):
        raise unreadable(key, "a mapping", raw)
    plain, known = cast("dict[str, object]", raw), set(names)
    missing, unknown = sorted(known - plain.keys()), sorted(plain.keys() - known)
    if missing or unknown:
        words = f"missing: {missing[:3] or 'none'}; unknown: {unknown[:3] or 'none'}"
        raise FileError(
            need=f"{key}: the fields of this version of weft and no others",
            got=words if len(words) < 200 else words[:197] + "...",
            hint="the file was not written by weft, or was edited; plan again",
        )
    return plain


def list_reader(read: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    """Reader of a list whose items another one reads."""

    def read_list(raw: object, key: str) -> tuple[T, ...]:
        if not isinstance(raw, list):
            raise unreadable(key, "a list", raw)
        items = cast("list[object]", raw)
        return tuple(read(item, f"{key}[{i}]") for i, item in enumerate(items))

    return read_list


def read_fixed(raw: object, key: str, size: int) -> tuple[object, ...]:
    """A list of so many items, whatever they are."""
    items = list_reader(lambda item, _: item)(raw, key)
    if len(items) != size:
        raise unreadable(key, f"a list of {size}", items)
    return items


def read_text(raw: object, key: str) -> str:
    """A text."""
    if not isinstance(raw, str):
        raise unreadable(key, "a text", raw)
    return raw


def count_reader(least: int, below: float = math.inf) -> Callable[[object, str], int]:
    """Reader of a whole number from `least` to less than `below`."""

    def read_count(raw: object, key: str) -> int:
        if type(raw) is not int or not least <= raw < below:
            end = f", below {below}" if below < math.inf else ""
            raise unreadable(key, f"a whole number of at least {least}{end}", raw)
        return raw

    return read_count


def read_number(raw: object, key: str) -> float:
    """A finite number."""
    # An integer stays one, so that the plan is written back as it was.
    if type(raw) in (int, float):
        number = cast("float", raw)
        if abs(number) < math.inf and abs(number) <= _LARGEST:
            return number
    raise unreadable(key, "a finite number", raw)


def read_amount(raw: object, key: str) -> float:
    """A finite number of at least 0."""
    number = read_number(raw, key)
    if number < 0:
        raise unreadable(key, "a number of at least 0", raw)
    return number
