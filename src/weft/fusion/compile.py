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


def unit(texts: Sequence[str]) -> str:
    """Generated functions as a file that a compiler takes."""
    return "\n".join((_header(), "using namespace weft;", *texts))


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
    text = unit([source.text for source in sources])
    key = hashlib.sha256("\n".join((text, *FLAGS, _compiler())).encode()).hexdigest()[:24]
    path = folder / f"{key}.so"
    if is_whole(path):
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
                hint="if g++ works and has room, a mistake of weft: torch.compile without it",
            )
        with made.open("ab") as library:  # which loads as before
            library.write(hashlib.sha256(made.read_bytes()).digest())
        made.replace(path)
    return path


def is_whole(path: Path) -> bool:
    """Whether a library is as it was built; one that was cut short would end the process."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-SEAL]).digest() == content[-SEAL:]


SEAL = 32
"""Of a library's last bytes, which are the digest of all others [bytes]."""


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
    if not is_whole(path):
        raise RunError(
            need="the library of a kernel, as it was built",
            got=f"{path}, which is {'damaged' if path.exists() else 'missing'}",
            hint=f"delete {path.parent}; all kernels in it are compiled anew",
        )
    return ctypes.CDLL(str(path))
