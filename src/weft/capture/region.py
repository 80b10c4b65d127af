"""The door of the fusion compiler: nodes of a torch.fx graph as a region.

The nodes are run on fake tensors under the same recorder as a training step, so that the same
rules rewrite operators, and one set of operators is enough for planners and emitters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_map_only

from weft.capture.dtypes import type_of
from weft.capture.lower import lower_calls
from weft.capture.record import Recorder
from weft.capture.trace import TracedInput
from weft.program.graph import Program, Role, Value

__all__ = ["program_of_nodes"]


def program_of_nodes(
    nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node], name: str
) -> tuple[Program, tuple[Value, ...]]:
    """The program that nodes of a graph are.

    Args:
        nodes: what is to be computed, in order; each has a fake tensor in `meta["val"]`.
        inputs: nodes whose results these read.
        outputs: those whose results others read.
        name: of the program.

    Returns:
        The program, whose inputs are "in0", "in1", ... and the values of the outputs.

    Raises:
        CaptureError: an operator has no form in a program.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = {node: _like(node.meta["val"]) for node in inputs}
        traced = tuple(
            TracedInput(name=f"in{number}", role=Role.BATCH, type=type_of(tensor))
            for number, tensor in enumerate(given.values())
        )
        recorder = Recorder(tuple(given.values()), program_of_nodes.__code__)
        with recorder:
            made = _run(nodes, given)
        results = tuple(recorder.value_of(made[node]) for node in outputs)
    return lower_calls(name, traced, tuple(recorder.calls), results)


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


def _run(nodes: Sequence[fx.Node], given: Mapping[fx.Node, Tensor]) -> dict[fx.Node, Any]:
    made: dict[fx.Node, Any] = dict(given)
    for node in nodes:
        assert callable(node.target)
        args = tree_map_only(fx.Node, made.__getitem__, node.args)
        kwargs = tree_map_only(fx.Node, made.__getitem__, node.kwargs)
        kwargs = {**kwargs, **({"device": "cpu"} if kwargs.get("device") is not None else {})}
        made[node] = node.target(*args, **kwargs)
    return made
