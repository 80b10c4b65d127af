"""Pins that no mesh can keep: which of them, where, and why.

Pins can be kept on a mesh if each unit has a state that they allow and its neighbours can be
converted to. Where no mesh is left, pins are taken away until every one of those that remain
is needed for the failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import prod

from weft.core.errors import InfeasibleError
from weft.parallel.exact.flow import settle
from weft.parallel.kept import allowed_states, kept_shardings, makes
from weft.parallel.pinning import Asked, Pinning, describe
from weft.parallel.placement import Mesh
from weft.parallel.problem import Problem
from weft.program.annotation import Wish
from weft.program.graph import Value

__all__ = ["collision", "smallest_failing", "stuck_unit"]


def stuck_unit(problem: Problem, pinning: Pinning) -> int | None:
    """A unit that pins leave without a state; none if they can be kept on the mesh."""
    return settle(problem, allowed_states(problem, pinning))


def smallest_failing(items: Sequence[str], fails: Callable[[Sequence[str]], bool]) -> list[str]:
    """A part of the items that fails, and none of whose own parts does.

    Args:
        items: that fail together.
        fails: whether a part of them does; a part of what does not fail does not either.

    Example:
        >>> smallest_failing("abcdef", lambda some: {"b", "e"} <= set(some))
        ['b', 'e']
    """
    if fails(()):
        return []
    needed: list[str] = []
    left = list(items)
    while not fails(needed):
        # The shortest start of the rest that fails ends with an item that is needed.
        low, high = 0, len(left)
        while low < high:
            middle = (low + high) // 2
            if fails([*needed, *left[:middle]]):
                high = middle
            else:
                low = middle + 1
        needed.append(left[low - 1])
        left = left[: low - 1]
    return sorted(needed, key=list(items).index)


def collision(problems: Sequence[Problem], pinning: Pinning) -> InfeasibleError:
    """The error that names a smallest set of pins that none of the meshes can keep.

    Args:
        problems: of one program, one for each mesh.
        pinning: what cannot be kept on any of them.
    """

    def kept_on(texts: Sequence[str]) -> list[Mesh]:
        some = pinning.only(texts)
        return [problem.mesh for problem in problems if stuck_unit(problem, some) is None]

    guilty = smallest_failing(list(pinning.counts), lambda texts: not kept_on(texts))
    together = pinning.only(guilty)
    problem = problems[0]
    stuck = stuck_unit(problem, together)
    value = _value_of(problem, stuck, together)
    lines = [f"{text}: {_place(problem, pinning, text)}" for text in guilty]
    if len(guilty) == 1:
        reason = _reason(problems, value, together.values[value], guilty[0])
        need, hint = f"a plan that keeps {guilty[0]}", "change the pin, or another size or machine"
    else:
        meshes = [_meshes(kept_on([text])) for text in guilty]
        lines = [f"{line}, kept alone on {mesh}" for line, mesh in zip(lines, meshes, strict=True)]
        reason = _why_not_together(problems, together)
        need, hint = f"a plan that keeps {' and '.join(guilty)}", "drop or change one of them"
    return InfeasibleError(
        need=need,
        got="\n".join([*lines, reason]),
        hint=hint,
        constraint="pins",
        options=tuple(f"without {text}" for text in guilty),
    )


def _value_of(problem: Problem, unit: int | None, pinning: Pinning) -> Value:
    """The pinned value of a unit without states; any, if its neighbours are to blame."""
    if unit is not None:
        spec = problem.units[unit].spec
        value = spec.value if spec.value is not None else Value(*spec.nodes[:1])
        if value in pinning.values:
            return value
    return next(iter(pinning.values))


def _place(problem: Problem, pinning: Pinning, text: str) -> str:
    """The first tensor that a pin names, and how many more there are."""
    values = list(pinning.only([text]).values)
    more = f" and {len(values) - 1} more" if len(values) > 1 else ""
    return describe(problem.skeleton.program, values[0].node) + more


def _meshes(meshes: Sequence[Mesh]) -> str:
    return f"mesh {' or '.join(map(str, meshes))}" if meshes else "no mesh"


def _why_not_together(problems: Sequence[Problem], pinning: Pinning) -> str:
    program = problems[0].skeleton.program
    for value, asked in pinning.values.items():
        shape = program.type_of(value).shape
        wishes = tuple(one.wish for one in asked)
        if len(asked) > 1 and not any(kept_shardings(wishes, p.mesh, shape) for p in problems):
            return f"one tensor cannot be {' and '.join(str(w) for w in wishes)}"
    return f"together on none of the meshes {', '.join(str(p.mesh) for p in problems)}"


def _reason(problems: Sequence[Problem], value: Value, asked: Sequence[Asked], text: str) -> str:
    """Why no mesh has a state in which a value is what one pin asks."""
    program = problems[0].skeleton.program
    (wish,) = {one.wish for one in asked if one.text == text}
    node, shape = program.nodes[value.node], program.type_of(value).shape
    meshes = [problem.mesh for problem in problems]
    if wish.split is not None:
        why = _unsplittable(wish, shape, meshes)
        if why:
            return why
    kept = [kept_shardings((wish,), mesh, shape) for mesh in meshes]
    made = any(
        makes(strategy.outputs[0], goal)
        for problem, goal in zip(problems, kept, strict=True)
        for unit in problem.units
        for strategy in unit.strategies.get(value.node, ())
    )
    if not made:
        return f"no sharding rule of {node.op} makes {wish}"
    return f"no neighbour of {node.op} can be converted to {wish}"


def _unsplittable(wish: Wish, shape: tuple[int, ...], meshes: Sequence[Mesh]) -> str:
    """What about the sizes forbids a cut; empty if nothing does."""
    dim = wish.dim(len(shape))
    if dim is None:
        return f"the tensor has {len(shape)} dims, and no dim {wish.split}"
    degrees = {
        prod(sizes)
        for mesh in meshes
        for count in range(1, mesh.num_axes + 1)
        for sizes in combinations(mesh.shape, count)
    }
    if wish.ways is not None and wish.ways not in degrees:
        names = ", ".join(map(str, meshes))
        return f"no axes of the meshes {names} make {wish.ways} parts: they make {_list(degrees)}"
    parts = degrees if wish.ways is None else {wish.ways}
    if all(shape[dim] % n or shape[dim] == 1 for n in parts):
        return f"dim {dim} has {shape[dim]} elements, which do not divide by {_list(parts)}"
    return ""


def _list(numbers: set[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))
