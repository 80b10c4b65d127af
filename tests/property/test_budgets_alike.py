"""Back ends answer alike, whatever is asked of them in whatever order, and keep within caps."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.budgets import BACK_ENDS, Clock, Places, redis_or_skip
from weft.core.errors import WeftError
from weft.tokens import Money
from weft.tokens.budgets import Cap

names = map("alike-{}".format, itertools.count())
NODES = ("", "a", "a/b", "c")
WINDOWS = ("none", "hourly", "monthly", "rolling 120 s")

amounts = st.integers(0, 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sampled_from((*NODES, "a/d", "x")), amounts, amounts),
        st.tuples(st.just("key"), st.sampled_from(NODES), st.integers(0, 2), amounts),
        st.tuples(st.just("settle"), st.integers(0, 9), amounts),
        st.tuples(st.just("release"), st.integers(0, 9)),
        st.tuples(st.just("extend"), st.integers(0, 9), amounts),
        st.tuples(st.just("delegate"), st.sampled_from(NODES), amounts),
        st.tuples(st.just("close"), st.sampled_from((*NODES, "a/d", "d"))),
        st.tuples(st.just("cap"), st.sampled_from(NODES), st.integers(0, 150)),
        st.tuples(st.just("wait"), st.sampled_from((-100.0, 3.0, 61.0, 2000.0, 40 * 86_400.0))),
        st.tuples(st.just("recover"), st.booleans()),
    ),
    min_size=5,
    max_size=40,
)


class Player:
    """Plays steps on a budget, and tells what it answers."""

    def __init__(self, places, windows):
        self.clock, self.windows = Clock(), dict(zip(NODES, windows, strict=True))
        self.handles = []
        caps = {
            node: self.cap(node, cap) for node, cap in zip(NODES, (100, 70, 50, 60), strict=True)
        }
        self.budget = places.open(next(names), cap=caps[""], clock=self.clock, lease_s=60.0)
        for node in NODES[1:]:
            self.budget.add(node, caps[node])

    def cap(self, node, units):
        return Cap.of(Money(units, "tokens"), self.windows[node])

    def play(self, step):
        try:
            return self.done(*step)
        except WeftError as error:
            text = str(error)
            for number, handle in enumerate(self.handles):
                text = text.replace(handle.id, f"handle {number}")
            return type(error).__name__, text

    def taken(self, handle):
        self.handles.append(handle)
        return handle.node, handle.held

    def handle(self, place):
        return self.handles[place % len(self.handles)] if self.handles else "none"

    def done(self, what, *of):
        budget, tokens = self.budget, lambda units: Money(units, "tokens")
        match what:
            case "reserve":
                node, least, more = of
                return self.taken(budget.reserve(node, tokens(least), most=tokens(least + more)))
            case "key":
                return self.taken(budget.reserve(of[0], tokens(of[2]), key=f"key-{of[1]}"))
            case "settle":
                settled = budget.settle(self.handle(of[0]), tokens(of[1]))
                return settled.spent, settled.overruns
            case "release":
                return budget.release(self.handle(of[0])).spent
            case "extend":
                return budget.extend(self.handle(of[0]), tokens(of[1])).held
            case "delegate":
                return self.taken(budget.delegate(of[0], "d", tokens(of[1])))
            case "close":
                return budget.close_node(of[0]).spent
            case "cap":
                return budget.set_cap(of[0], self.cap(*of))
            case "wait":
                self.clock.now += of[0]
                return None
            case _:
                return sorted(map(str, budget.recover(release=of[0])))


@pytest.fixture(scope="module")
def all_places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike")
    with redis_or_skip(folder) as address:
        yield [Places(kind, folder, address) for kind in BACK_ENDS]


@settings(max_examples=40)
@given(steps, st.tuples(*[st.sampled_from(WINDOWS)] * 4))
def test_all_back_ends_answer_alike(all_places, played, windows):
    players = [Player(places, windows) for places in all_places]
    try:
        for step in played:
            answers = [own.play(step) for own in players]
            assert answers[0] == answers[1] == answers[2], step
            states = [sorted(map(str, own.budget.standings())) for own in players]
            assert states[0] == states[1] == states[2], step
        assert len({own.budget.verify() for own in players}) == 1
    finally:
        for own in players:
            own.budget.close()
