"""From C++ to a function: g++, a cache by content, ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

from weft.core.errors import RunError
from weft.fusion.emit.cpp import Source

__all__ = ["FLAGS", "build", "generation", "load", "put"]

FLAGS = (
    *("-O3", "-march=native", "-mprefer-vector-width=512", "-std=c++17", "-fopenmp"),
    *("-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-w"),
)


HEADERS = ("registers.h", "vec.h", "functions.h", "stream.h", "square.h")
"""What generated code needs before it, in this order."""


@cache
def _header() -> str:
    folder = files("weft.fusion.emit")
    return "\n".join((folder / name).read_text() for name in HEADERS)


def build(sources: Sequence[Source], folder: Path) -> Path:
    """A shared library of generated functions; from the folder if it was built before.

    Several processes may build the same at once: each compiles aside, and what is put in place
    last is like what was there.

    Args:
        sources: generated code.
        folder: where libraries are kept, by what they were made from.

    Raises:
        RunError: the compiler is missing or refuses the code.
    """
    text = _header() + "\nusing namespace weft;\n" + "\n".join(s.text for s in sources)
    key = hashlib.sha256("\n".join((text, *FLAGS, _compiler())).encode()).hexdigest()[:24]
    path = folder / f"{key}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        code, made = Path(work) / "kernel.cpp", Path(work) / "kernel.so"
        code.write_text(text)
        done = subprocess.run(
            ["g++", *FLAGS, str(code), "-o", str(made)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RunError(
                need="generated code that g++ compiles",
                got=done.stderr[:2000],
                hint="a mistake of weft; torch.compile without it meanwhile",
            )
        made.replace(path)
    return path


def put(path: Path, text: str) -> None:
    """Write a file in one step: several processes, and threads of one, may write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{uuid4().hex}.tmp")
    try:
        aside.write_text(text)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@cache
def generation() -> str:
    """Tells versions of the code that makes kernels apart, and what it makes them with.

    Kernels for GPUs need no g++, and a region that does is left to Inductor where there is none.
    """
    try:
        parts = [_compiler(), *FLAGS]
    except RunError as error:
        parts = [str(error)]
    for folder in (files("weft.fusion"), files("weft.fusion.emit")):
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
        parts += [entry.read_text() for entry in entries if entry.name.endswith((".py", ".h"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def _compiler() -> str:
    try:
        done = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
        target = subprocess.run(
            ["g++", "-march=native", "-Q", "--help=target"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(
            need="g++, which compiles kernels for CPUs",
            got=str(error),
            hint="install your system's g++ package",
        ) from error
    return done.stdout + target.stdout


def load(path: Path, name: str) -> Callable[..., int]:
    """A function of a library: of packed pointers, a pointer to scratch memory, and threads."""
    found = getattr(_library(path), name)
    found.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
    found.restype = ctypes.c_int
    return found


@cache
def _library(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))
