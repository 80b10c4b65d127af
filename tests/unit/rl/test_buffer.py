"""The buffer's laws, over random histories; clocks are injected, and nothing sleeps."""

from __future__ import annotations

import pickle
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from weft.core.errors import InputError, MismatchError
from weft.rl.buffer import SampleBuffer

LONG = 60.0
"""What threads wait at most; tests that are right never do [s]."""


def filled(buffer, *versions):
    """Puts one sample for each version, named by its place."""
    for place, version in enumerate(versions):
        buffer.put(buffer.reserve(version), [place])
    return buffer


class History(RuleBasedStateMachine):
    """Anything that producers and a trainer can do, in any order."""

    @initialize(lag=st.integers(0, 3), batch=st.integers(1, 4), less=st.integers(0, 5))
    def begin(self, lag, batch, less):
        self.now = 0.0
        self.lag, self.batch = lag, batch
        self.bound = max(batch, batch * (lag + 1) - less)
        self.buffer = self.make()
        self.made = 0
        self.flying, self.out, self.trained = [], [], []
        self.alive = set()

    def make(self):
        return SampleBuffer(self.bound, self.lag, batch=self.batch, clock=lambda: self.now)

    @rule(back=st.integers(0, 4), count=st.integers(1, 4), together=st.booleans())
    def reserve(self, back, count, together):
        version = max(0, self.buffer.version - back)
        count = min(count, self.batch)
        expected = self.buffer.may_begin(version, count)
        held = self.buffer.reserve(version, count, together=together)
        assert (held is not None) == expected
        if held is not None:
            self.flying.append(held)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def put(self, data):
        held = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        count = data.draw(st.integers(1, held.count))
        names = [(held.version, held.number, index, self.made) for index in range(count)]
        self.made += 1
        self.buffer.put(held, names)
        self.alive.update(names)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def give_up(self, data):
        self.buffer.give_up(self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1))))

    @rule()
    def take(self):
        before = self.waiting()
        ticket = self.buffer.take(self.batch, timeout=0.0)
        if ticket is not None:
            assert 1 <= len(ticket.values) <= self.batch
            assert sorted(before)[: len(ticket.values)] == list(ticket.values)  # oldest first
            self.out.append(ticket)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), more=st.sampled_from([None, 0, 1]))
    def done(self, data, more):
        ticket = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.buffer.done(ticket, None if more is None else self.buffer.version + more)
        self.trained.extend(ticket.values)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def back(self, data):
        self.buffer.back(self.out.pop(data.draw(st.integers(0, len(self.out) - 1))))

    @rule()
    def save_and_load(self):
        state = pickle.loads(pickle.dumps(self.buffer.state_dict()))
        assert {one for entry in state["waiting"] for one in entry["values"]} == (
            self.alive - set(self.trained)
        )
        lags = self.buffer.lags
        self.buffer = self.make()
        self.buffer.load_state_dict(state)
        assert self.buffer.lags == lags
        for ticket in self.out:
            with pytest.raises(InputError, match="ticket that is out"):
                self.buffer.done(ticket)
        self.flying, self.out = [], []

    def waiting(self):
        taken = {one for ticket in self.out for one in ticket.values}
        return self.alive - taken - set(self.trained)

    @invariant()
    def nothing_is_lost_or_twice(self):
        assert len(self.trained) == len(set(self.trained))
        assert self.buffer.waiting == len(self.waiting())
        assert self.buffer.taken == sum(len(ticket.values) for ticket in self.out)
        assert sum(self.buffer.lags.values()) == len(self.trained)

    @invariant()
    def the_bound_is_never_passed(self):
        held = sum(one.count for one in self.buffer.in_flight)
        assert held + self.buffer.waiting + self.buffer.taken <= self.bound


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    lag=st.integers(0, 4),
    batch=st.integers(1, 4),
    size=st.sampled_from([1, 1, 2]),
    moves=st.lists(st.integers(0, 99), max_size=120),
)
@settings(deadline=None)
def test_no_sample_is_too_old_and_none_waits_forever(lag, batch, size, moves):
    """Producers of any speed, some with old weights, and a trainer of whole batches."""
    batch *= size
    buffer = SampleBuffer((lag + 1) * batch, lag, batch=batch)
    flying = []

    def train():
        if (ticket := buffer.take(batch, timeout=0.0)) is None:
            return False
        assert len(ticket.values) == batch
        buffer.done(ticket, buffer.version + 1)
        return True

    for move in moves:
        kind, which = move % 4, move // 4
        if kind < 2:
            version = max(0, buffer.version - which % 3)
            if held := buffer.reserve(version, size, together=bool(which % 2)):
                flying.append(held)
        elif kind == 2 and flying:
            buffer.put(flying.pop(which % len(flying)), range(size))
        elif kind == 3:
            train()
    # Whatever happened, there is a way on.
    for held in flying:
        buffer.put(held, range(size))
    while held := buffer.reserve(buffer.version, size):
        buffer.put(held, range(size))
    assert train()
    assert max(buffer.lags) <= lag


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 12))
def test_the_oldest_version_goes_first_then_the_first_reservation(versions, count):
    buffer = SampleBuffer(48, 11, batch=4)
    buffer.publish(3)
    filled(buffer, *versions)
    count = min(count, len(versions))
    expected = sorted(range(len(versions)), key=lambda place: (versions[place], place))
    ticket = buffer.take(count)
    assert list(ticket.values) == expected[:count]
    assert list(ticket.versions) == sorted(versions)[:count]


