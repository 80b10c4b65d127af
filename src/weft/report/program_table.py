"""A program in a table: how large it is and what it is made of."""

from __future__ import annotations

from collections import Counter

from weft.core.units import format_bytes, format_count, format_seconds
from weft.program.graph import Phase, Program, Role
from weft.report.table import Table

__all__ = ["program_plain", "program_table"]


def program_plain(program: Program) -> dict[str, object]:
    """Size and contents of a program as JSON values."""
    inputs = Counter(i.role.value for i in program.inputs)
    return {
        "program": program.name,
        "digest": program.digest,
        "num_nodes": len(program.nodes),
        "num_parameters": program.num_parameters,
        "nodes_by_phase": dict(Counter(node.phase.value for node in program.nodes)),
        "inputs_by_role": dict(inputs),
        "input_bytes_by_role": {role.value: _bytes(program, role) for role in Role},
        "operators": dict(Counter(node.op for node in program.nodes).most_common()),
    }


def program_table(program: Program, capture_s: float) -> Table:
    """Size and contents of a program, for people."""
    phases = Counter(node.phase for node in program.nodes)
    common = Counter(node.op for node in program.nodes if node.op != "input").most_common(6)
    inputs = sum(i.role is Role.PARAMETER for i in program.inputs)
    rows = (
        ("parameters", f"{format_count(program.num_parameters)} in {inputs} tensors"),
        ("parameter memory", format_bytes(_bytes(program, Role.PARAMETER))),
        ("optimizer state", format_bytes(_bytes(program, Role.STATE))),
        ("batch", format_bytes(_bytes(program, Role.BATCH))),
        ("nodes", str(len(program.nodes))),
        *((f"  {phase.value}", str(phases[phase])) for phase in Phase),
        ("most common operators", ", ".join(f"{op} {count}" for op, count in common)),
        ("digest", program.digest),
        ("captured in", format_seconds(capture_s)),
    )
    return Table(caption=program.name, columns=("program", ""), rows=rows)


def _bytes(program: Program, role: Role) -> int:
    return sum(program.nodes[i.node].outputs[0].num_bytes for i in program.inputs if i.role is role)
