"""What a set of runs says, in one sentence and a few figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from weft.report.page import Figure
from weft.report.rl_stats import Group, difference, in_words

__all__ = ["figures", "sentence"]


def sentence(groups: Sequence[Group]) -> str:
    """The result: the best method where samples are oldest, the next best, and no staleness.

    Learning rates are chosen for each method by the rewards that are told, so a method of which
    more were tried has had more chances; the page says how many were.
    """
    known = [group for group in groups if _final(group) is not None]
    if not known:
        runs = sum(len(group.runs) for group in groups)
        return f"None of {runs} runs tells of a reward yet." if runs > 1 else _NOTHING
    at = _oldest(known)
    best, *others = _by_method(group for group in known if group.staleness == at)
    words = [f"{_at(at)}{best.method} ended at a reward of {_told(best)}"]
    if others:
        words.append(f", against {_told(others[0])} of the next best, {others[0].method}")
        words.append(_difference(best, others[0]))
    fresh = _by_method(group for group in known if group.staleness == "0")
    if fresh and at != "0":
        words.append(f"; without staleness, {fresh[0].method} ended at {_told(fresh[0])}")
    return "".join(words).replace(" ± ", "\u00a0±\u00a0") + "."


_NOTHING = "This run tells of no reward yet."


def _final(group: Group) -> float | None:
    final = group.over_runs("final")
    return None if final is None else final.mean


def _oldest(groups: Sequence[Group]) -> str:
    """The highest staleness at which methods compare, or else the highest of all."""
    levels = list(dict.fromkeys(group.staleness for group in groups))
    several = [at for at in levels if len({g.method for g in groups if g.staleness == at}) > 1]
    return (several or levels)[-1]


def _by_method(groups: Iterable[Group]) -> list[Group]:
    """The best group of each method, best first."""
    found: dict[str, Group] = {}
    for group in sorted(groups, key=lambda one: -(_final(one) or 0.0)):
        found.setdefault(group.method, group)
    return list(found.values())


def _at(staleness: str) -> str:
    return f"At a staleness of {staleness}, " if staleness else ""


def _told(group: Group) -> str:
    final = group.over_runs("final")
    count = 0 if final is None else final.count
    return f"{final} ({f'{count} runs' if count > 1 else 'one run'})"


def _difference(best: Group, other: Group) -> str:
    gap = difference(
        [summary.final for summary in best.summaries],
        [summary.final for summary in other.summaries],
    )
    if gap is None or gap.half is None:
        return ", which one seed cannot tell apart"
    if abs(gap.mean) > gap.half:
        return f", a difference of {gap} (95 %) over seeds"
    return ", which the seeds do not tell apart"


def figures(groups: Sequence[Group]) -> tuple[Figure, ...]:
    """The numbers that matter most."""
    runs = sum(len(group.runs) for group in groups)
    within = f"in {len(groups)} group{'s' if len(groups) > 1 else ''}"
    found = [Figure(value=str(runs), meaning=f"run{'s' if runs > 1 else ''} {within}")]
    known = [group for group in groups if _final(group) is not None]
    if known:
        best = max(known, key=lambda group: _final(group) or 0.0)
        words = f"highest final reward: {best.method}"
        words += f", staleness {best.staleness}" if best.staleness else ""
        found.append(Figure(value=in_words(_final(best)), meaning=words))
        collapsed = sum(group.collapsed for group in groups)
        found.append(Figure(value=f"{collapsed} of {runs}", meaning="runs collapsed"))
    rates = [(rate.mean, group) for group in groups if (rate := group.over_runs("samples_per_s"))]
    if rates:
        rate, group = max(rates, key=lambda one: one[0])
        words = f"samples a second at most: {group.method}"
        words += f", staleness {group.staleness}" if group.staleness else ""
        found.append(Figure(value=in_words(rate), meaning=words))
    return tuple(found)
