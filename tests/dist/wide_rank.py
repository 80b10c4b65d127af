"""One rank of a run with layers that are cut or whole; prints how far it is from one process."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace

from benchmarks.job import workload_of
from tests.dist.pipeline_rank import tell
from tests.homed import devices
from weft.capture import capture
from weft.parallel.degrees import Degrees
from weft.parallel.experts import Desk
from weft.parallel.pinning import resolve
from weft.parallel.wide import ALL_ROWS, possible
from weft.runtime.deploy import deploy
from weft.runtime.world import joined


def drawn(program, layers, mesh, seed):
    """Ways by chance: half of the layers compute all rows along some axis, if they may."""
    rng, found = random.Random(seed), {}
    for node, layer in sorted(layers.items()):
        every = possible(program, layer, mesh)
        whole = [ways for ways in every if not ALL_ROWS.isdisjoint(ways)]
        found[node] = rng.choice(whole if whole and rng.random() < 0.5 else every)
    return found


def fewer_rows(workload, rows):
    """The workload with so many rows of each batch."""

    def batch(step):
        return {name: entry[:rows] for name, entry in workload.batch(step).items()}

    return replace(workload, batch=batch)


def main(about: dict) -> None:
    workload = workload_of(about["recipe"], double=True)
    if "rows" in about:
        workload = fewer_rows(workload, about["rows"])
    program = capture(workload)
    degrees = Degrees(**about["degrees"], wide=True)
    with joined(timeout_s=60) as world:
        desk = Desk(program, resolve(program))
        ways = drawn(program, desk.schemes.layers, degrees.mesh, about["seed"])
        plan = desk.candidate(devices(4), degrees, 1e12, ways).plan
        step = deploy(plan, workload, world=world, program=program)
        tell(world, workload, step, 3)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
