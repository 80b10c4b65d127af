"""One step of one device in time: when each task runs, and how much memory is in use.

A device has two queues, one for computation and one for communication. Each runs its tasks
one at a time, in the order of issue; a task starts when its queue is free and the tasks it
depends on have ended. A collective also waits for all computation issued before it: that is
how torch starts one, with NCCL (its stream waits for the current stream) as with gloo (the host
has done what comes before). So a gather that is issued early hides behind what follows it, and
never runs ahead of the program. Whoever issues a collective of what another one makes waits for
that one first, and so does all computation issued later. Knows durations, dependencies and bytes.
Does not know what a task is.

With d the duration of a collective and `overlap` the share of it that computation can hide, the
compute queue is held up for (1 - overlap) d, counted from its last task issued before:

    compute free += (1 - overlap) d

so that overlap 1 is two queues that wait for each other only as said above, and overlap 0 the sum
of all durations. All times are maxima of sums: a task that gets longer never makes any other end
earlier.

Unlike devices are simulated together: each has its own queues and durations, and who takes part
in a collective starts it when the last of them can.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from weft.core.errors import InputError
from weft.cost.timeline import Event, MemoryPoint, Stream, Timeline

__all__ = ["ABSENT", "Task", "simulate", "simulate_together"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something to run, in order of issue.

    Attributes:
        label: for people.
        kind: operator or collective.
        phase: forward, backward or update.
        node: the program's node, -1 if none.
        stream: which queue it runs on.
        seconds: how long it runs [s].
        depends: earlier tasks that must have ended, by position.
        allocates_bytes: memory of its outputs, in use from its start [bytes].
        frees: tasks, itself or earlier, whose outputs nobody needs once this one has ended.
    """

    label: str
    kind: str
    phase: str
    node: int
    stream: Stream
    seconds: float
    depends: tuple[int, ...] = ()
    allocates_bytes: float = 0.0
    frees: tuple[int, ...] = ()


def simulate(tasks: Sequence[Task], *, overlap: float, resident_bytes: float) -> Timeline:
    """Run the tasks on two queues and record time and memory.

    Outputs are in use from the start of their task to the end of their last reader, and not
    less than to the end of the task that frees them.

    Args:
        tasks: in order of issue.
        overlap: share of a collective's time that computation can hide [0 to 1].
        resident_bytes: memory in use throughout: parameters, optimizer state [bytes].

    Returns:
        Events in order of start, memory in order of time, the step's length and the exposed
        communication, which is the step less the computation.

    Raises:
        InputError: `overlap` is outside 0 to 1, a duration or size is negative, or a task
            refers to one that does not come before it.

    Example:
        >>> work = Task(label="a", kind="einsum", phase="forward", node=0,
        ...             stream=Stream.COMPUTE, seconds=2.0)
        >>> send = Task(label="b", kind="all-reduce", phase="forward", node=0,
        ...             stream=Stream.COMMUNICATION, seconds=3.0, depends=(0,))
        >>> simulate([work, send, work], overlap=1.0, resident_bytes=0).step_s
        5.0
    """
    _check(tasks, overlap, resident_bytes)
    starts, ends, step_s = _schedule(tasks, overlap)
    return _timeline(tasks, starts, ends, step_s, resident_bytes)


def simulate_together(
    devices: Sequence[Sequence[Task | None]],
    meets: Sequence[bool],
    *,
    overlap: float,
    resident_bytes: Sequence[float],
) -> list[Timeline]:
    """Run the tasks of several devices, which wait for each other in collectives.

    Args:
        devices: of each device its tasks in order of issue; what is issued at one position is one
            instruction, which is None where the device has no part in it. Positions that tasks
            refer to are those of the whole list.
        meets: of each instruction, whether all devices that have a part in it start together.
        overlap: as for `simulate`.
        resident_bytes: of each device [bytes].

    Returns:
        A timeline of each device; all steps end when the last device is through.

    Raises:
        InputError: as `simulate`.

    Example:
        >>> work = lambda seconds: Task(label="a", kind="einsum", phase="forward", node=0,
        ...                             stream=Stream.COMPUTE, seconds=seconds)
        >>> send = Task(label="b", kind="all-reduce", phase="forward", node=0,
        ...             stream=Stream.COMMUNICATION, seconds=3.0, depends=(0,))
        >>> slow, fast = [work(2.0), send], [work(1.0), send]
        >>> [t.step_s for t in simulate_together(
        ...     [slow, fast], [False, True], overlap=1.0, resident_bytes=[0, 0])]
        [5.0, 5.0]
    """
    whole = [[ABSENT if task is None else task for task in tasks] for tasks in devices]
    for tasks, own_bytes in zip(whole, resident_bytes, strict=True):
        _check(tasks, overlap, own_bytes)
    schedules = _schedule_together(devices, meets, overlap)
    step_s = max(free_s for *_, free_s in schedules)
    found: list[Timeline] = []
    for tasks, (starts, ends, _), own_bytes in zip(whole, schedules, resident_bytes, strict=True):
        timeline = _timeline(tasks, starts, ends, step_s, own_bytes)
        found.append(replace(timeline, events=tuple(e for e in timeline.events if e.kind)))
    return found


