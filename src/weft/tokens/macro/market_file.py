"""A server's steps and its clients, as a file of YAML.

    cache_tokens: 400000
    resources:
      - {name: compute, token_s: 3.2e-5, pair_s: 5.0e-10}
      - {name: memory, fixed_s: 0.0055, context_token_s: 3.9e-8}
    clients:
      - {name: chat, share: 0.8, value_usd: 1.0, delay_usd_per_s: 0.002}
      - {name: batch, share: 0.2, value_usd: 0.3, delay_usd_per_s: 0.00003, identities: 10}

Either part may be left out. What a step takes is described by `weft.tokens.serving.ResourceTime`,
what a client is by `weft.tokens.macro.clients.Client`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from weft.core.errors import FileError, InputError
from weft.core.files import read_text
from weft.core.yaml import load_once
from weft.tokens.macro.clients import Client
from weft.tokens.serving.plan_file import load_served_plan
from weft.tokens.serving.served import priced_steps
from weft.tokens.serving.steps import ResourceTime, StepTimes

__all__ = ["EXAMPLE_CLIENTS", "read_clients", "read_steps"]

_HINT = "cache_tokens, resources and clients: docs/guides/tolls.md has a whole file"
_T = TypeVar("_T")
_PARTS = {"cache_tokens", "resources", "clients"}


def _examples() -> tuple[Client, ...]:
    rows = (("chat", 4, 0.4, 1.0, 2e-3), ("agent", 4, 0.4, 0.5, 5e-4), ("batch", 2, 0.2, 0.3, 3e-5))
    return tuple(
        Client(
            name=f"{name}-{number + 1}",
            share=share / count,
            value_usd=value,
            delay_usd_per_s=delay,
            identities=10 if (name, number) == ("batch", 0) else 1,
        )
        for name, count, share, value, delay in rows
        for number in range(count)
    )


EXAMPLE_CLIENTS = _examples()
"""Ten payers of three sorts, one of whom sends from ten identities. Chosen, to show what mechanisms
do: chats are worth much and cannot wait, batches are worth little and can."""


def read_steps(path: Path) -> StepTimes:
    """What steps of a server take: of such a file, or of a served plan (JSON).

    Raises:
        FileError: the file cannot be read, or says something else.
        InfeasibleError: the model of a served plan does not fit.
    """
    if path.suffix == ".json":
        return priced_steps(load_served_plan(path)).times
    plain = _read(path)
    if "resources" not in plain or "cache_tokens" not in plain:
        raise FileError(
            need="cache_tokens and resources", got=f"{path}: {', '.join(plain)}", hint=_HINT
        )
    try:
        resources = tuple(_built(ResourceTime, row) for row in _rows(plain["resources"]))
        return StepTimes(resources, _whole(plain["cache_tokens"]))
    except (InputError, TypeError, ValueError) as error:
        raise _wrong(path, "what steps take", error) from error


def read_clients(path: Path) -> tuple[Client, ...]:
    """The clients of a server.

    Raises:
        FileError: the file cannot be read, or says something else.
    """
    plain = _read(path)
    if "clients" not in plain:
        raise FileError(need="clients", got=f"{path}: {', '.join(plain)}", hint=_HINT)
    try:
        found = tuple(_built(_client, row) for row in _rows(plain["clients"]))
        if len({own.name for own in found}) < len(found):
            raise ValueError(f"each name once, got {', '.join(own.name for own in found)}")
        return found
    except (InputError, TypeError, ValueError) as error:
        raise _wrong(path, "clients", error) from error


def _client(*, identities: float = 1.0, **row: Any) -> Client:
    return Client(identities=_whole(identities), **row)


def _whole(value: object) -> int:
    number = _number("", value)
    if not number.is_integer():
        raise ValueError(f"need a whole number, got {value!r:.80}")
    return int(number)


def _number(name: str, value: object) -> float:
    """YAML takes 5e-10, without a point, for text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"need a number{' as ' * bool(name)}{name}, got {value!r:.80}")
    return float(value)


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path, "a market's file", _HINT)
    try:
        plain = load_once(text)
    except yaml.YAMLError as error:
        raise _wrong(path, "YAML", error) from error
    if not isinstance(plain, dict) or not _PARTS.issuperset(cast("dict[str, Any]", plain)):
        raise FileError(
            need=f"a mapping of {', '.join(sorted(_PARTS))}",
            got=f"{path}: {plain!r:.80}",
            hint=_HINT,
        )
    return cast("dict[str, Any]", plain)


def _wrong(path: Path, what: str, error: Exception) -> FileError:
    said = error.got if isinstance(error, InputError) else str(error)
    return FileError(need=what, got=f"{path}: {said}", hint=_HINT)


def _rows(plain: object) -> list[Mapping[str, Any]]:
    rows = cast("list[Mapping[str, Any]]", plain)
    if not isinstance(plain, list) or not all(isinstance(row, dict) for row in rows):
        raise TypeError(f"need a list of mappings, got {plain!r:.80}")
    return rows


def _built(kind: Callable[..., _T], row: Mapping[str, Any]) -> _T:
    return kind(
        **{name: str(own) if name == "name" else _number(name, own) for name, own in row.items()}
    )
