"""Where layers may do what they do: meshes over all devices, or over some while others idle.

On unlike devices, or over a slow network, a step is often shortest on a few of them. Which few is
decided about as meshes are: each kind of device alone, those that compute fastest together, one
node; in places of neighbouring devices, inside of which weights are cut. The batch is shared out
over places evenly, or in proportion to speed. Who idles is a place with a share of 0; such a plan
has a home (`weft.parallel.homes`) where all of it happens but that everyone is told the loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import gcd

from weft.core.errors import InfeasibleError
from weft.machine.meeting import device_of
from weft.machine.model import Machine
from weft.machine.topology import nodes_of, with_nodes_of
from weft.parallel.candidate import Candidate, assemble
from weft.parallel.copies import Decision, copies_for
from weft.parallel.degrees import Degrees
from weft.parallel.experts import MOST_WIDE, Desk, wide_grid
from weft.parallel.placement import REPLICATED, Mesh
from weft.parallel.plan import Copy, Hop, Level
from weft.parallel.propagate import combine, grid
from weft.parallel.proportions import Pace, shared_out, units_of
from weft.parallel.request import PlanRequest
from weft.parallel.reshard import Resharding
from weft.parallel.rows import batch_rows
from weft.parallel.schemes import Schemes
from weft.parallel.wide import Ways
from weft.program.graph import Phase

__all__ = ["Spot", "computing_s", "spots", "written"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A mesh over all of a machine, or over part of it.

    Attributes:
        degrees: of the devices that are busy; the stage of ZeRO is decided about later.
        machine: those devices.
        places: which of the machine's places of `degrees.tp` neighbouring devices they are; () if
            none is idle.
    """

    degrees: Degrees
    machine: Machine
    places: tuple[int, ...] = ()

    @property
    def mesh(self) -> Mesh:
        """Along whose axes layers do what they do. The first cuts no weights if others idle."""
        degrees = self.degrees
        if not self.places or degrees.dp == 1 or degrees.shares:
            return degrees.mesh
        return Mesh.uneven((degrees.dp, degrees.tp), tuple(range(1, degrees.dp + 1)))

    @property
    def ranks(self) -> str:
        """Which ranks are busy, as people write it."""
        size, runs = self.degrees.tp, list[list[int]]()
        for place in self.places:
            if runs and runs[-1][1] == place * size:
                runs[-1][1] += size
            else:
                runs.append([place * size, (place + 1) * size])
        return ", ".join(f"{first}-{end - 1}" for first, end in runs)

    def layout(self, devices: int) -> tuple[int, ...]:
        """Shares of all places of a machine of so many devices, 0 for those that are idle."""
        shares = self.degrees.shares or (1,) * self.degrees.dp
        given = dict(zip(self.places, shares, strict=True))
        return tuple(given.get(place, 0) for place in range(devices // self.degrees.tp))


def spots(request: PlanRequest, schemes: Schemes, whole_s: Mapping[str, float]) -> list[Spot]:
    """All that are chosen from; none on a machine of one device.

    Args:
        request: what to plan; on a mesh that somebody asks for, or with pins, no device idles.
        schemes: of its program, or of a short version.
        whole_s: what each kind of device takes for all of the program, by its name [s].
    """
    machine = request.machine
    found = [Spot(degrees=_plain(own), machine=machine) for own in wide_grid(request)]
    if request.mesh is not None:
        found = [spot for spot in found if spot.degrees.mesh == request.mesh]
    elif not request.pinning.values:
        rows = batch_rows(schemes.program)
        for ranks in _parts(machine, whole_s):
            found += _on_some(machine, ranks, rows, whole_s)
    return list({(spot.degrees, spot.places): spot for spot in found}.values())


def _plain(degrees: Degrees) -> Degrees:
    return replace(degrees, zero=0)


def _parts(machine: Machine, whole_s: Mapping[str, float]) -> list[tuple[range, ...]]:
    """Ranks of parts of a machine: a node of the fastest, each kind, the fastest kinds together."""
    ends = list(accumulate((group.num_devices for group in machine.groups), initial=0))
    ranks = [range(first, end) for first, end in pairwise(ends)]
    order = sorted(range(len(ranks)), key=lambda n: (whole_s[machine.groups[n].device.name], n))
    first = ranks[order[0]]
    parts = [(first[: machine.groups[order[0]].devices_per_node],)]
    parts += [(own,) for own in ranks]
    parts += [tuple(ranks[n] for n in sorted(order[:count])) for count in range(2, len(order))]
    whole = machine.num_devices
    return [own for own in dict.fromkeys(parts) if sum(map(len, own)) < whole]


def _on_some(
    machine: Machine, ranks: Sequence[range], rows: int, whole_s: Mapping[str, float]
) -> Iterator[Spot]:
    """Places of neighbouring devices on part of the machine."""
    total = machine.num_devices
    own = with_nodes_of(machine, [run for of_range in ranks for run in nodes_of(machine, of_range)])
    count = own.num_devices
    for size in (n for n in range(2, min(count, MOST_WIDE) + 1) if total % n == 0):
        if any(part.start % size or len(part) % size for part in ranks):
            continue
        places = tuple(rank // size for part in ranks for rank in part[::size])
        for shares in ((), _proportions(own, size, rows // size, whole_s)):
            degrees = Degrees(dp=count // size, tp=size, wide=True, shares=shares)
            yield Spot(degrees=degrees, machine=own, places=places)


def _proportions(
    machine: Machine, size: int, rows: int, whole_s: Mapping[str, float]
) -> tuple[int, ...]:
    """Shares of places in proportion to speed; () if there are too few rows, or they are even."""
    every = range(0, machine.num_devices, size)
    units = units_of(rows) if rows else 0
    if units < len(every):
        return ()
    paces = [
        Pace(0.0, max(whole_s[device_of(machine, rank + k).name] for k in range(size)))
        for rank in every
    ]
    given = shared_out(paces, units)
    common = gcd(*given)
    return tuple(share // common for share in given) if len(set(given)) > 1 else ()


def computing_s(spot: Spot, whole_s: Mapping[str, float]) -> float:
    """How long the last device computes that does its share and nothing else [s].

    Args:
        spot: where.
        whole_s: what each kind of device takes for all of the program, by its name [s].
    """
    degrees = spot.degrees
    shares = degrees.shares or (1,) * degrees.dp
    longest = 0.0
    for rank in range(degrees.num_devices):
        part = shares[rank // degrees.tp] / sum(shares) / degrees.tp
        longest = max(longest, part * whole_s[device_of(spot.machine, rank).name])
    return longest


def written(
    name: str,
    desk: Desk,
    request: PlanRequest,
    spot: Spot,
    stored: int,
    ways: Mapping[int, Ways],
) -> Candidate:
    """The plan, simulated.

    Args:
        name: what people call it.
        desk: of the program, or of a short version.
        request: what to plan.
        spot: where.
        stored: stage of ZeRO along axes that cut evenly.
        ways: what layers do along the axes of the spot's mesh, by the node of their weights.

    Raises:
        InputError: sizes do not divide.
        InfeasibleError: it would not keep a pin.
    """
    degrees = replace(spot.degrees, zero=stored)
    if not spot.places:
        made = desk.candidate(request.machine, degrees, request.limit_bytes, dict(ways))
        return replace(made, name=name)
    return _with_idle(name, desk, request, spot, degrees, ways)


def _with_idle(
    name: str,
    desk: Desk,
    request: PlanRequest,
    spot: Spot,
    degrees: Degrees,
    ways: Mapping[int, Ways],
) -> Candidate:
    if request.pinning.values:
        raise InfeasibleError(
            need="a plan that keeps its pins on all devices",
            got=f"{len(spot.places)} busy places",
            hint="use all devices, or drop the pins",
        )
    machine, program = request.machine, desk.program
    layout = spot.layout(machine.num_devices)
    if degrees.dp > 1:
        everywhere = replace(degrees, dp=len(layout), shares=layout)
        axes, lasting = desk.schemes.axes(everywhere, wide=ways)
    else:
        inner, lasting = desk.schemes.axes(degrees, wide=ways)
        axes = [replace(desk.schemes.placed_axis(1, {}, ()), shares=layout), *inner]
    busy = grid(axes)
    own = tuple(replace(strategy, home=1) for strategy in combine(axes))
    copies = copies_for(program, Decision(own, {}, lasting), Resharding(machine, busy))
    whole = (REPLICATED,) * busy.num_axes
    told = Copy(program.loss, Phase.FORWARD, whole, whole, (Hop(0, REPLICATED, 0),), False, 1, 0)
    return assemble(
        name,
        program,
        machine,
        Mesh(busy.shape),
        own,
        [*(replace(copy, origin_home=1, target_home=1) for copy in copies), told],
        memory_limit_bytes=request.limit_bytes,
        level=Level.EXPERT,
        homes=(busy,),
    )
