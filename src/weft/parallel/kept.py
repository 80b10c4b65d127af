"""Whether pins are kept: by a state of a unit, and by a finished plan.

A pinned value lies as asked for its readers. What makes it makes it so, or makes summands of it
on the axes on which it is then reduced: it never computes more than that and drops it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from weft.core.errors import InfeasibleError
from weft.parallel.pinning import Asked, Pinning, describe
from weft.parallel.placement import (
    REPLICATED,
    Mesh,
    Sharding,
    divides,
    format_sharding,
    is_partial,
)
from weft.parallel.plan import Copy, Strategy
from weft.parallel.problem import Problem, Unit
from weft.parallel.skeleton import UnitKind
from weft.program.annotation import Wish
from weft.program.graph import Program, Value

__all__ = ["Mask", "allowed_states", "kept_shardings", "makes", "require_kept", "unplaceable"]

Mask = npt.NDArray[np.bool_]


@lru_cache(maxsize=4096)
def kept_shardings(
    wishes: tuple[Wish, ...], mesh: Mesh, shape: tuple[int, ...]
) -> tuple[Sharding, ...]:
    """Shardings of a tensor that grant all wishes.

    Example:
        >>> kept_shardings((Wish(split=0, ways=4),), Mesh((2, 2)), (8, 3))
        ((0, 0),)
        >>> kept_shardings((Wish(split=1, ways=4),), Mesh((2, 2)), (8, 3))
        ()
    """
    choices = (REPLICATED, *(dim for dim, size in enumerate(shape) if size > 1))
    return tuple(
        sharding
        for sharding in itertools.product(choices, repeat=mesh.num_axes)
        if divides(mesh, sharding, shape)
        and all(_grants(sharding, wish, mesh, len(shape)) for wish in wishes)
    )


def _grants(sharding: Sharding, wish: Wish, mesh: Mesh, rank: int) -> bool:
    if wish.replicated:
        return all(placement == REPLICATED for placement in sharding)
    dim = wish.dim(rank)
    if dim is None or dim not in sharding:
        return False
    parts = prod(size for size, place in zip(mesh.shape, sharding, strict=True) if place == dim)
    return wish.ways in (None, parts)


def makes(made: Sharding, kept: tuple[Sharding, ...]) -> bool:
    """Whether a value made so is one of the kept shardings once its summands are reduced.

    Example:
        >>> makes((0, -2), ((0, 1),)), makes((0, -1), ((0, 1),))
        (True, False)
    """
    return any(
        all(have == want or is_partial(have) for have, want in zip(made, goal, strict=True))
        for goal in kept
    )


def allowed_states(problem: Problem, pinning: Pinning) -> list[Mask]:
    """For each unit of a planning problem, which of its states the pins allow."""
    allowed = [np.ones(len(unit.seconds), dtype=bool) for unit in problem.units]
    if pinning.values:
        for number, unit in enumerate(problem.units):
            value = _pinned_value(unit)
            asked = None if value is None else pinning.values.get(value)
            if value is not None and asked is not None:
                allowed[number] = _allowed(problem, unit, value, asked)
    return allowed


def _pinned_value(unit: Unit) -> Value | None:
    """The value whose pins a unit has to keep, if it is the first to decide about it."""
    if unit.spec.kind is UnitKind.NODE:
        return Value(unit.spec.nodes[0])
    return unit.spec.value if unit.spec.first else None


def _allowed(problem: Problem, unit: Unit, value: Value, asked: tuple[Asked, ...]) -> Mask:
    shape = problem.skeleton.program.type_of(value).shape
    kept = kept_shardings(_wishes(asked), problem.mesh, shape)
    if unit.spec.kind is UnitKind.HUB:
        return np.array([sharding in kept for sharding in unit.shardings])
    return np.array([makes(s.outputs[0], kept) for s in unit.strategies[value.node]])


def require_kept(
    mesh: Mesh,
    strategies: Sequence[Strategy],
    copies: Iterable[Copy],
    program: Program,
    pinning: Pinning,
) -> None:
    """Check that a plan keeps the pins of its program.

    Args:
        mesh, strategies, copies: of the plan.
        program: with the plan's recomputation applied.
        pinning: of that program.

    Raises:
        InfeasibleError: a pinned value lies elsewhere; names the pin, the operator and its line.
    """
    brought: dict[Value, list[Sharding]] = {}
    for copy in copies if pinning.values else ():
        brought.setdefault(copy.value, []).append(copy.target)
    for value, asked in pinning.values.items():
        made = strategies[value.node].outputs[0]
        kept = kept_shardings(_wishes(asked), mesh, program.type_of(value).shape)
        versions = (made, *brought.get(value, ()))
        if not makes(made, kept) or not any(version in kept for version in versions):
            raise InfeasibleError(
                need=" and ".join(one.text for one in asked),
                got=f"{describe(program, value.node)} as {format_sharding(made)} on mesh {mesh}",
                hint="have the planner search for a plan that keeps the pins, or drop them",
                constraint="pins",
            )


def unplaceable(pinning: Pinning, program: Program, mesh: Mesh) -> InfeasibleError | None:
    """The first pinned value that no sharding on a mesh suits, whatever its neighbours do."""
    for value, asked in pinning.values.items():
        if not kept_shardings(_wishes(asked), mesh, program.type_of(value).shape):
            return InfeasibleError(
                need=" and ".join(one.text for one in asked),
                got=f"{describe(program, value.node)} on mesh {mesh}, which cannot be cut so",
                hint="drop or change a pin, or choose another machine",
                constraint="pins",
            )
    return None


def _wishes(asked: tuple[Asked, ...]) -> tuple[Wish, ...]:
    return tuple(one.wish for one in asked)
