"""The user's own line: the innermost frame that is neither torch's nor weft's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, TracebackType

from weft.core.errors import InputError, WeftError

__all__ = ["describe", "first_line", "line_of_error", "line_of_frame", "user_code"]

_OURS = ("torch", "weft", "contextlib", "functools")


def line_of_frame(frame: FrameType | None, outermost: CodeType | None = None) -> str:
    """The innermost user's line at or outside a frame, as "file.py:12"; empty if there is none.

    Args:
        frame: where to start.
        outermost: code of a frame beyond which nothing is the user's model any more.
    """
    while frame is not None and frame.f_code is not outermost:
        if not _is_ours(frame):
            return _format(frame, frame.f_lineno)
        frame = frame.f_back
    return ""


def line_of_error(error: BaseException) -> str:
    """The innermost user's line that an error passed through; empty if there is none."""
    found = ""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        if not _is_ours(traceback.tb_frame):
            found = _format(traceback.tb_frame, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def describe(scope: str, source: str) -> str:
    """Module path and source line as the end of a sentence.

    Example:
        >>> describe("layers.0", "gpt.py:12")
        ' in layers.0 at gpt.py:12'
    """
    return (f" in {scope}" if scope else "") + (f" at {source}" if source else "")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters."""
    return str(error).strip().partition("\n")[0][:200]


@contextmanager
def user_code(what: str) -> Iterator[None]:
    """Run a function of the user's; what goes wrong in it becomes an error with its line.

    Args:
        what: the function, as the user knows it: "model factory".

    Raises:
        InputError: the block raised anything but a `WeftError`.
    """
    try:
        yield
    except WeftError:
        raise
    except Exception as error:
        source = describe("", line_of_error(error))
        raise InputError(
            need=f"a {what} that runs",
            got=f"{type(error).__name__}: {first_line(error)}{source}",
            hint="call it by hand, or add --debug for the whole traceback",
        ) from error


def _is_ours(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in _OURS


def _format(frame: FrameType, line: int) -> str:
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{line}"
