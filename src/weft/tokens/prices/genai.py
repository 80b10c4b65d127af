"""Prices from genai-prices, where it is installed: dated, with tiers and times of day.

Source: genai-prices (MIT licence), its data and the lattice of units that it prices by.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from weft.core.errors import InputError
from weft.tokens.classes import TokenClass
from weft.tokens.prices.rates import BookSource, Rates, Step, unknown_rates

__all__ = ["GenaiBook"]

_UNITS: Mapping[TokenClass, tuple[str, ...]] = {
    TokenClass.FRESH: ("input_text_mtok", "input_mtok"),
    TokenClass.CACHE_READ: ("cache_text_read_mtok", "cache_read_mtok"),
    # A price of writes holds for every lifetime that has none of its own.
    TokenClass.CACHE_WRITE_5M: ("cache_write_5m_mtok", "cache_write_mtok"),
    TokenClass.CACHE_WRITE_1H: ("cache_write_1h_mtok", "cache_write_mtok"),
    TokenClass.TOOL: ("input_tool_mtok",),
    TokenClass.AUDIO_IN: ("input_audio_mtok",),
    TokenClass.AUDIO_CACHE_READ: ("cache_audio_read_mtok",),
    TokenClass.IMAGE_IN: ("input_image_mtok",),
    TokenClass.VIDEO_IN: ("input_video_mtok",),
    TokenClass.TEXT: ("output_text_mtok", "output_mtok"),
    TokenClass.REASONING: ("output_reasoning_mtok",),
    TokenClass.AUDIO_OUT: ("output_audio_mtok",),
    TokenClass.IMAGE_OUT: ("output_image_mtok",),
}
"""Names of prices for a million tokens, the closest first."""
_PER = Decimal(10) ** 6
_IDS = {"google-vertex": "google"}


class GenaiBook:
    """The data that come with the installed package.

    Raises:
        InputError: it is not installed.
    """

    def __init__(self) -> None:
        found = importlib.util.find_spec("genai_prices")
        if found is None or found.origin is None:
            raise InputError(
                need="genai-prices, which the prices are from",
                got="a Python without it",
                hint="pip install 'weft[tokens]', or --prices FILE with prices of your own",
            )
        data = Path(found.origin).with_name("data.py").read_bytes()
        self._source = BookSource(
            name="genai-prices",
            version=importlib.metadata.version("genai-prices"),
            digest=hashlib.sha256(data).hexdigest()[:16],
        )

    @property
    def source(self) -> BookSource:
        """The package's version and a digest of its data."""
        return self._source

    def rate(self, provider: str, model: str, at: float, *, tier: str = "") -> Rates:
        """Prices of a model, see `PriceBook`."""
        return _rate(provider, model, at, tier)


@lru_cache(maxsize=65536)
def _rate(provider: str, model: str, at: float, tier: str) -> Rates:
    from genai_prices.data_snapshot import get_snapshot

    try:
        moment = datetime.fromtimestamp(at, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return unknown_rates(provider, model, f"no prices {at:g} s after 1970")
    wanted = _IDS.get(provider, provider) or None
    try:
        _, info = get_snapshot().find_provider_model(model, None, wanted, None)
    except LookupError as error:
        return unknown_rates(provider, model, str(error))
    context = {"service_tier": tier, **({"processing": "batch"} if tier == "batch" else {})}
    prices = info.get_prices(moment, context if tier else None)
    standard = info.get_prices(moment)
    if tier and prices == standard:
        return unknown_rates(provider, model, f"no prices of its {tier} tier on {moment.date()}")
    starts = {
        entry.start
        for names in _UNITS.values()
        for name in names
        for entry in getattr(getattr(prices, name), "tiers", ())
    }
    steps = tuple(_step(prices, start) for start in sorted({0, *starts}))
    return Rates(provider=provider, model=model, steps=steps)


def _step(prices: Any, above: int) -> Step:  # noqa: ANN401 - a class of the library's
    usd: dict[TokenClass, Decimal] = {}
    for leaf, names in _UNITS.items():
        own = next((found for name in names if (found := getattr(prices, name)) is not None), None)
        if own is not None:
            for entry in getattr(own, "tiers", ()):
                if entry.start <= above:
                    usd[leaf] = entry.price / _PER
            usd.setdefault(leaf, getattr(own, "base", own) / _PER)
    return Step(above=above, usd=usd)
