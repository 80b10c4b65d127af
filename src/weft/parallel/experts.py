"""Hand-written plans: what a good engineer would configure, and what a search has to beat.

A degree of each classical scheme makes one mesh axis:

    data parallel       the batch is cut; gradients are summed
    fully sharded       data parallel, and parameters, gradients and optimizer state are cut as
                        well; weights are gathered for use
    tensor parallel     weights of matrix products are cut by columns, then by rows, so that one
                        all-reduce joins each pair
    sequence parallel   between such pairs, activations are cut along the sequence

Sources: PyTorch DDP (Li et al., arXiv 2006.15704), ZeRO (Rajbhandari et al., arXiv 1910.02054),
Megatron-LM (Shoeybi et al., arXiv 1909.08053; Korthikanti et al., arXiv 2205.05198).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from weft.core.errors import InfeasibleError, InputError
from weft.machine.model import Machine
from weft.parallel.candidate import Candidate, Proposal, assemble
from weft.parallel.copies import Decision, copies_for, recomputed
from weft.parallel.depth import Shortened, Views
from weft.parallel.greedy import greedy_axis
from weft.parallel.kept import require_kept
from weft.parallel.pinning import Pinning, resolve
from weft.parallel.pins import Pin
from weft.parallel.placement import REPLICATED, Mesh, Placement
from weft.parallel.plan import Level, ParallelPlan
from weft.parallel.propagate import Axis, AxisRules, combine
from weft.parallel.recompute import RECOMPUTATIONS, expand
from weft.parallel.request import PlanRequest
from weft.parallel.reshard import Resharding
from weft.parallel.roles import (
    WeightCut,
    boundary_nodes,
    product_placements,
    weight_cuts,
)
from weft.parallel.rules import RuleBook
from weft.program.graph import Program, Role

__all__ = [
    "Expert",
    "expert_candidate",
    "expert_plan",
    "expert_proposals",
    "pinned_expert_plan",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """Degrees of the classical schemes: devices = data * tensor.

    Attributes:
        data: ways the batch is cut.
        tensor: ways weights are cut.
        sharded: parameters and optimizer state are cut over the data axis.
        sequence: activations are cut along the sequence over the tensor axis.
    """

    data: int = 1
    tensor: int = 1
    sharded: bool = False
    sequence: bool = False

    def __post_init__(self) -> None:
        if self.data < 1 or self.tensor < 1 or (self.sequence and self.tensor == 1):
            raise InputError(
                need="degrees of at least 1, and a tensor degree above 1 for sequence parallel",
                got=f"data {self.data}, tensor {self.tensor}, sequence {self.sequence}",
                hint="for example --dp 16 --tp 4 --sp",
            )

    @property
    def name(self) -> str:
        """What engineers call it."""
        data = f"{'FSDP' if self.sharded else 'DDP'} {self.data}" if self.data > 1 else ""
        tensor = f"TP {self.tensor}{' + SP' if self.sequence else ''}" if self.tensor > 1 else ""
        return " x ".join(part for part in (data, tensor) if part) or "one device"

    @property
    def mesh(self) -> Mesh:
        """The mesh: data outside, tensor inside; axes of one device are left out."""
        shape = tuple(n for n in (self.data, self.tensor) if n > 1)
        return Mesh(shape or (1,))


def expert_plan(
    program: Program,
    machine: Machine,
    *,
    dp: int = 1,
    tp: int = 1,
    fsdp: bool = False,
    sp: bool = False,
    recompute: str = "",
    pins: Sequence[Pin] = (),
) -> ParallelPlan:
    """The plan that an engineer writes with these degrees.

    Args:
        program: one training step.
        machine: at least dp * tp devices.
        dp: data-parallel degree.
        tp: tensor-parallel degree.
        fsdp: cut parameters and optimizer state over the data-parallel axis (ZeRO-3).
        sp: cut activations along the sequence between tensor-parallel pairs.
        recompute: what runs again in the backward pass: "cheap" for all but products, "full" for
            all of each layer.
        pins: what the plan has to keep to, beside the program's own pins.

    Raises:
        InputError: the degrees do not divide the batch or the weights, or are too many.
        InfeasibleError: the degrees do not keep a pin; names it.
    """
    expert = Expert(data=dp, tensor=tp, sharded=fsdp, sequence=sp)
    return pinned_expert_plan(program, machine, expert, recompute, resolve(program, pins))


def pinned_expert_plan(
    program: Program, machine: Machine, expert: Expert, recompute: str, pinning: Pinning
) -> ParallelPlan:
    """`expert_plan` for a program whose pins have been resolved."""
    if recompute not in RECOMPUTATIONS:
        raise InputError(
            need=f"one of {', '.join(map(repr, RECOMPUTATIONS))} to recompute",
            got=repr(recompute),
            hint="full recomputation keeps the least",
        )
    _require_room(expert, program, machine)
    limit = min(group.device.memory_bytes.value for group in machine.groups)
    again = RECOMPUTATIONS[recompute](program)
    return _Desk(program, pinning, again).candidate(machine, expert, limit).plan


def _require_room(expert: Expert, program: Program, machine: Machine) -> None:
    """Check the degrees against the machine and the batch, before anything finer is tried."""
    devices = expert.data * expert.tensor
    if devices > machine.num_devices:
        raise InputError(
            need=f"at most {machine.num_devices} devices, which is what {machine.name} has",
            got=f"{devices}: data {expert.data} x tensor {expert.tensor}",
            hint="lower the degrees, or take a larger machine",
        )
    for source in program.inputs:
        shape = program.nodes[source.node].outputs[0].shape
        if source.role is Role.BATCH and shape and shape[0] % expert.data:
            raise InputError(
                need=f"a batch that {expert.data} data-parallel devices divide",
                got=f"{source.name} with {shape[0]} rows",
                hint="change the batch size or the data-parallel degree",
            )


def expert_candidate(
    program: Program, machine: Machine, expert: Expert, *, memory_limit_bytes: float
) -> Candidate:
    """An expert's plan, simulated."""
    return _Desk(program, resolve(program)).candidate(machine, expert, memory_limit_bytes)


