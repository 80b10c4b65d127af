"""Who computes a graph: torch as it is, Inductor twice, weft, XLA if JAX is installed.

Each contestant has a function with a code object of its own. Dynamo keeps what it compiles by
code object and tries one entry after the other, so that of two that share one the second would
look slower than it is, by a fifth on small graphs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FunctionType
from typing import TypeVar

import torch
from torch import Tensor
from torch._inductor import metrics
from torch._inductor.utils import fresh_cache

from benchmarks.fusion.cases import Graph, Result

__all__ = [
    "CONTROL",
    "EAGER",
    "INDUCTOR",
    "PROBE",
    "WEFT",
    "XLA",
    "Compiled",
    "Entry",
    "compiled",
    "heard",
    "own_copy",
    "warm_up",
]

EAGER, INDUCTOR, WEFT, PROBE = "eager", "Inductor", "weft", "probe"
CONTROL, XLA = "Inductor again", "XLA"
BACKENDS = {INDUCTOR: "inductor", CONTROL: "inductor", WEFT: "weft"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A graph compiled for one contestant.

    Attributes:
        function: with a code object of its own.
        compile_s: of the first call: tracing, compiling and one run [s].
        kernels: how many Inductor made.
        notes: what weft said, such as that it left operators to Inductor.
    """

    function: Callable[..., Result]
    compile_s: float
    kernels: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """All compiled contestants of a graph.

    Attributes:
        entries: by name; without weft if it failed.
        failure: of weft; empty if there is none.
    """

    entries: dict[str, Entry]
    failure: str = ""


Made = TypeVar("Made")


def own_copy(function: Callable[..., Made], name: str) -> Callable[..., Made]:
    """The same function with a code object of its own.

    Example:
        >>> def double(x: Tensor) -> Tensor:
        ...     return x + x
        >>> copy = own_copy(double, "copy")
        >>> copy(torch.ones(1)).item(), copy.__code__ == double.__code__
        (2.0, False)
    """
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=name)
    return FunctionType(
        code, function.__globals__, name, function.__defaults__, function.__closure__
    )


def warm_up() -> None:
    """Compile a small function with every back end, so that nothing later pays for imports."""
    for name, backend in BACKENDS.items():

        def successor(x: Tensor) -> Tensor:
            return x + 1

        label = name.replace(" ", "_")
        ready = torch.compile(own_copy(successor, label), dynamic=False, backend=backend)
        # A back end that cannot even do this is told of when it gets its graph.
        with suppress(Exception):
            ready(torch.ones(64))


def compiled(graph: Graph, size: str, inputs: Sequence[Tensor]) -> Compiled:
    """Compile a graph for every contestant that needs it.

    Inductor and its control share a cache of C++, weft has another one; both start empty.
    """

    def entry(name: str) -> Entry:
        label = f"{graph.name}_{size}_{name.replace(' ', '_')}"
        return _entry(own_copy(graph.compute, label), name, inputs)

    with fresh_cache():
        entries = {name: entry(name) for name in (INDUCTOR, CONTROL)}
    with fresh_cache():
        try:
            entries[WEFT] = entry(WEFT)
        except Exception as error:  # whatever it is, the others go on without it
            return Compiled(entries=entries, failure=f"{type(error).__name__}: {error}")
    return Compiled(entries=entries)


def _entry(function: Callable[..., Result], name: str, inputs: Sequence[Tensor]) -> Entry:
    ready = torch.compile(function, dynamic=False, backend=BACKENDS[name])
    metrics.reset()
    with heard("weft.fusion") as notes:
        start = time.perf_counter()
        ready(*inputs)
        taken_s = time.perf_counter() - start
    return Entry(
        function=ready,
        compile_s=taken_s,
        kernels=metrics.generated_kernel_count,
        notes=tuple(notes),
    )


@contextmanager
def heard(logger: str) -> Iterator[list[str]]:
    """Warnings of a logger."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logging.getLogger(logger).addHandler(listener)
    try:
        yield heard
    finally:
        logging.getLogger(logger).removeHandler(listener)
