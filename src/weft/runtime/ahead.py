"""Segments through Inductor, all of them before the first step.

Graphs that are alike are compiled once: the segments of a stage that repeats another one differ in
nothing but where their tensors come from. Each rank compiles its own, which takes as long as it
takes; the ranks wait for each other afterwards, and not in the first collective of the first step,
whose time-out would end the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from weft.core.errors import RunError
from weft.parallel.pipeline.segments import Part
from weft.program.types import TensorType
from weft.runtime.failure import patient_work
from weft.runtime.inductor import Compiler, compile_module, examples
from weft.runtime.pieces import Key
from weft.runtime.stage import SegmentCall, StageRun
from weft.runtime.world import World

__all__ = ["Tell", "compile_stages", "silent"]

Tell = Callable[[str], None]
"""Told what is being compiled, in a line."""

_LOG = logging.getLogger("weft.runtime")


def silent(_: str) -> None:
    """Tell nobody."""


def compile_stages(
    stages: Mapping[int, StageRun], world: World, compiler: Compiler, tell: Tell
) -> None:
    """Compile the segments of all stages of this rank, and wait for the other ranks to do so.

    Args:
        stages: by number; each uses what was compiled from now on.
        world: the ranks.
        compiler: who compiles them.
        tell: told on rank 0 of each graph that is compiled, and of ranks that are waited for.

    Raises:
        RunError: the compiler failed on this rank, or another rank failed or is gone.
    """
    said = tell if world.is_first else silent
    with patient_work(world, "compile", said):
        graphs = _graphs(stages)
        for number, graph in enumerate(graphs):
            line = f"compiling {number + 1} of {len(graphs)}: {graph.name()}"
            _LOG.info("rank %d: %s", world.rank, line)
            said(line)
            _compile(graph, world.device, compiler)


@dataclass
class _Graph:
    """A graph and all who run it.

    Attributes:
        types: of its inputs.
        users: stage numbers and pieces, the first of which it is built from.
        stages: by number.
    """

    types: tuple[TensorType, ...]
    stages: Mapping[int, StageRun]
    users: list[tuple[int, Key]] = field(default_factory=list[tuple[int, Key]])

    def name(self) -> str:
        """Such as "forward of stages 0, 2 (17 instructions)"."""
        first, key = self.users[0]
        numbers = sorted({number for number, _ in self.users})
        whose = f"stage{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        what = _WORDS[key[0]] + (f" before {key[1]} is sent" if key[1] else "")
        count = len(self.stages[first].pieces[key].numbers)
        return f"{what} of {whose} ({count} instructions)"


_WORDS = {
    Part.SETUP: "setup",
    Part.SURVEY: "totals of the batch",
    Part.SETTLE: "what follows from the totals",
    Part.FORWARD: "forward pass",
    Part.INPUTS: "gradients of what came in",
    Part.WEIGHTS: "gradients of weights",
    Part.FINISH: "update",
}


def _graphs(stages: Mapping[int, StageRun]) -> list[_Graph]:
    """The graphs of all pieces that have instructions, alike ones once; the others need none."""
    found: dict[object, _Graph] = {}
    for number, run in stages.items():
        empty: dict[Key, SegmentCall] = {}
        for key, piece in run.pieces.items():
            module = run.module(key, row_major=True)
            if not piece.numbers:
                empty[key] = module
                continue
            alike = (str(module.graph), run.types(key))
            graph = found.setdefault(alike, _Graph(run.types(key), stages))
            graph.users.append((number, key))
        run.use(empty)
    return list(found.values())


def _compile(graph: _Graph, device: torch.device, compiler: Compiler) -> None:
    first, key = graph.users[0]
    try:
        compiled = compile_module(
            lambda: graph.stages[first].module(key, row_major=True),
            [examples(graph.types, device)],
            compiler,
        )
    except RunError as error:
        raise error.within(graph.name()) from error.__cause__
    call = cast("SegmentCall", cast("Any", compiled))
    for number, own in graph.users:
        graph.stages[number].use({own: call})
