"""From a ledger to attempts at tasks: what went in, what it cost, and whether it passed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.tokens.allocate import BudgetPlan, Line, StepCurve, plan_split
from weft.tokens.call import Call
from weft.tokens.classes import TokenClass
from weft.tokens.ledger import Ledger
from weft.tokens.micro import Trials
from weft.tokens.money import Money
from weft.tokens.prices import PriceBook, cost
from weft.tokens.usage import Usage

__all__ = ["Attempt", "ledger_attempts", "ledger_plan", "ledger_trials"]

KINDS = ("agent", "payer", "model")
"""What tasks may be grouped by for a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The calls of one task in one session, the last of which says how it ended.

    Attributes:
        task, session, agent, payer, model: of the last call.
        arm: which was drawn; empty for none.
        passed: how it ended.
        usage: of all calls.
        usd: what they cost; None without a price of each, or where a count is not known [usd].
    """

    task: str
    session: str
    agent: str
    payer: str
    model: str
    arm: str
    passed: bool
    usage: Usage
    usd: float | None


def ledger_attempts(
    ledger: Ledger, book: PriceBook | None = None
) -> tuple[tuple[Attempt, ...], Mapping[str, int]]:
    """Attempts, and how many were left out by why.

    Args:
        ledger: to read.
        book: to price by; None for no costs.
    """
    groups: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in ledger.calls():
        groups[call.task, call.session].append(call)
    left_out: Counter[str] = Counter()
    found: list[Attempt] = []
    for (task, _), calls in groups.items():
        calls.sort(key=lambda call: (call.at, call.id))
        arms = {call.arm for call in calls if call.arm}
        said = [call.passed for call in calls if call.passed is not None]
        if not task or not said or len(arms) > 1:
            why = "no task" if not task else "no outcome" if not said else "several arms in one"
            left_out[why] += 1
            continue
        found.append(_attempt(calls, arms, said[-1], book))
    return tuple(found), dict(left_out)


def _attempt(
    calls: Sequence[Call], arms: set[str], passed: bool, book: PriceBook | None
) -> Attempt:
    last = calls[-1]
    return Attempt(
        task=last.task,
        session=last.session,
        agent=last.agent,
        payer=last.payer,
        model=last.model,
        arm=next(iter(arms), ""),
        passed=passed,
        usage=sum((call.usage for call in calls), Usage()),
        usd=None if book is None else _usd(calls, book),
    )


def _usd(calls: Iterable[Call], book: PriceBook) -> float | None:
    spent = 0.0
    for call in calls:
        own = cost(call.usage, book.rate(call.provider, call.model, call.at, tier=call.tier))
        if not own.is_exact:
            return None
        spent += float(own.low)
    return spent


def ledger_trials(
    attempts: Sequence[Attempt], inputs: Sequence[str] = ("output",)
) -> tuple[Trials, int]:
    """Trials for a fit, and how many attempts had an input that is not known, or is zero.

    Args:
        attempts: of a ledger.
        inputs: "output", "input", or names of classes of tokens.

    Raises:
        InputError: there is no such class, or no attempt is left.
    """
    leaves = {str(leaf): leaf for leaf in TokenClass}
    unknown = [name for name in inputs if name not in ("input", "output") and name not in leaves]
    if unknown:
        raise InputError(
            need=f"input, output, or one of {', '.join(leaves)}",
            got=", ".join(unknown),
            hint="--inputs reasoning,text",
        )

    def counts(usage: Usage) -> list[int] | None:
        found = [
            usage.input
            if name == "input"
            else usage.output
            if name == "output"
            else usage[leaves[name]]
            for name in inputs
        ]
        return [own.low for own in found] if all(c.is_exact and c.low for c in found) else None

    rows = [(own, amounts) for own in attempts if (amounts := counts(own.usage)) is not None]
    if not rows:
        raise InputError(
            need="attempts at tasks with known outcomes and tokens",
            got=f"none of {len(attempts)}",
            hint="calls need `task`, and `passed` on the call that ended an attempt",
        )
    costs = [own.usd for own, _ in rows]
    known = [usd for usd in costs if usd is not None]
    trials = Trials(
        inputs={name: [amounts[n] for _, amounts in rows] for n, name in enumerate(inputs)},
        outcome=[float(own.passed) for own, _ in rows],
        task=[own.task for own, _ in rows],
        arm=[own.arm for own, _ in rows] if any(own.arm for own, _ in rows) else (),
        model=[own.model for own, _ in rows],
        usd=known if len(known) == len(rows) else None,
    )
    return trials, len(attempts) - len(rows)


def ledger_plan(attempts: Sequence[Attempt], budget: Money, by: str = "agent") -> BudgetPlan:
    """Spend a budget on as many tasks as the ledger has, by what each model and arm did for a kind.

    Shares that passed are those of the ledger: where arms were not drawn at random, a model that
    was given the easy tasks looks better than it is.

    Args:
        attempts: of a ledger, priced.
        budget: in dollars.
        by: what tells kinds of tasks apart: one of KINDS.

    Raises:
        InputError: costs are not known, nothing passed, there is no such kind, or the budget is
            not in dollars.
    """
    if budget.currency != "usd":
        raise InputError(
            need="a budget in dollars, which prices are in",
            got=f"{budget}",
            hint="convert it at a rate of your own first: 50usd",
        )
    priced = [own for own in attempts if own.usd is not None]
    if by not in KINDS or not priced:
        raise InputError(
            need=f"priced attempts, by one of {', '.join(KINDS)}",
            got=f"{len(priced)} priced attempts of {len(attempts)}, by {by}",
            hint="--prices genai, or a file of prices"
            if attempts
            else "calls need `task`, and `passed` on the call that ended an attempt",
        )
    kinds: defaultdict[str, list[Attempt]] = defaultdict(list)
    for own in priced:
        kinds[getattr(own, by) or "all"].append(own)
    arms = {kind: _arms(own) for kind, own in kinds.items()}
    passing = {kind: own for kind, own in arms.items() if any(value for _, value in own.values())}
    if not passing:
        raise InputError(need="a task that passed", got="none", hint="there is nothing to plan for")
    curves = {kind: StepCurve.hull([*own.values()]) for kind, own in passing.items()}
    plan = plan_split(curves, budget)
    lines = tuple(
        Line(
            name=line.name,
            pick=_mix(float(line.cost.amount), curves[line.name], passing[line.name]),
            cost=line.cost,
            value=line.value,
        )
        for line in plan.lines
    )
    return BudgetPlan(
        lines=lines,
        budget=budget,
        value=plan.value,
        bound=plan.bound,
        shadow_price=plan.shadow_price,
        policy="water-filling over hulls",
    )


def _arms(attempts: Sequence[Attempt]) -> dict[str, tuple[float, float]]:
    """Dollars and passes of a kind's tasks, were all done by one model and arm."""
    groups: defaultdict[str, list[Attempt]] = defaultdict(list)
    for own in attempts:
        groups[" ".join(part for part in (own.model, own.arm) if part)].append(own)
    count = len({own.task for own in attempts})
    return {
        name: (
            max(count * sum(a.usd or 0.0 for a in own) / len(own), 1e-12),
            count * sum(a.passed for a in own) / len(own),
        )
        for name, own in groups.items()
    }


def _mix(usd: float, curve: StepCurve, arms: Mapping[str, tuple[float, float]]) -> str:
    """Which arms a sum is spent on, and on what share of the tasks."""
    names = {point: name for name, point in arms.items()}
    before, shown = (0.0, 0.0), "none"
    for point in curve.points:
        if usd <= point[0]:
            share = (usd - before[0]) / (point[0] - before[0])
            parts = ((shown, 1.0 - share), (names[point], share))
            return ", ".join(f"{name} {part:.0%}" for name, part in parts if round(part, 2) > 0.0)
        before, shown = point, names[point]
    return f"{shown} 100%"