def _schedule_together(
    devices: Sequence[Sequence[Task | None]], meets: Sequence[bool], overlap: float
) -> list[tuple[list[float], list[float], float]]:
    """Of each device start and end of each task, and when both its queues are free."""
    queues = [_Queues(len(tasks), 1.0 - overlap) for tasks in devices]
    for number, meeting in enumerate(meets):
        taking = [
            (queue, task)
            for queue, tasks in zip(queues, devices, strict=True)
            if (task := tasks[number]) is not None
        ]
        starts = [queue.issue(task) for queue, task in taking]
        last = max(starts, default=0.0)
        for (queue, task), start in zip(taking, starts, strict=True):
            queue.run(number, task, last if meeting else start)
    return [(queue.starts, queue.ends, max(queue.compute_s, queue.sending_s)) for queue in queues]


class _Queues:
    """The two queues of a device while it is simulated."""

    def __init__(self, count: int, blocking: float) -> None:
        self.starts, self.ends = [0.0] * count, [0.0] * count
        self.compute_s = self.sending_s = 0.0
        self._blocking = blocking

    def issue(self, task: Task) -> float:
        """Issue a task; when it could start, if it was for this device alone [s]."""
        for earlier in task.depends:
            if self.ends[earlier] > self.compute_s:
                self.compute_s = self.ends[earlier]
        if task.stream is Stream.COMMUNICATION and self.sending_s > self.compute_s:
            return self.sending_s
        return self.compute_s

    def run(self, number: int, task: Task, start_s: float) -> None:
        """Run a task."""
        self.starts[number] = start_s
        self.ends[number] = start_s + task.seconds
        if task.stream is Stream.COMPUTE:
            self.compute_s = self.ends[number]
        else:
            self.sending_s = self.ends[number]
            self.compute_s += self._blocking * task.seconds


ABSENT = Task(label="", kind="", phase="", node=-1, stream=Stream.COMPUTE, seconds=0.0)
"""Stands where a device has no part."""


def _timeline(
    tasks: Sequence[Task],
    starts: Sequence[float],
    ends: Sequence[float],
    step_s: float,
    resident_bytes: float,
) -> Timeline:
    compute_s = sum(task.seconds for task in tasks if task.stream is Stream.COMPUTE)
    order = sorted(range(len(tasks)), key=starts.__getitem__)
    return Timeline(
        events=tuple(_event(tasks[i], starts[i]) for i in order),
        memory=tuple(_memory(_changes(tasks, starts, ends), resident_bytes)),
        step_s=step_s,
        exposed_s=max(0.0, step_s - compute_s),
    )


def _schedule(tasks: Sequence[Task], overlap: float) -> tuple[list[float], list[float], float]:
    """Start and end of each task, and when both queues are free."""
    starts, ends = [0.0] * len(tasks), [0.0] * len(tasks)
    compute_free_s = communication_free_s = 0.0
    blocking = 1.0 - overlap
    for i, task in enumerate(tasks):
        for earlier in task.depends:
            if ends[earlier] > compute_free_s:
                compute_free_s = ends[earlier]
        if task.stream is Stream.COMPUTE:
            starts[i] = compute_free_s
            compute_free_s = ends[i] = compute_free_s + task.seconds
        else:
            starts[i] = max(compute_free_s, communication_free_s)
            communication_free_s = ends[i] = starts[i] + task.seconds
            compute_free_s += blocking * task.seconds
    return starts, ends, max(compute_free_s, communication_free_s)


def _changes(
    tasks: Sequence[Task], starts: Sequence[float], ends: Sequence[float]
) -> list[tuple[float, int, float]]:
    """Changes of memory as (time, order at equal times, bytes), sorted.

    At one instant tasks change memory in order of issue, each first allocating, then freeing.
    """
    last_read = list(ends)
    changes: list[tuple[float, int, float]] = []
    for i, task in enumerate(tasks):
        for earlier in task.depends:
            if ends[i] > last_read[earlier]:
                last_read[earlier] = ends[i]
        if task.allocates_bytes:
            changes.append((starts[i], 2 * i, task.allocates_bytes))
        for earlier in task.frees:
            if tasks[earlier].allocates_bytes:
                time_s = max(last_read[earlier], ends[i])
                changes.append((time_s, 2 * i + 1, -tasks[earlier].allocates_bytes))
    changes.sort()
    return changes


def _memory(
    changes: Iterable[tuple[float, int, float]], resident_bytes: float
) -> list[MemoryPoint]:
    in_use = float(resident_bytes)
    points = [MemoryPoint(0.0, in_use)]
    for time_s, _, num_bytes in changes:
        in_use += num_bytes
        points.append(MemoryPoint(time_s, in_use))
    return points


def _event(task: Task, start_s: float) -> Event:
    return Event(
        stream=task.stream,
        kind=task.kind,
        label=task.label,
        phase=task.phase,
        node=task.node,
        start_s=start_s,
        duration_s=task.seconds,
    )


def _check(tasks: Sequence[Task], overlap: float, resident_bytes: float) -> None:
    if not 0.0 <= overlap <= 1.0 or resident_bytes < 0:
        raise InputError(
            need="an overlap from 0 to 1 and resident bytes of at least 0",
            got=f"overlap {overlap}, {resident_bytes} resident bytes",
            hint="overlap is the share of a collective that computation can hide",
        )
    alive = [True] * len(tasks)
    for i, task in enumerate(tasks):
        wrong = [d for d in task.depends if not 0 <= d < i]
        for f in task.frees:
            if 0 <= f <= i and alive[f]:
                alive[f] = False
            else:
                wrong.append(f)
        if wrong or not task.seconds >= 0 or not task.allocates_bytes >= 0:
            raise InputError(
                need="tasks of at least 0 s and 0 bytes that depend on earlier tasks and "
                "free each output once",
                got=f"task {i} ({task.label}): {task.seconds} s, {task.allocates_bytes} bytes, "
                f"bad references {wrong}",
                hint="list tasks in order of issue",
            )