class _Desk:
    """Where experts write plans for one program; what several of them share is kept."""

    def __init__(self, program: Program, pinning: Pinning, again: tuple[int, ...] = ()) -> None:
        self.program = program
        self.book = RuleBook(program)
        self._expanded = expand(program, again)
        self._pinning = pinning.through(self._expanded.origin, self._expanded.program)
        self._data_axes: dict[tuple[int, bool], AxisRules] = {}

    def candidate(self, machine: Machine, expert: Expert, memory_limit_bytes: float) -> Candidate:
        """The plan, simulated.

        Raises:
            InputError: the degrees do not divide.
            InfeasibleError: the plan would not keep a pin.
        """
        axes: list[AxisRules] = []
        if expert.data > 1 or expert.tensor == 1:
            axes.append(self._data_axis(expert))
        if expert.tensor > 1:
            axes.append(_tensor_axis(self, expert, axes))
        decision = Decision(combine(axes), {})
        if self._expanded.chosen:
            decision = recomputed(decision, self.program, self._expanded)
        expanded = self._expanded.program
        copies = copies_for(expanded, decision, Resharding(machine, expert.mesh))
        require_kept(expert.mesh, decision.strategies, copies, expanded, self._pinning)
        return assemble(
            expert.name,
            self.program,
            machine,
            expert.mesh,
            decision.strategies,
            copies,
            memory_limit_bytes=memory_limit_bytes,
            recompute=self._expanded.chosen,
            expanded=self._expanded,
            level=Level.EXPERT,
        )

    @cached_property
    def cuts(self) -> dict[int, WeightCut]:
        """How tensor parallelism cuts each weight."""
        return weight_cuts(self.program)

    def _data_axis(self, expert: Expert) -> AxisRules:
        key = (expert.data, expert.sharded)
        if key not in self._data_axes:
            self._data_axes[key] = _data_axis(self, expert)
        return self._data_axes[key]


def expert_proposals(request: PlanRequest, views: Views | None = None) -> list[Proposal]:
    """All experts' plans over all devices that the program's sizes allow.

    Degrees that do not divide are left out: an engineer would not configure them. So are plans
    that do not keep a pin.
    """
    found: list[Proposal] = []
    desks = _Desks(request.program, request.pinning, views)
    for expert in _experts(request):
        if request.mesh is not None and expert.mesh != request.mesh:
            continue
        try:
            found.append(_proposal(request, expert, desks))
        except (InputError, InfeasibleError):
            continue
    return found


class _Desks:
    """A desk for a program and one for each of its short versions."""

    def __init__(self, program: Program, pinning: Pinning, views: Views | None) -> None:
        self.views = views
        self.whole = _Desk(program, pinning)
        short = () if views is None else (views.short, views.longer)
        self._of_view = {
            view.dropped: _Desk(view.program, pinning.through(view.origin, view.program))
            for view in short
        }

    def of(self, view: Shortened) -> _Desk:
        """The desk of a short version."""
        return self._of_view[view.dropped]


