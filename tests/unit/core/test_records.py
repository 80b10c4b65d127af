import json
import math
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import FileError, InputError
from weft.core.records import Record, RecordLog, read_records

NUM_WRITERS, LINES_EACH = 4, 50


def write_many(path, writer):
    log = RecordLog(path)
    for number in range(LINES_EACH):
        log.append("step", writer=writer, number=number, padding="x" * 5000)


def test_what_was_appended_is_read_back_in_order(tmp_path):
    log = RecordLog(tmp_path / "new" / "folder" / "run.jsonl")
    written = [log.append("step", loss=1.5, name="é\n\u2028"), log.append("end", losses=[1, None])]
    assert list(read_records(tmp_path / "new" / "folder" / "run.jsonl")) == written


@given(st.floats())
def test_every_float_survives_even_those_that_json_lacks(value):
    line = json.loads(Record(kind="step", fields={"nested": {"loss": [value]}}).to_json())
    back = float(line["fields"]["nested"]["loss"][0])
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_records_of_one_kind_are_picked_out(tmp_path):
    log = RecordLog(tmp_path / "run.jsonl")
    for kind in ("start", "step", "step", "end"):
        log.append(kind)
    assert [r.kind for r in read_records(tmp_path / "run.jsonl", "step")] == ["step", "step"]


def test_a_field_that_is_not_json_is_refused_before_anything_is_written(tmp_path):
    log = RecordLog(tmp_path / "run.jsonl")
    with pytest.raises(InputError, match="plain JSON"):
        log.append("step", loss=object())
    assert (tmp_path / "run.jsonl").read_bytes() == b""


@pytest.mark.parametrize("keep", range(1, 60, 7))
def test_a_line_torn_by_a_kill_is_skipped(tmp_path, keep):
    path = tmp_path / "run.jsonl"
    first = RecordLog(path).append("step", loss=1.0)
    path.write_bytes(path.read_bytes() + first.to_json().encode()[:keep])
    assert list(read_records(path)) == [first]


def test_a_log_that_is_opened_again_clears_the_torn_line_and_keeps_the_rest(tmp_path):
    path = tmp_path / "run.jsonl"
    first = RecordLog(path).append("step", loss=1.0)
    path.write_bytes(path.read_bytes() + first.to_json().encode()[:20])
    second = RecordLog(path).append("step", loss=2.0)
    assert list(read_records(path)) == [first, second]


def test_a_whole_line_that_only_lacks_its_newline_is_kept(tmp_path):
    path = tmp_path / "run.jsonl"
    first = RecordLog(path).append("step", loss=1.0)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    second = RecordLog(path).append("step", loss=2.0)
    assert list(read_records(path)) == [first, second]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[1]",
        b"7",
        b'{"kind":"step"}',
        b"\xff\xfe",
        b"",
        b'{"fields":[],"kind":"step","time_s":1}',
        b'{"fields":{},"kind":3,"time_s":1}',
        b'{"fields":{},"kind":"step","time_s":"now"}',
    ],
)
def test_a_bad_line_before_the_last_names_file_and_line(tmp_path, line):
    path = tmp_path / "run.jsonl"
    log = RecordLog(path)
    log.append("start")
    path.write_bytes(path.read_bytes() + line + b"\n")
    log.append("end")
    with pytest.raises(FileError) as caught:
        list(read_records(path))
    assert f"{path}, line 2" in caught.value.got


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match=r"none\.jsonl: No such file"):
        list(read_records(tmp_path / "none.jsonl"))


def test_concurrent_writers_never_mix_their_lines(tmp_path):
    path = tmp_path / "run.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, w)) for w in range(NUM_WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    seen = [(r.fields["writer"], r.fields["number"]) for r in read_records(path)]
    for w in range(NUM_WRITERS):
        assert [number for writer, number in seen if writer == w] == list(range(LINES_EACH))


def test_a_disk_that_takes_half_a_line_is_an_error(tmp_path, monkeypatch):
    log = RecordLog(tmp_path / "run.jsonl")
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:10]))
    with pytest.raises(FileError, match="10 bytes were written"):
        log.append("step", loss=1.0)


def test_a_log_without_room_or_place_is_an_error_in_three_parts(tmp_path: Path) -> None:
    log = RecordLog(Path("/dev/full"))
    with pytest.raises(FileError, match="No space left") as caught:
        log.append("step", loss=1.0)
    assert caught.value.hint
    with pytest.raises(FileError):
        RecordLog(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FileError):
        RecordLog(tmp_path / "file" / "log")
