"""A plan in words: numbers first, in the terms of the field, and always what lost.

Every sentence is computed from the plan and its simulated step; nothing is remembered from
the search.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import groupby

from weft.core.units import format_bytes, format_seconds
from weft.cost.timeline import Stream, Timeline
from weft.machine.model import Machine
from weft.machine.topology import axis_group
from weft.parallel.candidate import simulate_plan
from weft.parallel.local import communicates
from weft.parallel.placement import Mesh
from weft.parallel.plan import Alternative, ParallelPlan, Prediction
from weft.parallel.recompute import with_recompute
from weft.parallel.spmd import lower
from weft.parallel.validate import require_machine, require_program
from weft.parallel.wording import headline, labelled, lost
from weft.program.graph import Phase, Program, Role, Value
from weft.program.operators import Kind, operator
from weft.program.work import work

__all__ = ["axis_roles", "explain"]

_MOST_ALTERNATIVES = 4


def explain(plan: ParallelPlan, program: Program, machine: Machine) -> str:
    """Say why a plan is what it is.

    Args:
        plan: made for this program and machine.
        program: as captured.
        machine: where it runs.

    Returns:
        Lines of text, the first of which says the result.

    Raises:
        MismatchError: the plan was made for another program or another machine.
    """
    require_program(plan, program)
    require_machine(plan, machine)
    timeline, prediction = simulate_plan(plan, program, machine)
    rows = [
        ("mesh", _mesh(plan, program, machine)),
        *(("home", text) for text in _homes(plan, program)),
        ("weights", _stored(plan, program, Role.PARAMETER)),
        ("optimizer", _stored(plan, program, Role.STATE)),
        ("memory", _memory(plan, prediction)),
        ("network", _network(plan, program, timeline, prediction)),
    ]
    if plan.recompute:
        rows.append(("recompute", f"{len(plan.recompute)} forward operators run again"))
    rows += [("why not", _lost(plan, other)) for other in _worth_naming(plan)]
    rows += [("note", note) for note in plan.notes]
    return labelled(_headline(plan, machine, prediction), rows)


def axis_roles(plan: ParallelPlan, program: Program) -> tuple[dict[str, float], ...]:
    """For each mesh axis, what it cuts in the forward products, as shares of their FLOPs.

    Roles: "batch" (dim 0 of the activations), "sequence" (another of their dims that the
    product keeps), "tensor" (a dim of the weight, or heads), "copies" (nothing: every device
    along the axis does the same).
    """
    expanded = with_recompute(program, plan.recompute)
    shares: list[dict[str, float]] = [defaultdict(float) for _ in plan.mesh.shape]
    total = 0.0
    for number, node in enumerate(expanded.nodes):
        kind = operator(node.op).kind
        if node.phase is not Phase.FORWARD or kind not in _PRODUCTS:
            continue
        operands = tuple(expanded.type_of(v) for v in expanded.operands(number))
        flops = work(node.op, node.args, operands, node.outputs).flops
        total += flops
        weights = [_is_weight(expanded, value) for value in expanded.operands(number)]
        for axis, share in enumerate(shares):
            placements = [s[axis] for s in plan.strategies[number].operands]
            share[_role(placements, weights)] += flops
    return tuple(
        {role: flops / total for role, flops in sorted(share.items(), key=lambda kv: -kv[1])}
        if total
        else {}
        for share in shares
    )


_PRODUCTS = (Kind.CONTRACT, Kind.CONVOLUTION, Kind.ATTENTION)


def _role(placements: list[int], weights: list[bool]) -> str:
    pairs = list(zip(placements, weights, strict=True))
    if any(p >= 0 for p, is_weight in pairs if is_weight):
        return "tensor"
    cut = [p for p, is_weight in pairs if not is_weight and p >= 0]
    if not cut:
        return "copies"
    if cut[0] == 0:
        return "batch"
    return "sequence" if any(weights) else "tensor"


def _is_weight(program: Program, value: Value) -> bool:
    """True for a parameter, or a view or cast of one."""
    while value.node not in program.input_by_node:
        node = program.nodes[value.node]
        if operator(node.op).kind is not Kind.VIEW and node.op != "cast":
            return False
        value = program.operands(value.node)[0]
    return program.input_by_node[value.node].role is Role.PARAMETER


def _headline(plan: ParallelPlan, machine: Machine, prediction: Prediction) -> str:
    text = headline(
        plan.program_name,
        machine,
        prediction.step_s,
        prediction.peak_bytes,
        plan.memory_limit_bytes,
    )
    if plan.prediction.bound_s > 0:
        text += f"; its objective is within {plan.prediction.gap:.1%} of its mesh's least"
    return text


def _mesh(plan: ParallelPlan, program: Program, machine: Machine) -> str:
    if plan.mesh.num_devices == 1:
        return "one device"
    parts: list[str] = []
    shared = False
    for axis, roles in enumerate(axis_roles(plan, program)):
        cuts = [f"{role} {share:.0%}" for role, share in roles.items() if share >= 0.005]
        idle = not roles or roles.get("copies", 0.0) >= 0.995
        shared = shared or not idle
        does = "cuts no product" if idle else f"cuts {', '.join(cuts)}"
        shares = "" if plan.mesh.cuts_evenly(axis) else f" as {_shares(plan.mesh)}"
        parts.append(f"{plan.mesh.shape[axis]}{shares} ({_where(machine, plan, axis)}) {does}")
    text = " x ".join(parts)
    return text if shared else f"{text}: all devices repeat work that is too little to share out"


def _shares(mesh: Mesh) -> str:
    """Proportions along the first axis, such as 3:3:1:1; runs of equal ones as 8 x 3."""
    shares = mesh.shares[0] if mesh.shares else (1,) * mesh.shape[0]
    runs = [(share, sum(1 for _ in run)) for share, run in groupby(shares)]
    return ":".join(f"{n} x {share}" if n > 3 else ":".join([str(share)] * n) for share, n in runs)


def _homes(plan: ParallelPlan, program: Program) -> list[str]:
    """What lives on which devices, most work first; nothing if all of it lives on all."""
    if not plan.homes:
        return []
    nodes: Counter[int] = Counter()
    held: Counter[int] = Counter()
    expanded = with_recompute(program, plan.recompute)
    for number, (node, strategy) in enumerate(zip(expanded.nodes, plan.strategies, strict=True)):
        source = expanded.input_by_node.get(number)
        if source is None:
            nodes[strategy.home] += 1
        elif source.role.is_persistent:
            held[strategy.home] += node.outputs[0].num_bytes
    order = sorted({*nodes, *held}, key=lambda home: (-nodes[home], home))
    lines = [
        f"{_shares(plan.mesh_of(home))}: {nodes[home]} operators, "
        f"{format_bytes(held[home])} of state"
        for home in order[:MOST_HOMES]
    ]
    left = order[MOST_HOMES:]
    return [*lines, *([f"and {len(left)} more"] if left else [])]


MOST_HOMES = 6
"""Homes that an explanation names."""


def _where(machine: Machine, plan: ParallelPlan, axis: int) -> str:
    inside, across = axis_group(machine, plan.mesh.shape, axis).sizes
    if across == 1:
        return "inside a node"
    return "across nodes" if inside == 1 else "inside nodes and across"


def _stored(plan: ParallelPlan, program: Program, role: Role) -> str:
    """How much of the whole each device stores, in bytes."""
    full = local = 0.0
    for source in program.inputs:
        if source.role is not role:
            continue
        size = program.nodes[source.node].outputs[0].num_bytes
        strategy = plan.strategies[_number(plan, program, source.node)]
        outer, *inner = strategy.outputs[0]
        # Of homes on some of the devices: what a device holds in the mean. Parts are one whole.
        copies = 1 if outer >= 0 else len(plan.mesh_of(strategy.home).members(0))
        parts = plan.mesh.shape[0]
        for count, placement in zip(plan.mesh.shape[1:], inner, strict=True):
            parts *= count if placement >= 0 else 1
        full += size
        local += size * copies / parts
    if not full:
        return "none"
    each = "on each device" if not plan.homes else "on a device, in the mean"
    return f"{format_bytes(local)} of {format_bytes(full)} {each} (1/{full / local:.3g})"


def _number(plan: ParallelPlan, program: Program, node: int) -> int:
    """Number of an input in the program that the strategies are for; inputs keep their order."""
    if not plan.recompute:
        return node
    expanded = with_recompute(program, plan.recompute)
    return expanded.input_by_name[program.input_by_node[node].name].node


def _memory(plan: ParallelPlan, prediction: Prediction) -> str:
    rest = prediction.peak_bytes - prediction.state_bytes
    return (
        f"{format_bytes(prediction.state_bytes)} of weights and optimizer state, "
        f"{format_bytes(rest)} of activations, gradients and buffers at the peak"
    )


def _network(
    plan: ParallelPlan, program: Program, timeline: Timeline, prediction: Prediction
) -> str:
    if prediction.communication_s == 0:
        return "no communication"
    hidden = 1.0 - min(1.0, prediction.exposed_s / prediction.communication_s)
    sums: dict[str, float] = defaultdict(float)
    for event in timeline.events:
        if event.stream is Stream.COMMUNICATION:
            sums[event.kind] += event.duration_s
    counts = _counts(lower(program, plan).instructions)
    largest = sorted(sums.items(), key=lambda kv: -kv[1])[:3]
    text = ", ".join(f"{counts[kind]} {kind} {format_seconds(s)}" for kind, s in largest)
    return f"{format_seconds(prediction.communication_s)}, {hidden:.0%} hidden: {text}"


def _counts(instructions: Iterable[object]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for instruction in instructions:
        if communicates(instruction):
            counts[instruction.kind.value] += 1
    return counts


def _worth_naming(plan: ParallelPlan) -> list[Alternative]:
    """The best alternatives, the best hand-written plan among them."""
    named = list(plan.alternatives[:_MOST_ALTERNATIVES])
    written = [other for other in plan.alternatives if not _is_searched(other)]
    if written and written[0] not in named:
        named[-1:] = [written[0]]
    return named


def _is_searched(other: Alternative) -> bool:
    return other.name.startswith(("mesh ", "dqn ")) or other.name.endswith("by tree search")


def _lost(plan: ParallelPlan, other: Alternative) -> str:
    searched = "searched, " if other.name.startswith("mesh ") else ""
    return searched + lost(other, plan.prediction.step_s)
