"""Loss traces of the tiny recipes in double precision; run it to write them anew.

    PYTHONPATH=src python tests/golden/losses/record.py

A change in these files is a change in what is computed and needs a reason. Recipes on text
train on a fixed sentence here, because the text that ships with Python differs by version.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from weft.capture import Workload, initial_state, make_step
from weft.workflow.recipe import load_workload

__all__ = ["RECIPES", "STEPS", "fixed_text", "golden_path", "losses", "read_losses"]

ROOT = Path(__file__).parents[3]
STEPS = 8
RECIPES = (
    "gpt.py:gpt_tiny",
    "llama3.py:llama_tiny",
    "moe.py:moe_tiny",
    "vit.py:vit_tiny",
    "resnet.py:resnet_tiny",
    "vgg.py:vgg_tiny",
    "mlp.py:mlp_tiny",
    "mixtral.py:mixtral_tiny",
    "deepseek.py:deepseek_tiny",
    "wide_resnet.py:wide_resnet_grouped_tiny",
)
_SENTENCE = b"A loom holds the warp; the weft goes over and under, and what is woven holds. "


def fixed_text(step: int, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch of the given shape, cut from one sentence that never changes."""
    batch, sequence = like["tokens"].shape
    first = torch.arange(batch)[:, None] * 7 + step * sequence
    places = (first + torch.arange(sequence + 1)) % len(_SENTENCE)
    window = torch.tensor(list(_SENTENCE))[places]
    return {"tokens": window[:, :-1].contiguous(), "targets": window[:, 1:].contiguous()}


def in_double(workload: Workload) -> Workload:
    """The same workload in double precision, on data that no version changes."""

    def batch(step: int) -> dict[str, Tensor]:
        entries = workload.batch(step)
        if "tokens" in entries:
            entries = fixed_text(step, entries)
        return {k: v.double() if v.is_floating_point() else v for k, v in entries.items()}

    return replace(workload, model=lambda: workload.model().double(), batch=batch)


def losses(recipe: str) -> list[float]:
    """Loss of each of the first steps."""
    workload = in_double(load_workload(str(ROOT / "recipes" / recipe)))
    step, state = make_step(workload), initial_state(workload)
    found: list[float] = []
    for number in range(STEPS):
        loss, state = step(state, workload.batch(number), torch.tensor(number))
        found.append(loss.item())
    return found


def golden_path(recipe: str) -> Path:
    """File of a recipe's trace."""
    return Path(__file__).parent / f"{recipe.partition(':')[2]}.txt"


def read_losses(recipe: str) -> list[float]:
    """The trace as it is on file: one loss a line, comments aside."""
    lines = golden_path(recipe).read_text().splitlines()
    return [float(line) for line in lines if not line.startswith("#")]


def main() -> None:
    """Write every trace."""
    for recipe in RECIPES:
        text = "".join(f"{loss!r}\n" for loss in losses(recipe))
        golden_path(recipe).write_text(f"# loss of each step of recipes/{recipe}, float64\n{text}")
        sys.stdout.write(f"{golden_path(recipe).name}\n")


if __name__ == "__main__":
    main()
