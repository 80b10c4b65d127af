"""Laws of the simulated step."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.cost.simulate import Task, simulate, simulate_together
from weft.cost.timeline import Stream, Timeline

COMPUTE, COMMUNICATION = Stream.COMPUTE, Stream.COMMUNICATION


def task(stream: Stream, seconds: float, *depends: int, **more: object) -> Task:
    fields = {"label": "t", "kind": "k", "phase": "forward", "node": -1} | more
    return Task(stream=stream, seconds=seconds, depends=depends, **fields)


@st.composite
def task_lists(draw: st.DrawFn, *, dense: bool = False) -> list[Task]:
    """Lists of tasks with whole durations and sizes, so that sums are exact."""
    tasks: list[Task] = []
    alive: list[int] = []
    for i in range(draw(st.integers(1, 12))):
        depends = draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set[int]()
        if dense and i:
            depends.add(i - 1)
        alive.append(i)
        frees = draw(st.sets(st.sampled_from(alive), max_size=2))
        alive = [j for j in alive if j not in frees]
        tasks.append(
            task(
                draw(st.sampled_from([COMPUTE, COMMUNICATION])),
                float(draw(st.integers(0, 9))),
                *sorted(depends),
                allocates_bytes=float(draw(st.integers(0, 9))),
                frees=tuple(sorted(frees)),
            )
        )
    return tasks


overlaps = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def critical_path(tasks: list[Task]) -> float:
    ends: list[float] = []
    for t in tasks:
        ends.append(max((ends[d] for d in t.depends), default=0.0) + t.seconds)
    return max(ends)


def run(tasks: list[Task], overlap: float, resident_bytes: float = 0.0) -> Timeline:
    return simulate(tasks, overlap=overlap, resident_bytes=resident_bytes)


@given(task_lists(), overlaps)
def test_no_step_is_shorter_than_a_stream_or_the_critical_path(
    tasks: list[Task], overlap: float
) -> None:
    timeline = run(tasks, overlap)
    assert timeline.step_s >= critical_path(tasks)
    for stream in Stream:
        assert timeline.step_s >= timeline.busy_s(stream)
        assert timeline.busy_s(stream) == sum(t.seconds for t in tasks if t.stream is stream)


@given(task_lists())
def test_without_overlap_a_step_is_the_sum_of_its_tasks(tasks: list[Task]) -> None:
    assert run(tasks, 0.0).step_s == sum(t.seconds for t in tasks)


@given(task_lists(dense=True), overlaps)
def test_a_chain_takes_at_least_its_sum(tasks: list[Task], overlap: float) -> None:
    assert run(tasks, overlap).step_s >= sum(t.seconds for t in tasks)


@given(task_lists(dense=True))
def test_a_chain_takes_its_sum_where_streams_are_apart(tasks: list[Task]) -> None:
    assert run(tasks, 1.0).step_s == sum(t.seconds for t in tasks)


@given(task_lists(), overlaps, st.data())
def test_a_longer_task_never_makes_the_step_shorter(
    tasks: list[Task], overlap: float, data: st.DataObject
) -> None:
    i = data.draw(st.integers(0, len(tasks) - 1))
    longer = [*tasks]
    longer[i] = replace(tasks[i], seconds=tasks[i].seconds + 1.0)
    assert run(longer, overlap).step_s >= run(tasks, overlap).step_s


@given(task_lists())
def test_more_overlap_never_makes_the_step_longer(tasks: list[Task]) -> None:
    steps = [run(tasks, overlap).step_s for overlap in (0.0, 0.25, 0.5, 1.0)]
    assert steps == sorted(steps, reverse=True)


@given(task_lists(), overlaps)
def test_tasks_of_a_stream_run_in_order_and_one_at_a_time(
    tasks: list[Task], overlap: float
) -> None:
    numbered = [replace(t, node=i) for i, t in enumerate(tasks)]
    timeline = run(numbered, overlap)
    starts = {e.node: e.start_s for e in timeline.events}
    for stream in Stream:
        own = [i for i, t in enumerate(tasks) if t.stream is stream]
        for before, after in pairwise(own):
            assert starts[after] >= starts[before] + tasks[before].seconds
    for i, t in enumerate(tasks):
        assert all(starts[i] >= starts[d] + tasks[d].seconds for d in t.depends)
    assert [e.start_s for e in timeline.events] == sorted(starts.values())


@given(task_lists(), overlaps, st.integers(0, 100))
def test_memory_is_never_below_what_stays(tasks: list[Task], overlap: float, resident: int) -> None:
    timeline = run(tasks, overlap, float(resident))
    assert min(point.num_bytes for point in timeline.memory) >= resident
    times = [point.time_s for point in timeline.memory]
    assert times == sorted(times)
    kept = set(range(len(tasks))) - {f for t in tasks for f in t.frees}
    assert timeline.memory[-1].num_bytes == resident + sum(tasks[i].allocates_bytes for i in kept)


@given(task_lists(), overlaps)
def test_the_step_is_computation_and_what_it_waits_for(tasks: list[Task], overlap: float) -> None:
    timeline = run(tasks, overlap)
    assert timeline.exposed_s == pytest.approx(timeline.step_s - timeline.busy_s(COMPUTE))


def test_a_collective_that_computation_covers_is_not_exposed() -> None:
    tasks = [task(COMPUTE, 1.0), task(COMMUNICATION, 2.0, 0), task(COMPUTE, 3.0, 0)]
    timeline = run(tasks, 1.0)
    assert (timeline.step_s, timeline.exposed_s) == (4.0, 0.0)


def test_what_computation_cannot_cover_is_exposed() -> None:
    tasks = [task(COMMUNICATION, 5.0), task(COMPUTE, 2.0), task(COMPUTE, 1.0, 0)]
    timeline = run(tasks, 1.0)
    assert (timeline.step_s, timeline.exposed_s) == (6.0, 3.0)


@given(task_lists())
def test_with_full_overlap_streams_are_two_queues_in_order_of_issue(tasks: list[Task]) -> None:
    free = dict.fromkeys(Stream, 0.0)
    ends: list[float] = []
    for t in tasks:
        queues = (COMPUTE,) if t.stream is COMPUTE else (COMPUTE, COMMUNICATION)
        ready = max([free[COMPUTE], *(ends[d] for d in t.depends)])
        start = max(ready, *(free[queue] for queue in queues))
        free[COMPUTE] = ready
        ends.append(start + t.seconds)
        free[t.stream] = ends[-1]
    timeline = run(tasks, 1.0)
    assert timeline.step_s == max(ends)
    assert sorted(e.start_s + e.duration_s for e in timeline.events) == sorted(ends)


def test_computation_need_not_wait_for_collectives_to_queue() -> None:
    tasks = [task(COMMUNICATION, 4.0), task(COMMUNICATION, 4.0), task(COMPUTE, 3.0)]
    assert [e.start_s for e in run(tasks, 1.0).events] == [0.0, 0.0, 4.0]
    # At half an overlap eight seconds of collectives cost computation four.
    assert max(e.start_s for e in run(tasks, 0.5).events if e.stream is COMPUTE) == 4.0


def test_a_collective_does_not_run_ahead_of_computation_issued_before_it() -> None:
    tasks = [task(COMPUTE, 3.0), task(COMMUNICATION, 1.0), task(COMPUTE, 3.0)]
    assert [e.start_s for e in run(tasks, 1.0).events if e.stream is COMMUNICATION] == [3.0]
    assert run(tasks, 1.0).step_s == 6.0


def test_computation_waits_for_what_a_collective_issued_before_it_reads() -> None:
    reduce, gather = task(COMMUNICATION, 4.0), task(COMMUNICATION, 2.0, 0)
    tasks = [reduce, gather, task(COMPUTE, 3.0)]
    assert [e.start_s for e in run(tasks, 1.0).events] == [0.0, 4.0, 4.0]
    put_off = [reduce, task(COMPUTE, 3.0), gather]
    assert [run(order, 1.0).step_s for order in (tasks, put_off)] == [7.0, 6.0]
    (together,) = simulate_together([tasks], [True, True, False], overlap=1.0, resident_bytes=[0])
    assert together == run(tasks, 1.0)


def test_half_an_overlap_holds_computation_up_for_half_the_collective() -> None:
    tasks = [task(COMMUNICATION, 4.0), task(COMPUTE, 10.0)]
    timeline = run(tasks, 0.5)
    assert (timeline.step_s, timeline.exposed_s) == (12.0, 2.0)


def test_outputs_live_from_the_start_of_their_task_to_the_end_of_their_last_reader() -> None:
    tasks = [
        task(COMPUTE, 1.0, allocates_bytes=10.0),
        task(COMPUTE, 1.0, 0, allocates_bytes=5.0, frees=(0,)),
        task(COMPUTE, 1.0, 1, allocates_bytes=1.0, frees=(1, 2)),
    ]
    timeline = run(tasks, 1.0, 100.0)
    assert [(p.time_s, p.num_bytes) for p in timeline.memory] == [
        (0.0, 100.0),
        (0.0, 110.0),
        (1.0, 115.0),
        (2.0, 105.0),
        (2.0, 106.0),
        (3.0, 101.0),
        (3.0, 100.0),
    ]
    assert timeline.peak_bytes == 115.0


def test_a_reader_on_the_other_stream_keeps_an_output_alive() -> None:
    tasks = [
        task(COMPUTE, 1.0, allocates_bytes=10.0),
        task(COMMUNICATION, 9.0, 0),
        task(COMPUTE, 1.0, 0, frees=(0,)),
    ]
    timeline = run(tasks, 1.0)
    assert (timeline.memory[-1].time_s, timeline.memory[-1].num_bytes) == (10.0, 0.0)


def test_nothing_to_do_takes_no_time() -> None:
    timeline = run([], 1.0, 7.0)
    assert (timeline.step_s, timeline.exposed_s, timeline.peak_bytes) == (0.0, 0.0, 7.0)


def test_events_carry_what_their_task_says() -> None:
    (event,) = run(
        [task(COMPUTE, 2.0, label="l", kind="einsum", phase="backward", node=7)], 1.0
    ).events
    assert (event.label, event.kind, event.phase, event.node) == ("l", "einsum", "backward", 7)
    assert (event.stream, event.start_s, event.duration_s) == (COMPUTE, 0.0, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        task(COMPUTE, -1.0),
        task(COMPUTE, float("nan")),
        task(COMPUTE, 1.0, 1),
        task(COMPUTE, 1.0, -1),
        task(COMPUTE, 1.0, allocates_bytes=-1.0),
        task(COMPUTE, 1.0, frees=(2,)),
        task(COMPUTE, 1.0, frees=(0, 0)),
    ],
)
def test_a_task_that_makes_no_sense_is_named(wrong: Task) -> None:
    with pytest.raises(InputError, match=r"task 1 \(odd\)"):
        run([task(COMPUTE, 1.0), replace(wrong, label="odd")], 1.0)


@pytest.mark.parametrize("overlap", [-0.1, 1.1, float("nan")])
def test_an_overlap_is_a_share(overlap: float) -> None:
    with pytest.raises(InputError, match="overlap from 0 to 1"):
        run([], overlap)


@given(task_lists())
def test_devices_that_are_alike_are_one(tasks: list[Task]) -> None:
    meets = [own.stream is COMMUNICATION for own in tasks]
    together = simulate_together([tasks, tasks], meets, overlap=0.5, resident_bytes=[3, 3])
    alone = simulate(tasks, overlap=0.5, resident_bytes=3)
    assert together == [alone, alone]


def test_who_is_through_first_waits_for_the_last() -> None:
    slow = [task(COMPUTE, 5.0), task(COMMUNICATION, 1.0, 0), task(COMPUTE, 2.0, 1)]
    fast = [task(COMPUTE, 1.0), task(COMMUNICATION, 1.0, 0), task(COMPUTE, 0.5, 1)]
    found = simulate_together(
        [slow, fast], [False, True, False], overlap=1.0, resident_bytes=[0, 0]
    )
    assert [timeline.step_s for timeline in found] == [8.0, 8.0]
    assert [timeline.events[-1].start_s for timeline in found] == [6.0, 6.0]
    assert [timeline.exposed_s for timeline in found] == [1.0, 6.5]


def test_who_has_no_part_in_it_does_not_wait() -> None:
    slow = [task(COMPUTE, 5.0), task(COMMUNICATION, 1.0, 0), None]
    free = [None, None, task(COMPUTE, 2.0)]
    first, second = simulate_together(
        [slow, free], [False, True, False], overlap=1.0, resident_bytes=[0, 7]
    )
    assert [event.start_s for event in second.events] == [0.0]
    assert (first.step_s, second.step_s, second.peak_bytes) == (6.0, 6.0, 7.0)
