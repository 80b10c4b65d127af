from dataclasses import replace

import pytest

from weft.core.errors import VerifyError
from weft.tokens import usd
from weft.tokens.budgets import Budget
from weft.tokens.budgets.records import Entry, Kind
from weft.tokens.budgets.verify import verify


def audited():
    budget = Budget.open(":memory:", cap=usd(1))
    budget.add("a", usd("0.5"))
    budget.reserve("a", usd("0.4"))
    accounts, entries = budget._store.audit()
    return accounts, list(entries)


def test_a_log_that_explains_the_state_is_counted():
    accounts, entries = audited()
    assert verify(accounts, entries) == len(entries) == 3


def test_a_reservation_beyond_a_cap_is_found_although_state_and_log_agree():
    accounts, entries = audited()
    more = Entry(
        at=entries[-1].at, kind=Kind.RESERVE, node="a", handle="h", amounts={"usd": 200_000_000}
    )
    for own in accounts:
        own.held += 200_000_000
    with pytest.raises(VerifyError, match=r"0\.1 usd more"):
        verify(accounts, [*entries, more])


def test_a_log_that_goes_back_in_time_is_found():
    accounts, entries = audited()
    with pytest.raises(VerifyError, match="order of time"):
        verify(accounts, [*entries[:-1], replace(entries[-1], at=0.0)])


def test_an_account_without_its_line_in_the_log_is_found():
    accounts, entries = audited()
    with pytest.raises(VerifyError, match="2 accounts, as in the log"):
        verify(accounts[:1], entries)
