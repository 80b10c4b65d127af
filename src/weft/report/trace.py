"""A timeline as a Chrome trace, for Perfetto and chrome://tracing.

Source: "Trace Event Format" (Google), JSON object form: complete events ("X"), counters ("C")
and metadata ("M"). Times are microseconds.
"""

from __future__ import annotations

import json
from pathlib import Path

from weft.core.files import write_whole
from weft.cost.timeline import Event, Stream, Timeline
from weft.parallel.pipeline.plan import PipelinePlan

__all__ = ["trace_plain", "write_trace"]

_THREADS = {Stream.COMPUTE: 1, Stream.COMMUNICATION: 2}
_PROCESS = 1
_US = 1e6


def trace_plain(timeline: Timeline, *, title: str) -> dict[str, object]:
    """The trace as JSON values.

    One process stands for a device, one thread for each stream, and a counter for memory.

    Args:
        timeline: the simulated step.
        title: name of the process, such as the program and the machine.

    Example:
        >>> empty = Timeline(events=(), memory=(), step_s=0.0, exposed_s=0.0)
        >>> [e["name"] for e in trace_plain(empty, title="gpt")["traceEvents"]]
        ['process_name', 'thread_name', 'thread_name']
    """
    names: list[dict[str, object]] = [_name("process_name", title, 0)]
    names += [_name("thread_name", s.value, thread) for s, thread in _THREADS.items()]
    memory = [
        {
            "name": "memory",
            "ph": "C",
            "pid": _PROCESS,
            "ts": point.time_s * _US,
            "args": {"bytes": point.num_bytes},
        }
        for point in timeline.memory
    ]
    return {
        "traceEvents": [*names, *map(_complete, timeline.events), *memory],
        "displayTimeUnit": "ms",
        "otherData": {
            "step_s": timeline.step_s,
            "exposed_s": timeline.exposed_s,
            "peak_bytes": timeline.peak_bytes,
        },
    }


def _name(kind: str, name: str, thread: int) -> dict[str, object]:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": thread, "args": {"name": name}}


def _complete(event: Event) -> dict[str, object]:
    return {
        "name": event.label or event.kind,
        "cat": event.phase,
        "ph": "X",
        "pid": _PROCESS,
        "tid": _THREADS[event.stream],
        "ts": event.start_s * _US,
        "dur": event.duration_s * _US,
        "args": {"kind": event.kind, "phase": event.phase, "node": event.node},
    }


def pipeline_trace(plan: PipelinePlan) -> dict[str, object]:
    """What each group of devices does in a step, as JSON values: one thread for each group."""
    title = f"{plan.program_name} on {plan.machine_name}"
    names: list[dict[str, object]] = [_name("process_name", title, 0)]
    names += [_name("thread_name", f"group {g}", g) for g in range(plan.num_groups)]
    events = [
        {
            "name": str(busy.action),
            "cat": busy.action.work.name.lower(),
            "ph": "X",
            "pid": _PROCESS,
            "tid": group,
            "ts": busy.start_s * _US,
            "dur": (busy.end_s - busy.start_s) * _US,
            "args": {"stage": busy.action.stage, "micro_batch": busy.action.micro_batch},
        }
        for group, done in enumerate(plan.time.groups)
        for busy in done
    ]
    return {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}


def write_pipeline_trace(plan: PipelinePlan, path: Path) -> None:
    """Write the trace of a pipeline into a file.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, json.dumps(pipeline_trace(plan), allow_nan=False), "a trace")


def write_trace(timeline: Timeline, path: Path, *, title: str) -> None:
    """Write the trace into a file.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, json.dumps(trace_plain(timeline, title=title), allow_nan=False), "a trace")
