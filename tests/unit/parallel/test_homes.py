"""Plans whose nodes live on some of the devices: legal, readable, less work for some."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.homed import devices, drawn_homes, uneven_plan
from tests.programs import mlp, transformer
from weft.core.errors import FileError, InputError, VerifyError
from weft.cost.timeline import Stream
from weft.parallel.candidate import simulate_plan
from weft.parallel.homes import Homes, plan_by_homes
from weft.parallel.local import Collective, CollectiveKind, Run
from weft.parallel.serialize import plan_digest, plan_from_json, plan_to_json
from weft.parallel.specialize import partial_meetings, specialized
from weft.parallel.validate import validate

LAYOUTS = ((4, 2, 1, 1), (1, 1, 0, 0), (0, 2, 1, 1), (1, 0, 0, 0))
PROGRAMS = {
    "mlp": mlp(num_layers=3, batch=8, width=16, slots=("m",)),
    "transformer": transformer(batch=8, slots=("m",)),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize("tensor", [1, 2])
def test_any_homes_make_a_legal_plan(name: str, seed: int, served: bool, tensor: int) -> None:
    program = PROGRAMS[name]
    layouts = LAYOUTS if tensor == 1 else ((3, 1), (1, 0), (0, 1))
    plan = uneven_plan(program, layouts=layouts, seed=seed, served=served, tp=tensor)
    local = validate(plan, program)
    assert not local.is_even
    read = plan_from_json(plan_to_json(plan))
    assert read == plan
    assert plan_digest(read) == plan_digest(plan)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_rank_reads_what_it_has_made_or_got(name: str) -> None:
    program = PROGRAMS[name]
    plan = uneven_plan(program, layouts=LAYOUTS, seed=5, served=True)
    local = validate(plan, program)
    for rank in range(4):
        own = specialized(local, plan.mesh.coordinate(rank))
        there = {source.slot for source in own.inputs}
        for instruction in own.instructions:
            if isinstance(instruction, Run):
                assert set(instruction.reads) <= there
                there.update(instruction.outputs)
            else:
                held = local.homes[instruction.home].has(plan.mesh.coordinate(rank))
                assert instruction.source in there or not held
                there.add(instruction.target)
        assert {own.loss, *(slot for _, slot in own.updates)} <= there


def test_ranks_agree_on_what_they_do_together() -> None:
    program = PROGRAMS["transformer"]
    plan = uneven_plan(program, layouts=LAYOUTS, seed=2, served=True)
    local = validate(plan, program)

    def meetings(rank: int, other: int) -> list[tuple[object, ...]]:
        """Of a rank, the collectives in which another one takes part."""
        found: list[tuple[object, ...]] = []
        for step in specialized(local, (rank,)).instructions:
            if isinstance(step, Collective) and step.kind is not CollectiveKind.SLICE:
                members = {
                    at
                    for home in (step.home, step.target_home)
                    for at in local.homes[home].members(0)
                }
                if other in members:
                    found.append((step.kind, step.source, step.target, step.bundle))
        return found

    for first in range(4):
        for second in range(first):
            assert meetings(first, second) == meetings(second, first)
    assert partial_meetings(local)


def test_a_program_on_one_device_moves_nothing_but_its_loss() -> None:
    program = PROGRAMS["mlp"]
    homes = Homes(layouts=((0, 1, 0, 0),), home=(0,) * len(program.nodes))
    found = plan_by_homes("alone", program, devices(4), homes, memory_limit_bytes=1e12)
    local = validate(found.plan, program)
    moves = {
        (step.kind, step.node)
        for step in local.instructions
        if isinstance(step, Collective)
        and len({*local.homes[step.home].members(0), *local.homes[step.target_home].members(0)}) > 1
    }
    assert moves == {(CollectiveKind.MOVE, program.loss.node)}
    idle = specialized(local, (3,))
    assert not [step for step in idle.instructions if isinstance(step, Run)]
    assert not idle.inputs


def test_proportions_are_faster_than_equal_parts_where_computing_counts() -> None:
    program = mlp(num_layers=4, batch=1 << 14, width=2048, slots=("m",))
    machine = devices(4)
    even = uneven_plan(program, layouts=((1, 1, 1, 1),), seed=0)
    fast = uneven_plan(program, layouts=((3, 3, 1, 1),), seed=0)
    timeline, _ = simulate_plan(even, program, machine)
    assert timeline.busy_s(Stream.COMPUTE) > 0.5 * timeline.step_s
    assert fast.prediction.step_s < even.prediction.step_s


@pytest.mark.parametrize(
    "homes",
    [
        Homes(layouts=((1, 1, 1),), home=()),
        Homes(layouts=((1, 1, 1),), home=(0,)),
        Homes(layouts=((0, 0, 0, 0),), home=(0,)),
        Homes(layouts=((3, 1, 1, 0),), home=(0,)),
        Homes(layouts=((-1, 1, 1, 1),), home=(0,)),
        Homes(layouts=((1, 1, 1, 1),), home=(1,)),
        Homes(layouts=((1, 1, 1, 1),), home=(0,), tensor=3),
    ],
)
def test_homes_that_do_not_fit_are_refused(homes: Homes) -> None:
    program = PROGRAMS["mlp"]
    given = replace(homes, home=homes.home * len(program.nodes))
    with pytest.raises(InputError, match="divisor of the rows"):
        plan_by_homes("wrong", program, devices(4), given, memory_limit_bytes=1e12)


def test_a_plan_that_was_edited_is_found_out() -> None:
    program = PROGRAMS["mlp"]
    plan = uneven_plan(program, layouts=LAYOUTS, seed=1)
    first = plan.copies[0]
    with pytest.raises(VerifyError, match="hops from"):
        validate(replace(plan, copies=(replace(first, target_home=2), *plan.copies[1:])), program)
    away = replace(plan.strategies[3], home=9)
    strategies = (*plan.strategies[:3], away, *plan.strategies[4:])
    with pytest.raises(VerifyError, match="home 9"):
        validate(replace(plan, strategies=strategies), program)
    with pytest.raises(InputError, match="every device"):
        replace(plan, mesh=plan.homes[1])


def test_state_in_unlike_parts_is_refused() -> None:
    program = PROGRAMS["mlp"]
    plan = uneven_plan(program, shares=(5, 1, 1, 1))
    weight = next(i.node for i in program.inputs if i.role.is_persistent)
    cut = replace(plan.strategies[weight], outputs=((0,),))
    strategies = (*plan.strategies[:weight], cut, *plan.strategies[weight + 1 :])
    with pytest.raises(VerifyError):
        validate(replace(plan, strategies=strategies), program)


def test_damaged_homes_in_a_file_are_named() -> None:
    import json

    from weft.core.digest import canonical_json, digest

    program = PROGRAMS["mlp"]
    plan = uneven_plan(program, layouts=LAYOUTS, seed=1)
    outer = json.loads(plan_to_json(plan))
    outer["plan"]["homes"][0]["shares"][0] = [1, 2]
    outer["checksum"] = digest(outer["plan"])
    with pytest.raises(FileError, match="homes"):
        plan_from_json(canonical_json(outer))


def test_drawn_homes_use_all_layouts() -> None:
    assert set(drawn_homes(PROGRAMS["mlp"], LAYOUTS, 0).home) == {0, 1, 2, 3}
