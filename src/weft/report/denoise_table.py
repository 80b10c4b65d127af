"""Denoising plans and profiles in tables, and as JSON values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from weft.core.units import format_seconds
from weft.diffusion.plan import DenoisePlan, Model, StepPlan
from weft.report.table import Table

if TYPE_CHECKING:
    from weft.diffusion.profile import Profile

__all__ = ["plan_plain", "plan_table", "profile_plain", "profile_sentence", "profile_tables"]


def plan_table(plan: DenoisePlan) -> Table:
    """A row for each step."""
    predicted = [
        *([f"{plan.speedup:.2f} times the speed"] if plan.speedup is not None else []),
        *([f"{plan.psnr_db:.1f} dB"] if plan.psnr_db is not None else []),
    ]
    return Table(
        caption=", ".join(
            [str(plan), *([f"predicted {' at '.join(predicted)}"] * bool(predicted))]
        ),
        columns=("step", "model", "computed", "blocks left out", "predicted by", "weights"),
        rows=tuple(_row(number, step) for number, step in enumerate(plan.steps)),
    )


def _row(number: int, step: StepPlan) -> tuple[str, ...]:
    is_full = str(step).split()[0] == "full"
    blocks = "" if step.blocks is None else f"{step.blocks[0]} to {step.blocks[1] - 1}"
    model = "large" if step.model is Model.LARGE else "small"
    return (
        str(number),
        model,
        step.mode.value,
        blocks,
        "" if is_full else step.predictor.value,
        "" if is_full else _weights(step),
    )


def _weights(step: StepPlan) -> str:
    if step.weights is None:
        return ""
    kinds = (
        ("output", step.weights.outputs),
        ("offset", step.weights.offsets),
        ("blocks", step.weights.blocks),
    )
    return "; ".join(
        f"{name} {', '.join(f'{value:.3g}' for value in values)}"
        for name, values in kinds
        if values
    )


def plan_plain(plan: DenoisePlan) -> dict[str, object]:
    """As its file has it."""
    return json.loads(plan.to_json())


def profile_sentence(profile: Profile) -> str:
    """What was learnt from what, in one line."""
    holds, recordings = profile.holds_for, profile.recordings
    shape = " x ".join(map(str, holds.shape))
    made = f" ({profile.provenance})" if profile.provenance else ""
    return (
        f"{holds.pipeline} with {holds.scheduler}, guidance {holds.guidance:g}, latents {shape}:"
        f" {recordings[0].num_steps} steps of {len(recordings)}"
        f" prompt{'s' * (len(recordings) != 1)}{made}"
    )


def profile_tables(profile: Profile) -> tuple[Table, ...]:
    """What steps take, and what became of plans that were run."""
    costs = Table(
        caption="what a step takes",
        columns=("computed", "time", "share of a full step"),
        rows=(
            *(
                (mode.value, format_seconds(profile.costs.full_s * share), f"{share:.1%}")
                for mode, share in profile.costs.share.items()
            ),
            ("around the denoiser", format_seconds(profile.costs.around_s), ""),
            ("all of it, not accelerated", format_seconds(profile.costs.whole_s(1)), ""),
        ),
    )
    return (costs, *_checked(profile))


def _checked(profile: Profile) -> tuple[Table, ...]:
    rows = (
        *(
            (
                f"plan {number}",
                f"{c.speedup:.2f}",
                f"{c.got_speedup:.2f}",
                f"{c.psnr_db:.1f}",
                f"{c.got_psnr_db:.1f}",
            )
            for number, c in enumerate(profile.checks, start=1)
        ),
        *(
            (f"{f.steps} steps in full", "", f"{f.speedup:.2f}", "", f"{f.psnr_db:.1f}")
            for f in profile.fewer_steps
        ),
    )
    if not rows:
        return ()
    columns = (
        "what was run",
        "speed, predicted [times]",
        "achieved",
        "likeness, predicted [dB]",
        "achieved",
    )
    return (Table(caption="what was predicted and what was achieved", columns=columns, rows=rows),)


def profile_plain(profile: Profile) -> dict[str, object]:
    """All that its file has but for the recordings."""
    plain: dict[str, object] = json.loads(profile.to_json())
    recordings = profile.recordings
    plain["recordings"] = {"prompts": len(recordings), "steps": recordings[0].num_steps}
    return plain
