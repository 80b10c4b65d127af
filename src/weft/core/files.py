"""Text files that appear whole or not at all, and JSON that says what it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from weft.core.errors import FileError, InputError, WeftError

__all__ = ["parsed", "read_as", "read_text", "write_whole"]

T = TypeVar("T")

BROKEN = (
    *(ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError, InputError),
)
"""What reading damaged content may end with."""


def write_whole(path: str | Path, text: str, what: str) -> None:
    """Write a text file in UTF-8 so that it appears whole or not at all.

    A link keeps pointing at the file, which is replaced. What is no regular file, such as a
    pipe or /dev/stdout, is written to as it stands.

    Args:
        path: where to.
        text: what it shall hold.
        what: the kind of file, for errors: "a plan file".

    Raises:
        FileError: the file cannot be written.
    """
    try:
        place = Path(path)
        if _is_stream(place):
            with place.open("w", encoding="utf-8") as stream:
                stream.write(text)
            return
        target = Path(os.path.realpath(place))
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, ValueError, TypeError) as error:
        raise FileError(
            need=f"a place to write {what} to",
            got=f"{_shown(path)}: {_reason(error)}",
            hint="choose a file in a folder that exists, may be written to and has room",
        ) from error


def read_text(path: str | Path, what: str, hint: str) -> str:
    """Text of a file in UTF-8.

    Args:
        path: which.
        what: the kind of file, for errors: "a plan file".
        hint: what to try where it cannot be read.

    Raises:
        FileError: the file is missing, closed or not text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError, TypeError) as error:
        raise FileError(need=what, got=f"{_shown(path)}: {_reason(error)}", hint=hint) from error


def read_as(path: str | Path, parse: Callable[[str], T], what: str, hint: str) -> T:
    """What the text of a file says.

    Args:
        path: which.
        parse: reads the text.
        what, hint: as `read_text` takes them.

    Raises:
        FileError: the file cannot be read, or `parse` refuses its text; the error names the file.
    """
    text = read_text(path, what, hint)
    try:
        return parse(text)
    except FileError as error:
        raise error.within(str(path)) from error.__cause__


def parsed(
    text: str,
    kind: str,
    version: int,
    build: Callable[[dict[str, Any]], T],
    *,
    hint: str,
    error: type[WeftError] = FileError,
) -> T:
    """What JSON holds that is stamped with its kind, under "weft", and its version.

    Args:
        text: the JSON.
        kind, version: that it has to be of.
        build: makes the whole of the rest.
        hint: what to try where the text is something else, or `build` fails.
        error: what is raised then.

    Raises:
        WeftError: the text is nothing of this kind and version; of the type that was asked for.
    """
    try:
        plain = json.loads(text)
        if (plain.pop("weft", None), plain.pop("version", None)) != (kind, version):
            raise ValueError(f"not a {kind} of version {version}")
        return build(plain)
    except BROKEN as caught:
        raise error(
            need=f"a {kind} of version {version}",
            got=f"{type(caught).__name__}: {caught}",
            hint=hint,
        ) from caught


def _is_stream(path: Path) -> bool:
    # Whoever names /dev/stdout means the open stream, even where it leads to a file.
    if path.absolute().parts[:2] in (("/", "dev"), ("/", "proc")):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _shown(path: object) -> str:
    return str(path) if isinstance(path, str | Path) and "\0" not in str(path) else repr(path)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "not a text file" if isinstance(error, UnicodeError) else str(error)
