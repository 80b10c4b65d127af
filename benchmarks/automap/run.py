"""Auto-MAP's problems, by Q-learning and exactly: `weft bench automap`.

The table of simulated throughput is a bench of its own: `weft bench automap-throughput`.

Operator partition: the variables of a T5 are cut along an axis of eight devices, as many as can be
without moving data. The agent learns each model anew, as the paper's does, from its rewards, with
conflicts that end an episode; the exact search takes the same decisions by branch and bound. Both
begin with the captured program; what they find is checked on the whole of it.

VGG-19, whose variables the paper's reward cuts to no use, is rewarded by time as well; inputs are
cut along whatever dim turns out to be the batch's; and models that the trained policy has not seen
are planned by it at once.

Pipeline cuts: random chains of 128 pieces on four nodes of eight devices, which the policy that is
shipped has not seen, against the shortest pipeline of all.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from statistics import mean

import numpy as np

from benchmarks.automap.batches import batch_claims, batch_row, cut_batches
from benchmarks.automap.models import DEVICES, RECIPES, TARGETS, of_layers
from benchmarks.automap.timed import cut_by_time, timed_claims, timed_row
from benchmarks.automap.unseen import unseen_claims, unseen_models, unseen_row
from benchmarks.job import program_of
from weft.parallel.dqn.acting import WIDTH, cut
from weft.parallel.dqn.agent import Agent, AgentSettings
from weft.parallel.dqn.chain import Cuts, Line, best_cuts
from weft.parallel.dqn.cutting import Cutting, random_chain
from weft.parallel.dqn.deciding import CUT_REWARD, PartitionEnvironment
from weft.parallel.linkage import ReducedAxis
from weft.parallel.partition import Partition, Settled, most_cuts, whole_batch
from weft.program.fold import fold
from weft.report.bench import BenchReport, Claim, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["run"]

LEARNING = AgentSettings(
    returns=(-0.1, CUT_REWARD), learning_rate=1e-3, explore=(1.0, 0.05, 2000), gamma=1.0
)
"""Rewards count in full, since what a cut costs later ones shows at the end of an episode."""
LOOKED_AT_EVERY, MOST_EPISODES = 25, 4000
LEARNT_S, SEARCHED_S = 300.0, 10.0
PUBLISHED_H = {"T5-base": 0.5, "T5-3B": 0.94, "T5-11B": 1.45}
"""Source: Auto-MAP, table 5, both stages [h]."""
PIECES, STAGES, CHAINS, REGRET, CUT_S = 128, (2, 3, 4), 8, 0.02, 5.0
LINE = Line(nodes=4, per_node=8, inside_bytes_per_s=130e9, network_bytes_per_s=25e9 / 8)
"""Configuration C. Source: Auto-MAP, section 5.1: eight V100 with NVLink in each of four servers,
25 Gbit/s between them; 130 GB/s is what six NVLinks of a V100 reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Who cut how many variables, and in what time.

    Attributes:
        model, by: which, and by whom.
        cuts: variables that are cut, of all and of the layers.
        seconds: from the captured program on [s].
        episodes: that were played.
    """

    model: str
    by: str
    cuts: tuple[int, int]
    seconds: float
    episodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A chain that was cut.

    Attributes:
        stages: of the pipeline.
        alone, beside: how much longer it is than the shortest, by the policy alone and by several
            ways side by side.
        seconds: that the latter took [s].
    """

    stages: int
    alone: float
    beside: float
    seconds: float


def run(quick: bool = False) -> BenchReport:
    """Search, learn, compare; `quick` takes the smallest models and fewer chains."""
    names = list(RECIPES)[: 1 if quick else None]
    found = [one for name in names for one in _partitioned(name)]
    timed = cut_by_time()
    batches = cut_batches(("VGG-19",)) if quick else cut_batches()
    unseen = unseen_models(("VGG-19",)) if quick else unseen_models()
    chains = [one for stages in STAGES for one in _cut(stages, 1 if quick else CHAINS)]
    return BenchReport(
        bench="automap",
        claims=(
            *(claim for one in found for claim in _claims(one)),
            *timed_claims(timed),
            *batch_claims(batches),
            *unseen_claims(unseen),
            *_cut_claims(chains),
        ),
        table=Table(
            columns=("problem", "by", "found", "wanted", "time", "published"),
            rows=(
                *map(_row, found),
                *map(timed_row, timed),
                *map(batch_row, batches),
                *map(unseen_row, unseen),
                *(_cut_row(stages, chains) for stages in STAGES),
            ),
        ),
        facts={
            "devices": DEVICES,
            "ways": WIDTH,
            "partition": [
                {
                    "model": f.model,
                    "by": f.by,
                    "cuts": f.cuts,
                    "s": f.seconds,
                    "episodes": f.episodes,
                }
                for f in found
            ],
            "by_time": [
                {
                    "by": t.by,
                    "cut": dict(t.cut),
                    "rows": t.rows,
                    "step_s": t.step_s,
                    "s": t.seconds,
                    "tried": t.tried,
                }
                for t in timed
            ],
            "batches": [[b.model, b.by, dict(b.cut), b.candidates, b.seconds] for b in batches],
            "unseen": [
                [u.model, u.machine, u.policy_s, u.lessons_s, u.exact_s, u.seconds] for u in unseen
            ],
            "cuts": [[c.stages, c.alone, c.beside, c.seconds] for c in chains],
        },
    )


