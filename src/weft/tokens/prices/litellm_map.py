"""Prices from the map that LiteLLM ships, where it is installed; LiteLLM itself is not imported.

Source: LiteLLM (MIT licence), model_prices_and_context_window_backup.json, whose fields are
documented in its "sample_spec".
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from weft.core.errors import FileError, InputError
from weft.tokens.classes import TokenClass
from weft.tokens.prices.rates import BookSource, Rates, Step, unknown_rates

__all__ = ["LitellmBook"]

_FIELDS: Mapping[TokenClass, str] = {
    TokenClass.FRESH: "input_cost_per_token",
    TokenClass.CACHE_READ: "cache_read_input_token_cost",
    TokenClass.CACHE_WRITE_5M: "cache_creation_input_token_cost",
    TokenClass.CACHE_WRITE_1H: "cache_creation_input_token_cost_above_1hr",
    TokenClass.AUDIO_IN: "input_cost_per_audio_token",
    TokenClass.AUDIO_CACHE_READ: "cache_read_input_audio_token_cost",
    TokenClass.IMAGE_IN: "input_cost_per_image_token",
    TokenClass.VIDEO_IN: "input_cost_per_video_token",
    TokenClass.TEXT: "output_cost_per_token",
    TokenClass.REASONING: "output_cost_per_reasoning_token",
    TokenClass.AUDIO_OUT: "output_cost_per_audio_token",
    TokenClass.IMAGE_OUT: "output_cost_per_image_token",
}
_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "google": ("gemini",),
    "google-vertex": ("vertex_ai",),
    "x-ai": ("xai",),
    "aws": ("bedrock",),
    "azure": ("azure", "azure_ai"),
    "together": ("together_ai",),
    "fireworks": ("fireworks_ai",),
}
"""How LiteLLM names providers in front of a model, where it is not by their own name."""
_TIERS = {"batch": "batches"}
_FILE = "litellm/model_prices_and_context_window_backup.json"


class LitellmBook:
    """A map of LiteLLM's.

    Args:
        path: the map; that of the installed package if None.

    Raises:
        InputError: LiteLLM is not installed.
        FileError: the map cannot be read.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        place, version = _installed() if path is None else (Path(path), "")
        try:
            content = place.read_bytes()
            # Numbers are taken as they are written: 1.25e-06 is no float.
            loaded = json.loads(content, parse_float=Decimal)
            self._models = cast("dict[str, dict[str, Any]]", dict(loaded))
        except (OSError, ValueError, TypeError) as error:
            raise FileError(
                need="LiteLLM's map of prices",
                got=f"{place}: {error}",
                hint="pip install litellm brings one along",
            ) from error
        self._source = BookSource(
            name="litellm", version=version, digest=hashlib.sha256(content).hexdigest()[:16]
        )

    @property
    def source(self) -> BookSource:
        """The package's version and a digest of the map."""
        return self._source

    def rate(self, provider: str, model: str, at: float, *, tier: str = "") -> Rates:
        """Prices of a model, see `PriceBook`; the map has no dates, so they are today's."""
        del at
        entry = self._entry(provider, model)
        if entry is None:
            return unknown_rates(provider, model, f"LiteLLM's map has no {model} of {provider}")
        end = f"_{_TIERS.get(tier, tier)}" if tier else ""
        if _FIELDS[TokenClass.FRESH] + end not in entry and tier:
            return unknown_rates(provider, model, f"LiteLLM's map has no {tier} prices of {model}")
        if isinstance(entry.get("tiered_pricing"), list):
            steps = _ranges(cast("list[dict[str, Any]]", entry["tiered_pricing"]))
        else:
            steps = tuple(_step(entry, above, end, model) for above in _starts(entry, end))
        return Rates(
            provider=provider, model=model, steps=steps, why="prices of the day the map was made"
        )

    def _entry(self, provider: str, model: str) -> dict[str, Any] | None:
        names = [f"{prefix}/{model}" for prefix in (*_PREFIXES.get(provider, ()), provider)]
        for name in (*names, model):
            found = self._models.get(name)
            if found is not None and _FIELDS[TokenClass.FRESH] in {
                *found,
                *(key for entry in found.get("tiered_pricing") or () for key in entry),
            }:
                return found
        return None


def _installed() -> tuple[Path, str]:
    try:
        package = importlib.metadata.distribution("litellm")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            need="LiteLLM, whose map the prices are from",
            got="a Python without it",
            hint="pip install litellm, or --prices genai",
        ) from error
    return Path(str(package.locate_file(_FILE))), package.version


def _starts(entry: Mapping[str, Any], end: str) -> list[int]:
    """Inputs above which other prices hold, 0 first [tokens]."""
    pattern = re.compile(rf"input_cost_per_token_above_(\d+)k_tokens{end}")
    found = {int(match[1]) * 1000 for name in entry if (match := pattern.fullmatch(name))}
    return sorted({0, *found})


def _step(entry: Mapping[str, Any], above: int, end: str, model: str) -> Step:
    usd: dict[TokenClass, Decimal] = {}
    size = f"_above_{above // 1000}k_tokens" if above else ""
    for leaf, name in _FIELDS.items():
        # A class without a price of its own above a size keeps the one below.
        for key in (f"{name}{size}{end}", f"{name}{end}"):
            if entry.get(key) is not None:
                usd[leaf] = Decimal(entry[key])
                break
    if TokenClass.CACHE_WRITE_1H not in usd and "claude" not in model:
        written = usd.get(TokenClass.CACHE_WRITE_5M)  # others have caches of one lifetime
        if written is not None:
            usd[TokenClass.CACHE_WRITE_1H] = written
    return Step(above=above, usd=usd)


def _ranges(entries: list[dict[str, Any]]) -> tuple[Step, ...]:
    """Steps from a list of them, each with the range of inputs that it is for."""
    steps = (
        Step(
            above=int(entry["range"][0]),
            usd={leaf: Decimal(entry[name]) for leaf, name in _FIELDS.items() if name in entry},
        )
        for entry in entries
    )
    return tuple(sorted(steps, key=lambda step: step.above))
