"""Orders of work: complete, free of waiting for ever, and those of torch where it has them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from weft.core.errors import InputError
from weft.parallel.pipeline.schedule import SCHEDULES, Work, order
from weft.parallel.pipeline.timing import StageTime, pipeline_time

SHAPES = [(1, 1, 4), (2, 2, 2), (2, 2, 8), (4, 4, 4), (4, 4, 12), (3, 3, 5), (4, 2, 4), (8, 2, 6)]
CASES = [
    (name, *shape)
    for name in SCHEDULES
    for shape in SHAPES
    if (name == "interleaved") == (shape[0] != shape[1])
]


@pytest.mark.parametrize(("name", "stages", "groups", "count"), CASES)
def test_every_stage_does_every_micro_batch_once(name, stages, groups, count) -> None:
    orders = order(name, stages, groups, count)
    assert len(orders) == groups
    done = Counter((a.stage, a.work, a.micro_batch) for actions in orders for a in actions)
    assert set(done.values()) == {1}
    wanted = (
        (Work.FORWARD, Work.INPUTS, Work.WEIGHTS)
        if name == "zero-bubble"
        else (Work.FORWARD, Work.BACKWARD)
    )
    assert len(done) == stages * count * len(wanted)
    for group, actions in enumerate(orders):
        assert {a.stage % groups for a in actions} == {group}


@pytest.mark.parametrize(("name", "stages", "groups", "count"), CASES)
def test_no_order_waits_for_ever(name, stages, groups, count) -> None:
    stage = StageTime(forward_s=1.0, inputs_s=1.0, weights_s=1.0, kept_bytes=1.0)
    time = pipeline_time(order(name, stages, groups, count), [stage] * stages)
    busy = 3.0 * count * stages / groups
    assert time.step_s >= busy
    assert max(time.kept_bytes) <= count * stages / groups


def torch_order(name, stages, groups, count):
    """What torch's own schedules do, without the places where a group waits."""
    schedules = pytest.importorskip("torch.distributed.pipelining.schedules")

    class Stage:
        has_backward = True
        submod = None

        def __init__(self, number, group):
            self.stage_index, self.num_stages = number, stages
            self.group_rank, self.group_size = group, groups
            self.is_first, self.is_last = number == 0, number == stages - 1
            self.stage_index_to_group_rank = {}

    kinds = {
        "gpipe": schedules.ScheduleGPipe,
        "1f1b": schedules.Schedule1F1B,
        "interleaved": schedules.ScheduleInterleaved1F1B,
    }
    if name == "interleaved":
        own = [Stage(number, 0) for number in range(0, stages, groups)]
        return kinds[name](own, count, loss_fn=lambda *_: None).pipeline_order
    schedule = kinds[name](Stage(0, 0), count, loss_fn=lambda *_: None)
    return schedule._get_pipeline_order()


@pytest.mark.parametrize(
    ("name", "stages", "groups", "count"), [c for c in CASES if c[0] != "zero-bubble" and c[2] > 1]
)
def test_orders_are_those_of_torch(name, stages, groups, count) -> None:
    theirs = torch_order(name, stages, groups, count)
    orders = order(name, stages, groups, count)
    if name == "1f1b":
        # Torch draws the last group's micro-batches from 1 on; what it runs is drawn nowhere.
        orders = orders[:-1]
    for group, actions in enumerate(orders):
        work = [str(a) for a in theirs[group] if a is not None]
        assert [a for a in work if not a.endswith("REDUCE_GRAD")] == [str(a) for a in actions]


def test_one_forward_one_backward_has_the_bubble_of_the_textbook() -> None:
    stage = StageTime(forward_s=1.0, inputs_s=1.0, weights_s=1.0)
    for stages, count in [(2, 4), (4, 4), (4, 16), (8, 8)]:
        for name in ("gpipe", "1f1b"):
            time = pipeline_time(order(name, stages, stages, count), [stage] * stages)
            assert time.bubble == pytest.approx((stages - 1) / (count + stages - 1))


