import gc
import threading
import weakref

from weft.tokens import usd
from weft.tokens.budgets import Budget
from weft.tokens.budgets.leases import Leases


def test_leases_are_renewed_in_the_background_until_they_are_shut():
    renewed = threading.Event()
    leases = Leases(lambda handles: renewed.set() if list(handles) == ["a"] else None, 0.03)
    leases.add("a")
    assert renewed.wait(20.0)
    leases.shut()


def test_a_handle_that_was_let_go_is_not_renewed():
    told = []
    leases = Leases(told.append, 3600.0)
    leases.add("a")
    leases.add("b")
    leases.drop("a")
    leases.renew_all()
    assert told == [["b"]]
    leases.shut()


def test_a_budget_that_nobody_has_is_not_kept_by_its_leases():
    budget = Budget.open(":memory:", cap=usd(1))
    budget.reserve("", usd("0.1"))
    gone = weakref.ref(budget._leases)
    del budget
    gc.collect()
    assert gone() is None
