"""The law: what every plan, searched or written by hand, has to obey.

A plan is legal for a program if each node's strategy is what the sharding rules allow on
every mesh axis, every cut dim divides, and every reader is given the sharding it reads.
"""

from __future__ import annotations

from weft.core.errors import MismatchError, VerifyError
from weft.parallel.placement import format_sharding
from weft.parallel.plan import ParallelPlan, Strategy
from weft.parallel.recompute import with_recompute
from weft.parallel.rules import Rule, rules
from weft.parallel.spmd import lower
from weft.parallel.strategies import fits
from weft.program.graph import Program
from weft.program.operators import Kind, operator

__all__ = ["require_program", "validate"]


def require_program(plan: ParallelPlan, program: Program) -> None:
    """Check that a plan was made for this program.

    Raises:
        MismatchError: the digests differ; names both.
    """
    if plan.program_digest != program.digest:
        raise MismatchError(
            need=f"the program the plan was made for: {plan.program_name} ({plan.program_digest})",
            got=f"{program.name} ({program.digest})",
            hint="plan again: a change of model, batch, optimizer or dtype changes the program",
        )


def validate(plan: ParallelPlan, program: Program) -> None:
    """Check a plan against the rules; return nothing if it is legal.

    Raises:
        MismatchError: the plan was made for another program.
        VerifyError: a strategy follows no rule, a dim does not divide, or a copy is missing.
    """
    require_program(plan, program)
    expanded = with_recompute(program, plan.recompute)
    lower(program, plan)
    legal: dict[object, frozenset[Rule]] = {}
    for number, (node, strategy) in enumerate(zip(expanded.nodes, plan.strategies, strict=True)):
        operands = tuple(expanded.type_of(v) for v in expanded.operands(number))
        _require(
            fits(plan.mesh, strategy, operands, node.outputs), expanded, number, strategy, "divide"
        )
        if operator(node.op).kind is Kind.INPUT:
            whole = all(p >= -1 for p in strategy.outputs[0])
            _require(whole, expanded, number, strategy, "hold whole values in inputs")
            continue
        key = (node.op, node.args, operands, node.outputs)
        if key not in legal:
            legal[key] = frozenset(rules(node.op, node.args, operands, node.outputs))
        for axis in range(plan.mesh.num_axes):
            rule = Rule(
                outputs=tuple(s[axis] for s in strategy.outputs),
                operands=tuple(s[axis] for s in strategy.operands),
            )
            _require(
                rule in legal[key], expanded, number, strategy, f"follow a rule on axis {axis}"
            )


def _require(holds: bool, program: Program, number: int, strategy: Strategy, law: str) -> None:
    if holds:
        return
    node = program.nodes[number]
    made = " and ".join(format_sharding(s) for s in strategy.outputs)
    read = "; ".join(format_sharding(s) for s in strategy.operands)
    raise VerifyError(
        need=f"strategies that {law}",
        got=f"%{number} {node.op} {node.scope} {node.source}: makes {made}, reads {read}",
        hint="the plan file is damaged or was edited; plan again",
    )
