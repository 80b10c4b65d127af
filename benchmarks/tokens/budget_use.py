"""How much of a budget is put to use, with 200 calls in flight: a simulation on calls of a trace.

Calls run in virtual time, as long as their answers are. All policies see the same calls in the
same order. The budget is weft's own, in memory; the foil is a counter that is looked at before a
call and added to after it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from weft.tokens import Money, usd
from weft.tokens.budgets import Budget, BudgetError
from weft.tokens.budgets.reserving import CallPrice, Outputs

__all__ = [
    "MAX_TOKENS",
    "MODEL",
    "TASK",
    "Sizes",
    "Use",
    "mean_cost",
    "price_of",
    "run_calls",
    "worst_cost",
]

MAX_TOKENS = 4096
MODEL, TASK = "model", "chat"
PER_MILLION_IN, PER_MILLION_OUT = usd("1.25"), usd(10)
Sizes = tuple[int, int]
"""Tokens of context, and tokens that would be generated."""
STEP_S = 0.02
"""Of virtual time a token."""
FIRST_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What came of a run.

    Attributes:
        share: spent over cap.
        calls: that were made.
        cut: share of them that were cut short.
        below: share of them whose answer was longer than the quantile that was reserved at least.
        flying: calls in flight, on average over time.
    """

    share: float
    calls: int
    cut: float
    below: float
    flying: float


def price_of(context: int) -> CallPrice:
    """What a call costs."""
    fixed = CallPrice(fixed=Money(0), million=PER_MILLION_IN).cost(context)
    return CallPrice(fixed=fixed, million=PER_MILLION_OUT)


def mean_cost(calls: Sequence[Sizes]) -> float:
    """Of calls as they are [billionths]."""
    return sum(price_of(c).cost(min(out, MAX_TOKENS)).nano for c, out in calls) / len(calls)


def worst_cost(calls: Sequence[Sizes]) -> float:
    """Of calls, were all as long as may be [billionths]."""
    return sum(price_of(c).cost(MAX_TOKENS).nano for c, _ in calls) / len(calls)


@dataclass(slots=True)
class _Run:
    cap: int
    budget: Budget
    spent: int = 0
    calls: int = 0
    cut: int = 0
    below: int = 0
    area: float = 0.0


def run_calls(
    calls: Sequence[Sizes],
    cap: int,
    *,
    workers: int,
    policy: str,
    refused: str,
    outputs: Outputs | None = None,
) -> Use:
    """Make calls, so many at a time, until the budget is used up.

    Args:
        calls: in order; enough of them to use it up.
        cap: of the budget [billionths].
        workers: calls in flight at most.
        policy: "max_tokens", "quantile" or "check", the foil.
        refused: what a refusal means: "end", no further call is made; "wait", it is tried again
            when another ends; "drop", the next call is made, and no more than there are workers.
        outputs: answers that were seen, for quantiles.
    """
    run = _Run(cap, Budget.open(":memory:", cap=Money(cap)))
    flying: list[tuple[float, int, str, int, int, bool]] = []
    now, place, open_ = 0.0, 0, True
    limit = workers if refused == "drop" else len(calls)
    while True:
        while open_ and place < limit and len(flying) < workers:
            begun = _begin(run, calls[place], policy, outputs)
            if begun is None and refused != "drop":
                open_ = refused == "wait"
                break
            place += 1
            if begun is not None:
                heapq.heappush(flying, (now + begun[0], place, *begun[1:]))
        if not flying:
            break
        then, _, handle, cost, tokens, cut = heapq.heappop(flying)
        run.area += (then - now) * (len(flying) + 1)
        now = then
        run.spent += cost
        if handle:
            run.budget.settle(handle, Money(cost))
        if outputs is not None:
            outputs.observe(MODEL, TASK, tokens, cut=cut)
    run.budget.close()
    return Use(
        share=run.spent / cap,
        calls=run.calls,
        cut=run.cut / max(run.calls, 1),
        below=run.below / max(run.calls, 1),
        flying=run.area / max(now, 1e-9),
    )


def _begin(
    run: _Run, call: Sizes, policy: str, outputs: Outputs | None
) -> tuple[float, str, int, int, bool] | None:
    """Seconds, handle, cost, tokens and whether it is cut; None if it is refused."""
    context, wanted = call
    price = price_of(context)
    worst, handle, allowed = price.cost(MAX_TOKENS), "", MAX_TOKENS
    if policy == "check":
        if run.spent >= run.cap:
            return None
    else:
        least = MAX_TOKENS
        if policy == "quantile" and outputs is not None:
            least = outputs.quote(MODEL, TASK, MAX_TOKENS).tokens
        try:
            taken = run.budget.reserve("", price.cost(least), most=worst)
        except BudgetError:
            return None
        handle, allowed = taken.id, min(price.tokens(taken.most), MAX_TOKENS)
        run.below += wanted > least
    tokens = min(wanted, allowed)
    run.calls += 1
    run.cut += wanted > allowed
    return FIRST_S + STEP_S * tokens, handle, price.cost(tokens).nano, tokens, wanted > allowed
