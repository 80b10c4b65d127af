"""How much to reserve: how long answers are, from those that were seen.

The least to reserve for a call is a quantile of the outputs of calls like it. Of n outputs that
came before, the k-th smallest, k = ceil((n + 1) (1 - alpha)), is exceeded by the next one with a
probability of at most alpha, at any n and for any distribution, as long as calls of a group are
exchangeable: drawn alike, in whatever order. Where n is too small for that, the next larger group
is asked: task and model, model, all calls; and at last max_tokens, which nothing exceeds.

A quantile says when it is worth going ahead. It is not what keeps a budget: that is `Handle.most`,
which the provider is held to.

Source: split conformal prediction: Vovk, Gammerman and Shafer 2005; Lei et al., JASA 2018,
theorem 2.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.tokens.money import Money

__all__ = ["CallPrice", "Outputs", "Quote"]

WINDOW = 10_000
"""Outputs that a group remembers. Chosen: a hundred of them are beyond a quantile of 1 %."""
MILLION = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """How many output tokens to reserve.

    Attributes:
        tokens: so many.
        group: of which calls they were worked out: (model, task), (model,) or () for all; None
            where too few were seen and it is max_tokens.
        seen: calls of that group that are remembered.
    """

    tokens: int
    group: tuple[str, ...] | None
    seen: int


class Outputs:
    """Lengths of answers, by model and task.

    Args:
        alpha: share of calls that may be longer than what is quoted.
        window: how many calls of a group are remembered, the latest.

    Raises:
        InputError: alpha is no share between 0 and 1, or the window is too short for it.

    Example:
        >>> outputs = Outputs(alpha=0.1)
        >>> for length in range(1, 20):
        ...     outputs.observe("m", "chat", length)
        >>> outputs.quote("m", "chat", max_tokens=4096)
        Quote(tokens=18, group=('m', 'chat'), seen=19)
        >>> outputs.quote("m", "code", max_tokens=4096).group, outputs.quote("n", "", 10).tokens
        (('m',), 10)
    """

    def __init__(self, alpha: float = 0.01, window: int = WINDOW) -> None:
        if not 0.0 < alpha < 1.0 or _rank(window, alpha) > window:
            raise InputError(
                need="a share between 0 and 1, and a window of at least 1 / share calls",
                got=f"alpha {alpha}, window {window}",
                hint="alpha=0.01 lets one call in a hundred be longer",
            )
        self.alpha = alpha
        self._window = window
        self._groups: dict[tuple[str, ...], _Group] = {}

    def observe(self, model: str, task: str, tokens: int, *, cut: bool = False) -> None:
        """Remember an answer.

        Args:
            model, task: whose.
            tokens: its length.
            cut: whether it ended for want of tokens. It would have been longer, and counts as
                longer than any other: otherwise, quantiles would shrink by their own caps.
        """
        length = math.inf if cut else float(tokens)
        for group in _larger(model, task):
            self._groups.setdefault(group, _Group(self._window)).add(length)

    def quote(self, model: str, task: str, max_tokens: int) -> Quote:
        """How many tokens to reserve for a call, at most max_tokens."""
        for group in _larger(model, task):
            own = self._groups.get(group)
            seen = len(own.ordered) if own else 0
            rank = _rank(seen, self.alpha)
            if own and rank <= seen:
                tokens = int(min(own.ordered[rank - 1], max_tokens))
                return Quote(tokens=tokens, group=group, seen=seen)
        return Quote(tokens=max_tokens, group=None, seen=0)


class _Group:
    def __init__(self, window: int) -> None:
        self._latest: deque[float] = deque()
        self._window = window
        self.ordered: list[float] = []

    def add(self, length: float) -> None:
        self._latest.append(length)
        insort(self.ordered, length)
        if len(self._latest) > self._window:
            del self.ordered[bisect_left(self.ordered, self._latest.popleft())]


def _rank(seen: int, alpha: float) -> int:
    return math.ceil((seen + 1) * (1.0 - alpha))


def _larger(model: str, task: str) -> tuple[tuple[str, ...], ...]:
    return (model, task), (model,), ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPrice:
    """What a call costs, by the length of its answer.

    Attributes:
        fixed: of what is sent: as much as it can cost, nothing of it cached.
        million: of a million tokens of output.

    Example:
        >>> from weft.tokens import usd
        >>> price = CallPrice(fixed=usd("0.002"), million=usd(10))
        >>> price.cost(4096), price.tokens(usd("0.0221"))
        (0.04296 usd, 2010)
    """

    fixed: Money
    million: Money

    def cost(self, tokens: int) -> Money:
        """Of an answer of so many tokens, rounded up to the billionth."""
        return self.fixed + Money(-(-tokens * self.million.nano // MILLION), self.fixed.currency)

    def tokens(self, most: Money) -> int:
        """The longest answer that costs at most so much: what to pass as max_tokens.

        Raises:
            InputError: output costs nothing, or not even what is sent can be paid.
        """
        room = (most - self.fixed).nano
        if self.million.nano <= 0 or room < 0:
            raise InputError(
                need=f"more than {self.fixed} for a call, and a price of its output",
                got=f"{most}, at {self.million} for a million tokens",
                hint="reserve at least cost(1)",
            )
        return room * MILLION // self.million.nano