# Admission.


def test_at_a_lag_of_zero_nothing_begins_until_the_batch_is_trained():
    buffer = filled(SampleBuffer(2, 0), 0, 0)
    ticket = buffer.take(2)
    assert not buffer.may_begin(0)
    buffer.done(ticket)
    assert not buffer.may_begin(0)  # its batch is trained: what began now would be old
    buffer.publish(1)
    assert buffer.may_begin(1, 2) and not buffer.may_begin(0)


def test_weights_may_be_published_before_the_batch_is_acknowledged():
    buffer = filled(SampleBuffer(2, 0), 0, 0)
    ticket = buffer.take(2)
    buffer.publish(1)
    assert not buffer.may_begin(1)
    buffer.done(ticket)
    assert buffer.may_begin(1, 2)


def test_the_trainer_waits_for_a_straggler_that_would_become_too_old():
    buffer = SampleBuffer(4, 1, batch=2)
    slow = buffer.reserve(0)
    filled(buffer, 0, 0)
    buffer.done(buffer.take(2, timeout=0.0), 1)
    filled(buffer, 1, 1)
    assert buffer.take(2, timeout=0.0) is None
    buffer.put(slow, ["slow"])
    ticket = buffer.take(2, timeout=0.0)
    assert ticket.values[0] == "slow"
    buffer.done(ticket, 2)
    assert buffer.lags == {0: 3, 1: 1}


def test_a_straggler_that_is_given_up_is_not_waited_for():
    buffer = SampleBuffer(2, 0, batch=2)
    filled(buffer, 0)
    slow = buffer.reserve(0)
    buffer.back(buffer.take(1, timeout=0.0))  # half a batch leaves room for it
    assert buffer.take(2, timeout=0.0) is None
    buffer.give_up(slow)
    filled(buffer, 0)
    assert len(buffer.take(2, timeout=0.0).values) == 2


def test_part_of_a_batch_that_is_trained_counts_until_the_version_changes():
    buffer = filled(SampleBuffer(4, 0), 0, 0)
    buffer.done(buffer.take(2))
    assert buffer.may_begin(0, 2) and not buffer.may_begin(0, 3)
    buffer.publish(1)
    assert buffer.may_begin(1, 4)


