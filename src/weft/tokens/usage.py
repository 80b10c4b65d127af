"""What a call used: a count for each class of tokens, and what is known of their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from weft.tokens.classes import INPUT, OUTPUT, TokenClass
from weft.tokens.count import NONE, UNKNOWN, Count, exactly

__all__ = ["Usage"]

_ORDER = tuple(TokenClass)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counts by class, and how many tokens were read and generated in all.

    Where a provider says how many tokens were read but not how many of them came from a cache, the
    classes are intervals and their sum is not: it is kept beside them.

    Attributes:
        counts: of the classes that have any, or may have. A class that is left out has no token.
        input: all that was read; at least as well known as the sum of its classes.
        output: all that was generated, likewise.

    Raises:
        InputError: a sum is not what its classes can add up to.

    Example:
        >>> used = Usage.of(fresh=4_000, cache_read=16_000, text=500, reasoning=2_500)
        >>> used.input, used.output
        (20000, 3000)
        >>> split = Count(0, 20_000)
        >>> some = Usage.of(fresh=split, cache_read=split, input=20_000)
        >>> some.input, (some + some).input, some.total()
        (20000, 40000, 0 to 40000)
    """

    counts: Mapping[TokenClass, Count] = field(default_factory=dict[TokenClass, Count])
    input: Count = UNKNOWN
    output: Count = UNKNOWN

    def __post_init__(self) -> None:
        given = self.counts
        ordered = {leaf: own for leaf in _ORDER if (own := given.get(leaf)) and own.high != 0}
        object.__setattr__(self, "counts", MappingProxyType(ordered))
        for name, known, leaves in (("input", self.input, INPUT), ("output", self.output, OUTPUT)):
            summed = self.total(leaves)
            object.__setattr__(self, name, summed if known is UNKNOWN else summed & known)

    @staticmethod
    def of(
        *, input: int | Count = UNKNOWN, output: int | Count = UNKNOWN, **counts: int | Count
    ) -> Usage:
        """From names of classes, and of the sums.

        Raises:
            ValueError: there is no such class.
            InputError: a count is negative, or a sum is not what its classes can add up to.
        """
        return Usage(
            counts={TokenClass(name): _counted(own) for name, own in counts.items()},
            input=_counted(input),
            output=_counted(output),
        )

    def __getitem__(self, leaf: TokenClass) -> Count:
        return self.counts.get(leaf, NONE)

    def total(self, leaves: Iterable[TokenClass] = TokenClass) -> Count:
        """The sum of some classes, each taken by itself."""
        low, high = 0, 0
        wanted = leaves if isinstance(leaves, frozenset) else frozenset(leaves)
        for leaf, own in self.counts.items():
            if leaf in wanted:
                low += own.low
                high = None if high is None or own.high is None else high + own.high
        return Count(low, high)

    @property
    def is_exact(self) -> bool:
        """Whether every count is known."""
        return all(own.is_exact for own in self.counts.values())

    def __add__(self, other: Usage) -> Usage:
        leaves = {*self.counts, *other.counts}
        return Usage(
            counts={leaf: self[leaf] + other[leaf] for leaf in leaves},
            input=self.input + other.input,
            output=self.output + other.output,
        )


def _counted(own: int | Count) -> Count:
    return own if isinstance(own, Count) else exactly(own)