def test_interleaving_divides_the_bubble_and_zero_bubble_shortens_it() -> None:
    whole = StageTime(forward_s=2.0, inputs_s=2.0, weights_s=2.0)
    half = StageTime(forward_s=1.0, inputs_s=1.0, weights_s=1.0)
    plain = pipeline_time(order("1f1b", 4, 4, 8), [whole] * 4)
    finer = pipeline_time(order("interleaved", 8, 4, 8), [half] * 8)
    split = pipeline_time(order("zero-bubble", 4, 4, 8), [whole] * 4)
    idle = plain.step_s - 48.0
    assert finer.step_s - 48.0 == pytest.approx(idle / 2)
    assert split.step_s - 48.0 == pytest.approx(idle / 3)


def test_fewer_micro_batches_are_kept_than_in_gpipe() -> None:
    stage = StageTime(forward_s=1.0, inputs_s=1.0, weights_s=1.0, kept_bytes=10.0)
    kept = {
        name: pipeline_time(order(name, 4, 4, 8), [stage] * 4).kept_bytes
        for name in ("gpipe", "1f1b", "zero-bubble")
    }
    assert kept["gpipe"] == (80.0,) * 4
    assert kept["1f1b"] == (40.0, 30.0, 20.0, 10.0)
    assert max(kept["zero-bubble"]) == 40.0


def test_transfers_lengthen_the_step() -> None:
    slow = StageTime(
        forward_s=1.0, inputs_s=1.0, weights_s=1.0, send_forward_s=0.5, send_backward_s=0.25
    )
    last = StageTime(forward_s=1.0, inputs_s=1.0, weights_s=1.0, send_backward_s=0.25)
    time = pipeline_time(order("1f1b", 2, 2, 2), [slow, last])
    assert time.step_s == pytest.approx(9.0 + 0.75)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_what_arrives_while_another_micro_batch_is_computed_costs_nothing(count: int) -> None:
    quick = StageTime(forward_s=1.0, inputs_s=1.0, weights_s=1.0)
    slow = StageTime(
        forward_s=1.0, inputs_s=1.0, weights_s=1.0, send_forward_s=0.5, send_backward_s=0.25
    )
    orders = order("gpipe", 2, 2, count)
    hidden = (
        pipeline_time(orders, [slow, slow]).step_s - pipeline_time(orders, [quick, quick]).step_s
    )
    # The first activation and the last gradient are waited for, however many there are.
    assert hidden == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("name", "stages", "groups", "count"),
    [("wrong", 2, 2, 2), ("1f1b", 4, 2, 2), ("interleaved", 2, 2, 2), ("interleaved", 4, 2, 3)],
)
def test_a_schedule_that_does_not_fit_is_refused(name, stages, groups, count) -> None:
    with pytest.raises(InputError):
        order(name, stages, groups, count)


PAGE = Path(__file__).parents[4] / "docs" / "explain" / "pipelines.md"


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_page_on_pipelines_gives_these_bubbles(name) -> None:
    chunks = 2 if name == "interleaved" else 1
    stage = StageTime(forward_s=1 / chunks, inputs_s=1 / chunks, weights_s=1 / chunks)
    stages = 4 * chunks
    bubble = pipeline_time(order(name, stages, 4, 8), [stage] * stages).bubble
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}`")]
    assert f"| {bubble:.0%} |".replace("%", " %") in row


def test_what_waits_for_its_weights_is_held_until_they_are_done() -> None:
    stage = StageTime(
        forward_s=1.0, inputs_s=1.0, weights_s=1.0, kept_bytes=10.0, waiting_bytes=1.0
    )
    time = pipeline_time(order("zero-bubble", 4, 4, 8), [stage] * 4)
    # The last group does the weights of up to four micro-batches later.
    assert time.kept_bytes[-1] > 4 * 10.0
    assert pipeline_time(order("1f1b", 4, 4, 8), [stage] * 4).kept_bytes == (40, 30, 20, 10)
