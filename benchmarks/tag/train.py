"""Train the prior of tree search: `python -m benchmarks.tag.train --minutes 10`.

It plays on random machines with the models of `benchmarks.tag.models.SEEN`. A run that is killed
goes on where it was, and one that is stopped keeps the best that it has learnt: weights are written
where a few simulations on machines that it does not train on find faster plans than before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.tag.models import SEEN, sketch_of
from benchmarks.training import save
from weft.parallel import mcts
from weft.parallel.mcts.cluster import cluster_of
from weft.parallel.mcts.network import PriorNetwork
from weft.parallel.mcts.options import Options
from weft.parallel.mcts.prior import WEIGHTS, LearnedPrior
from weft.parallel.mcts.search import Search
from weft.parallel.mcts.simulate import Simulator
from weft.parallel.mcts.sketch import Sketch
from weft.parallel.mcts.topologies import random_machine
from weft.parallel.mcts.training import Trainer
from weft.workflow.stopping import asked_to_stop

__all__ = ["main", "train"]

PATH = Path(mcts.__path__[0]) / WEIGHTS
CHECKED, CHECKED_SEED, SIMULATIONS = 10, 99, 20
"""Machines on which progress is measured, their seed, and simulations on each."""
CHECKED_EVERY_S = 100.0


def train(minutes: float, seed: int = 0) -> None:
    """Train for a time, and write the weights.

    Args:
        minutes: how long, from when it began or went on [min].
        seed: of all chance.
    """
    sketches = [sketch_of(model) for model in SEEN]
    trainer = Trainer(sketches, seed=seed)
    partial = PATH.with_suffix(".training.pt")
    best = 0.0
    if partial.exists():
        kept = torch.load(partial, weights_only=False)
        trainer.resume(kept["trainer"])
        best = kept["best"]
    checks = _checks(sketches)
    begun = checked = time.perf_counter()
    reached = 0.0
    with asked_to_stop() as asked:

        def over() -> bool:
            return asked[0] is not None or time.perf_counter() - begun > 60 * minutes

        for progress in trainer.run(over):
            told = f"{progress.games} games on random machines, seed {seed}"
            looked = over() or time.perf_counter() - checked > CHECKED_EVERY_S
            if looked:
                checked, reached = time.perf_counter(), _speedup(trainer.network, checks)
                if reached > best:
                    best = reached
                    _write(trainer.network, told)
            save(partial, {"trainer": trainer.state(), "best": best})
            spent = (time.perf_counter() - begun) / 60
            print(
                f"{spent:.1f} min, {told}: loss {progress.loss:.3f}, speed-up of the games "
                f"{progress.speedup:.2f}, of {SIMULATIONS} simulations elsewhere {reached:.3f} "
                f"(best {best:.3f})",
                flush=True,
            )
    if asked[0] is None:
        partial.unlink(missing_ok=True)


def _write(network: PriorNetwork, told: str) -> None:
    halves = {name: value.half() for name, value in network.state_dict().items()}
    save(PATH, {"sizes": network.sizes, "weights": halves, "training": told})


def _checks(sketches: Sequence[Sketch]) -> list[tuple[Simulator, Options]]:
    generator, found = np.random.default_rng(CHECKED_SEED), []
    for at in range(CHECKED):
        sketch = sketches[at % len(sketches)]
        machine = random_machine(generator, float(sketch.group_bytes.sum()))
        cluster = cluster_of(machine, sketch.devices)
        found.append((Simulator(sketch, cluster), Options(sketch, cluster)))
    return found


def _speedup(network: PriorNetwork, checks: Sequence[tuple[Simulator, Options]]) -> float:
    """Geometric mean of what a few simulations find."""
    prior = LearnedPrior(network.eval())
    gains = [Search(*problem, prior).run(SIMULATIONS).speedup for problem in checks]
    return float(np.exp(np.mean(np.log(gains))))


def main(arguments: Sequence[str]) -> None:
    """Train."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tag.train")
    parser.add_argument("--minutes", type=float, default=10.0, help="for so long (10)")
    parser.add_argument("--seed", type=int, default=0, help="of all chance (0)")
    given = parser.parse_args(arguments)
    train(given.minutes, given.seed)


if __name__ == "__main__":
    main(sys.argv[1:])
