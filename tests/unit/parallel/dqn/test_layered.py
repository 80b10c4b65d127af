"""What layers do, on all devices or on some: legal, priced where it runs, found, kept."""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf

import numpy as np
import pytest

from tests.homed import devices
from tests.programs import mlp, transformer
from weft.core.errors import InfeasibleError
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.dqn.hybrid import MISFIT, STORED
from weft.parallel.dqn.layer_search import LayerLesson, LayerSearch
from weft.parallel.dqn.layered import Layered, LayerEnvironment
from weft.parallel.dqn.planner import DqnPlanner
from weft.parallel.experts import Desk, expert_proposals
from weft.parallel.pinning import resolve
from weft.parallel.pins import parse_pin
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.parallel.validate import validate
from weft.parallel.wide import possible
from weft.program.fold import fold

MIXED = devices(4)
SIZES = {"batch": 16, "length": 8, "width": 32, "num_heads": 4, "slots": ("m",)}
LAYERS = transformer(num_layers=2, vocabulary=64, **SIZES)
DEEP = transformer(num_layers=10, vocabulary=64, **SIZES)
WIDE = mlp(num_layers=2, batch=16, width=256, hidden=lambda _: 512, slots=("m",))


def environment(program=LAYERS, machine=MIXED, **asked):
    folding = fold(program)
    request = PlanRequest(program=program, machine=machine, **asked)
    return LayerEnvironment(request, folding, views_of(program, folding))


def searched(stop=lambda: False, program=WIDE):
    search = LayerSearch(PlanRequest(program=program, machine=MIXED), fold(program), None)
    return search, sum(1 for _ in search.run(stop))


def played(own, choose):
    observation, reward = own.reset(np.random.default_rng(0)), 0.0
    while observation is not None:
        assert observation.choices.shape == (len(observation.allowed), own.choice_width)
        assert observation.shared.shape == (own.shared_width,)
        turn = own.step(choose(observation))
        reward, observation = reward + turn.reward, turn.observation
    return reward


def labels(own):
    return {own.label(number) for number in range(len(own.spots))}


def test_parts_of_an_uneven_machine_are_offered_beside_all_of_it():
    found = labels(environment())
    assert {"4", "2x2", "2 on ranks 0-1", "2 on ranks 2-3"} <= found


def test_parts_of_unlike_devices_share_out_the_batch_in_proportion_too():
    own = environment(WIDE, preset("mixed-v100-p100-1080ti"))
    busy = [spot for spot in own.spots if spot.places]
    assert {True, False} == {bool(spot.degrees.shares) for spot in busy}
    for spot in busy:
        layout = spot.layout(16)
        assert tuple(place for place, share in enumerate(layout) if share) == spot.places
        assert spot.machine.num_devices == len(spot.places) * spot.degrees.tp


def test_a_node_of_a_uniform_machine_is_offered():
    assert "8 on ranks 0-7" in labels(environment(machine=preset("dgx-h100x2")))


@pytest.mark.parametrize("asked", [{"mesh": Mesh((2, 2))}, {"pins": (parse_pin("batch.*=S(0)"),)}])
def test_no_device_idles_where_somebody_says_how_all_are_used(asked):
    own = environment(**asked)
    assert own.spots
    assert not any(spot.places for spot in own.spots)


def test_one_device_leaves_nothing_to_decide():
    (group,) = preset("dgx-h100x1").groups
    single = replace(preset("dgx-h100x1"), groups=(replace(group, devices_per_node=1),))
    assert not environment(machine=single).spots


@pytest.mark.parametrize("seed", range(2))
def test_whatever_layers_do_at_whatever_spot_is_legal(seed):
    own, rng = environment(), random.Random(seed)
    for number, spot in enumerate(own.spots):
        ways = {n: rng.choice(possible(LAYERS, x, spot.mesh)) for n, x in own.layers.items()}
        decided = Layered(number, rng.choice(STORED), own.bill(number).kept(ways))
        made = own.candidate(decided).plan
        validate(made, LAYERS)
        assert bool(made.homes) == bool(spot.places)


def test_a_part_of_a_machine_is_as_fast_as_that_part_alone():
    """Others idle: their links, and the network to them, count for the loss alone."""
    own = environment(WIDE)
    spot = [own.label(number) for number in range(len(own.spots))].index("2 on ranks 0-1")
    ways = own.bill(spot).kept(own.bill(spot).best)
    among = own.candidate(Layered(spot, 0, ways)).plan.prediction
    alone = replace(MIXED, groups=MIXED.groups[:1])
    degrees = own.spots[spot].degrees
    same = Desk(WIDE, resolve(WIDE)).candidate(alone, degrees, 1e12, dict(ways)).plan.prediction
    assert among.compute_s == pytest.approx(same.compute_s, rel=1e-6)
    told_s = 4 * MIXED.network.latency_s.value
    assert same.step_s <= among.step_s <= same.step_s + told_s


