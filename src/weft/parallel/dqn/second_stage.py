"""The second stage: decisions of a plan, each taken back or taken otherwise while the rest stays.

The first stage takes decisions with all that they force, which is what makes it short. Where a
little movement costs less than what is forced, a variable is better decided on its own. As in the
paper, the second stage begins with what the first one found, and undoes decisions of it.

Source: Auto-MAP (Wang et al. 2020, arXiv 2007.04069), section 3.2, which learns in its second
stage; here every variable is looked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from weft.parallel.dqn.hybrid import Decided, HybridEnvironment
from weft.parallel.linkage import Layers
from weft.parallel.placement import REPLICATED, Placement
from weft.program.fold import Folding
from weft.program.graph import Program, Role, Value

__all__ = ["Group", "groups_of", "revised"]


@dataclass(frozen=True, slots=True)
class Group:
    """A variable with what lies where it does: the same in layers alike, and optimizer state.

    Attributes:
        nodes: inputs of the program.
        shape: of the variable.
        num_bytes: of all of them.
    """

    nodes: tuple[int, ...]
    shape: tuple[int, ...]
    num_bytes: float

    def placed(self, decided: Decided, place: Placement) -> Decided:
        """The decision with this group elsewhere."""
        placements = dict(decided.placements)
        for node in self.nodes:
            placements.pop(node, None)
            if place >= 0:
                placements[node] = place
        return replace(decided, placements=tuple(sorted(placements.items())))


def groups_of(program: Program, folding: Folding) -> list[Group]:
    """Groups of all variables, the largest first."""
    layers = Layers(program, folding)
    parameters = {i.name: i.node for i in program.inputs if i.role is Role.PARAMETER}
    states: dict[int, list[int]] = {node: [node] for node in parameters.values()}
    for source in program.inputs:
        owner = parameters.get(source.parameter)
        alike = owner is not None and _shape(program, owner) == _shape(program, source.node)
        if source.role is Role.STATE and owner is not None and alike:
            states[owner].append(source.node)
    found: list[Group] = []
    for node in parameters.values():
        if folding.representative[node] == node:
            own = [node, *(value.node for value in layers.like(Value(node)))]
            nodes = tuple(n for parameter in own for n in states.get(parameter, ()))
            size = sum(float(program.nodes[n].outputs[0].num_bytes) for n in nodes)
            found.append(Group(nodes, _shape(program, node), size))
    return sorted(found, key=lambda group: -group.num_bytes)


def _shape(program: Program, node: int) -> tuple[int, ...]:
    return program.nodes[node].outputs[0].shape


def revised(
    environment: HybridEnvironment,
    decided: Decided,
    groups: Sequence[Group],
    *,
    only_undo: bool,
    stop: Callable[[], bool],
) -> Iterator[Decided]:
    """Ever better plans, each one decision from the last.

    Args:
        environment: which predicts them.
        decided: where to begin; it fits.
        groups: of variables, in the order in which they are looked at.
        only_undo: look at variables that are cut only, and only whether to leave them whole.
        stop: asked before each prediction whether to end.
    """
    best_s = _seconds(environment, decided)
    for group in groups if decided.variables > 1 else ():
        now = dict(decided.placements).get(group.nodes[0], REPLICATED)
        others = [REPLICATED, *(() if only_undo else range(len(group.shape)))]
        for place in others if now >= 0 or not only_undo else ():
            if place == now or (place >= 0 and group.shape[place] % decided.variables):
                continue
            if stop():
                return
            trial = group.placed(decided, place)
            seconds = _seconds(environment, trial)
            if seconds < best_s:
                decided, best_s = trial, seconds
                yield decided


def _seconds(environment: HybridEnvironment, decided: Decided) -> float:
    prediction = environment.predicted(decided)
    fits = prediction is not None and environment.fits(prediction)
    return prediction.step_s if prediction is not None and fits else inf