def test_reservations_are_given_up_by_age_on_the_given_clock():
    now = [0.0]
    buffer = SampleBuffer(2, 0, clock=lambda: now[0])
    first = buffer.reserve(0)
    now[0] = 5.0
    second = buffer.reserve(0)
    now[0] = 10.0
    assert buffer.give_up_older(10.0) == ()
    assert buffer.give_up_older(9.0) == (first,)
    assert buffer.in_flight == (second,) and buffer.may_begin(0)
    with pytest.raises(InputError, match="reservation in flight"):
        buffer.put(first, ["late"])


# Groups.


def test_a_group_stays_together_and_keeps_the_seats_of_what_it_lacks():
    buffer = SampleBuffer(8, 1, batch=4)
    buffer.put(buffer.reserve(0, 2, together=True), ["a"])
    buffer.put(buffer.reserve(0, 3, together=True), ["b", "c", "d"])
    assert buffer.waiting == 4
    assert buffer.take(4).values == ("a",)  # the second group does not fit whole
    assert buffer.take(3).values == ("b", "c", "d")


def test_samples_of_a_group_say_so():
    buffer = SampleBuffer(4, 0)
    for _ in range(2):
        buffer.put(buffer.reserve(0, 2, together=True), "xy")
    groups = Counter(buffer.take(4).groups)
    assert sorted(groups.values()) == [2, 2]


def test_without_a_group_samples_that_were_not_made_free_their_room():
    buffer = SampleBuffer(4, 0)
    buffer.put(buffer.reserve(0, 4), ["a", "b"])
    assert buffer.may_begin(0, 2)
    assert buffer.take(1).values == ("a",)


def test_a_count_below_the_oldest_group_is_refused():
    buffer = SampleBuffer(4, 0)
    buffer.put(buffer.reserve(0, 3, together=True), "xyz")
    with pytest.raises(InputError, match="at least 3 samples"):
        buffer.take(2)


# Threads.


def started(work):
    """A thread that keeps what its work returns or raises."""
    kept = []

    def run():
        try:
            kept.append(work())
        except InputError as error:
            kept.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, kept


def ended(thread, kept):
    thread.join(LONG)
    assert not thread.is_alive()
    return kept[0]


def test_take_wakes_when_there_is_enough():
    buffer = SampleBuffer(2, 0)
    trainer = started(lambda: buffer.take(2, timeout=LONG))
    filled(buffer, 0, 0)
    assert ended(*trainer).values == (0, 1)


def test_reserve_wakes_when_there_is_room_and_when_its_version_is_past():
    buffer = filled(SampleBuffer(1, 0), 0)
    producer = started(lambda: buffer.reserve(0, timeout=LONG))
    buffer.done(buffer.take(1), 1)
    assert ended(*producer) is None
    held = buffer.reserve(1)
    producer = started(lambda: buffer.reserve(1, timeout=LONG))
    buffer.give_up(held)
    assert ended(*producer).version == 1


def test_closing_wakes_all_that_wait():
    buffer = SampleBuffer(1, 0)
    buffer.reserve(0)
    waiting = [
        started(lambda: buffer.take(1, timeout=None)),
        started(lambda: buffer.reserve(0, timeout=None)),
    ]
    buffer.close()
    assert all("closed" in ended(*one).got for one in waiting)


def test_many_producers_lose_nothing_and_repeat_nothing():
    buffer = SampleBuffer(12, 2)
    steps, seen = 30, []

    def produce():
        while True:
            try:
                held = buffer.reserve(buffer.version, 2, together=True, timeout=LONG)
                if held is not None:
                    buffer.put(held, [(held.number, 0), (held.number, 1)])
            except InputError:  # closed
                return

    producers = [started(produce) for _ in range(4)]
    for step in range(steps):
        ticket = buffer.take(4, timeout=LONG)
        assert ticket is not None
        if step % 7 == 3:
            buffer.back(ticket)
            ticket = buffer.take(4, timeout=LONG)
        seen.extend(ticket.values)
        buffer.done(ticket, step + 1)
    buffer.close()
    for producer in producers:
        ended(*producer)
    assert len(seen) == len(set(seen)) == 4 * steps == sum(buffer.lags.values())
    assert max(buffer.lags) <= 2