def _proposal(request: PlanRequest, expert: Expert, desks: _Desks) -> Proposal:
    limit = request.limit_bytes

    def written(desk: _Desk) -> Candidate:
        return desk.candidate(request.machine, expert, limit)

    if desks.views is None:
        candidate = written(desks.whole)
        return Proposal(expert.name, candidate.plan.prediction, limit, lambda: candidate)
    prediction = desks.views.predict(lambda view: written(desks.of(view)).plan.prediction)
    return Proposal(expert.name, prediction, limit, lambda: written(desks.whole))


def _experts(request: PlanRequest) -> list[Expert]:
    total = request.machine.num_devices
    node = min(group.devices_per_node for group in request.machine.groups)
    if total == 1:
        return [Expert()]
    tensor = [n for n in (2, 4, 8, 16) if n <= node and total % n == 0]
    return [
        *(Expert(data=total, sharded=sharded) for sharded in (False, True)),
        *(
            Expert(data=total // n, tensor=n, sharded=sharded, sequence=sequence)
            for n in tensor
            for sharded in ((False, True) if total > n else (False,))
            for sequence in (False, True)
        ),
    ]


def _data_axis(desk: _Desk, expert: Expert) -> AxisRules:
    program = desk.program
    pinned: dict[int, Placement] = {}
    for source in program.inputs:
        shape = program.nodes[source.node].outputs[0].shape
        cuts = shape and shape[0] > 1 and shape[0] % expert.data == 0
        received = source.role is Role.RECEIVED and cuts
        if (source.role is Role.BATCH and shape and shape[0] > 1) or received:
            pinned[source.node] = 0
    gathered: frozenset[int] = frozenset()
    if expert.sharded:
        stored = _stored(program, expert.data)
        pinned |= stored
        gathered = frozenset(
            i.node for i in program.inputs if i.role is Role.PARAMETER and i.node in stored
        )
    rules = greedy_axis(program, pinned, expert.data, (), gathered, desk.book)
    return AxisRules(size=expert.data, rules=rules)


def _stored(program: Program, size: int) -> dict[int, Placement]:
    """The first dim that divides, of each parameter and of the optimizer state of its shape."""
    stored: dict[int, Placement] = {}
    for source in program.inputs:
        if source.role not in (Role.PARAMETER, Role.STATE):
            continue
        shape = program.nodes[source.node].outputs[0].shape
        dim = next((d for d, n in enumerate(shape) if n > 1 and n % size == 0), None)
        if dim is not None:
            stored[source.node] = dim
    return stored


def _tensor_axis(desk: _Desk, expert: Expert, outer: list[AxisRules]) -> AxisRules:
    """Products follow their weights; activations between are whole, or cut along the sequence."""
    program = desk.program
    pinned = _cut_weights(program, desk.cuts, expert.tensor, outer)
    cuts = {node: cut for node, cut in desk.cuts.items() if node in pinned}
    products = product_placements(program, cuts)
    between = {
        node: 1 if expert.sequence and _has_sequence(program, node, expert.tensor) else REPLICATED
        for node in boundary_nodes(program, products)
    }
    axis = Axis(program, expert.tensor, outer, desk.book)
    pinned |= {
        node: placement
        for node, placement in (between | products).items()
        if any(rule.outputs[0] == placement for rule in axis.rules(node))
    }
    rules = greedy_axis(program, pinned, expert.tensor, outer, book=desk.book)
    return AxisRules(size=expert.tensor, rules=rules)


def _has_sequence(program: Program, node: int, size: int) -> bool:
    shape = program.nodes[node].outputs[0].shape
    return len(shape) >= 3 and shape[1] % size == 0


def _cut_weights(
    program: Program, cuts: dict[int, WeightCut], size: int, outer: list[AxisRules]
) -> dict[int, Placement]:
    """Placement of each cut weight and of the optimizer state that belongs to it."""
    pinned: dict[int, Placement] = {}
    names = {i.node: i.name for i in program.inputs}
    by_name = {names[node]: cut for node, cut in cuts.items()}
    for source in program.inputs:
        cut = by_name.get(source.parameter or source.name)
        shape = program.nodes[source.node].outputs[0].shape
        if cut is None or source.role not in (Role.PARAMETER, Role.STATE, Role.SHARED):
            continue
        if len(shape) <= cut.dim or len(shape) != cut.rank:
            continue
        parts = size
        for axis in outer:
            if axis.rules[source.node].outputs[0] == cut.dim:
                parts *= axis.size
        if shape[cut.dim] % parts == 0:
            pinned[source.node] = cut.dim
    if not any(program.input_by_node[n].role is not Role.STATE for n in pinned):
        raise InputError(
            need=f"weights whose columns or rows divide by a tensor degree of {size}",
            got="none",
            hint="choose a smaller tensor degree",
        )
    return pinned
