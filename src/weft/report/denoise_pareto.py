"""What a model's speed costs: the plans of a profile, what was measured of them, and others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from weft.core.errors import InfeasibleError, InputError
from weft.core.records import Record
from weft.diffusion.plan import DenoisePlan
from weft.diffusion.profile import Profile
from weft.diffusion.search import EFFORT, STYLES, Search
from weft.report.denoise_table import profile_plain, profile_sentence, profile_tables
from weft.report.markup import Markup, join
from weft.report.page import Figure, Page, Section, html_table, render
from weft.report.plot.dots import Dots, dot_plot
from weft.report.table import Table
from weft.workflow.progress import Progress, silent

__all__ = ["Asked", "Point", "asked_plans", "pareto_html", "pareto_page"]

Point: TypeAlias = tuple[str, float, float]
"""Name, speed over all steps in full, likeness to them [dB]."""

_SPEEDS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0)

_CORRECTED = (
    "Likeness of plans is predicted from recorded runs and corrected by what the checks found;"
    " speed is what steps were found to take. Rings are what was predicted of the best of the"
    " checks, and lead to what was measured. Fewer steps means all of them in full, and was"
    " measured, too."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A speed that was asked for, and the plan for it; None where no plan is that fast."""

    speedup: float
    plan: DenoisePlan | None


def pareto_html(profile: Profile, points: Sequence[Point] = (), *, effort: int = EFFORT) -> str:
    """The page as text, see `pareto_page`."""
    return render(pareto_page(profile, points, effort=effort))


def pareto_page(
    profile: Profile,
    points: Sequence[Point] = (),
    *,
    effort: int = EFFORT,
    progress: Progress = silent,
) -> Page:
    """Speed against likeness.

    Args:
        profile: what was learnt of the model.
        points: measured by others.
        effort: of the search for each plan.
        progress: told how far it is.

    Raises:
        InputError: a point has no name, or a number that cannot be drawn.
    """
    for name, speedup, psnr_db in points:
        if not name or not math.isfinite(psnr_db) or not 0 < speedup < math.inf:
            raise InputError(
                need="points with a name, a speed above 0 and a likeness in dB",
                got=f"{(name, speedup, psnr_db)}",
                hint='("another cache", 1.8, 27.5), for example',
            )
    asked = asked_plans(profile, effort, progress)
    return Page(
        title=f"speed and likeness: {profile.holds_for.pipeline}",
        kicker=f"what speed costs: {profile_sentence(profile)}",
        sentence=_sentence(profile, asked),
        figures=_figures(profile, asked),
        picture=Section(
            heading="Likeness to the full run over speed",
            text=_CORRECTED if profile.checks else "Nothing was checked by running it.",
            body=_plot(profile, profile.search(STYLES[0], effort=effort), asked, points),
        ),
        sections=(
            Section(heading="All points", body=html_table(_table(profile, asked, points))),
            Section(
                heading="What was learnt",
                body=join(*(html_table(table) for table in profile_tables(profile))),
            ),
        ),
        records=(Record(kind="denoise_profile", fields=profile_plain(profile)),),
    )


def asked_plans(profile: Profile, effort: int = EFFORT, progress: Progress = silent) -> list[Asked]:
    """Plans for some speeds, as `profile.plan` gives them."""
    found: list[Asked] = []
    for at, speedup in enumerate(_SPEEDS):
        progress("plans", at / len(_SPEEDS), f"{speedup:g}x")
        style = profile.likeness.style_for_speed(speedup)
        search = profile.search(style, effort=effort)
        try:
            own = search.for_speedup(speedup)
        except InfeasibleError:
            found.append(Asked(speedup=speedup, plan=None))
        else:
            plan = search.plan(own, profile.psnr_db(own, style))
            found.append(Asked(speedup=speedup, plan=plan))
    progress("plans", 1.0)
    return found


def _sentence(profile: Profile, asked: Sequence[Asked]) -> str:
    name = profile.holds_for.pipeline
    known = [a for a in asked if a.plan is not None]
    if not known:
        return f"No plan makes {name} {_SPEEDS[0]:g} times as fast."
    best = min(known, key=lambda a: abs(a.speedup - 2.0))
    assert best.plan is not None and best.plan.psnr_db is not None
    return (
        f"{name} at {best.speedup:g} times the speed is predicted to be"
        f" {best.plan.psnr_db:.1f} dB like the full run; the fastest plan asked for has"
        f" {known[-1].speedup:g} times the speed."
    )


