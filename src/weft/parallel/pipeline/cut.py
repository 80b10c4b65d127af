"""A cut: which stage each node of the forward pass is in.

Any assignment of nodes to stages is a cut if no value flows from a later stage to an earlier one.
So a branch of the program that runs beside another may lie in another stage, whatever the order in
which the two are computed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter

from weft.core.errors import InputError, VerifyError
from weft.parallel.pipeline.stages import forward_nodes
from weft.program.graph import Phase, Program

__all__ = ["Cut"]


@dataclass(frozen=True, slots=True)
class Cut:
    """The forward pass as runs of nodes, each in one stage.

    Attributes:
        runs: number of the first node and stage of each run, in the order of the nodes of the
            program of one micro-batch. A run goes on to where the next one begins.

    Raises:
        InputError: runs do not rise from node 0, two in a row are of one stage, or a stage has
            no run.

    Example:
        >>> Cut.at((4, 9)).runs
        ((0, 0), (4, 1), (9, 2))
        >>> Cut.of({0: 0, 2: 1, 3: 1, 5: 0}).runs
        ((0, 0), (2, 1), (5, 0))
    """

    runs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        firsts, stages = zip(*self.runs, strict=True) if self.runs else ((), ())
        rising = firsts[:1] == (0,) and all(a < b for a, b in pairwise(firsts))
        apart = all(a != b for a, b in pairwise(stages))
        if not rising or not apart or set(stages) != set(range(max(stages) + 1)):
            raise InputError(
                need="runs of nodes that rise from node 0, next to each other in two stages, and "
                "a run for each stage",
                got=f"{', '.join(f'node {node} in stage {stage}' for node, stage in self.runs)}",
                hint="plan again",
            )

    @classmethod
    def at(cls, first_nodes: Sequence[int]) -> Cut:
        """Stages in the order of the nodes.

        Args:
            first_nodes: of each stage but the first.
        """
        return cls(((0, 0), *((node, stage + 1) for stage, node in enumerate(first_nodes))))

    @classmethod
    def of(cls, stages: Mapping[int, int]) -> Cut:
        """The cut that gives nodes these stages, and others that of the node before them.

        Args:
            stages: by node of the forward pass.
        """
        numbers = sorted(stages)
        changes = [b for a, b in pairwise(numbers) if stages[a] != stages[b]]
        return cls(
            (*((0, stages[n]) for n in numbers[:1]), *((node, stages[node]) for node in changes))
        )

    @property
    def num_stages(self) -> int:
        """How many stages there are."""
        return max(stage for _, stage in self.runs) + 1

    def stage_at(self, number: int) -> int:
        """Stage of the run in which a node lies."""
        return self.runs[bisect_right(self.runs, number, key=itemgetter(0)) - 1][1]

    def num_runs(self, stage: int) -> int:
        """Runs of nodes that make a stage."""
        return sum(own == stage for _, own in self.runs)

    def joined(self, firsts: Sequence[int]) -> Cut:
        """The cut whose stages are runs of this one's.

        Args:
            firsts: of each new stage but the first, the first of the old ones in it.

        Example:
            >>> Cut.at((4, 9, 11)).joined((2,)).runs
            ((0, 0), (9, 1))
        """
        return Cut.of({node: bisect_right(firsts, stage) for node, stage in self.runs})

    def forward_stages(self, part: Program) -> list[int]:
        """Stage of each node of the forward pass, by node number; 0 for all other nodes.

        Args:
            part: the program of one micro-batch.
        """
        ends = [first for first, _ in self.runs[1:]] + [len(part.nodes)]
        stages = [
            stage
            for (first, stage), end in zip(self.runs, ends, strict=True)
            for _ in range(first, min(end, len(part.nodes)))
        ]
        return [
            stage if node.phase is Phase.FORWARD else 0
            for stage, node in zip(stages, part.nodes, strict=True)
        ]

    def require_forward(self, part: Program) -> None:
        """Check that values flow to later stages only, and that each stage computes something.

        Args:
            part: the program of one micro-batch.

        Raises:
            VerifyError: they do not, with the place; or a stage is empty.
        """
        given, settled = self.forward_stages(part), forward_nodes(part)
        own = frozenset(settled)
        for number in settled:
            for value in part.operands(number):
                if value.node in own and given[value.node] > given[number]:
                    node = part.nodes[number]
                    raise VerifyError(
                        need="stages between which values flow forward only",
                        got=f"{node.op} in {node.scope or 'the loss'} (node {number}) in stage "
                        f"{given[number]}, which reads what stage {given[value.node]} makes",
                        hint="the plan file is damaged or was edited; plan again",
                    )
        if {given[number] for number in settled} != set(range(self.num_stages)):
            filled = len({given[number] for number in settled})
            raise VerifyError(
                need=f"{self.num_stages} stages that all compute something",
                got=f"{filled}",
                hint="the plan file is damaged or was edited; plan again",
            )
