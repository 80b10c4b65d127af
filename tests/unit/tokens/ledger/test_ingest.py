import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import weft
from tests.unit.tokens.ledger.known import a_call, reply
from weft.core.errors import FileError, InputError
from weft.tokens.adapters.table import parse_columns
from weft.tokens.ledger import Ingested, Ledger, ingest
from weft.tokens.ledger import ingest as module


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def ids(ledger):
    return [call.id for call in ledger.calls()]


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def test_every_record_is_accounted_for(tmp_path, ledger):
    log = write(
        tmp_path / "a.jsonl", [reply(1), reply(2), reply(1), {"hello": 1}, {"resourceSpans": []}]
    )
    log.write_text(log.read_text() + "{broken\n")
    done = ingest(ledger, [log])
    assert done == Ingested(files=1, records=6, calls=2, duplicates=1, ignored=1, quarantined=2)
    assert [bad.line for bad in ledger.quarantine()] == [4, 6]


def test_the_same_file_again_is_not_read_again(tmp_path, ledger):
    log = write(tmp_path / "a.jsonl", [reply(1), {"hello": 1}])
    ingest(ledger, [log])
    assert ingest(ledger, [log]) == Ingested(files=1)
    assert len(ids(ledger)) == 1
    assert len(ledger.quarantine()) == 1


def test_a_file_by_two_names_is_one_file(tmp_path, ledger, monkeypatch):
    write(tmp_path / "a.jsonl", [reply(1), {"hello": 1}])
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    monkeypatch.chdir(tmp_path)
    done = ingest(ledger, [".", "a.jsonl", tmp_path / "b.jsonl"])
    assert (done.files, done.calls, done.quarantined) == (1, 1, 1)
    assert ingest(ledger, [tmp_path / "a.jsonl"]).records == 0


def test_a_copy_of_a_file_adds_nothing(tmp_path, ledger):
    ingest(ledger, [write(tmp_path / "a.jsonl", [reply(1), reply(2)])])
    done = ingest(ledger, [write(tmp_path / "b.jsonl", [reply(1), reply(2)])])
    assert (done.calls, done.duplicates) == (0, 2)


def test_what_was_added_to_a_file_is_read_from_where_it_ended(tmp_path, ledger):
    log = write(tmp_path / "a.jsonl", [reply(1)])
    ingest(ledger, [log])
    write(log, [reply(1), reply(2), reply(3)])
    done = ingest(ledger, [log])
    assert (done.records, done.calls, done.duplicates) == (2, 2, 0)


def test_a_line_that_was_being_written_is_read_when_it_is_whole(tmp_path, ledger):
    log = write(tmp_path / "a.jsonl", [reply(1)])
    whole = log.read_text()
    torn = json.dumps(reply(2))
    log.write_text(whole + torn[:40])
    assert ingest(ledger, [log]).quarantined == 1
    log.write_text(whole + torn + "\n")
    assert ingest(ledger, [log]).calls == 1
    assert ledger.quarantine() == ()
    assert len(ids(ledger)) == 2


def test_another_file_of_the_same_name_is_read_from_its_start(tmp_path, ledger):
    log = write(tmp_path / "a.jsonl", [reply(1), reply(2)])
    ingest(ledger, [log])
    write(log, [reply(7)])
    assert ingest(ledger, [log]).calls == 1


def test_arrays_documents_and_tables_go_into_one_ledger(tmp_path, ledger):
    (tmp_path / "a.json").write_text(json.dumps([reply(1), reply(2)]))
    (tmp_path / "b.csv").write_text("at,in,out\n1,2,3\n1,2,3\n")
    assert ingest(ledger, [tmp_path / "a.json"]).calls == 2
    columns = parse_columns(["at=at", "input=in", "output=out"])
    assert ingest(ledger, [tmp_path / "b.csv"], columns=columns).calls == 2


