"""Runs of a denoising plan: as tables, and as a page that shows what each step computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from weft.core.records import Record
from weft.core.units import format_bytes, format_seconds
from weft.diffusion.plan import Mode, Model
from weft.diffusion.record import Run, StepRecord
from weft.report.frames import Video, frames_section
from weft.report.markup import join
from weft.report.page import Figure, Page, Section, html_table, render
from weft.report.plot.strip import run_strip
from weft.report.table import Table, format_table

__all__ = ["run_html", "run_page", "run_speedup", "run_summary", "run_table", "run_text"]

_TIMED = (
    "The speed compares the time in the denoiser with that of as many steps in full, as this run's"
    " own full steps took; text encoders and decoders are not in it."
)


def run_table(run: Run) -> Table:
    """A row for each step."""
    return Table(
        caption=f"{run.pipeline}, {run.plan}",
        columns=(
            "step",
            "noise level",
            "done",
            "why not as planned",
            "outputs",
            "blocks",
            "distances",
            "time",
        ),
        rows=tuple(_row(step) for step in run.steps),
    )


def _row(step: StepRecord) -> tuple[str, ...]:
    return (
        str(step.step),
        f"{step.position:.4g}",
        str(step.done),
        step.why,
        str(step.outputs),
        str(step.blocks),
        ", ".join(f"{name} {value:.3g}" for name, value in step.distances.items()),
        format_seconds(step.seconds),
    )


def run_speedup(run: Run) -> float | None:
    """The denoiser's speed over all steps in full, by the time of this run's own full steps.

    None where no full step of the large model was timed. The first step is only taken where there
    is no other: it may compile, or load.
    """
    full = [
        step.seconds
        for step in run.steps
        if step.done.mode is Mode.FULL and step.done.model is Model.LARGE and step.seconds > 0
    ]
    taken = sum(step.seconds for step in run.steps)
    if not full or taken <= 0:
        return None
    return median(full[1:] or full) * len(run.steps) / taken


def run_summary(run: Run) -> str:
    """One line: which row of a batch, if it is one, work saved, speed, memory kept."""
    speed = run_speedup(run)
    row = "" if run.row is None else f"row {run.row}: "
    told = [f"{row}{1 - run.work:.0%} of the work saved"]
    told += [f"{speed:.2f} times the speed of full steps"] if speed is not None else []
    told += [f"{format_bytes(run.kept_bytes)} kept between steps"]
    return ", ".join(told)


def run_text(runs: Sequence[Run]) -> str:
    """Tables of runs, each with its summary below."""
    return "\n\n".join(f"{format_table(run_table(run))}\n{run_summary(run)}" for run in runs)


def run_html(runs: Sequence[Run], videos: Mapping[str, Video]) -> str:
    """The page as text, see `run_page`."""
    return render(run_page(runs, videos))


def run_page(runs: Sequence[Run], videos: Mapping[str, Video]) -> Page:
    """What runs did.

    Args:
        runs: at least one, in order.
        videos: to be shown side by side, by name; may be empty.

    Raises:
        InputError: the videos differ in length.
    """
    last = runs[-1]
    return Page(
        title=f"denoising: {last.pipeline}",
        kicker=f"how weft ran {last.pipeline}",
        sentence=_sentence(last),
        figures=_figures(last),
        picture=Section(
            heading="What each step computed",
            text="A bar for each step, as high as the share of its work that was done.",
            body=join(*(run_strip(run) for run in runs)),
        ),
        sections=(
            *([frames_section(videos)] if videos else []),
            *(_steps(number, run, len(runs)) for number, run in enumerate(runs)),
        ),
        records=tuple(record for run in runs for record in (_whole(run), *run.records())),
    )


def _sentence(run: Run) -> str:
    speed = run_speedup(run)
    faster = f", which made the denoiser {speed:.2f} times as fast" if speed is not None else ""
    small = sum(step.done.model is Model.SMALL for step in run.steps)
    by = f", {small} of them by the small model" if small else ""
    return f"{1 - run.work:.0%} of the work of {len(run.steps)} steps{by} was left out{faster}."


def _figures(run: Run) -> tuple[Figure, ...]:
    speed = run_speedup(run)
    modes = Counter(step.done.mode.value for step in run.steps)
    changed = sum(bool(step.why) for step in run.steps)
    figures = [Figure(value=f"{1 - run.work:.0%}", meaning="of the work saved")]
    if speed is not None:
        figures.append(Figure(value=f"{speed:.2f}x", meaning="the denoiser's speed"))
    figures += [
        Figure(value=format_bytes(run.kept_bytes), meaning="kept between steps, at most"),
        Figure(value=str(modes[Mode.FULL.value]), meaning=f"of {len(run.steps)} steps in full"),
    ]
    if changed:
        figures.append(Figure(value=str(changed), meaning="steps not as planned"))
    return tuple(figures)


def _steps(number: int, run: Run, count: int) -> Section:
    heading = "Steps" if count == 1 else f"Steps of run {number + 1}"
    text = f"Decided by: {run.policy}. {run_summary(run)}. {_TIMED}"
    return Section(heading=heading, text=text, body=html_table(run_table(run)))


def _whole(run: Run) -> Record:
    return Record(
        kind="denoise_run",
        fields={
            "pipeline": run.pipeline,
            "policy": run.policy,
            "steps": len(run.steps),
            "work": run.work,
            "speedup": run_speedup(run),
            "has_guidance": run.has_guidance,
            "num_blocks": run.num_blocks,
            "small_share": run.small_share,
            "kept_bytes": run.kept_bytes,
        },
    )
