"""A page of runs of asynchronous training: how methods fare as samples get older.

Runs that differ in their seeds alone are a group, drawn as its mean and a band: the 95 % interval
of that mean over runs, by Student's t, or, of two runs, from one to the other. Groups are told
apart by method, staleness and learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weft.report.markup import Markup, join, tag
from weft.report.page import Page, Section, html_table, render
from weft.report.plot.lines import Level
from weft.report.rl_plots import Drawing, drawing
from weft.report.rl_result import figures, sentence
from weft.report.rl_runs import RlRun, read_runs
from weft.report.rl_stats import grouped
from weft.report.rl_tables import group_table, run_table, settings_table, summary_record

__all__ = ["rl_page"]

_FINAL = (
    "Final rewards are means over the last sixth of a run, run means over all of it; ± is half of"
    " the 95 % interval over runs, which a single run does not have. A run has collapsed if it"
    " ended without a number, or lost more than half of what it had won, and by more than noise."
)


def rl_page(runs: Sequence[Path]) -> str:
    """The page as HTML.

    Args:
        runs: record files of one or more runs each, or folders with a `records.jsonl`.

    Raises:
        InputError: no file, or one of them twice.
        FileError: a file that cannot be read or holds no run.
    """
    found = read_runs(runs)
    groups = grouped(found)
    how = drawing(groups)
    tasks = ", ".join(dict.fromkeys(group.task for group in groups if group.task))
    sections = (_gradients(how), _ages(how), _drift(how), _tokens(how))
    return render(
        Page(
            title=f"stale samples: {tasks}" if tasks else "training on stale samples",
            kicker=f"Training on samples that older policies made: {tasks or 'task not told'}",
            sentence=sentence(groups),
            figures=figures(groups),
            picture=_reward(how),
            sections=(
                *(section for section in sections if section is not None),
                Section(heading="Groups", text=_FINAL, body=html_table(group_table(groups))),
                Section(heading="Runs", body=html_table(run_table(groups))),
                _settings(found),
            ),
            sources=tuple((_what(run), run.source) for run in found),
            records=tuple(
                summary_record(run, summary)
                for group in groups
                for run, summary in zip(group.runs, group.summaries, strict=True)
            ),
        )
    )


def _reward(how: Drawing) -> Section:
    plot = how.lines("reward", title="Reward over steps", y_title="reward")
    if plot is None:
        return Section(heading="Reward", text="No run tells of a reward.")
    words = ["Mean reward of the samples that were trained on."]
    longest = max(len(run.steps) for group in how.groups for run in group.runs)
    if longest >= 1.5 * how.points:
        words.append(f"Each point is a mean over about {longest / how.points:.0f} steps.")
    if any(len(group.runs) > 1 for group in how.groups):
        words.append("Bands are 95 % intervals of the mean over runs; of two, both of them.")
    if how.left_out:
        words.append(
            f"{how.left_out} groups are in the tables only: of a crowded panel, each method is"
            " drawn at its best learning rate."
        )
    if any(len({run.steps[-1] for run in g.runs if len(run.steps)}) > 1 for g in how.groups):
        words.append("Where some runs of a group ended early, its line goes on without them.")
    return Section(heading="Reward", text=" ".join(words), body=join(how.legend(), plot))


def _gradients(how: Drawing) -> Section | None:
    return _section(
        how,
        "Gradients",
        "Cosine with a reference of recent gradients, before and after it was acted on: stale"
        " samples make gradients that repeat themselves.",
        (
            "Cosine of the raw gradient",
            how.lines("cosine_raw", title="Cosine of raw gradients over steps", y_title="cosine"),
        ),
        (
            "Cosine of what was applied",
            how.lines(
                "cosine_applied", title="Cosine of applied gradients over steps", y_title="cosine"
            ),
        ),
        ("Steps by regime", how.regimes()),
    )


def _ages(how: Drawing) -> Section | None:
    return _section(
        how,
        "Age of samples",
        "Steps between the weights that began a sample and those that were trained with it.",
        (
            "Mean lag of a step's samples",
            how.lines("staleness", title="Mean lag over steps", y_title="lag [steps]"),
        ),
        ("Samples by lag, over whole runs of all methods", how.lags()),
        (
            "Share of samples that count",
            how.lines("effective", title="Effective share of samples over steps", y_title="share"),
        ),
    )


def _drift(how: Drawing) -> Section | None:
    return _section(
        how,
        "Drift and entropy",
        "How far the policy is from the one that made its samples, and how undecided it is.",
        (
            "Divergence from the policy that made the samples",
            how.lines("kl", title="Divergence over steps", y_title="KL [nats a token]"),
        ),
        (
            "Entropy",
            how.lines("entropy", title="Entropy over steps", y_title="entropy [nats a token]"),
        ),
        (
            "Share of tokens that were clipped",
            how.lines("clipped", title="Clipped tokens over steps", y_title="share"),
        ),
    )


def _tokens(how: Drawing) -> Section | None:
    budgets = sorted({group.budget for group in how.groups if group.budget is not None})
    levels = [
        Level(name=f"budget of {budget:g}", value=budget, style="line-quiet") for budget in budgets
    ]
    told = (
        f" The dashed line is the budget: {', '.join(f'{b:g}' for b in budgets)}." if levels else ""
    )
    return _section(
        how,
        "Tokens",
        f"Tokens of an answer, on the average.{told}",
        (
            "Tokens per sample",
            how.lines(
                "tokens", title="Tokens per sample over steps", y_title="tokens", levels=levels
            ),
        ),
        (
            "Price of a token",
            how.lines("multiplier", title="Multiplier over steps", y_title="reward per token"),
        ),
    )


def _section(
    how: Drawing, heading: str, text: str, *plots: tuple[str, Markup | None]
) -> Section | None:
    """What is known, under headings of its own; None where nothing is."""
    known = [(words, plot) for words, plot in plots if plot is not None]
    if not known:
        return None
    parts = [join(tag("h3", words), plot) for words, plot in known]
    return Section(heading=heading, text=text, body=join(how.legend(), *parts))


def _settings(runs: Sequence[RlRun]) -> Section:
    table = settings_table(runs)
    if not table.rows:
        return Section(heading="Settings", text="The runs tell of none.")
    return Section(heading="Settings", body=html_table(table))


def _what(run: RlRun) -> str:
    words = [run.setting("method") or "unnamed"]
    words += [f"{name} {told}" for name in ("staleness", "seed") if (told := run.setting(name))]
    return ", ".join(words)
