"""What torch's schedule runtime is asked for, in which order."""

from __future__ import annotations

import itertools

import pytest
from torch.distributed.pipelining import schedules

from weft.parallel.pipeline.schedule import order
from weft.runtime.torch_schedule import Schedule

MICRO_BATCHES = 6
CASES = [
    ("gpipe", 2, 2),
    ("1f1b", 2, 2),
    ("1f1b", 4, 4),
    ("zero-bubble", 2, 2),
    ("interleaved", 4, 2),
]
METHODS = {
    "send_forward": "send forward",
    "receive_forward": "receive forward",
    "send_backward": "send backward",
    "receive_backward": "receive backward",
}


class Work:
    def __init__(self, log, entry):
        self.log, self.entry = log, entry

    def wait(self):
        self.log.append(("wait", *self.entry))


def walked(monkeypatch, name, stages, groups, group):
    """What the stages of a group were asked for, and which transfers were waited for."""
    log = []

    def handlers(stage):
        def asked(what):
            def note(micro_batch):
                log.append((what, stage, micro_batch))
                return [log[-1]] if what in METHODS.values() else []

            return note

        computes = {kind: asked(kind) for kind in ("forward", "inputs", "weights")}
        return {key: asked(what) for key, what in METHODS.items()} | computes

    # In place of torch.distributed: a transfer is under way from when it is posted.
    monkeypatch.setattr(schedules, "_batch_p2p", lambda entries: [Work(log, e) for e in entries])
    own = {stage: handlers(stage) for stage in range(group, stages, groups)}
    orders = order(name, stages, groups, MICRO_BATCHES)
    Schedule(orders, group, stages, MICRO_BATCHES, own).run()
    return log


READERS = {"receive forward": "forward", "receive backward": "inputs"}


@pytest.mark.parametrize(("name", "stages", "groups"), CASES)
def test_a_receive_is_posted_before_another_micro_batch_is_computed(
    monkeypatch, name, stages, groups
):
    early = 0
    for group in range(groups):
        log = walked(monkeypatch, name, stages, groups, group)
        for place, (what, *whose) in enumerate(log):
            if what not in READERS:
                continue
            reader = log.index((READERS[what], *whose))
            assert log[reader - 1] == ("wait", what, *whose), "waits only for what it reads"
            between = [e for e in log[place:reader] if e[0] in ("forward", "inputs", "weights")]
            early += bool(between)
            # A receive passes no send: the groups' order of communication is torch's.
            before = [e[0] for e in log[:place] if e[0] != "wait"][-1:]
            assert between or before == [] or before[0] in METHODS.values()
    assert early > 0


@pytest.mark.parametrize(("name", "stages", "groups"), CASES)
def test_transfers_between_groups_keep_the_order_that_torch_found(
    monkeypatch, name, stages, groups
):
    for group in range(groups):
        log = walked(monkeypatch, name, stages, groups, group)
        found = [e for e in log if e[0] in METHODS.values()]
        monkeypatch.setattr("weft.runtime.torch_schedule._receives_ahead", list)
        plain = walked(monkeypatch, name, stages, groups, group)
        monkeypatch.undo()
        assert found == [e for e in plain if e[0] in METHODS.values()]


@pytest.mark.parametrize(("name", "stages", "groups"), CASES)
def test_no_more_than_two_micro_batches_that_came_in_wait_to_be_read(
    monkeypatch, name, stages, groups
):
    for group in range(groups):
        log = walked(monkeypatch, name, stages, groups, group)
        ends = {(READERS[e[0]], *e[1:]) for e in log if e[0] in READERS}
        steps = [(e[0] in READERS) - (e in ends) for e in log if e[0] != "wait"]
        plain = 2 * (stages // groups)
        assert max(itertools.accumulate(steps)) <= max(2, plain)
