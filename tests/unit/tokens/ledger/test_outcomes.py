from tests.unit.tokens.ledger.known import NOON, a_call
from weft.tokens.ledger import Ledger
from weft.tokens.ledger.outcomes import outcomes


def test_a_task_went_as_its_last_call_says():
    calls = [
        a_call(1, task="a", passed=True, agent="early"),
        a_call(2, task="a", passed=False, agent="late", at=NOON + 50),
        a_call(3, task="b", agent="nobody said"),
        a_call(4, task="c", passed=True, agent="late"),
        a_call(5, passed=True, agent="no task"),
    ]
    with Ledger(":memory:") as ledger:
        ledger.add(calls)
        assert outcomes(ledger, ("agent",)) == {"a": (False, ("late",)), "c": (True, ("late",))}
        assert outcomes(ledger) == {"a": (False, ()), "c": (True, ())}
