import json

import pytest

from tests.unit.report import toy_plan
from weft.core.errors import FileError
from weft.cost.timeline import Stream
from weft.report.trace import trace_plain, write_trace


def events(kind):
    trace = trace_plain(toy_plan.timeline(), title="toy on toy-box")
    return [e for e in trace["traceEvents"] if e["ph"] == kind]


def test_every_event_has_what_the_format_requires():
    for event in events("X"):
        assert {"name", "ph", "pid", "tid", "ts", "dur"} <= set(event)


def test_durations_are_the_streams_busy_times_in_microseconds():
    timeline = toy_plan.timeline()
    threads = {e["args"]["name"]: e["tid"] for e in events("M") if e["name"] == "thread_name"}
    for stream in Stream:
        own = [e["dur"] for e in events("X") if e["tid"] == threads[stream.value]]
        assert sum(own) == pytest.approx(timeline.busy_s(stream) * 1e6)


def test_the_process_is_named_and_every_thread_that_is_used():
    named = {e["tid"] for e in events("M") if e["name"] == "thread_name"}
    assert {e["tid"] for e in events("X")} <= named
    process = next(e for e in events("M") if e["name"] == "process_name")
    assert process["args"] == {"name": "toy on toy-box"}


def test_the_memory_counter_reaches_the_peak():
    peak = max(e["args"]["bytes"] for e in events("C"))
    assert peak == toy_plan.timeline().peak_bytes


def test_the_file_is_the_trace(tmp_path):
    path = tmp_path / "plan.trace.json"
    write_trace(toy_plan.timeline(), path, title="t")
    assert json.loads(path.read_text()) == trace_plain(toy_plan.timeline(), title="t")


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileError, match="nowhere"):
        write_trace(toy_plan.timeline(), tmp_path / "nowhere" / "t.json", title="t")
