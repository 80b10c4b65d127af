import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import FileError, InputError
from weft.tokens.guards import Again, Cycles, ToolCall, learn_again, tool_name


def calls(names, **more):
    return [ToolCall(tool=name, usd=0.01, **more) for name in names]


def first(watch, steps):
    return next((n for n, own in enumerate(steps) if watch.observe(own).tripped), None)


@given(st.integers(1, 12), st.lists(st.sampled_from("uvwxyz"), max_size=6, unique=True))
def test_a_cycle_of_any_period_is_seen_after_as_many_rounds(period, before):
    names = [f"t{n}" for n in range(period)]
    watch = Cycles()
    place = first(watch, calls([*before, *names * 12]))
    assert place is not None
    assert 5 <= (place + 1 - len(before)) / period <= 9
    told = watch.verdict()
    assert told.period == period and sorted(told.tools) == sorted(names)


def test_what_the_rounds_after_the_first_cost_is_said():
    watch = Cycles()
    told = [watch.observe(own) for own in calls("ab" * 10)][-1]
    assert told.repeats == 10 and told.usd == pytest.approx(0.18)


def test_pages_and_polls_that_find_something_are_no_cycles():
    pages = [ToolCall(tool="list", arguments={"page": n}) for n in range(100)]
    polls = [ToolCall(tool="job", arguments={}, result={"percent": n}) for n in range(100)]
    assert first(Cycles(), pages) is None and first(Cycles(), polls) is None


def test_a_tool_that_is_polled_may_be_called_more_often():
    often = Again(tools={"status": 0.95})
    polls = calls(["status"] * 400)
    assert first(Cycles(), polls) < 10
    assert 60 < first(Cycles(often), polls) < 200
    assert first(Cycles(Again(tools={"status": 1.0})), polls) is None


def test_progress_ends_a_cycle():
    steps = calls("ab" * 40)
    working = [
        own if n % 10 else ToolCall(tool=own.tool, progress=1.0) for n, own in enumerate(steps)
    ]
    assert first(Cycles(), working) is None


def test_chances_are_learnt_for_each_tool():
    sessions = [calls(["poll"] * 12 + [f"s{n}"] + ["once", f"r{n}"]) for n in range(60)]
    known = learn_again(sessions, level=0.05)
    assert 0.85 < known.of("poll") < 1.0  # 10 of 11 rounds come again
    assert known.of("unseen") == Again().chance
    rare = learn_again([calls(["a", "a", f"b{n}", "c"]) for n in range(200)], level=0.05)
    assert rare.of("a") < 0.05
    assert first(Cycles(rare), calls("a" * 9)) < first(Cycles(), calls("a" * 9))


def test_honest_work_with_the_chances_that_were_learnt_is_seldom_stopped():
    import numpy as np

    rng = np.random.default_rng(0)

    def session():
        parts = [["poll"] * int(rng.geometric(0.2)) + [f"s{rng.integers(10**6)}"] for _ in range(8)]
        return calls([name for part in parts for name in part])

    known = learn_again([session() for _ in range(100)], level=0.1)
    stopped = sum(first(Cycles(known, level=0.1), session()) is not None for _ in range(200))
    assert stopped <= 20


def test_tools_alone_may_be_compared():
    steps = [ToolCall(tool="ab"[n % 2], arguments={"n": n}) for n in range(40)]
    assert first(Cycles(), steps) is None
    assert first(Cycles(key=tool_name), steps) is not None


@settings(max_examples=25)
@given(st.lists(st.sampled_from("aab"), max_size=40), st.data())
def test_a_restart_anywhere_changes_nothing(names, data):
    place = data.draw(st.integers(0, len(names)))
    one, two = Cycles(), Cycles()
    for own in calls(names[:place]):
        one.observe(own)
    two.restore(one.to_json())
    rest = calls([*names[place:], *"ab" * 12])
    assert [one.observe(own) for own in rest] == [two.observe(own) for own in rest]


def test_what_is_no_state_is_refused():
    for text in ("", "{}", Cycles(longest=3).to_json()):
        with pytest.raises(FileError):
            Cycles().restore(text)
    with pytest.raises(InputError):
        Cycles(level=2.0)
    with pytest.raises(InputError):
        Again(tools={"t": 0.0})
