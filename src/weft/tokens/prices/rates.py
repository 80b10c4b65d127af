"""What a token of each class costs at one provider, for one model, at one time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Protocol

from weft.tokens.classes import TokenClass

__all__ = ["FALLBACKS", "PERIOD_S", "BookSource", "PriceBook", "Rates", "Step", "unknown_rates"]

FALLBACKS: Mapping[TokenClass, TokenClass] = MappingProxyType(
    {
        # Reasoning is billed as output, and so is what was predicted in vain: OpenAI, reasoning
        # models and predicted outputs; Anthropic, extended thinking; Google, pricing.
        TokenClass.REASONING: TokenClass.TEXT,
        TokenClass.REJECTED: TokenClass.TEXT,
        # Without a discount of its own, what came from a cache is input like any other, and so is
        # what went into it: OpenAI, prompt caching.
        TokenClass.CACHE_READ: TokenClass.FRESH,
        TokenClass.CACHE_WRITE_5M: TokenClass.FRESH,
        # What tools found is input, and pictures are priced as text unless the book says otherwise:
        # Google, pricing and URL context; OpenAI, images and vision; Anthropic, vision.
        TokenClass.TOOL: TokenClass.FRESH,
        TokenClass.IMAGE_IN: TokenClass.FRESH,
        TokenClass.VIDEO_IN: TokenClass.FRESH,
    }
)
"""The class whose price holds where one has none of its own. A class that is not here has then no
price: audio costs several times as much as text, pictures that are generated too, and caches that
last an hour are dearer than others."""


PERIOD_S = 1800
"""Prices change on the half hour, at the finest [s]. Source: times of day in genai-prices 0.2.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Prices of calls that read more than so many tokens [USD per token]."""

    above: int = 0
    usd: Mapping[TokenClass, Decimal]

    def price(self, leaf: TokenClass) -> Decimal | None:
        """Of one token of a class [USD]; None if it is not known."""
        at: TokenClass | None = leaf
        while at is not None:
            if at in self.usd:
                return self.usd[at]
            at = FALLBACKS.get(at)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of a model.

    Attributes:
        provider, model: as they were asked for.
        steps: by the input above which they hold, from the least; none where no price is known.
        why: why there is none, or what is to be said of them.
    """

    provider: str
    model: str
    steps: tuple[Step, ...] = field(default=())
    why: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there are any."""
        return bool(self.steps)

    @property
    def thresholds(self) -> tuple[int, ...]:
        """Sizes of the input above which other prices hold [tokens]."""
        return tuple(step.above for step in self.steps[1:])

    def step(self, input_tokens: int) -> Step:
        """Prices of a call that reads so many tokens."""
        return next(
            step for step in reversed(self.steps) if not step.above or input_tokens > step.above
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSource:
    """Where prices are from, so that a figure can be found again.

    Attributes:
        name: of the book: "genai-prices", "litellm", or a file.
        version: of the package, empty for a file.
        digest: of the data [first 16 hex digits of SHA-256].
    """

    name: str
    version: str
    digest: str

    def __str__(self) -> str:
        return " ".join(part for part in (self.name, self.version, f"({self.digest})") if part)


class PriceBook(Protocol):
    """Someone's list of prices."""

    @property
    def source(self) -> BookSource:
        """Where they are from."""
        ...

    def rate(self, provider: str, model: str, at: float, *, tier: str = "") -> Rates:
        """Prices of a model at a time.

        Args:
            provider: its canonical name; empty to go by the model alone.
            model: as calls name it.
            at: when [s since 1970].
            tier: "batch", "flex", "priority", or empty for the standard one.

        Returns:
            Prices; without steps, and with a reason, where the book has none.
        """
        ...


def unknown_rates(provider: str, model: str, why: str) -> Rates:
    """Of a model that a book has no prices of."""
    return Rates(provider=provider, model=model, why=why)
