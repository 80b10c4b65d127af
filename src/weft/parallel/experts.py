"""Hand-written plans: what a good engineer would configure, and what a search has to beat.

The degrees of the classical schemes (`weft.parallel.degrees`) make one mesh axis each; a plan
is what follows from them by the least movement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import gcd
from typing import Unpack

from weft.core.errors import InfeasibleError, InputError
from weft.machine.model import Machine
from weft.parallel.by_axes import candidate_by_axes
from weft.parallel.candidate import Candidate, Proposal
from weft.parallel.degrees import DegreeNames, Degrees
from weft.parallel.depth import Shortened, Views
from weft.parallel.factors import paying_products
from weft.parallel.homes import Homes, plan_by_homes
from weft.parallel.pinning import Pinning, resolve
from weft.parallel.pins import Pin
from weft.parallel.plan import ParallelPlan
from weft.parallel.propagate import AxisRules
from weft.parallel.recompute import RECOMPUTATIONS, expand
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows
from weft.parallel.schemes import Schemes
from weft.parallel.way_prices import cheapest
from weft.parallel.wide import Ways
from weft.program.graph import Program, Role, Value

__all__ = [
    "Desk",
    "Desks",
    "expert_candidate",
    "expert_plan",
    "expert_proposals",
    "plan_by_degrees",
    "wide_grid",
]


def expert_plan(
    program: Program, machine: Machine, *, pins: Sequence[Pin] = (), **degrees: Unpack[DegreeNames]
) -> ParallelPlan:
    """The plan that an engineer writes with these degrees.

    Args:
        program: one training step.
        machine: at least dp * cp * tp devices.
        pins: what the plan has to keep to, beside the program's own pins.
        **degrees: of each scheme, as attributes of `weft.parallel.degrees.Degrees`: `dp`, `tp`,
            `sp`, `cp`, `ep`, `zero`, `recompute`; `fsdp=True` is `zero=3`.

    Raises:
        InputError: the degrees do not divide the batch or the weights, or are too many.
        InfeasibleError: the degrees do not keep a pin; names it.
    """
    unknown = sorted(degrees.keys() - DegreeNames.__annotations__.keys())
    if unknown:
        raise InputError(
            need=f"degrees of one stage: {', '.join(DegreeNames.__annotations__)}",
            got=", ".join(unknown),
            hint="`weft score --pp` on the command line writes pipelines",
        )
    return plan_by_degrees(program, machine, Degrees.named(**degrees), resolve(program, pins))


def plan_by_degrees(
    program: Program, machine: Machine, degrees: Degrees, pinning: Pinning
) -> ParallelPlan:
    """`expert_plan` of degrees as one value, for a program whose pins have been resolved."""
    _require_room(degrees, program, machine)
    limit = min(group.device.memory_bytes.value for group in machine.groups)
    return Desk(program, pinning, degrees.recompute).candidate(machine, degrees, limit).plan


def _require_room(degrees: Degrees, program: Program, machine: Machine) -> None:
    """Check the degrees against the machine and the batch, before anything finer is tried."""
    if degrees.num_devices > machine.num_devices:
        raise InputError(
            need=f"at most {machine.num_devices} devices, which is what {machine.name} has",
            got=f"{degrees.num_devices}: {degrees.name}",
            hint="lower the degrees, or take a larger machine",
        )
    for source in program.inputs:
        shape = program.nodes[source.node].outputs[0].shape
        if source.role is Role.BATCH and shape and shape[0] % degrees.data_units:
            raise InputError(
                need=f"a batch that {degrees.data_units} data-parallel devices or shares divide",
                got=f"{source.name} with {shape[0]} rows",
                hint="change the batch size or the data-parallel degree",
            )


def expert_candidate(
    program: Program, machine: Machine, degrees: Degrees, *, memory_limit_bytes: float
) -> Candidate:
    """An expert's plan, simulated."""
    desk = Desk(program, resolve(program), degrees.recompute)
    return desk.candidate(machine, degrees, memory_limit_bytes)


