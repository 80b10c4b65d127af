"""The step through Inductor, with or without weft's own kernels.

Inductor keeps compiled kernels in a folder that runs share. A run that is killed while the
linker writes leaves a torn library there, on which every later run would fail; such a library
is removed, with a line in the log, and compiled again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from weft.capture.dtypes import to_torch_dtype
from weft.core.errors import RunError
from weft.program.types import TensorType

__all__ = ["Compiler", "compile_module", "examples"]

Compiler: TypeAlias = Literal["weft", "inductor"]
"""Who compiles a step: Inductor alone, or Inductor with kernels of `weft.fusion`."""

Compiled: TypeAlias = Callable[..., tuple[Tensor, ...]]

_LOG = logging.getLogger("weft.runtime")
_TORN = re.compile(r"ImportError: (\S+\.so): (?:file too short|invalid ELF header|.*truncated)")


def compile_module(
    build: Callable[[], fx.GraphModule],
    given: Sequence[Tensor | list[Tensor]],
    compiler: Compiler,
) -> Compiled:
    """Compile a graph.

    Args:
        build: makes the graph; called again if a torn library has to be compiled anew, because
            the compiler may change what it is given.
        given: tensors like the inputs, or a list of them where the graph takes a list. Types
            count, values do not.
        compiler: who compiles it.

    Returns:
        A function of the inputs, one by one.

    Raises:
        RunError: the compiler failed.
    """
    removed: set[Path] = set()
    while True:
        try:
            return cast("Compiled", _compile(build(), list(given), compiler))
        except Exception as error:
            torn = _torn_library(str(error))
            if torn is None or torn in removed:
                raise RunError(
                    need="a step that compiles",
                    got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                    hint="run it eagerly, without compile; Inductor's own report is above",
                ) from error
            _LOG.warning("compiling again what a killed run left torn: %s", torn)
            torn.unlink(missing_ok=True)
            removed.add(torn)


def _compile(module: fx.GraphModule, given: list[Any], compiler: Compiler) -> object:
    if compiler == "inductor":
        return torch._inductor.compile(module, given)
    from weft.fusion.backend import compile_graph  # loads all of Inductor

    return compile_graph(module, given)


def examples(types: Sequence[TensorType], device: torch.device) -> list[Tensor]:
    """Tensors of these types in row-major order for the compiler, which take no memory."""
    with FakeTensorMode():
        return [torch.empty(t.shape, dtype=to_torch_dtype(t.dtype), device=device) for t in types]


def _torn_library(text: str) -> Path | None:
    """The library that an error of the compiler says it could not load for being incomplete."""
    found = _TORN.search(text)
    return Path(found[1]) if found else None
