"""The strip of a denoising run: a bar for each step, as high as what was computed of it."""

from __future__ import annotations

from collections.abc import Sequence

from weft.diffusion.plan import Mode, Model, StepPlan
from weft.diffusion.record import Run, StepRecord
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, figure, legend

__all__ = ["run_strip", "step_style"]

_WIDTH, _HEIGHT = 940.0, 64.0
_LEAST = 4.0
"""Height of a step in which nothing was computed [pixels]."""

_WORDS = {
    Mode.FULL: "everything",
    Mode.CFG: "the output with the prompt",
    Mode.BLOCK: "some blocks",
    Mode.STEP: "nothing",
    Mode.MIXED: "magnitudes",
}


def step_style(done: StepPlan) -> str:
    """CSS class of a step's colour."""
    small = "small-" if done.model is Model.SMALL and done.mode is not Mode.STEP else ""
    return f"fill-{small}{done.mode.value}"


def run_strip(run: Run) -> Markup:
    """A bar for each step, in order, and what the colours mean."""
    area = Area(left=4.0, top=6.0, width=_WIDTH - 8.0, height=_HEIGHT)
    full = run.num_blocks * (2 if run.has_guidance else 1)
    width = area.width / len(run.steps)
    parts = [
        _bar(step, full, area.left + at * width, area.bottom, width, area.height)
        for at, step in enumerate(run.steps)
    ]
    every = max(1, -(-len(run.steps) // 25))
    labels = [
        tag(
            "text",
            str(step.step),
            x=area.left + (at + 0.5) * width,
            y=area.bottom + 16,
            text_anchor="middle",
        )
        for at, step in enumerate(run.steps)
        if at % every == 0
    ]
    line = tag("line", x1=area.left, y1=area.bottom, x2=area.right, y2=area.bottom, class_="axis")
    description = f"What each of {len(run.steps)} steps computed"
    picture = figure(_WIDTH, area.bottom + 24, description, *parts, line, *labels)
    return join(legend(_legend([step.done for step in run.steps])), picture)


def _legend(steps: Sequence[StepPlan]) -> list[tuple[str, str]]:
    """Colours that occur: the large model's first, from everything to nothing."""
    found = {step_style(own): own for own in steps}
    order = list(Mode)
    ranked = sorted(
        found.items(),
        key=lambda item: (item[0].startswith("fill-small"), order.index(item[1].mode)),
    )
    return [(_meaning(style, own), style) for style, own in ranked]


def _meaning(style: str, own: StepPlan) -> str:
    by = ", small model" if style.startswith("fill-small") else ""
    return f"{own.mode.value}: {_WORDS[own.mode]} computed{by}"


def _bar(
    step: StepRecord, full: int, left: float, bottom: float, width: float, highest: float
) -> Markup:
    share = min(1.0, step.blocks / full) if full else 0.0
    height = max(_LEAST, share * highest)
    words = f"step {step.step}: {step.done}, {step.blocks} blocks"
    return tag(
        "rect",
        tag("title", f"{words}; {step.why}" if step.why else words),
        x=left + min(1.0, width / 8),
        y=bottom - height,
        width=width - 2 * min(1.0, width / 8),
        height=height,
        class_=step_style(step.done),
    )
