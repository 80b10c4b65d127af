"""What a provider's numbers mean, as data: each is the size of a set, and a set is made of leaves.

Knows names of fields and what lies within what. Does not know how leaves follow from numbers: that
is `solve`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from weft.core.errors import InputError
from weft.tokens.classes import TokenClass

__all__ = [
    "IMAGE_CACHE_READ",
    "MOST",
    "VIDEO_CACHE_READ",
    "Number",
    "Path",
    "Shape",
    "leaf_class",
    "mismatch",
    "tokens_in",
]

MOST = 10**12
"""Tokens of one number of one call. Chosen: a million times the longest context, so that more is a
mistake, and nine million such calls can be added up."""
Path: TypeAlias = tuple[str, ...]
"""Keys from the outermost: ("prompt_tokens_details", "cached_tokens")."""

IMAGE_CACHE_READ, VIDEO_CACHE_READ = "image_cache_read", "video_cache_read"
"""Leaves that some providers tell apart, and that are read from caches at the price of text."""


def leaf_class(leaf: str) -> TokenClass:
    """The class that a leaf is counted in."""
    merged = leaf in (IMAGE_CACHE_READ, VIDEO_CACHE_READ)
    return TokenClass.CACHE_READ if merged else TokenClass(leaf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One number that a provider reports.

    Attributes:
        paths: where it stands; the first is its name, others are older or other spellings.
        leaves: the set that it is the size of.
        absent_is_none: whether the provider leaves it out where it is zero. Otherwise a number that
            is missing is unknown.
    """

    paths: tuple[Path, ...]
    leaves: frozenset[str]
    absent_is_none: bool = False

    @property
    def name(self) -> str:
        """As errors show it."""
        return ".".join(self.paths[0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """What one provider's usage consists of.

    Attributes:
        name: as `read_usage` takes it.
        source: the documentation that says so.
        numbers: all that is read; their leaves overlap as the provider says.
        input, output: names of numbers that add up to all that was read and generated.
        total: the number that covers both, if there is one.
        input_leaves, output_leaves: leaves of the two.
    """

    name: str
    source: str
    numbers: tuple[Number, ...]
    input: tuple[str, ...]
    output: tuple[str, ...]
    total: str = ""
    input_leaves: frozenset[str] = field(init=False)
    output_leaves: frozenset[str] = field(init=False)
    _objects: tuple[Path, ...] = field(init=False)
    _places: tuple[tuple[tuple[tuple[int, str], ...], int | None], ...] = field(init=False)

    def __post_init__(self) -> None:
        for name, numbers in (("input_leaves", self.input), ("output_leaves", self.output)):
            sets = (self.numbers[place].leaves for place in self.index(numbers))
            object.__setattr__(self, name, frozenset[str]().union(*sets))
        objects = {path[:-1] for number in self.numbers for path in number.paths} | {()}
        objects |= {path[:end] for path in objects for end in range(len(path))}
        ordered = tuple(sorted(objects, key=len))
        places = tuple(
            (
                tuple((ordered.index(path[:-1]), path[-1]) for path in number.paths),
                0 if number.absent_is_none else None,
            )
            for number in self.numbers
        )
        object.__setattr__(self, "_objects", ordered)
        object.__setattr__(self, "_places", places)

    def index(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Places of numbers among all."""
        places = {number.name: place for place, number in enumerate(self.numbers)}
        return tuple(places[name] for name in names)

    def read(self, payload: Mapping[str, object]) -> list[int | None]:
        """All numbers, in order; None for what is not there.

        Raises:
            InputError: one is no number of tokens.
        """
        # Objects are opened once, from the outermost; most payloads have all of one level.
        opened: dict[Path, Mapping[str, object]] = {(): payload}
        objects: list[Mapping[str, object]] = [payload]
        for path in self._objects[1:]:
            inner = opened[path[:-1]].get(path[-1])
            found = cast("Mapping[str, object]", inner) if isinstance(inner, dict) else _NOTHING
            opened[path] = found
            objects.append(found)
        values: list[int | None] = []
        for number, (places, absent) in enumerate(self._places):
            value: object = None
            for place, key in places:
                value = objects[place].get(key)
                if value is not None:
                    break
            if type(value) is int and 0 <= value <= MOST:
                values.append(value)
            elif value is None:
                values.append(absent)
            else:
                values.append(tokens_in(value, self.numbers[number].name))
        return values


_NOTHING: Mapping[str, object] = {}


def tokens_in(value: object, name: str) -> int:
    """A number of tokens as logs write it; `name` is the field's, for errors.

    Raises:
        InputError: it is none.
    """
    if type(value) is int and 0 <= value <= MOST:
        return value
    # Some exporters write integers as floats or, as OTLP does with 64 bits, as text.
    if isinstance(value, float) and value.is_integer() and 0 <= value <= MOST:
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and int(value) <= MOST:
        return int(value)
    raise InputError(
        need=f"a whole number of tokens from 0 to {MOST} as {name}",
        got=repr(value)[:80],
        hint="leave it out where it is not known: it is then unknown, not zero",
    )


def mismatch(shape: Shape, *, need: str, got: str) -> InputError:
    """What is said of numbers that cannot all be right."""
    return InputError(
        need=f"{need} ({shape.name})",
        got=got,
        hint=(
            f"these are not counts as {shape.name} has them: was a proxy in between, that counts"
            " cached or reasoning tokens beside the others, or within them?"
        ),
    )
