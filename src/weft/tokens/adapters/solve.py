"""From numbers that overlap to leaves that do not.

Each number is the sum of some leaves. What follows from the numbers that are there is found once
for each pattern of them: parts, each a sum and difference of numbers. A part of one leaf is known;
of a part of several only the sum is, because the provider left something out. Where this is not
enough, leaves are bounded by all numbers together.

Source: unit propagation and bounds propagation over linear equations with coefficients 0 and 1
(Apt, Principles of Constraint Programming, 2003, section 6.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from weft.core.errors import InputError
from weft.tokens.adapters.bounds import bounded
from weft.tokens.adapters.shape import Shape, leaf_class, mismatch
from weft.tokens.classes import TokenClass
from weft.tokens.count import UNKNOWN, Count
from weft.tokens.usage import Usage

__all__ = ["read_numbers"]

_Terms: TypeAlias = tuple[tuple[int, int], ...]
"""(place of a number, its factor), to be added up."""

_ABSENT, _ZERO, _SOME = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Leaves whose sum is known."""

    leaves: tuple[str, ...]
    kinds: tuple[TokenClass, ...]
    terms: _Terms
    is_input: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Solution:
    """What follows from a pattern of numbers.

    Attributes:
        parts: that have tokens.
        checks: numbers that are said twice: (place, what it has to be).
        free: classes of which nothing is known.
        is_open: whether input, and output, has any of them.
        is_exact: whether every leaf is known.
    """

    parts: tuple[_Part, ...]
    checks: tuple[tuple[int, _Terms], ...]
    free: tuple[TokenClass, ...]
    is_open: tuple[bool, bool]
    is_exact: bool


def read_numbers(
    shape: Shape,
    payload: Mapping[str, object],
    *,
    broke_off: bool = False,
    max_tokens: int | None = None,
) -> Usage:
    """Tokens by class.

    Args:
        shape: what the numbers mean.
        payload: what holds them.
        broke_off: the stream ended before its end: what was generated is known from below.
        max_tokens: the most that could be generated; None where nobody said.

    Raises:
        InputError: a number is none, a set is larger than one that holds it, or a total is not what
            its parts add up to; the error names the field.
    """
    values = shape.read(payload)
    unsaid = max_tokens is not None and all(values[at] is None for at in shape.index(shape.output))
    if not broke_off and not unsaid:
        solution = _solution(
            shape, bytes([_ABSENT if v is None else _SOME if v else _ZERO for v in values])
        )
        if solution is not None:
            return _solved(shape, values, solution)
    return bounded(shape, values, broke_off=broke_off, max_tokens=max_tokens)


def _solved(shape: Shape, values: Sequence[int | None], solution: _Solution) -> Usage:
    counts: dict[TokenClass, Count] = {}
    read = written = 0
    for part in solution.parts:
        size = 0
        for place, factor in part.terms:
            size += factor * (values[place] or 0)
        if size < 0:
            raise _too_large(shape, values, part)
        if part.is_input:
            read += size
        else:
            written += size
        own = Count(size if len(part.leaves) == 1 else 0, size)
        for kind in part.kinds:
            counts[kind] = counts[kind] + own if kind in counts else own
    for place, terms in solution.checks:
        summed = sum(factor * (values[at] or 0) for at, factor in terms)
        if summed != values[place]:
            name = shape.numbers[place].name
            raise mismatch(
                shape,
                need=f"{name} {summed}, the sum of its parts",
                got=f"{name} {values[place]}",
            )
    for kind in solution.free:
        counts[kind] = UNKNOWN
    if solution.is_exact:
        return Usage(counts=counts)
    open_input, open_output = solution.is_open
    return Usage(
        counts=counts,
        input=Count(read, None if open_input else read),
        output=Count(written, None if open_output else written),
    )


@lru_cache(maxsize=4096)
def _solution(shape: Shape, pattern: bytes) -> _Solution | None:
    """What follows from the numbers that are there; None where they cross each other."""
    everything = shape.input_leaves | shape.output_leaves
    none = {
        leaf
        for number, state in zip(shape.numbers, pattern, strict=True)
        if state == _ZERO
        for leaf in number.leaves
    }
    found: list[tuple[frozenset[str], dict[int, int]]] = []
    checks: list[tuple[int, _Terms]] = []
    some = [place for place, state in enumerate(pattern) if state == _SOME]
    # Smaller sets first: what lies within a set is then known before the set itself.
    for place in sorted(some, key=lambda at: (len(shape.numbers[at].leaves), at)):
        left = shape.numbers[place].leaves - none
        rest: dict[int, int] = {place: 1}
        for leaves, sizes in found:
            if leaves <= left:
                left -= leaves
                for at, factor in sizes.items():
                    rest[at] = rest.get(at, 0) - factor
            elif leaves & left:
                return None
        if left:
            found.append((left, rest))
        else:
            checks.append(
                (place, _terms({at: -factor for at, factor in rest.items() if at != place}))
            )
    if any(leaves & shape.input_leaves and leaves & shape.output_leaves for leaves, _ in found):
        return None
    free = everything - none - frozenset[str]().union(*(leaves for leaves, _ in found))
    return _Solution(
        parts=tuple(_part(shape, leaves, sizes) for leaves, sizes in found),
        checks=tuple(checks),
        free=tuple(dict.fromkeys(leaf_class(leaf) for leaf in sorted(free))),
        is_open=(bool(free & shape.input_leaves), bool(free & shape.output_leaves)),
        is_exact=not free and all(len(leaves) == 1 for leaves, _ in found),
    )


def _part(shape: Shape, leaves: frozenset[str], sizes: Mapping[int, int]) -> _Part:
    ordered = tuple(sorted(leaves))
    return _Part(
        leaves=ordered,
        kinds=tuple(dict.fromkeys(leaf_class(leaf) for leaf in ordered)),
        terms=_terms(sizes),
        is_input=leaves <= shape.input_leaves,
    )


def _terms(sizes: Mapping[int, int]) -> _Terms:
    return tuple((place, factor) for place, factor in sorted(sizes.items()) if factor)


def _too_large(shape: Shape, values: Sequence[int | None], part: _Part) -> InputError:
    whole = [f"{shape.numbers[at].name} {values[at]}" for at, factor in part.terms if factor > 0]
    parts = [f"{shape.numbers[at].name} {values[at]}" for at, factor in part.terms if factor < 0]
    return mismatch(
        shape,
        need=f"{', '.join(whole)} to hold what lies within it",
        got=f"{' and '.join(parts)}, so that {' and '.join(part.leaves)} would be negative",
    )