def test_pins_are_not_kept_by_devices_that_idle():
    own, pinned = environment(), environment(pins=(parse_pin("batch.*=S(0)"),))
    spot = next(number for number, spot in enumerate(own.spots) if spot.places)
    pinned._expected[:] = own._expected
    with pytest.raises(InfeasibleError, match="drop the pins"):
        pinned.candidate(Layered(spot, 0, ()))


def test_shorter_steps_are_worth_more_and_misfits_least():
    own = environment()
    worth = [(played(own, LayerLesson(own, spot, 0)), own.last) for spot in range(3)]
    by_step = sorted(worth, key=lambda pair: own.seconds(pair[1]))
    assert [reward for reward, _ in by_step] == sorted((r for r, _ in worth), reverse=True)
    least = min(found.prediction.peak_bytes for found in own.known.values())
    tight = environment(memory_limit_bytes=least / 2)
    assert 0 < played(tight, LayerLesson(tight, 0, 0)) < MISFIT


def test_layers_of_a_deep_program_are_decided_about_in_its_short_version():
    own = environment(DEEP)
    assert len(own.layers) < len(Desk(DEEP, resolve(DEEP)).schemes.layers)
    spot = [own.label(number) for number in range(len(own.spots))].index("2x2")
    played(own, LayerLesson(own, spot, 1))
    whole = own.candidate(own.last)
    validate(whole.plan, DEEP)
    assert whole.step_s == pytest.approx(own.seconds(own.last), rel=0.05)


def test_a_search_is_reproduced_and_finds_nothing_slower_than_prices_promise():
    (first, count), (second, _) = searched(), searched()
    assert count >= len(first.environment.known)
    assert list(first.environment.known) == list(second.environment.known)
    own = environment(WIDE)
    played(own, LayerLesson(own, 0))
    assert first.least_s <= own.seconds(own.last) < inf


def test_a_search_ends_when_it_is_told_to():
    asked = iter(range(10**6))
    few, count = searched(lambda: next(asked) >= 12)
    assert len(few.environment.known) <= count <= 12
    none, count = searched(lambda: True)
    assert count == 0
    assert not none.proposals()


def test_a_search_goes_on_from_what_was_kept():
    search, _ = searched()
    request = PlanRequest(program=WIDE, machine=MIXED)
    again = LayerSearch(request, fold(WIDE), None)
    again.resume(search.state())
    assert again.environment.known == search.environment.known
    assert not list(again.run(lambda: False))
    asked = iter(range(10**6))
    part, _ = searched(lambda: next(asked) >= 12)
    later = LayerSearch(request, fold(WIDE), None)
    later.resume(part.state())
    for _ in later.run(lambda: False):
        pass
    assert later.least_s <= part.least_s


def test_what_layers_do_is_planned_with_and_nothing_of_it_where_only_the_policy_is_asked():
    told = []
    found = plan(WIDE, MIXED, planner="dqn", max_stages=1, progress=told.append)
    validate(found, WIDE)
    request = PlanRequest(program=WIDE, machine=MIXED)
    experts_s = min(p.prediction.step_s for p in expert_proposals(request) if p.fits)
    assert found.prediction.step_s <= experts_s
    assert any(text.startswith("layers") for text in told)
    told.clear()
    plan(WIDE, MIXED, planner=DqnPlanner(episodes=0), max_stages=1, progress=told.append)
    assert not any(text.startswith("layers") for text in told)


def test_what_was_all_on_the_fast_level_is_not_on_the_best_one():
    search, _ = searched()
    levels = (Level.FAST, Level.BEST)
    assert [goes_on(search.state(), level) for level in levels] == [False, True]
    best = {**search.state(), "ended": Level.BEST.value}
    assert [goes_on(best, level) for level in levels] == [False, False]


def goes_on(state, level):
    request = PlanRequest(program=WIDE, machine=MIXED, level=level)
    again = LayerSearch(request, fold(WIDE), None)
    again.resume(state)
    return next(again.run(lambda: False), "nothing") != "nothing"


def test_proposals_say_whether_devices_idle():
    search, _ = searched()
    own = search.environment
    idle = {own.name(decided): bool(own.spots[decided.spot].places) for decided in own.known}
    assert {one.name: one.idles for one in search.proposals()} == idle
    assert set(idle.values()) == {True, False}