def test_a_run_that_ends_in_the_middle_goes_on_and_ends_as_if_it_had_not(
    tmp_path, ledger, monkeypatch
):
    monkeypatch.setattr(sys.modules[module.__module__], "_BATCH", 10)
    log = write(tmp_path / "a.jsonl", [reply(number) for number in range(95)])

    def stop(path, share):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(ledger, [log], tell=stop)
    there = len(ids(ledger))
    assert 0 < there < 95
    done = ingest(ledger, [log])
    assert done.calls == 95 - there
    assert done.duplicates == 0
    assert len(set(ids(ledger))) == len(ids(ledger)) == 95


KILLED = """
import os, sys
from weft.tokens.ledger import Ledger, ingest
module = sys.modules[ingest.__module__]
module._BATCH = 10
die = lambda path, share: share > 0.5 and os.kill(os.getpid(), 9)
ingest(Ledger(sys.argv[1]), [sys.argv[2]], tell=die)
"""


def test_a_process_that_is_killed_leaves_whole_batches_and_nothing_twice(tmp_path):
    log = write(tmp_path / "a.jsonl", [reply(number) for number in range(95)])
    place = {**os.environ, "PYTHONPATH": str(Path(weft.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "l.db"), str(log)]
    assert subprocess.run(command, env=place, check=False, timeout=120).returncode == -9
    with Ledger(tmp_path / "l.db") as ledger:
        there = len(ids(ledger))
        assert there % 10 == 0 and 0 < there < 95
        assert ingest(ledger, [log]).calls == 95 - there
        assert len(set(ids(ledger))) == 95


def test_several_processes_find_what_one_does(tmp_path, monkeypatch):
    parts = sys.modules[module.__module__]
    monkeypatch.setattr(parts, "_BATCH", 10)
    monkeypatch.setattr(parts, "_WORTH_PROCESSES_BYTES", 0)
    records = [reply(number) for number in range(45)] + [{"hello": 1}, reply(3)]
    log = write(tmp_path / "a.jsonl", records)
    with Ledger(":memory:") as alone, Ledger(":memory:") as helped:
        assert ingest(alone, [log], processes=1) == ingest(helped, [log], processes=2)
        assert list(alone.calls()) == list(helped.calls())


def test_a_format_that_is_not_there_ends_before_anything_is_read(tmp_path, ledger):
    log = write(tmp_path / "a.jsonl", [reply(1)])
    with pytest.raises(InputError, match="openia"):
        ingest(ledger, [log], form="openia")
    assert ledger.quarantine() == ()


def test_an_array_that_was_being_written_is_read_to_its_end_later(tmp_path, ledger):
    log = tmp_path / "a.json"
    text = json.dumps([reply(1), reply(2), reply(3)])
    log.write_text(text[: len(text) // 2])
    assert ingest(ledger, [log]).quarantined == 1
    log.write_text(text)
    ingest(ledger, [log])
    assert ids(ledger) == ["chatcmpl-1", "chatcmpl-2", "chatcmpl-3"]
    assert ledger.quarantine() == ()


def test_a_file_that_cannot_be_read_does_not_keep_others_from_being_read(tmp_path, ledger):
    (tmp_path / "a.jsonl.gz").write_bytes(b"not packed")
    write(tmp_path / "b.jsonl", [reply(1)])
    with pytest.raises(FileError, match=r"a\.jsonl\.gz.*1 others 1 new calls"):
        ingest(ledger, [tmp_path])
    assert ids(ledger) == ["chatcmpl-1"]


def test_a_file_of_which_nothing_could_be_read_is_read_anew(tmp_path, ledger):
    log = write(tmp_path / "a.jsonl", [reply(1), reply(2)])
    assert ingest(ledger, [log], form="litellm").quarantined == 2
    assert ingest(ledger, [log]).calls == 2
    assert ledger.quarantine() == ()


def test_a_file_that_became_shorter_is_read_from_its_start(tmp_path, ledger):
    log = write(tmp_path / "a.jsonl", [{**reply(1), "note": "x" * 5000}, reply(2)])
    ingest(ledger, [log])
    write(log, [{**reply(1), "note": "x" * 5000}])
    log.write_text(log.read_text()[:5300] + '"}\n' + json.dumps(reply(7)) + "\n")
    ingest(ledger, [log])
    assert "chatcmpl-7" in ids(ledger)


def test_a_column_that_is_not_there_ends_before_anything_is_read(tmp_path, ledger):
    (tmp_path / "b.csv").write_text("at,in,out\n1,2,3\n")
    with pytest.raises(InputError, match=r"b\.csv: no put"):
        ingest(ledger, [tmp_path / "b.csv"], columns=parse_columns(["input=put"]), at=1.0)
    assert ledger.progress(str(tmp_path / "b.csv")) is None


def test_halves_of_characters_in_records_and_names_stop_nothing(tmp_path, ledger):
    log = tmp_path / "\udcff.jsonl"
    odd = reply(1) | {"agent": "\ud800"}
    write(log, [odd, {"\ud800": 1}, reply(2)])
    done = ingest(ledger, [log])
    assert (done.calls, done.quarantined) == (2, 1)
    assert [call.agent for call in ledger.calls()] == ["\\ud800", "coder"]
    assert ingest(ledger, [log]).records == 0


def test_a_ledger_that_is_full_says_so(tmp_path, ledger):
    ledger.connection.execute("PRAGMA max_page_count=1")
    with pytest.raises(FileError, match=r"ledger\.db.*full"):
        ingest(ledger, [write(tmp_path / "a.jsonl", [reply(n) for n in range(2000)])])
    assert ids(ledger) == []
    ledger.connection.execute("PRAGMA max_page_count=100000")
    assert ingest(ledger, [tmp_path / "a.jsonl"]).calls == 2000


def test_calls_of_the_proxy_and_its_spans_are_the_same_calls(tmp_path, ledger):
    span = {
        "span_id": "07",
        "trace_id": "aa",
        "start_time": "2026-11-01T12:00:00Z",
        "attributes": {"gen_ai.request.model": "gpt-5", "weft.call": "c0"},
    }
    ledger.add([a_call(source="weft")])
    done = ingest(ledger, [write(tmp_path / "spans.jsonl", [span])])
    assert (done.calls, done.duplicates) == (0, 1)


REPLIES = [reply(number) for number in range(9)]
WRITTEN = {
    "lines": "".join(json.dumps(own) + "\n" for own in REPLIES),
    "lines without an end": "\n".join(map(json.dumps, REPLIES)),
    "lines after a mark": "\ufeff" + "".join(json.dumps(own) + "\r\n" for own in REPLIES),
    "array": json.dumps(REPLIES),
    "array over lines": "[\n" + ",\n".join(map(json.dumps, REPLIES)) + "\n]\n",
    "indented array": json.dumps(REPLIES, indent=2),
    "indented objects": "\n".join(json.dumps(own, indent=1) for own in REPLIES),
    "objects on one line": "".join(map(json.dumps, REPLIES)),
    "table": "id,at,in\n" + "".join(f"chatcmpl-{n},{1.7e9 + n},{100 + n}\n" for n in range(9)),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_a_file_that_is_read_while_it_is_written_is_read_once_and_to_its_end(
    tmp_path, ledger, form
):
    text, log = WRITTEN[form].encode(), tmp_path / "a.log"
    columns = parse_columns(["id=id", "at=at", "input=in"]) if form == "table" else None
    for cut in (*random.Random(form).sample(range(9, len(text)), 7), len(text)):
        log.write_bytes(text[: max(cut, log.stat().st_size if log.exists() else 0)])
        ingest(ledger, [log], columns=columns)
    assert ids(ledger) == [f"chatcmpl-{number}" for number in range(9)]
    assert sum(call.usage.input.low for call in ledger.calls()) in (900, 936)
    assert ledger.quarantine() == ()