class Desk:
    """Where plans are written for one program; what several of them share is kept.

    Args:
        program: to write plans for.
        pinning: what they have to keep to.
        recompute: one of `RECOMPUTATIONS`.
    """

    def __init__(self, program: Program, pinning: Pinning, recompute: str = "") -> None:
        self.program = program
        self.schemes = Schemes(program)
        self._expanded = expand(program, RECOMPUTATIONS[recompute](program))
        self._pinning = pinning.through(self._expanded.origin, self._expanded.program)

    def candidate(
        self,
        machine: Machine,
        degrees: Degrees,
        memory_limit_bytes: float,
        wide: Mapping[int, Ways] | None = None,
    ) -> Candidate:
        """The plan, simulated.

        Args:
            machine: where it runs.
            degrees: of each scheme.
            memory_limit_bytes: limit of one device [bytes].
            wide: what wide layers do, by the node of their weights; what is cheapest if None.

        Raises:
            InputError: the degrees do not divide.
            InfeasibleError: the plan would not keep a pin.
        """
        whole = frozenset[int]()
        if degrees.factors:
            whole = paying_products(self.program, machine, degrees.mesh)
            if not whole:
                raise InputError(
                    need="a gradient whose factors are cheaper to send than itself",
                    got=f"none in {self.program.name} on {machine.name}",
                    hint="leave factors out: many rows for each weight, or a fast network",
                )
        if degrees.wide and wide is None:
            wide = cheapest(self.schemes.runs, machine, degrees.mesh)
            if not wide:
                raise InputError(
                    need="a layer that is cheaper to cut than to synchronise",
                    got=f"none in {self.program.name} on {machine.name}",
                    hint="leave wide out: many rows for each weight, or a fast network",
                )
        axes, lasting = self.schemes.axes(degrees, whole, wide or {})
        return self.by_axes(degrees.name, machine, axes, lasting, memory_limit_bytes)

    def by_axes(
        self,
        name: str,
        machine: Machine,
        axes: Sequence[AxisRules],
        lasting: frozenset[Value],
        memory_limit_bytes: float,
    ) -> Candidate:
        """The plan of these axes, simulated; see `candidate_by_axes` for the arguments.

        Raises:
            InfeasibleError: the plan would not keep a pin.
        """
        return candidate_by_axes(
            name,
            self.program,
            machine,
            axes,
            lasting=lasting,
            expanded=self._expanded,
            pinning=self._pinning,
            memory_limit_bytes=memory_limit_bytes,
        )


def expert_proposals(request: PlanRequest, views: Views | None = None) -> list[Proposal]:
    """All experts' plans over all devices that the program's sizes allow.

    Degrees that do not divide are left out: an engineer would not configure them. So are plans
    that do not keep a pin.
    """
    found: list[Proposal] = []
    desks = Desks(request.program, request.pinning, views)
    schemes = desks.whole.schemes
    even = [*_grid(request, schemes), *(own for own in wide_grid(request) if not own.shares)]
    shared = request.in_proportion
    plain = [d for d in (*even, *shared) if d == Degrees(dp=d.dp, shares=d.shares) and d.dp > 1]
    for degrees in (*even, *shared, *(replace(own, factors=True) for own in plain)):
        if request.mesh is not None and degrees.mesh != request.mesh:
            continue
        try:
            found.append(_proposal(request, degrees, desks))
        except (InputError, InfeasibleError):
            continue
    return [*found, *_on_some(request, schemes)]


def _on_some(request: PlanRequest, schemes: Schemes) -> list[Proposal]:
    """Data parallel in proportion on some of unlike devices, the others left alone."""
    program, machine = request.program, request.machine
    if machine.is_uniform or request.mesh is not None or request.pinning.values:
        return []
    found: list[Proposal] = []
    for layout in request.proportions.layouts_of_some():
        members = sum(map(bool, layout))
        candidate = plan_by_homes(
            f"DDP on {members} of {machine.num_devices} devices",
            program,
            machine,
            Homes(layouts=(layout,), home=(0,) * len(program.nodes)),
            memory_limit_bytes=request.limit_bytes,
            schemes=schemes,
        )
        found.append(Proposal.of(candidate))
    return found


