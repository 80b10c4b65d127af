"""Which price book is meant by a word."""

from __future__ import annotations

from pathlib import Path

from weft.core.errors import InputError
from weft.tokens.prices.file import FileBook
from weft.tokens.prices.genai import GenaiBook
from weft.tokens.prices.litellm_map import LitellmBook
from weft.tokens.prices.rates import PriceBook

__all__ = ["open_book"]


def open_book(name: str | Path) -> PriceBook:
    """A price book by its name.

    Args:
        name: "genai" and "litellm" for what an installed package brings along, or a file:
            LiteLLM's map if it ends in .json, else prices in YAML.

    Raises:
        InputError: the package is not installed, or there is no such file.
        FileError: the file says something else.
    """
    if name == "genai":
        return GenaiBook()
    if name == "litellm":
        return LitellmBook()
    path = Path(name)
    try:
        is_there = path.exists()
    except OSError:  # no name of a file at all
        is_there = False
    if not is_there:
        raise InputError(
            need="prices: genai, litellm, or a file",
            got=f"{name}",
            hint="--prices genai takes those of genai-prices",
        )
    return LitellmBook(path) if path.suffix == ".json" else FileBook(path)
