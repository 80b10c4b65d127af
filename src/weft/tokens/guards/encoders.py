"""What turns text into tokens: anything that says how many there are.

Libraries are asked where they are installed; none is needed to install weft.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from weft.core.errors import InputError

__all__ = ["Encoder", "TiktokenEncoder", "TokenizersEncoder", "open_encoder"]


class Encoder(Protocol):
    """Counts the tokens of text in its canonical encoding."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text, those of its ends and of roles not included."""
        ...


class TiktokenEncoder:
    """An encoding of `tiktoken`.

    Args:
        name: of an encoding ("o200k_base") or of a model ("gpt-4o").

    Raises:
        InputError: tiktoken is not installed, or does not know it.
    """

    def __init__(self, name: str) -> None:
        tiktoken = _module("tiktoken")
        try:
            find = tiktoken.get_encoding if name in _listed(tiktoken) else _for_model(tiktoken)
            self._encoding = find(name)
        except Exception as error:  # without a network tiktoken raises what its client does
            raise InputError(
                need="an encoding that tiktoken knows and has at hand",
                got=f"{name}: {error}",
                hint="TIKTOKEN_CACHE_DIR names a folder with encodings",
            ) from error
        self.name = str(self._encoding.name)

    def count(self, text: str) -> int:
        """Tokens of a text; what looks like a special token is text."""
        return len(self._encoding.encode(text, disallowed_special=()))


def _listed(tiktoken: Any) -> list[str]:  # noqa: ANN401 - a module that need not be there
    return tiktoken.list_encoding_names()


def _for_model(tiktoken: Any) -> Callable[[str], Any]:  # noqa: ANN401 - likewise
    return tiktoken.encoding_for_model


class TokenizersEncoder:
    """A file of `tokenizers`, as models are published with (tokenizer.json), or one in memory.

    Args:
        source: the file, or a `tokenizers.Tokenizer`.
        name: what it is called; the file's name if empty.

    Raises:
        InputError: tokenizers is not installed, or the file is something else.
    """

    def __init__(self, source: str | Path | object, name: str = "") -> None:
        if isinstance(source, str | Path):
            try:
                self._tokenizer = _module("tokenizers").Tokenizer.from_file(str(source))
            except Exception as error:  # the library raises plain Exception
                raise InputError(
                    need="a tokenizer.json", got=f"{source}: {error}", hint="check the path"
                ) from error
            self.name = name or Path(source).name
        else:
            self._tokenizer: Any = source
            self.name = name or "tokenizer"

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def open_encoder(name: str) -> Encoder:
    """An encoder by a word: a file that ends in .json, or what tiktoken knows.

    Raises:
        InputError: its library is not installed, or does not know it.
    """
    return TokenizersEncoder(name) if name.endswith(".json") else TiktokenEncoder(name)


def _module(name: str) -> Any:  # noqa: ANN401 - a module that need not be there
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            need=f"{name}, which counts tokens as the model does",
            got="it is not installed",
            hint=f"pip install {name}",
        ) from error
