"""One rank of a run on part of a machine; prints as JSON how far it is from one process."""

from __future__ import annotations

import json
import random
import sys

from benchmarks.job import program_of, workload_of
from tests.dist.pipeline_rank import tell
from tests.homed import devices
from weft.parallel.dqn.layered import Layered, LayerEnvironment
from weft.parallel.request import PlanRequest
from weft.parallel.validate import validate
from weft.parallel.wide import possible
from weft.program.fold import fold
from weft.runtime.deploy import deploy
from weft.runtime.world import joined


def planned(program, about):
    """Layers do anything that is possible, drawn by the seed, at a spot by its name."""
    request = PlanRequest(program=program, machine=devices(about["ranks"]))
    own = LayerEnvironment(request, fold(program), None)
    labels = [own.label(number) for number in range(len(own.spots))]
    spot = labels.index(about["spot"])
    rng = random.Random(about["seed"])
    layers, mesh = own.layers, own.spots[spot].mesh
    drawn = {
        node: rng.choice(possible(program, layer, mesh)) for node, layer in sorted(layers.items())
    }
    return own.candidate(Layered(spot, about["stored"], own.bill(spot).kept(drawn))).plan


def main(about: dict) -> None:
    recipe = about["recipe"]
    workload, program = workload_of(recipe, double=True), program_of(recipe, double=True)
    plan = planned(program, about)
    validate(plan, program)
    assert plan.homes
    with joined(timeout_s=60) as world:
        step = deploy(plan, workload, world=world, program=program)
        tell(world, workload, step, 2)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
