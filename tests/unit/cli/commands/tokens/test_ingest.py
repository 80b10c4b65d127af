import json

import pytest

from tests.unit.tokens.ledger.known import reply
from weft.cli.main import main


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in (reply(1), reply(1), {"x": 1})))
    return path


def test_logs_become_a_ledger_and_every_record_is_accounted_for(log, tmp_path, capsys):
    ledger = tmp_path / "l.db"
    assert main(["tokens", "ingest", str(log), "-o", str(ledger)]) == 0
    told = capsys.readouterr().out
    assert "3 records of 1 file: 1 new calls, 1 met before, 0 about something else, 1 that" in told
    assert f"kept aside: {log}, line 3" in told
    assert ledger.is_file()


def test_what_is_kept_aside_is_of_this_run_and_is_no_command_to_a_terminal(tmp_path, capsys):
    ledger, words = str(tmp_path / "l.db"), []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({f"{name}\x1b[2J": 1}) + "\n")
        assert main(["tokens", "ingest", str(path), "-o", ledger]) == 0
        words.append(capsys.readouterr().out)
    assert "a.jsonl" not in words[1] and "got one with b\\x1b[2J" in words[1]


def test_the_result_is_json_where_that_is_asked_for(log, tmp_path, capsys):
    assert main(["tokens", "ingest", str(log), "-o", str(tmp_path / "l.db"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["calls"], told["duplicates"], told["quarantined"]) == (1, 1, 1)


def test_tables_are_read_as_their_columns_are_said_to_be(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("TIMESTAMP,In,Out\n2023-11-16 18:15:46.6805900,374,44\n")
    words = ["at=TIMESTAMP", "input=In", "output=Out", "model=:gpt-4o", "cached=:0"]
    columns = [word for what in words for word in ("--column", what)]
    ledger = str(tmp_path / "l.db")
    assert main(["tokens", "ingest", str(table), "-o", ledger, "--format", "csv", *columns]) == 0
    assert main(["tokens", "report", ledger, "--by", "day", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["rows"][0]["key"] == ["2023-11-16"]
    assert told["total"]["classes"]["fresh"] == [374, 374]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--format", "csv"], "--column"),
        (["--column", "at=T"], "--format csv"),
        (["--format", "openia"], "openia"),
        (["--processes", "0"], "1 to 256"),
        (["--at", "noon"], "noon"),
    ],
)
def test_options_that_make_no_sense_are_refused(log, tmp_path, capsys, options, named):
    assert main(["tokens", "ingest", str(log), "-o", str(tmp_path / "l.db"), *options]) == 2
    assert named in capsys.readouterr().err
