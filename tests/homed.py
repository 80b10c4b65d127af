"""Plans for unlike devices, by shares or with homes that are drawn."""

from __future__ import annotations

import random
from dataclasses import replace

from weft.machine.presets import preset
from weft.parallel.degrees import Degrees
from weft.parallel.experts import Desk, expert_plan
from weft.parallel.homes import Homes, plan_by_homes
from weft.parallel.pinning import resolve
from weft.parallel.placement import Mesh
from weft.parallel.schemes import Schemes
from weft.parallel.wide import Way, possible
from weft.program.graph import Phase

MIXED = preset("mixed-v100-p100-1080ti")


def devices(count: int):
    """So many devices of the mixed machine: half are V100s, one is on each other node."""
    first, second, _ = MIXED.groups
    groups = (
        replace(first, devices_per_node=count // 2),
        replace(second, devices_per_node=1, num_nodes=count - count // 2),
    )
    return replace(MIXED, name=f"{count} of the mixed", groups=groups)


def of_two_nodes(first: int, second: int):
    """A node of so many V100s and one of so many GTX 1080 Tis."""
    fast, slow, _ = MIXED.groups
    groups = (
        replace(fast, devices_per_node=first),
        replace(slow, devices_per_node=second, num_nodes=1),
    )
    return replace(MIXED, name=f"{first} and {second} of the mixed", groups=groups)


def uneven_plan(
    program,
    *,
    ranks=4,
    shares=(),
    factors=False,
    tp=1,
    layouts=(),
    seed=None,
    served=False,
    wide=False,
):
    """Data parallel by shares or with factors of gradients, or homes drawn among layouts.

    With `wide`, some of the layers are cut, drawn by the seed.
    """
    machine = devices(ranks)
    if wide and layouts:
        homes = drawn_homes(program, tuple(map(tuple, layouts)), seed, served=served)
        homes = replace(homes, cut=drawn_cuts(program, homes, seed))
        return plan_by_homes("drawn", program, machine, homes, memory_limit_bytes=1e12).plan
    if wide:
        desk = Desk(program, resolve(program))
        degrees = Degrees(dp=ranks // tp, tp=tp, shares=tuple(shares), wide=True)
        chosen = drawn_ways(program, desk.schemes.layers, degrees.mesh, seed)
        return desk.candidate(machine, degrees, 1e12, chosen).plan
    if shares or factors:
        data = ranks // tp
        return expert_plan(program, machine, dp=data, tp=tp, shares=tuple(shares), factors=factors)
    return plan_by_homes(
        "drawn",
        program,
        machine,
        drawn_homes(program, tuple(map(tuple, layouts)), seed, tensor=tp, served=served),
        memory_limit_bytes=1e12,
    ).plan


def drawn_ways(program, layers, mesh, seed):
    """Anything that is possible for each layer."""
    rng = random.Random(seed)
    return {
        node: rng.choice(possible(program, layer, mesh)) for node, layer in sorted(layers.items())
    }


def drawn_cuts(program, homes, seed, *, least=1):
    """Ways of layers whose homes have equal parts."""
    cut = {}
    for layout, shares in enumerate(homes.layouts):
        members = sum(map(bool, shares))
        if members > 1 and len(set(shares) - {0}) == 1:
            layers = Schemes(program).layers.items()
            here = {node: layer for node, layer in layers if homes.home[node] == layout}
            cut |= drawn_ways(program, here, Mesh((members,)), seed)
    cut = {node: ways for node, ways in cut.items() if ways != (Way.ROWS,)}
    assert len(cut) >= least
    return cut


def drawn_homes(program, layouts, seed, *, tensor=1, served=False) -> Homes:
    """Each node in a home by chance, updates in that of what they read first.

    State lives where its parameter does; with `served`, at one place each in turn.
    """
    rng = random.Random(seed)
    home = [rng.randrange(len(layouts)) for _ in program.nodes]
    places = len(layouts[0])
    alone = [tuple(int(at == place) for at in range(places)) for place in range(places)]
    all_layouts = (*layouts, *alone) if served else layouts
    of_parameter = {}
    for turn, source in enumerate(program.inputs):
        name = source.parameter or source.name
        if served and source.role.is_persistent:
            of_parameter.setdefault(name, len(layouts) + turn % places)
            home[source.node] = of_parameter[name]
        elif source.role.is_persistent:
            home[source.node] = of_parameter.setdefault(name, home[source.node])
    for number, node in enumerate(program.nodes):
        if node.phase is Phase.UPDATE and number not in program.input_by_node:
            read = [home[v.node] for v in program.operands(number) if v.node < number]
            home[number] = read[0] if read else home[number]
    return Homes(layouts=all_layouts, home=tuple(home), tensor=tensor)
