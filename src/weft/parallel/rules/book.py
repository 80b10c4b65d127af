"""The rules of all nodes of a program, looked up once for each kind of node."""

from __future__ import annotations

from weft.parallel.rules.rule import Rule
from weft.parallel.rules.table import rules
from weft.program.graph import Program

__all__ = ["RuleBook"]


class RuleBook:
    """Rules of one program's nodes; nodes of equal operator, constants and types share them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._known: dict[int, tuple[Rule, ...]] = {}

    def rules(self, node: int) -> tuple[Rule, ...]:
        """All legal rules of a node along one mesh axis.

        Raises:
            RuleError: no rule covers the operator.
        """
        kind = self.program.kinds[node]
        found = self._known.get(kind)
        if found is None:
            this = self.program.nodes[node]
            operands = tuple(map(self.program.type_of, self.program.operands(node)))
            found = self._known[kind] = rules(this.op, this.args, operands, this.outputs)
        return found
