"""What holds for budgets wherever they are kept: in memory, in SQLite, in Redis."""

import itertools
import sqlite3
import threading

import pytest

from tests.budgets import BACK_ENDS, Clock, Places, redis_or_skip
from weft.core.errors import InputError, VerifyError
from weft.tokens import NANO, Money, usd
from weft.tokens.budgets import BudgetError, Cap, HandleError, NodeError, parse_window

DAY_S = 86_400.0
names = map("budget-{}".format, itertools.count())


@pytest.fixture(scope="module", params=BACK_ENDS)
def places(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "redis":
        with redis_or_skip(folder) as address:
            yield Places("redis", folder, address)
    else:
        yield Places(request.param, folder)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(places, clock):
    opened = []

    def build(cap, **options):
        budget = places.open(next(names), cap=cap, clock=clock, **options)
        opened.append(budget)
        return budget

    yield build
    for budget in opened:
        budget.verify()
        budget.close()


def numbers(budget, node=""):
    own = budget.standing(node)[-1]
    return own.spent, own.held, own.left


def tokens(count):
    return Money(count * NANO, "tokens")


def test_what_is_held_is_not_left_and_what_is_not_spent_is_given_back(make):
    budget = make(usd(1))
    handle = budget.reserve("", usd("0.6"))
    assert handle.most == usd("0.6")
    assert numbers(budget) == (usd(0), usd("0.6"), usd("0.4"))
    with pytest.raises(BudgetError, match=r"0\.4 usd left") as refused:
        budget.reserve("", usd("0.5"))
    assert refused.value.left == usd("0.4")
    assert budget.settle(handle, usd("0.1")).spent == (usd("0.1"),)
    assert numbers(budget) == (usd("0.1"), usd(0), usd("0.9"))
    budget.release(budget.reserve("", usd("0.9")))
    assert numbers(budget) == (usd("0.1"), usd(0), usd("0.9"))


def test_a_node_holds_from_all_above_it(make):
    budget = make(usd(1))
    budget.add("team", usd(5))
    budget.add("team/agent", usd(3))
    with pytest.raises(BudgetError, match="the whole budget") as refused:
        budget.reserve("team/agent", usd(2))
    assert refused.value.node == ""
    handle = budget.reserve("team/agent", usd("0.5"))
    for node in ("", "team", "team/agent"):
        assert numbers(budget, node)[1] == usd("0.5")
    budget.settle(handle, usd("0.25"))
    for node in ("", "team", "team/agent"):
        assert numbers(budget, node)[:2] == (usd("0.25"), usd(0))


def test_a_refusal_changes_nothing(make):
    budget = make((usd(1), Cap(Money(2 * NANO, "calls"))))
    budget.add("a", usd("0.1"))
    before = budget.standings()
    for node, amount, error in (
        ("a", usd("0.2"), BudgetError),
        ("nobody", usd("0.01"), NodeError),
        ("a", tokens(1), InputError),
        ("a", (usd("0.01"), tokens(1)), InputError),
    ):
        with pytest.raises(error):
            budget.reserve(node, amount)
    assert budget.standings() == before


def test_a_handle_is_used_once_and_the_second_time_loses_nothing(make):
    budget = make(usd(1))
    handle = budget.reserve("", usd("0.5"))
    budget.settle(handle, usd("0.3"))
    for again in (lambda: budget.settle(handle, usd("0.2")), lambda: budget.release(handle)):
        with pytest.raises(HandleError, match="settled or released before"):
            again()
    with pytest.raises(HandleError):
        budget.extend(handle, usd("0.1"))
    assert numbers(budget) == (usd("0.3"), usd(0), usd("0.7"))


def test_more_than_was_held_is_taken_from_what_is_left_and_beyond_that_is_an_overrun(make):
    budget = make(usd(1))
    budget.add("a", usd("0.6"))
    first, second = budget.reserve("a", usd("0.1")), budget.reserve("a", usd("0.1"))
    assert budget.settle(first, usd("0.3")).overruns == ()
    assert budget.settle(second, usd("0.5")).overruns == ("0.2 usd more than a had room for",)
    assert numbers(budget, "a") == (usd("0.8"), usd(0), usd("-0.2"))
    with pytest.raises(BudgetError):
        budget.reserve("a", usd("0.000000001"))
    assert budget.settle(budget.reserve("", usd("0.1")), usd("0.1")).overruns == ()


def test_the_same_key_gives_the_same_handle_settled_or_not(make):
    budget = make(usd(1))
    first = budget.reserve("", usd("0.5"), key="call-1")
    assert budget.reserve("", usd("0.5"), key="call-1").id == first.id
    assert numbers(budget)[1] == usd("0.5")
    budget.settle(first, usd("0.1"))
    assert budget.reserve("", usd("0.5"), key="call-1").id == first.id
    assert numbers(budget)[1] == usd(0)
    with pytest.raises(InputError, match="call-1"):
        budget.reserve("", usd("0.6"), key="call-1")


def test_extending_holds_more_or_nothing(make):
    budget = make(usd(1))
    handle = budget.reserve("", usd("0.5"))
    assert budget.extend(handle, usd("0.2")).most == usd("0.7")
    with pytest.raises(BudgetError):
        budget.extend(handle, usd("0.4"))
    assert numbers(budget)[1] == usd("0.7")
    budget.settle(handle, usd("0.7"))


def test_calls_count_one_each_unless_told_otherwise(make):
    budget = make((usd(1), Cap(Money(2 * NANO, "calls")), Cap(tokens(100))))
    budget.reserve("", (usd("0.1"), tokens(30)))
    handle = budget.reserve("", (usd("0.1"), tokens(30)))
    with pytest.raises(BudgetError, match="0 calls left"):
        budget.reserve("", (usd("0.1"), tokens(30)))
    settled = budget.settle(handle, (usd("0.05"), tokens(10)))
    assert set(settled.spent) == {usd("0.05"), tokens(10), Money(NANO, "calls")}


def test_large_amounts_are_exact_to_the_billionth(make):
    most = Money(2**62, "tokens")
    budget = make(most)
    handle = budget.reserve("", Money(2**62 - 1, "tokens"))
    with pytest.raises(BudgetError):
        budget.reserve("", Money(2, "tokens"))
    budget.reserve("", Money(1, "tokens"))
    budget.settle(handle, Money(2**61 + 1, "tokens"))
    assert numbers(budget)[2] == Money(2**61 - 2, "tokens")


def test_grants_shrink_as_calls_share_what_is_left_and_never_below_what_was_asked(make):
    budget = make(usd(10))
    grants = [budget.reserve("", usd(1), most=usd(4)).most for _ in range(5)]
    assert grants == [usd(4), usd(3), usd(1), usd(1), usd(1)]
    with pytest.raises(BudgetError):
        budget.reserve("", usd(1), most=usd(4))


@pytest.mark.parametrize(
    ("window", "length_s"),
    [("hourly", 3600.0), ("daily", DAY_S), ("monthly", 31 * DAY_S), ("rolling 600 s", 610.0)],
)
def test_a_window_forgets_what_was_spent_and_not_what_is_held(make, clock, window, length_s):
    budget = make(Cap.of(usd(1), window))
    handle = budget.reserve("", usd("0.4"))
    budget.settle(budget.reserve("", usd("0.6")), usd("0.6"))
    with pytest.raises(BudgetError):
        budget.reserve("", usd("0.1"))
    clock.now += length_s
    assert numbers(budget) == (usd(0), usd("0.4"), usd("0.6"))
    budget.settle(handle, usd("0.4"))
    assert numbers(budget)[0] == usd("0.4")


def test_a_rolling_window_is_never_shorter_than_it_says(make, clock):
    budget = make(Cap.of(usd(1), 600))
    budget.settle(budget.reserve("", usd(1)), usd(1))
    clock.now += 599.9
    with pytest.raises(BudgetError):
        budget.reserve("", usd("0.1"))


def test_months_are_those_of_the_calendar(make, clock):
    budget = make(Cap.of(usd(1), "monthly"))
    clock.now = 1_709_251_199.0  # 2024-02-29 23:59:59
    budget.settle(budget.reserve("", usd(1)), usd(1))
    assert numbers(budget)[2] == usd(0)
    clock.now += 1.0
    assert numbers(budget)[2] == usd(1)


def test_a_clock_that_is_set_back_opens_no_window_again(make, clock):
    budget = make(Cap.of(usd(1), "daily"))
    clock.now += DAY_S
    budget.settle(budget.reserve("", usd("0.7")), usd("0.7"))
    clock.now -= DAY_S
    assert numbers(budget) == (usd("0.7"), usd(0), usd("0.3"))
    with pytest.raises(BudgetError):
        budget.reserve("", usd("0.4"))
    budget.settle(budget.reserve("", usd("0.3")), usd("0.3"))
    clock.now += DAY_S
    assert numbers(budget)[2] == usd(0)


def test_a_delegated_budget_is_held_by_its_parent_until_it_is_closed(make):
    budget = make(usd(10))
    budget.add("agent", usd(5))
    budget.delegate("agent", "task", usd(2))
    assert numbers(budget, "agent") == (usd(0), usd(2), usd(3))
    handle = budget.reserve("agent/task", usd("1.5"))
    assert numbers(budget)[1] == usd(2)
    with pytest.raises(BudgetError) as refused:
        budget.reserve("agent/task", usd(1))
    assert refused.value.node == "agent/task"
    with pytest.raises(NodeError, match="1 in flight"):
        budget.close_node("agent/task")
    budget.settle(handle, usd(1))
    assert budget.close_node("agent/task").spent == (usd(1),)
    for node in ("", "agent"):
        assert numbers(budget, node)[:2] == (usd(1), usd(0))
    with pytest.raises(NodeError, match="closed"):
        budget.reserve("agent/task", usd("0.1"))
    for again in (
        lambda: budget.close_node("agent/task"),
        lambda: budget.close_node("agent"),
        lambda: budget.delegate("agent", "task", usd(1)),
    ):
        with pytest.raises(NodeError):
            again()


def test_delegations_nest_and_grow(make):
    budget = make(usd(10))
    outer = budget.delegate("", "a", usd(4))
    budget.delegate("a", "b", usd(3))
    with pytest.raises(BudgetError):
        budget.delegate("a", "c", usd(2))
    budget.extend(outer, usd(1))
    budget.delegate("a", "c", usd(2))
    budget.settle(budget.reserve("a/b", usd(3)), usd(3))
    assert budget.close_node("a/b").spent == (usd(3),)
    assert budget.close_node("a/c").spent == (usd(0),)
    assert budget.close_node("a").spent == (usd(3),)
    assert numbers(budget) == (usd(3), usd(0), usd(7))


def test_what_is_left_behind_is_spent_until_it_is_shown_otherwise(make, clock):
    budget = make(usd(1), lease_s=60.0)
    lost, kept = budget.reserve("", usd("0.4")), budget.reserve("", usd("0.3"))
    clock.now += 59.0
    assert budget.recover() == ()
    budget._leases.drop(lost.id)
    budget._leases.renew_all()
    clock.now += 2.0
    assert [own.spent for own in budget.recover()] == [(usd("0.4"),)]
    assert numbers(budget) == (usd("0.4"), usd("0.3"), usd("0.3"))
    assert budget.recover() == ()
    budget.settle(lost, usd("0.1"))
    assert numbers(budget)[0] == usd("0.1")
    with pytest.raises(HandleError):
        budget.settle(lost, usd("0.1"))
    budget.settle(kept, usd("0.3"))


def test_a_correction_counts_in_the_window_that_was_charged(make, clock):
    budget = make(Cap.of(usd(1), "daily"), lease_s=60.0)
    lost = budget.reserve("", usd("0.8"))
    clock.now += 61.0
    budget.recover()
    clock.now += DAY_S
    budget.settle(budget.reserve("", usd("0.5")), usd("0.5"))
    budget.settle(lost, usd(0))
    assert numbers(budget)[0] == usd("0.5")


def test_what_is_left_behind_can_be_given_back_and_children_are_closed(make, clock):
    budget = make(usd(1), lease_s=60.0)
    budget.delegate("", "task", usd("0.6"))
    budget.settle(budget.reserve("task", usd("0.2")), usd("0.1"))
    budget.reserve("task", usd("0.2"))
    clock.now += 61.0
    assert len(budget.recover(release=True)) == 2
    assert numbers(budget) == (usd("0.1"), usd(0), usd("0.9"))


def test_caps_change_and_below_what_is_spent_nothing_can_be_reserved(make):
    budget = make(usd(1))
    budget.settle(budget.reserve("", usd("0.5")), usd("0.5"))
    budget.set_cap("", usd("0.2"))
    with pytest.raises(BudgetError, match=r"-0\.3 usd left"):
        budget.reserve("", usd("0.1"))
    budget.set_cap("", usd(2))
    assert numbers(budget)[2] == usd("1.5")
    with pytest.raises(NodeError):
        budget.set_cap("", Cap.of(usd(2), "daily"))


def test_a_node_is_added_once_with_the_same_caps(make):
    budget = make(usd(1))
    budget.add("a", usd(1))
    budget.add("a", usd(1))
    with pytest.raises(NodeError, match="set_cap"):
        budget.add("a", usd(2))
    with pytest.raises(NodeError):
        budget.add("b/c", usd(1))


def test_a_pattern_gives_each_new_node_its_caps_also_when_many_come_at_once(make):
    budget = make(usd(10))
    budget.add("users", usd(10))
    budget.add("users/*", usd(1))
    done = []

    def first_call():
        try:
            done.append(budget.reserve("users/new", usd("0.3")))
        except BudgetError:
            done.append(None)

    threads = [threading.Thread(target=first_call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 8 and sum(own is not None for own in done) == 3
    assert numbers(budget, "users/new")[1] == usd("0.9")
    assert numbers(budget, "users/*")[1] == usd(0)


def test_threads_never_overspend(make):
    budget = make(usd(1))
    budget.add("a", Cap.of(usd("0.9"), "daily"))
    amounts = [usd("0.01"), usd("0.02"), usd("0.03")]

    def work(seed):
        for turn in range(20):
            try:
                handle = budget.reserve("a", amounts[(seed + turn) % 3])
            except BudgetError:
                return
            budget.settle(handle, usd("0.01"))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent, held, left = numbers(budget, "a")
    assert held == usd(0) and left < usd("0.03") and spent <= usd("0.9")


def test_a_budget_that_is_there_is_opened_without_a_cap(places):
    if places.kind == "memory":
        pytest.skip("what is in memory ends with the process")
    name = next(names)
    with pytest.raises(NodeError, match="usd"):
        places.open(name)
    with places.open(name, cap=usd(1)) as first:
        handle = first.reserve("", usd("0.5"))
    with places.open(name) as second:
        assert numbers(second)[1] == usd("0.5")
        second.settle(handle.id, usd("0.2"))
        assert numbers(second)[0] == usd("0.2")
    with pytest.raises(NodeError):
        places.open(name, cap=usd(2))


def test_a_state_that_the_log_does_not_explain_is_found(places):
    name = next(names)
    budget = places.open(name, cap=usd(1))
    budget.settle(budget.reserve("", usd("0.5")), usd("0.5"))
    assert budget.verify() == 3
    if places.kind == "memory":
        budget._store._tables.every[0].spent -= 1
    elif places.kind == "sqlite":
        with sqlite3.connect(places.where(name)) as file:
            file.execute("UPDATE accounts SET spent = spent - 1")
        file.close()
    else:
        client = budget._store._client
        client.hincrby(f"weft:{{{name}}}:account:\tusd\tnone", "spent", -1)
    with pytest.raises(VerifyError, match="in the log"):
        budget.verify()
    budget.close()


@pytest.mark.parametrize("window", ["none", "hourly", "daily", "monthly", "rolling 90 s"])
def test_windows_are_written_as_they_are_read(window):
    assert str(parse_window(window)) == window
