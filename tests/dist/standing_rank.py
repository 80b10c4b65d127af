"""One rank of pipelines on blocks of ranks in any order; prints how far they are from one process.

Model and pipeline are drawn. The last step comes after a checkpoint, which the same pipeline with
its groups in the order of ranks has read.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from torch import nn

from tests.dist.pipeline_rank import compared
from weft.capture import AdamW, Workload, capture
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.runtime.checkpoint import load_checkpoint, save_checkpoint
from weft.runtime.deploy import deploy
from weft.runtime.world import joined

TOKENS, ROWS = 12, 8
STEPS = 3


class Drawn(nn.Module):
    """Layers with skips over some of them, and a table at the start that may be the head too."""

    def __init__(self, draw: random.Random):
        super().__init__()
        width = draw.choice([4, 8])
        self.table = nn.Embedding(TOKENS, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(draw.randint(4, 7)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, TOKENS, bias=False)
        if draw.random() < 0.5:
            self.head.weight = self.table.weight
        self.dropout = nn.Dropout(draw.choice([0.0, 0.3]))
        self.skips = [draw.randrange(at + 1) for at in range(len(self.layers))]

    def forward(self, tokens):
        made = [self.table(tokens)]
        for layer, skip in zip(self.layers, self.skips, strict=True):
            made.append(made[skip] + self.dropout(torch.relu(layer(made[-1]))))
        return self.head(self.norm(made[-1]))


def workload(seed: int) -> Workload:
    def batch(step: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed + 7 * step)
        return {"tokens": torch.randint(TOKENS, (ROWS, 2), generator=generator)}

    return Workload(
        name=f"drawn{seed}",
        model=lambda: Drawn(random.Random(seed)).double(),
        loss=lambda model, batch: nn.functional.cross_entropy(
            model(batch["tokens"]).flatten(0, 1), batch["tokens"].flatten()
        ),
        batch=batch,
        optimizer=AdamW(lr=1e-2),
    )


def drawn(seed: int) -> dict:
    """Degrees of a pipeline on four ranks whose groups are out of the order of ranks."""
    draw = random.Random(seed)
    inside = draw.choice([{"dp": 2}, {"dp": 2, "zero": 1}, {"dp": 2, "fsdp": True}, {"tp": 2}])
    pairs = {"pp": 2, "standing": (1, 0), **inside}
    shape = (
        pairs | {"schedule": draw.choice(["1f1b", "zero-bubble", "gpipe"])},
        pairs | {"schedule": "interleaved", "chunks": 2},
        {"pp": 4, "standing": out_of_order(draw, 4)},
        {"pp": 3, "by_group": [{}, inside, {}], "standing": out_of_order(draw, 3)},
    )[seed % 4]
    return shape | {"micro_batches": draw.choice([2, 4])}


def out_of_order(draw: random.Random, count: int) -> tuple[int, ...]:
    order = list(range(count))
    while order == sorted(order):
        draw.shuffle(order)
    return tuple(order)


def main(seeds: list[int], folder: Path) -> None:
    found = []
    with joined(timeout_s=60) as world:
        for seed in seeds:
            given, degrees = workload(seed), drawn(seed)
            program = capture(given)
            plan = pipeline_expert(program, preset("dgx-h100x1"), **degrees)
            in_order = pipeline_expert(
                program, preset("dgx-h100x1"), **(degrees | {"standing": ()})
            )
            step = deploy(plan, given, world=world, program=program)
            first = step.plan.ranks_of(0)
            losses = [float(step(given.batch(number))) for number in range(STEPS - 1)]
            save_checkpoint(folder / str(seed), step)
            step = deploy(in_order, given, world=world, program=program)
            assert load_checkpoint(folder / str(seed), step) is not None
            losses.append(float(step(given.batch(STEPS - 1))))
            state = step.full_state()
            if world.is_first:
                found.append(compared(given, losses, state) | {"first": [*first]})
        if world.is_first:
            print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
