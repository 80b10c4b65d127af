import pytest

from weft.core.errors import InputError
from weft.tokens.macro import Counters


def shares(counters, paths, turns=4000, tokens=lambda n: 1.0 + n % 7):
    """Share of each path, all having work to do all the time."""
    for path in paths:
        counters.arrive(path)
    served = dict.fromkeys(paths, 0.0)
    for turn in range(turns):
        path = counters.next()
        served[path] += tokens(turn)
        counters.charge(path, tokens(turn))
    whole = sum(served.values())
    return {path: own / whole for path, own in served.items()}


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_an_identity_more_is_a_share_more_but_for_payers(k):
    # Of n = 10: the attacker's k identities have k / (k + 9), and as one payer 1 / 10.
    names = [f"x{n}" for n in range(k)]
    others = [str(n) for n in range(9)]
    alone = shares(Counters(), [(name,) for name in [*names, *others]])
    assert sum(alone[name,] for name in names) == pytest.approx(k / (k + 9), abs=0.01)
    paths = [("x", name) for name in names] + [(name, name) for name in others]
    paid = shares(Counters(), paths)
    assert sum(paid["x", name] for name in names) == pytest.approx(0.1, abs=0.01)


def test_weights_are_shares_at_each_level():
    turns = Counters({("a",): 3.0, ("a", "1"): 2.0})
    found = shares(turns, [("a", "1"), ("a", "2"), ("b", "1")])
    assert list(found.values()) == pytest.approx([0.5, 0.25, 0.25], abs=0.01)


def test_what_was_not_used_is_not_saved_up():
    turns = Counters()
    turns.arrive(("busy",))
    turns.charge(("busy",), 1000.0)
    turns.arrive(("late",))
    assert shares(turns, [("busy",), ("late",)])["late",] == pytest.approx(0.5, abs=0.01)


def test_who_finds_nobody_begins_where_the_last_one_left():
    turns = Counters()
    turns.arrive(("a",))
    turns.charge(("a",), 500.0)
    turns.start(("a",))
    turns.arrive(("b",))
    turns.arrive(("a",))
    assert shares(turns, [("a",), ("b",)])["a",] == pytest.approx(0.5, abs=0.01)


def test_nobody_waits():
    with pytest.raises(InputError, match="a request that waits"):
        Counters().next()
    with pytest.raises(InputError, match="weights above zero"):
        Counters({("a",): 0.0})
