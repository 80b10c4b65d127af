"""This rank's part of the first state, cut out of one whole tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from torch import Tensor

from weft.capture import Workload
from weft.capture.dtypes import type_of
from weft.capture.start import visit_initial_state
from weft.core.errors import MismatchError
from weft.program.graph import Program
from weft.program.types import TensorType
from weft.runtime.place import Layout
from weft.runtime.shard import shard_of

__all__ = ["StateSource", "own_state", "state_at_hand", "state_of_workload"]

StateSource: TypeAlias = Callable[[Callable[[str, Tensor], None], Collection[str]], str]
"""Hands over whole tensors of the given names; returns why they were all built at once, if so."""


def state_of_workload(workload: Workload) -> StateSource:
    """A workload's first state, made one tensor at a time where its factory allows it."""
    return lambda visit, names: visit_initial_state(workload, visit, names)


def state_at_hand(state: Mapping[str, Tensor]) -> StateSource:
    """A whole state that is there already."""

    def source(visit: Callable[[str, Tensor], None], names: Collection[str]) -> str:
        for name in names:
            if name in state:
                visit(name, state[name])
        return ""

    return source


def own_state(
    source: StateSource, program: Program, layouts: Mapping[str, Layout]
) -> tuple[dict[str, Tensor], str]:
    """This rank's parts of the state.

    Args:
        source: where whole tensors come from.
        program: says of which types they are.
        layouts: of each tensor that the rank has a part of, by name.

    Returns:
        The parts by name, each with memory of its own, and why the state was built whole on this
        rank (empty if it was not).

    Raises:
        MismatchError: a tensor is missing, or is not of the program's type.
    """
    parts: dict[str, Tensor] = {}
    persistent = [i for i in program.inputs if i.role.is_persistent]
    types = {i.name: program.model_type(i) for i in persistent}
    held = {i.name: program.nodes[i.node].outputs[0].shape for i in persistent}

    def keep(name: str, whole: Tensor) -> None:
        if type_of(whole) != types[name]:
            raise _mismatch(name, types[name], str(type_of(whole)))
        factors = whole.detach().reshape(held[name])
        layout, place = layouts[name], layouts[name].place
        part = shard_of(factors, place.mesh, layout.sharding, place.coordinate)
        parts[name] = part.to(place.device)

    built_whole = source(keep, layouts.keys())
    for name in layouts:
        if name not in parts:
            raise _mismatch(name, types[name], "none")
    return {name: parts[name] for name in layouts}, built_whole


def _mismatch(name: str, expected: TensorType, got: str) -> MismatchError:
    return MismatchError(
        need=f"a state with {name} of type {expected}",
        got=got,
        hint="the state comes from another model than the program",
    )
