"""What the names in a foreign plan mean in a program, along one mesh axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from weft.core.errors import InputError
from weft.parallel.foreign.document import Entry, ForeignPlan, Target
from weft.parallel.placement import REPLICATED, Placement, format_sharding
from weft.parallel.propagate import Axis
from weft.parallel.zero import updating_nodes
from weft.program.graph import Input, Phase, Program, Role

__all__ = ["Names", "Pins"]


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What a foreign plan says along one axis.

    Attributes:
        pinned: placement of the first output, by node number.
        gathered: parameters among them that the forward and the backward pass read whole.
    """

    pinned: dict[int, Placement]
    gathered: frozenset[int]


class Names:
    """A foreign plan whose names have been looked up in a program.

    Args:
        program: one training step, or what one stage of it computes.
        plan: as it stands in its file.
    """

    def __init__(self, program: Program, plan: ForeignPlan) -> None:
        self._program = program
        self._plan = plan
        self._outputs = _module_outputs(program)
        self._of_node: dict[int, Entry] = {}
        for entry in plan.entries:
            for node in self._nodes(entry):
                self._of_node[node] = entry

    def require_all(self) -> None:
        """Check that every entry names something, and dims that it has.

        Raises:
            InputError: one does not; names it.
        """
        for entry in self._plan.entries:
            nodes = list(self._nodes(entry))
            if not nodes:
                raise self._unknown(entry)
            for node in nodes:
                rank = len(self._program.nodes[node].outputs[0].shape)
                if max(*entry.placements, *entry.read, *entry.state) >= rank:
                    raise InputError(
                        need=f"{entry.where}: dims below {rank}",
                        got=f"{format_sharding(entry.placements)} of {self._text(node)}",
                        hint="dims count from 0",
                    )

    @property
    def lasting(self) -> frozenset[int]:
        """Parameters whose gathered form stays for all of the step."""
        return frozenset(node for node, entry in self._of_node.items() if entry.keep)

    def pins(self, axis: int, table: Axis) -> Pins:
        """What the plan says along one axis.

        Args:
            axis: number of the mesh axis.
            table: its rules, after those of earlier, outer axes.

        Raises:
            InputError: a size does not divide, or a node cannot have a placement; names the entry.
        """
        pinned: dict[int, Placement] = {}
        gathered: set[int] = set()
        for node, entry in self._of_node.items():
            pinned[node] = entry.placements[axis]
            if entry.target is Target.PARAMETER and entry.read[axis] != entry.placements[axis]:
                gathered.add(node)
        parameters = {i.name: i for i in self._program.inputs if i.role is Role.PARAMETER}
        homes: dict[int, Placement] = {}
        for source in parameters.values():
            entry = self._of_node.get(source.node)
            pinned.setdefault(source.node, self._plan.default[axis])
            homes[source.node] = pinned[source.node] if entry is None else entry.state[axis]
        for source in self._program.inputs:
            owner = parameters.get(source.parameter)
            if source.role is Role.STATE and owner is not None and self._alike(source, owner):
                pinned.setdefault(source.node, homes[owner.node])
        pinned = self._received(axis) | pinned
        for node, place in pinned.items():
            self._require_possible(table, node, place, axis)
        for parameter, nodes in updating_nodes(self._program).items():
            # A counter that all updates share belongs to no parameter and is whole.
            home = homes.get(parameter, REPLICATED)
            for node in nodes:
                if any(rule.outputs[0] == home for rule in table.rules(node)):
                    pinned.setdefault(node, home)
        return Pins(pinned=pinned, gathered=frozenset(gathered))

    def _nodes(self, entry: Entry) -> Iterator[int]:
        """Nodes that an entry names."""
        if entry.target is Target.NODE:
            yield from (entry.node,) if entry.node < len(self._program.nodes) else ()
        elif entry.target is Target.OUTPUT:
            for path, node in self._outputs.items():
                if _matches(entry.pattern, path):
                    yield node
        else:
            for source in self._program.inputs:
                parameter = source.role is Role.PARAMETER
                right = parameter if entry.target is Target.PARAMETER else not parameter
                if right and _matches(entry.pattern, source.name):
                    yield source.node

    def _alike(self, first: Input, second: Input) -> bool:
        nodes = self._program.nodes
        return nodes[first.node].outputs[0].shape == nodes[second.node].outputs[0].shape

    def _received(self, axis: int) -> dict[int, Placement]:
        """What other stages send lies as the batch does, where that divides."""
        size = self._plan.mesh.shape[axis]
        cuts = {
            entry.placements[axis]
            for entry in self._plan.entries
            if entry.target is Target.INPUT and entry.placements[axis] >= 0
        }
        found: dict[int, Placement] = {}
        for source in self._program.inputs:
            shape = self._program.nodes[source.node].outputs[0].shape
            fitting = [dim for dim in cuts if dim < len(shape) and shape[dim] % size == 0]
            if source.role is Role.RECEIVED and len(fitting) == 1:
                found[source.node] = fitting[0]
        return found

    def _require_possible(self, table: Axis, node: int, place: Placement, axis: int) -> None:
        can = dict.fromkeys(rule.outputs[0] for rule in table.rules(node))
        if place in can:
            return
        entry = self._of_node.get(node)
        source = self._program.input_by_node.get(node)
        if entry is None and source is not None and source.parameter:
            owner = self._program.input_by_name[source.parameter]
            entry = self._of_node.get(owner.node)
        raise InputError(
            need=f"{entry.where if entry else 'default'}: a placement that {self._text(node)} can "
            f"have on the {table.size} devices of mesh axis {axis}",
            got=format_sharding((place,)),
            hint=f"it can have {', '.join(format_sharding((p,)) for p in can)}",
        )

    def _text(self, node: int) -> str:
        this = self._program.nodes[node]
        source = self._program.input_by_node.get(node)
        name = source.name if source else f"%{node} {this.op} in {this.scope or 'no module'}"
        return f"{name} {this.outputs[0]}"

    def _unknown(self, entry: Entry) -> InputError:
        parameter = entry.target is Target.PARAMETER
        known = {
            Target.OUTPUT: list(self._outputs),
            Target.NODE: [f"0 to {len(self._program.nodes) - 1}"],
        }.get(
            entry.target,
            [i.name for i in self._program.inputs if (i.role is Role.PARAMETER) is parameter],
        )
        word = entry.pattern.rsplit(".", 1)[-1]
        near = [name for name in known if word in name] or known
        return InputError(
            need=f"{entry.where}: a name that {self._program.name} has",
            got="nothing of that name",
            hint=f"there is {', '.join(near[:5])}" if near else "see `weft capture --text`",
        )


def _module_outputs(program: Program) -> dict[str, int]:
    """For each module path the last node of the forward pass in it."""
    found: dict[str, int] = {}
    for number, node in enumerate(program.nodes):
        if node.phase is Phase.FORWARD and number not in program.input_by_node and node.scope:
            parts = node.scope.split(".")
            for length in range(1, len(parts) + 1):
                found[".".join(parts[:length])] = number
    return found


def _matches(pattern: str, name: str) -> bool:
    """True if a dotted pattern names a dotted name.

    Example:
        >>> _matches("layers.*.up", "layers.3.up"), _matches("**.up", "layers.3.up")
        (True, True)
    """
    return _parts_match(pattern.split("."), name.split("."))


def _parts_match(pattern: Sequence[str], name: Sequence[str]) -> bool:
    if not pattern or not name:
        return not name and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _parts_match(pattern[1:], name) or _parts_match(pattern, name[1:])
    return fnmatchcase(name[0], pattern[0]) and _parts_match(pattern[1:], name[1:])