def _figures(profile: Profile, asked: Sequence[Asked]) -> tuple[Figure, ...]:
    figures = [
        Figure(value=f"{a.plan.psnr_db:.1f} dB", meaning=f"predicted at {a.speedup:g}x")
        for a in asked
        if a.plan is not None and a.plan.psnr_db is not None and a.speedup in (1.5, 2.0, 3.0)
    ]
    if profile.checks:
        worst = max(abs(c.got_psnr_db - c.psnr_db) for c in profile.likeness.leading())
        figures.append(Figure(value=f"{worst:.1f} dB", meaning="largest error of a checked plan"))
    return tuple(figures)


def _place(plan: DenoisePlan) -> tuple[float, float]:
    assert plan.speedup is not None and plan.psnr_db is not None
    return plan.speedup, plan.psnr_db


def _plot(
    profile: Profile, search: Search, asked: Sequence[Asked], points: Sequence[Point]
) -> Markup:
    plans = tuple(_place(a.plan) for a in asked if a.plan is not None)
    checks = profile.likeness.leading()
    predicted = tuple((c.speedup, c.psnr_db) for c in checks)
    measured = tuple((c.got_speedup, c.got_psnr_db) for c in checks)
    fewer = tuple((f.speedup, f.psnr_db) for f in profile.fewer_steps)
    others = tuple((speedup, psnr_db) for _, speedup, psnr_db in points)
    known = [*plans, *predicted, *measured, *fewer, *others]
    highest = max((psnr_db for _, psnr_db in known), default=math.inf) + 6.0
    frontier = tuple(
        (found.speedup, psnr_db)
        for found in search.frontier()
        if found.mean_square > 0 and (psnr_db := profile.psnr_db(found, STYLES[0])) <= highest
    )
    return dot_plot(
        (
            Dots(name="frontier of a first search", points=frontier, fill="", line="line-quiet"),
            Dots(name="plans for a speed, predicted", points=plans, line="line-1"),
            Dots(name="checks, predicted (rings)", points=predicted, fill="fill-5", is_hollow=True),
            Dots(name="checks, measured", points=measured, fill="fill-5"),
            Dots(
                name="fewer steps, measured",
                points=fewer,
                fill="fill-4",
                line="line-2",
                labels=tuple(f"{f.steps} steps" for f in profile.fewer_steps),
            ),
            Dots(
                name="measured by others",
                points=others,
                fill="fill-6",
                labels=tuple(name for name, _, _ in points),
            ),
        ),
        title="Likeness to the full run over speed",
        x_title="speed over all steps in full [times]",
        y_title="likeness (PSNR) [dB]",
        ways=tuple(zip(predicted, measured, strict=True)),
    )


def _table(profile: Profile, asked: Sequence[Asked], points: Sequence[Point]) -> Table:
    rows: list[tuple[str, ...]] = []
    for a in asked:
        if a.plan is None:
            rows.append((f"plan for {a.speedup:g}x", "", "", "", "", "no plan is that fast"))
        else:
            speed, psnr_db = _place(a.plan)
            told = (f"{speed:.2f}", "", f"{psnr_db:.1f}", "", str(a.plan))
            rows.append((f"plan for {a.speedup:g}x", *told))
    for number, c in enumerate(profile.likeness.leading(), start=1):
        cells = (c.speedup, c.got_speedup)
        psnr = (c.psnr_db, c.got_psnr_db)
        told = (*(f"{v:.2f}" for v in cells), *(f"{v:.1f}" for v in psnr), "predicted before")
        rows.append((f"check {number}", *told))
    rows += [
        (f"{f.steps} steps", "", f"{f.speedup:.2f}", "", f"{f.psnr_db:.1f}", "all in full")
        for f in profile.fewer_steps
    ]
    rows += [(name, "", f"{s:.2f}", "", f"{p:.1f}", "measured by others") for name, s, p in points]
    return Table(
        columns=(
            "what",
            "speed, predicted [times]",
            "measured",
            "likeness, predicted [dB]",
            "measured",
            "how",
        ),
        rows=tuple(rows),
    )
