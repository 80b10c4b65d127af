import gzip
import json

import pytest

from weft.core.errors import FileError
from weft.tokens.ledger.records import file_head, find_files, read_raw


def contents(path, **how):
    return [
        json.loads(raw.content) if isinstance(raw.content, str) else raw.content
        for raw in read_raw(path, **how)
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n\n{"a": 2}\n',
        '{"a": 1}\n{"a": 2}',
        '[{"a": 1}, {"a": 2}]',
        '[\n  {"a": 1},\n  {"a": 2}\n]\n',
        '{\n"a": 1\n}\n{\n"a": 2\n}',
        '[{"a": 1}, {"a": 2}',  # whoever wrote it was killed
    ],
)
def test_records_are_found_in_lines_arrays_and_one_after_another(tmp_path, text):
    path = tmp_path / "log.json"
    path.write_text(text)
    assert contents(path) == [{"a": 1}, {"a": 2}]


def test_a_packed_file_is_read_like_any_other(tmp_path):
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    assert contents(path) == [{"a": 1}, {"a": 2}]


def test_reading_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    first, *_ = read_raw(path)
    rest = list(read_raw(path, position=first.end, line=first.line))
    assert [(raw.line, json.loads(raw.content)) for raw in rest] == [(2, {"a": 2}), (3, {"a": 3})]
    array = tmp_path / "log.json"
    array.write_text('[{"a": 1}, {"a": 2}]')
    assert contents(array, position=1) == [{"a": 2}]


def test_a_broken_line_is_a_record_and_the_next_ones_are_too(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": \n{"a": 2}\n\xff\xfe\n')
    assert [raw.line for raw in read_raw(path)] == [1, 2, 3]


def test_a_last_line_that_is_being_written_is_read_again_next_time(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    whole, torn = read_raw(path)
    assert (whole.is_torn, torn.is_torn, torn.end) == (False, True, whole.end)
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert contents(path, position=torn.end, line=1) == [{"a": 2}]


def test_rows_of_a_table_have_names_and_a_number(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("\ufeffat,in\n1,2\n3,4\n")
    assert contents(path, table=True) == [
        {"#": 1, "at": "1", "in": "2"},
        {"#": 2, "at": "3", "in": "4"},
    ]
    assert contents(path, table=True, position=1) == [{"#": 2, "at": "3", "in": "4"}]


def test_folders_are_searched_for_what_looks_like_logs(tmp_path):
    for name in ("b.jsonl", "a.json", "sub/c.csv.gz", "notes.txt", "image.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = find_files((tmp_path, tmp_path / "a.json", tmp_path / "notes.txt"))
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "a.json",
        "b.jsonl",
        "sub/c.csv.gz",
        "notes.txt",
    ]


def test_what_is_not_there_or_has_no_logs_is_named(tmp_path):
    with pytest.raises(FileError, match="missing"):
        find_files((tmp_path / "missing",))
    with pytest.raises(FileError, match="without any"):
        find_files((tmp_path,))


def test_a_file_that_grew_still_begins_as_it_did(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("short\n")
    head, size = file_head(path)
    path.write_text("short\nand longer\n")
    assert file_head(path, size) == (head, size)
    path.write_text("shore\nand longer\n")
    assert file_head(path, size) != (head, size)
