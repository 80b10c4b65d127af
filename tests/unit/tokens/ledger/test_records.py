import gzip
import json
import os

import pytest

from weft.core.errors import FileError
from weft.tokens.ledger.records import file_head, find_files, read_raw, table_columns


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


@pytest.mark.parametrize("text", ['{"a": 1}\r\n{"a": 2}\r\n', '[{"a": 1}, {"a": 2}]'])
def test_a_mark_of_utf_8_in_front_is_no_part_of_the_first_record(tmp_path, text):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert contents(path) == [{"a": 1}, {"a": 2}]


def test_another_encoding_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-16")
    for read in (file_head, table_columns):
        with pytest.raises(FileError, match="UTF-16"):
            read(path)


def test_what_an_array_ends_with_is_torn_and_not_passed_over(tmp_path):
    path = tmp_path / "log.json"
    path.write_text('[{"a": 1}, {"a"')
    whole, torn = read_raw(path)
    assert (whole.is_torn, torn.is_torn, torn.end) == (False, True, whole.end)
    path.write_text('[{"a": 1}, {"a": 2}]')
    assert contents(path, position=torn.end) == [{"a": 2}]


def test_an_object_over_several_lines_that_is_being_written_is_one_record(tmp_path):
    path = tmp_path / "log.json"
    path.write_text('{\n "a": 1,\n "b": [\n  {"c": 2}\n ],')
    (torn,) = read_raw(path)
    assert (torn.is_torn, torn.end) == (True, 0)


def test_records_on_one_line_can_be_told_apart(tmp_path):
    path = tmp_path / "log.json"
    path.write_text("[1, 2, 3,\n4]\n")
    assert [raw.line for raw in read_raw(path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("deep", ['{"a":' * 100_000, '{"a": 1}\n' + '{"a":' * 100_000 + "\n"])
def test_what_is_nested_too_deeply_is_a_broken_record(tmp_path, deep):
    path = tmp_path / "log.jsonl"
    path.write_text(deep)
    assert len(list(read_raw(path))) == deep.count("\n") or 1


def test_a_last_row_without_an_end_may_still_be_being_written(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("in,out\n1,2\n3,4")
    assert [raw.is_torn for raw in read_raw(path, table=True)] == [False, True]
    os.utime(path, (0, 0))
    assert [raw.is_torn for raw in read_raw(path, table=True)] == [False, False]


def test_a_pipe_is_refused_since_it_cannot_be_read_twice(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="pipe"):
        find_files((tmp_path / "pipe",))


@pytest.mark.parametrize("spoilt", ["cut", "changed", "plain"])
def test_a_packed_file_that_is_broken_is_named(tmp_path, spoilt):
    packed = bytearray(gzip.compress(os.urandom(9000)))
    if spoilt == "changed":
        packed[10:14] = bytes(4)
    (tmp_path / "log.jsonl.gz").write_bytes(
        b"plain" if spoilt == "plain" else packed[:200] if spoilt == "cut" else packed
    )
    for read in (file_head, lambda path: list(read_raw(path))):
        with pytest.raises(FileError, match=r"log\.jsonl\.gz"):
            read(tmp_path / "log.jsonl.gz")
