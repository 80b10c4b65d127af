import os

import pytest

from weft.core.records import read_records
from weft.workflow import demo
from weft.workflow.demo import record_host


def test_the_load_of_the_host_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 2.0, 1.0))
    record_host(tmp_path / "records.jsonl")
    (record,) = read_records(tmp_path / "records.jsonl")
    assert (record.kind, record.fields["load_1_minute"]) == ("host", 3.5)


def test_a_load_that_the_system_does_not_tell_is_none(tmp_path, monkeypatch):
    def refuse():
        raise OSError

    monkeypatch.setattr(os, "getloadavg", refuse)
    record_host(tmp_path / "records.jsonl")
    (record,) = read_records(tmp_path / "records.jsonl")
    assert record.fields["load_1_minute"] is None


def test_the_load_is_looked_at_before_the_demo_makes_its_own(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(*_args, **_options):
        raise Stop

    monkeypatch.setattr(demo, "probe_host", stop)
    with pytest.raises(Stop):
        demo.run_demo("toy.py:toy", tmp_path, steps=1)
    assert [record.kind for record in read_records(tmp_path / "records.jsonl")] == ["host"]