def _partitioned(name: str) -> list[Found]:
    program = program_of(RECIPES[name])
    layers = of_layers(program)

    def counted(settled: Settled) -> tuple[int, int]:
        if settled.conflicts:
            return 0, 0
        return settled.cuts, sum(p >= 0 for v, p in settled.placements.items() if v.node in layers)

    start = time.perf_counter()
    partition = Partition(ReducedAxis(program, DEVICES), fold(program), whole_batch(program))
    prepared = time.perf_counter() - start
    exact = partition.settled(most_cuts(partition))
    found = [
        Found(model=name, by="exact", cuts=counted(exact), seconds=time.perf_counter() - start)
    ]
    start = time.perf_counter()
    best, episodes = _learnt(partition)
    seconds = prepared + time.perf_counter() - start
    found.append(
        Found(model=name, by="dqn", cuts=counted(best), seconds=seconds, episodes=episodes)
    )
    print(*found, sep="\n", file=sys.stderr, flush=True)
    return found


def _learnt(partition: Partition) -> tuple[Settled, int]:
    """What an agent finds, and after how many episodes; it ends where it cuts what is wanted."""
    environment = PartitionEnvironment(partition, strict=True)
    agent = Agent(environment, LEARNING)
    wanted = partition.settled(most_cuts(partition)).cuts
    best: Settled | None = None
    until = time.perf_counter() + LEARNT_S
    for episode in agent.run(MOST_EPISODES, lambda: time.perf_counter() > until):
        if episode.number % LOOKED_AT_EVERY == LOOKED_AT_EVERY - 1:
            settled = _played(environment, agent)
            if settled is not None and (best is None or settled.cuts > best.cuts):
                best = settled
            if best is not None and best.cuts >= wanted:
                break
    assert best is not None, "some way without conflicts"
    return best, agent.episodes


def _played(environment: PartitionEnvironment, agent: Agent) -> Settled | None:
    """What the agent decides now; None where it runs into a conflict."""
    observation = environment.reset(np.random.default_rng(0))
    while True:
        turn = environment.step(agent.best(observation))
        if turn.observation is None:
            settled = environment.partition.settled(environment.taken)
            return None if turn.reward < 0 or settled.conflicts else settled
        observation = turn.observation


def _cut(stages: int, count: int) -> list[Cut]:
    generator, found = np.random.default_rng(7 * stages), []
    for _ in range(count):
        chain = random_chain(generator, PIECES, LINE)
        task = Cutting(chain=chain, line=LINE, stages=stages)
        shortest = best_cuts(chain, LINE, stages, micro_batches=task.micro_batches)[1]
        start = time.perf_counter()
        beside = cut(task)
        seconds = time.perf_counter() - start
        alone: tuple[Cuts, float] = cut(task, width=1)
        found.append(
            Cut(
                stages=stages,
                alone=alone[1] / shortest - 1,
                beside=beside[1] / shortest - 1,
                seconds=seconds,
            )
        )
        print(found[-1], file=sys.stderr, flush=True)
    return found


def _claims(found: Found) -> tuple[Claim, Claim]:
    of_layers = found.model != "T5-base"
    most_s = LEARNT_S if found.by == "dqn" else SEARCHED_S
    what = "of the layers' variables" if of_layers else "variables"
    return (
        at_least(
            f"{found.model}, {found.by}: {what} cut", found.cuts[of_layers], TARGETS[found.model]
        ),
        at_most(f"{found.model}, {found.by}: time [s]", found.seconds, most_s),
    )


def _cut_claims(chains: list[Cut]) -> tuple[Claim, Claim]:
    return (
        at_most("pipeline cuts by the policy: mean regret", mean(c.beside for c in chains), REGRET),
        at_most(
            "pipeline cuts by the policy: longest time [s]", max(c.seconds for c in chains), CUT_S
        ),
    )


def _row(found: Found) -> tuple[str, ...]:
    return (
        f"{found.model}, variables",
        found.by + (f", {found.episodes} episodes" if found.episodes else ""),
        f"{found.cuts[0]}, {found.cuts[1]} of layers",
        str(TARGETS[found.model]),
        f"{found.seconds:.1f} s",
        f"{PUBLISHED_H[found.model]} h",
    )


def _cut_row(stages: int, chains: list[Cut]) -> tuple[str, ...]:
    own = [c for c in chains if c.stages == stages]
    beside = [c.beside for c in own]
    alone = mean(c.alone for c in own)
    return (
        f"{len(own)} chains in {stages} stages, regret",
        f"policy, {WIDTH} ways",
        f"mean {mean(beside):.2%}, worst {max(beside):.2%}; alone {alone:.2%}",
        f"{REGRET:.0%}",
        f"{max(c.seconds for c in own):.2f} s",
        "",
    )


if __name__ == "__main__":
    print_report(run("--quick" in sys.argv))
