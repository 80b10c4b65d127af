"""Regions compiled many at a time, compared with float64, and made small where they are wrong."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.property.fused_case import Case, rebuilt
from tests.property.fused_reference import expected, widened, wrong
from tests.property.fused_regions import cases
from weft.fusion import kernel as kernel_module
from weft.fusion.compile import build
from weft.fusion.kernel import Kernel, compile_region
from weft.program.random import row_major_strides


class Emitted(Exception):
    """Raised in place of compiling, once the code is there."""

    def __init__(self, sources) -> None:
        super().__init__("emitted")
        self.sources = sources


def drawn(count: int, number: int) -> list[Case]:
    """So many cases, the same ones for the same number."""
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def keep(case):
        found.append(case)

    keep()
    return found


def compiled(own, host, folder) -> list[Kernel | Exception]:
    """A kernel for each case, or why there is none; one library for all if that is possible."""
    made: list[Kernel | Exception | None] = [None] * len(own)
    sources = {}
    for number, case in enumerate(own):
        try:
            sources |= {source.name: source for source in _emitted(case, host, folder)}
        except Exception as error:
            made[number] = error
    try:
        library = build(list(sources.values()), folder) if sources else None
    except Exception:
        library = None  # one of them does not compile: each has a library of its own
    for number, case in enumerate(own):
        if made[number] is None:
            with patch.object(kernel_module, "build", lambda s, f: library or build(s, f)):
                try:
                    made[number] = compile_region(case.region, host, folder)
                except Exception as error:
                    made[number] = error
    return made


def _emitted(case, host, folder):
    def stop(sources, folder):
        raise Emitted(sources)

    with patch.object(kernel_module, "build", stop):
        try:
            compile_region(case.region, host, folder)
        except Emitted as emitted:
            return emitted.sources
    return []


def complaint(case: Case, kernel: Kernel | Exception) -> str:
    """What is wrong with a kernel; nothing if it is right."""
    if isinstance(kernel, Exception):
        return f"{type(kernel).__name__}: {kernel}"
    tensors = case.tensors()
    program = case.region.program
    wanted = expected(program, [held(tensor) for tensor in tensors], case.region.outputs)
    found: list[str] = []
    for number, (tensor, (own, error, sure)) in enumerate(
        zip(kernel(tensors), wanted, strict=True)
    ):
        got = held(tensor)
        at = np.argwhere(wrong(got, own, error, sure))
        if len(at):
            first = tuple(int(n) for n in at[0])
            found.append(
                f"output {number}: {len(at)} of {got.size} elements are wrong; at {first} "
                f"{got[first]!s}, not {own[first]!s} +- {error[first]:.2g}"
            )
    return "\n".join(found)


def held(tensor):
    """A tensor as the reference takes it."""
    half = tensor.dtype in (torch.bfloat16, torch.float16)
    return widened((tensor.float() if half else tensor).numpy())


def complaints(own, host, folder, shrink=2) -> list[str]:
    """What is wrong with the kernels of some cases, the first few of them made small."""
    found: list[str] = []
    for case, kernel in zip(own, compiled(own, host, folder), strict=True):
        said = complaint(case, kernel)
        if said:
            if len(found) < shrink:
                case, said = smallest(case, said, host, folder)
            found.append(f"{said}\n{case}")
    return found


def smallest(case: Case, said: str, host, folder, tries=40) -> tuple[Case, str]:
    """A smaller case that is wrong in the same way, and how."""
    kind = said.split(":")[0].split(" ")[0]
    queue = list(_smaller(case))
    while queue and tries:
        tries -= 1
        other = queue.pop(0)
        now = complaint(other, compiled([other], host, folder)[0])
        if now.startswith(kind):
            case, said, queue = other, now, list(_smaller(other))
    return case, said


def _smaller(case):
    """The case with an output less, an operand as output, or an input in place of a node."""
    region, program = case.region, case.region.program
    rows = list(zip(region.outputs, region.output_strides, strict=True))
    tries = [(rows[:n] + rows[n + 1 :], frozenset()) for n in range(len(rows)) if len(rows) > 1]
    for value, _ in rows:
        if program.nodes[value.node].op != "input":
            for operand in program.operands(value.node):
                strides = row_major_strides(program.type_of(operand).shape)
                rest = [row for row in rows if row[0] not in (value, operand)]
                tries.append(([*rest, (operand, strides)], frozenset()))
    for number, node in enumerate(program.nodes):
        if node.op != "input":
            tries.append((rows, frozenset({number})))
    for kept, loose in tries:
        outputs, strides = zip(*kept, strict=True)
        own = (program, outputs, region.input_strides, case.given, strides, loose)
        less, given = rebuilt(*own)
        made = replace(case, region=less, given=given)
        if _size(made) < _size(case):
            yield made


def _size(case):
    program = case.region.program
    return len(program.nodes), len(case.region.outputs), len(program.inputs)
