from decimal import Decimal

import pytest

from tests.unit.tokens.ledger.known import a_call
from weft.core.errors import InputError
from weft.tokens import UNKNOWN, TokenClass, Usage, usd
from weft.tokens.ledger import Ledger
from weft.tokens.prices import BookSource, Rates, Step
from weft.workflow.ledger_trials import ledger_attempts, ledger_plan, ledger_trials


class Cents:
    """A cent a token of text."""

    source = BookSource(name="toy", version="1", digest="00")

    def rate(self, provider, model, at, *, tier=""):
        step = Step(usd={TokenClass.TEXT: Decimal("0.01"), TokenClass.FRESH: Decimal(0)})
        return Rates(provider=provider, model=model, steps=(step,) if model != "mystery" else ())


def call(number, task, text, passed=None, **more):
    usage = Usage.of(fresh=10, text=text)
    return a_call(number, task=task, usage=usage, passed=passed, **more)


def attempts(*calls):
    with Ledger(":memory:") as ledger:
        ledger.add(calls)
        return ledger_attempts(ledger, Cents())


def test_an_attempt_is_the_calls_of_a_task_in_a_session():
    found, left_out = attempts(
        call(1, "a", 100, session="one"),
        call(2, "a", 50, session="one", passed=True, arm="long"),
        call(3, "a", 30, session="two", passed=False),
        call(4, "b", 30),
        call(5, "", 30, passed=True),
        call(6, "c", 30, arm="long"),
        call(7, "c", 30, arm="short", passed=True),
    )
    told = [(own.task, own.session, own.arm, own.passed, own.usd) for own in found]
    assert sorted(told) == [("a", "one", "long", True, 1.5), ("a", "two", "", False, 0.3)]
    assert left_out == {"no outcome": 1, "no task": 1, "several arms in one": 1}


def test_trials_leave_out_what_is_not_known():
    found, _ = attempts(
        call(1, "a", 100, passed=True),
        call(2, "b", UNKNOWN, passed=False),
        call(3, "c", 7, passed=False),
    )
    trials, unclear = ledger_trials(found, ("output", "fresh"))
    assert sorted(trials.inputs["output"]) == [7, 100]
    assert unclear == 1
    with pytest.raises(InputError, match="nonsense"):
        ledger_trials(found, ("nonsense",))


def test_a_budget_goes_to_the_arms_that_pass_more_for_a_dollar():
    calls = []
    for n in range(20):
        # Easy tasks: the small arm does; hard ones pass with the large arm alone.
        hard = n % 2 == 1
        for arm, text in (("small", 10), ("large", 100)):
            passed = not hard or arm == "large"
            calls.append(
                call(
                    10 * n + text,
                    f"t{n}",
                    text,
                    passed=passed,
                    arm=arm,
                    session=arm,
                    agent="hard" if hard else "easy",
                    model="m",
                )
            )
    found, _ = attempts(*calls)
    plan = ledger_plan(found, usd(6))
    by_name = {line.name: line for line in plan.lines}
    assert by_name["easy"].pick == "m small 100%"
    assert by_name["hard"].pick == "none 50%, m large 50%"
    assert plan.value == pytest.approx(15.0)
    assert plan.shadow_price == pytest.approx(1.0)
    assert plan.cost == usd(6)


def test_without_prices_there_is_no_plan():
    found, _ = attempts(call(1, "a", 100, passed=True, model="mystery"))
    with pytest.raises(InputError, match="0 priced attempts of 1"):
        ledger_plan(found, usd(1))