# Checkpoints and what is refused.


def test_what_was_taken_waits_again_after_a_load_in_its_old_place():
    buffer = filled(SampleBuffer(4, 1), 0, 0, 0)
    ticket = buffer.take(2)
    other = SampleBuffer(4, 1)
    other.load_state_dict(pickle.loads(pickle.dumps(buffer.state_dict())))
    assert other.waiting == 3 and other.taken == 0
    assert other.take(2).values == ticket.values
    buffer.done(ticket, 1)  # what was saved is a copy
    assert buffer.waiting == 1


def test_numbers_of_before_a_load_are_not_given_again():
    buffer = SampleBuffer(4, 1)
    state = buffer.state_dict()
    held = buffer.reserve(0)
    buffer.load_state_dict(state)
    assert buffer.in_flight == () and buffer.reserve(0).number > held.number
    with pytest.raises(InputError, match="reservation in flight"):
        buffer.put(held, ["late"])


def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing():
    state = filled(SampleBuffer(4, 0), 0, 0, 0).state_dict()
    small = filled(SampleBuffer(2, 0), 0)
    with pytest.raises(MismatchError, match="at most 2 samples"):
        small.load_state_dict(state)
    assert small.waiting == 1


def test_a_closed_buffer_gives_what_waits_and_takes_nothing():
    buffer = filled(SampleBuffer(4, 0), 0, 0)
    held = buffer.reserve(0)
    buffer.close()
    assert not buffer.may_begin(0)
    ticket = buffer.take(1)
    buffer.back(ticket)
    for refused in (
        lambda: buffer.put(held, ["late"]),
        lambda: buffer.reserve(0),
        lambda: buffer.take(3),
    ):
        with pytest.raises(InputError, match="closed"):
            refused()
    assert buffer.state_dict()["waiting"]


@pytest.mark.parametrize(
    ("make", "need"),
    [
        (lambda: SampleBuffer(4, -1), "lag of at least 0"),
        (lambda: SampleBuffer(3, 0, batch=4), "room for a batch"),
        (lambda: SampleBuffer(2, 2), "room for a batch of at least one"),
        (lambda: SampleBuffer(2, 0, batch=0), "room for a batch"),
        (lambda: SampleBuffer(2, 0).reserve(1), "version of at most 0"),
        (lambda: SampleBuffer(2, 0).may_begin(1), "version of at most 0"),
        (lambda: SampleBuffer(2, 0).reserve(0, 3), "between 1 and 2"),
        (lambda: SampleBuffer(2, 0).reserve(0, 0), "between 1 and 2"),
        (lambda: SampleBuffer(2, 0).take(3), "between 1 and 2"),
        (lambda: SampleBuffer(2, 0).publish(-1), "version of at least 0"),
    ],
)
def test_what_cannot_be_is_refused(make, need):
    with pytest.raises(InputError, match=need):
        make()


@pytest.mark.parametrize("count", [0, 3])
def test_another_number_of_samples_is_refused_and_the_reservation_stays(count):
    buffer = SampleBuffer(2, 0)
    held = buffer.reserve(0, 2)
    with pytest.raises(InputError, match="between 1 and 2 samples, as reserved"):
        buffer.put(held, range(count))
    buffer.put(held, range(2))
    with pytest.raises(InputError, match="reservation in flight"):
        buffer.put(held, range(2))


def test_a_ticket_is_told_of_once_and_a_bad_version_leaves_it_out():
    buffer = SampleBuffer(1, 0)
    buffer.publish(3)
    ticket = filled(buffer, 3).take(1)
    with pytest.raises(InputError, match="version of at least 3"):
        buffer.done(ticket, 2)
    with pytest.raises(InputError, match="ticket that is out"):
        SampleBuffer(1, 0).done(ticket)
    buffer.done(ticket, 4)
    for again in (buffer.done, buffer.back):
        with pytest.raises(InputError, match="ticket that is out"):
            again(ticket)
    assert buffer.lags == {0: 1}
