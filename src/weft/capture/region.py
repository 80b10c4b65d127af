"""The door of the fusion compiler: nodes of a torch.fx graph as a region.

The nodes are run on fake tensors under the same recorder as a training step, so that the same
rules rewrite operators, and one set of operators is enough for planners and emitters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_map

from weft.capture.dtypes import type_of
from weft.capture.lower import lower_calls
from weft.capture.record import Recorder
from weft.capture.trace import TracedInput
from weft.program.graph import Program, Role, Value

__all__ = ["Like", "program_of_nodes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Like:
    """How a tensor lies.

    Attributes:
        shape: its sizes.
        strides: of each dim, elements from one index to the next.
        dtype: of its elements.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self) -> Tensor:
        """A tensor that lies like this."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype)


def program_of_nodes(
    nodes: Sequence[fx.Node],
    inputs: Mapping[fx.Node, Like | int | float],
    outputs: Sequence[fx.Node],
    name: str,
) -> tuple[Program, tuple[Value, ...]]:
    """The program that nodes of a graph are.

    Args:
        nodes: what is to be computed, in order.
        inputs: nodes whose results these read: tensors, by how they lie, and numbers.
        outputs: those whose results others read.
        name: of the program.

    Returns:
        The program, whose inputs are "in0", "in1", ... and the values of the outputs.

    Raises:
        CaptureError: an operator has no form in a program.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = {n: like.tensor() if isinstance(like, Like) else like for n, like in inputs.items()}
        tensors = tuple(one for one in given.values() if isinstance(one, Tensor))
        traced = tuple(
            TracedInput(name=f"in{number}", role=Role.BATCH, type=type_of(tensor))
            for number, tensor in enumerate(tensors)
        )
        recorder = Recorder(tensors, program_of_nodes.__code__)
        with recorder:
            made = _run(nodes, given)
        results = tuple(recorder.value_of(made[node]) for node in outputs)
    return lower_calls(name, traced, tuple(recorder.calls), results)


def _run(nodes: Sequence[fx.Node], given: Mapping[fx.Node, object]) -> dict[fx.Node, Any]:
    made: dict[fx.Node, Any] = dict(given)

    def held(arg: Any) -> Any:
        if isinstance(arg, torch.SymInt | torch.SymFloat):
            return arg.node.hint
        return made[arg] if isinstance(arg, fx.Node) else arg

    for node in nodes:
        assert callable(node.target)
        args = tree_map(held, node.args)
        kwargs = tree_map(held, node.kwargs)
        kwargs = {**kwargs, **({"device": "cpu"} if kwargs.get("device") is not None else {})}
        made[node] = node.target(*args, **kwargs)
    return made
