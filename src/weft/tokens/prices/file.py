"""Prices of your own, from a YAML file.

Such a file looks like this::

    per: 1000000                # tokens that prices are for; a million if left out
    prices:
      - provider: openai        # left out: of any
        model: gpt-5*           # * stands for anything
        from: 2025-08-07        # and until the next entry that fits; left out: always
        tier: batch             # left out: the standard one
        usd: {fresh: 1.25, cache_read: 0.125, text: 10}
        above:
          272000: {fresh: 2.5, text: 15}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import yaml

from weft.core.errors import FileError, InputError
from weft.core.files import BROKEN, read_text
from weft.core.yaml import load_once
from weft.tokens.adapters.envelope import seconds, tier_name
from weft.tokens.adapters.providers import provider_name
from weft.tokens.classes import TokenClass
from weft.tokens.prices.rates import PERIOD_S, BookSource, Rates, Step, unknown_rates

__all__ = ["FileBook"]

_HINT = "see the guide on tokens for what such a file looks like"
_MOST = 10**12
"""Dollars, and tokens that they are for. Chosen: more is a mistake."""
_KEYS = frozenset({"provider", "model", "from", "tier", "usd", "above"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    provider: str
    model: str
    start: float
    tier: str
    steps: tuple[Step, ...]


class FileBook:
    """Prices of a file.

    Args:
        path: the file.

    Raises:
        FileError: it cannot be read, or says something else.
    """

    def __init__(self, path: str | Path) -> None:
        text = read_text(path, "a file of prices", _HINT)
        try:
            plain = cast("dict[str, Any]", load_once(text))
            per = _decimal(plain.get("per", 10**6))
            if not per:
                raise InputError(need="a number of tokens that prices are for", got="0")
            self._entries = [_entry(own, per) for own in plain["prices"]]
            _require_once(self._entries)
        except InputError as error:
            raise FileError(need=error.need, got=f"{path}: {error.got}", hint=_HINT) from error
        except (*BROKEN, IndexError, yaml.YAMLError) as error:
            raise FileError(
                need="a file of prices", got=f"{path}: {type(error).__name__}: {error}", hint=_HINT
            ) from error
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._source = BookSource(name=str(path), version="", digest=digest)

    @property
    def source(self) -> BookSource:
        """The file, and a digest of what it says."""
        return self._source

    def rate(self, provider: str, model: str, at: float, *, tier: str = "") -> Rates:
        """Prices of a model, see `PriceBook`.

        Of the entries that fit, those of the one that began last; of several, the first.
        """
        fitting = [
            entry
            for entry in self._entries
            if entry.provider in ("", provider)
            and fnmatchcase(model, entry.model)
            and entry.tier == tier
            and entry.start <= at
        ]
        if not fitting:
            of = f"{tier} {model}".strip()
            return unknown_rates(provider, model, f"{self._source.name} has no price of {of} then")
        best = max(fitting, key=lambda entry: entry.start)
        return Rates(provider=provider, model=model, steps=best.steps)


def _entry(plain: Mapping[str, Any], per: Decimal) -> _Entry:
    strange = sorted(set(plain) - _KEYS)
    if strange:
        raise InputError(
            need=f"entries with {', '.join(sorted(_KEYS))}", got=f"{', '.join(strange)}", hint=_HINT
        )
    first = _usd(plain["usd"], per)
    above = cast("Mapping[Any, Any]", plain.get("above") or {})
    if not all(isinstance(size, int) and size > 0 for size in above):
        raise InputError(need="whole numbers of tokens after above", got=f"{above!r:.80}")
    steps = [Step(usd=first)]
    steps += [Step(above=size, usd={**first, **_usd(above[size], per)}) for size in sorted(above)]
    start = plain.get("from")
    at = float("-inf") if start is None else seconds(str(start))
    if start is not None and at % PERIOD_S:
        raise InputError(need="prices that begin on the half hour, in UTC", got=f"from {start}")
    return _Entry(
        provider=provider_name(str(plain.get("provider") or "")),
        model=str(plain["model"]).lower(),
        start=at,
        tier=tier_name(plain.get("tier")),
        steps=tuple(steps),
    )


def _require_once(entries: Iterable[_Entry]) -> None:
    seen: set[tuple[object, ...]] = set()
    for own in entries:
        key = (own.provider, own.model, own.start, own.tier)
        if key in seen:
            named = " ".join(filter(None, (own.provider, own.model, own.tier)))
            raise InputError(
                need="one entry for a provider, model, tier and start", got=f"two for {named}"
            )
        seen.add(key)


def _usd(plain: Mapping[str, Any], per: Decimal) -> dict[TokenClass, Decimal]:
    if not plain:
        raise InputError(need="prices by class of tokens", got="none")
    return {TokenClass(name): _decimal(price) / per for name, price in plain.items()}


def _decimal(value: object) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal(-1)
    if not (number.is_finite() and 0 <= number <= _MOST):
        raise InputError(need=f"a price from 0 to {_MOST:g}", got=repr(value), hint=_HINT)
    return number