class Desks:
    """A desk for a program and one for each of its short versions.

    Args:
        program: to write plans for.
        pinning: what they have to keep to.
        views: the short versions, if it is deep.
    """

    def __init__(self, program: Program, pinning: Pinning, views: Views | None) -> None:
        self.views = views
        self.whole = Desk(program, pinning)
        self._of_view = {
            view.gaps: Desk(view.program, pinning.through(view.origin, view.program))
            for view in (() if views is None else views.every)
        }

    def of(self, view: Shortened) -> Desk:
        """The desk of a short version."""
        return self._of_view[view.gaps]


def _proposal(request: PlanRequest, degrees: Degrees, desks: Desks) -> Proposal:
    limit = request.limit_bytes

    def written(desk: Desk) -> Candidate:
        return desk.candidate(request.machine, degrees, limit)

    if desks.views is None or degrees.shares:
        return Proposal.of(written(desks.whole))
    prediction = desks.views.predict(lambda view: written(desks.of(view)).plan.prediction)
    return Proposal(degrees.name, prediction, limit, lambda: written(desks.whole))


def _grid(request: PlanRequest, schemes: Schemes) -> list[Degrees]:
    """Degrees that are worth a try: all devices, tensor and context parallel inside a node only.

    With tensor parallel, ZeRO-1 is tried in place of plain data parallel, which moves as many
    bytes and updates all of what each device holds.
    """
    total = request.machine.num_devices
    node = min(group.devices_per_node for group in request.machine.groups)
    if total == 1:
        return [Degrees()]
    tensor = [n for n in (2, 4, 8, 16) if n <= node and total % n == 0]
    return [
        *(Degrees(dp=total, zero=zero) for zero in (0, 1, 3)),
        *(
            Degrees(dp=total // n, tp=n, zero=zero, sp=sp)
            for n in tensor
            for zero in ((1, 3) if total > n else (0,))
            for sp in (False, True)
        ),
        *_context_grid(request.program, schemes, total, node),
        *_expert_grid(schemes, total, node),
    ]


MOST_WIDE = 16
"""Devices that wide layers are cut over at most, beside all. Chosen: as for tensor parallelism."""


def wide_grid(request: PlanRequest) -> list[Degrees]:
    """Meshes on which wide layers may be cut, over more or fewer neighbouring devices.

    Between them, the batch is cut evenly, or in proportion to speed where devices are unlike.
    """
    total = request.machine.num_devices
    sizes = [n for n in range(2, min(total, MOST_WIDE + 1)) if total % n == 0]
    # Weights that are gathered after the update have nothing to hide behind.
    stages = (1, 3) if request.machine.is_uniform else (0, 1, 3)
    even = [
        Degrees(dp=total // n, tp=n, zero=zero, wide=True)
        for n in ([*sizes, total] if total > 1 else [])
        for zero in (stages if n < total else (0,))
    ]
    return [*even, *(own for own in request.in_proportion if own.wide)]


def _context_grid(program: Program, schemes: Schemes, total: int, node: int) -> list[Degrees]:
    """The sequence is cut only where the batch has too few rows for all devices.

    Else data parallelism does the same work without gathering keys.
    """
    rows = gcd(total, batch_rows(program))
    if rows == total or total // rows > node or not schemes.has_sequence:
        return []
    return [Degrees(dp=rows, cp=total // rows, zero=1)]


def _expert_grid(schemes: Schemes, total: int, node: int) -> list[Degrees]:
    """Experts over as many devices as there are experts, and over those of a node."""
    sizes = {gcd(total, schemes.num_experts), gcd(node, total, schemes.num_experts)} - {1}
    return [
        Degrees(dp=total, ep=size, zero=zero)
        for size in sorted(sizes)
        if schemes.num_experts > 1
        for zero in (1, 3)
    ]
