"""What the ranks of a pipeline did beside what was predicted, drawn from records of kind "rank"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from weft.core.errors import FileError
from weft.core.records import Record
from weft.core.units import format_bytes, format_seconds
from weft.report.markup import join
from weft.report.page import Section, html_table
from weft.report.plan_summary import format_share
from weft.report.plot import Bar, bar_plot
from weft.report.plot.scale import linear_ticks
from weft.report.table import Table

__all__ = ["RankFigures", "rank_figures", "rank_section", "rank_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFigures:
    """Figures of one rank, medians over the steps of a run.

    Attributes:
        rank, group: which rank, in which group of devices.
        stages: what the group computes.
        step_s, predicted_step_s: time of a step [s].
        waited, predicted_waited: share of the schedule in which nothing was done [0 to 1].
        exposed_s: time spent waiting for collectives, and for what is sent once a step [s]; None
            of a compiled step.
        peak_bytes, predicted_peak_bytes: most memory in use [bytes].
    """

    rank: int
    group: int
    stages: tuple[int, ...]
    step_s: float
    waited: float
    exposed_s: float | None
    peak_bytes: float
    predicted_step_s: float
    predicted_waited: float
    predicted_peak_bytes: float


def rank_figures(records: Sequence[Record]) -> tuple[RankFigures, ...]:
    """Figures of each rank from the newest run that came to its end, in order of rank.

    Args:
        records: of one plan.

    Returns:
        Nothing if no run came to its end.

    Raises:
        FileError: a record lacks a figure.
    """
    found: dict[int, RankFigures] = {}
    for record in records:
        if record.kind == "rank":
            figures = _figures(record)
            found[figures.rank] = figures
    return tuple(found[rank] for rank in sorted(found))


def _figures(record: Record) -> RankFigures:
    fields = dict(record.fields)
    try:
        given = {name: fields[name] for name in RankFigures.__dataclass_fields__}
        given["stages"] = tuple(cast("list[int]", given["stages"]))
        return RankFigures(**given)  # pyright: ignore[reportArgumentType]
    except (KeyError, TypeError) as error:
        raise FileError(
            need="a record of a rank with all its figures",
            got=f"{type(error).__name__}: {error}",
            hint="write the records again with `weft run --records FILE`",
        ) from error


def rank_table(figures: Sequence[RankFigures]) -> Table:
    """Each rank: measured beside predicted."""
    rows = [
        (
            str(f.rank),
            ", ".join(map(str, f.stages)),
            format_seconds(f.step_s),
            format_seconds(f.predicted_step_s),
            format_share(f.waited),
            format_share(f.predicted_waited),
            "-" if f.exposed_s is None else format_seconds(f.exposed_s),
            format_bytes(f.peak_bytes),
            format_bytes(f.predicted_peak_bytes),
        )
        for f in figures
    ]
    columns = (
        *("rank", "stages", "step", "predicted", "waited", "predicted", "exposed"),
        *("peak", "predicted"),
    )
    return Table(columns=columns, rows=tuple(rows))


def rank_section(figures: Sequence[RankFigures]) -> tuple[Section, ...]:
    """Measured beside predicted, on a page; nothing where nothing was measured."""
    if not figures:
        return ()
    bars = [
        bar
        for f in figures
        for bar in (
            Bar(
                name=f"rank {f.rank} waits",
                value=f.waited,
                text=format_share(f.waited),
                style="fill-2",
            ),
            Bar(
                name="predicted",
                value=f.predicted_waited,
                text=format_share(f.predicted_waited),
                style="fill-1",
            ),
        )
    ]
    ticks = linear_ticks(0.0, 1.0)
    plot = bar_plot(bars, ticks, title="Share of the schedule in which ranks wait", x_title="share")
    text = (
        "Medians over the steps of a run but the first. Exposed is time in which a rank only "
        "waits for collectives, or for what stages send each other once a step. On a CPU the "
        "peak is all that the process has held, the interpreter and its libraries included; the "
        "prediction counts tensors."
    )
    body = join(plot, html_table(rank_table(figures)))
    return (Section(heading="Ranks, measured beside predicted", text=text, body=body),)
