"""A training loop of plain torch in a process of its own, timed step by step.

python -m benchmarks.scaling.plain RECIPE STEPS FILE
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.job import workload_of

__all__ = ["main"]


def main(recipe: str, steps: int, file: Path) -> None:
    """Train and write the seconds of each step as a JSON list."""
    workload = workload_of(recipe)
    torch.manual_seed(workload.seed)
    model = workload.model()
    options = asdict(workload.pure_optimizer)
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    seconds: list[float] = []
    for step in range(steps):
        batch = workload.batch(step)
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = workload.loss(model, batch)
        loss.backward()
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    file.write_text(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
