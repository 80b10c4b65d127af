"""Laws of files that appear whole or not at all."""

import os
from pathlib import Path

import pytest

from weft.core.errors import FileError, InputError
from weft.core.files import parsed, read_text, write_whole


def test_what_is_written_reads_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, "old", "a file")
    write_whole(str(path), "new \u00e9", "a file")
    assert read_text(path, "a file", "write one") == "new \u00e9"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    target.write_text("old")
    link.symlink_to(target)
    write_whole(link, "new", "a file")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_device_is_written_to_and_stays() -> None:
    write_whole("/dev/null", "text", "a file")
    assert Path("/dev/null").is_char_device()


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, "text", "a file")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize("path", [".", "", "/dev/full", "a\0b", "no/such/folder", None, 3])
def test_a_place_that_takes_no_file_is_an_error_in_three_parts(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError) as caught:
        write_whole(path, "text", "a file")
    assert caught.value.got
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [".", "a\0b", "missing", None, 3])
def test_what_cannot_be_read_is_an_error_in_three_parts(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError) as caught:
        read_text(path, "a file", "write one")
    assert caught.value.hint == "write one"


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(FileError):
        write_whole(path, "\ud800", "a file")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


STAMPED = '{"weft": "thing", "version": 2, "size": 3}'


def thing(text, build=lambda plain: plain, **named):
    return parsed(text, "thing", 2, build, hint="make another", **named)


def test_stamped_content_is_built_from_the_rest():
    assert thing(STAMPED) == {"size": 3}


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1]", "7", '{"size": 3}', '{"weft": "thing", "version": 1}'),
        *('{"weft": "other", "version": 2}', "[" * 200_000),
    ],
)
def test_what_is_no_such_content_is_refused(text):
    with pytest.raises(FileError, match="a thing of version 2") as raised:
        thing(text)
    assert raised.value.hint == "make another"


@pytest.mark.parametrize("build", [lambda p: p["weight"], lambda p: int(1e400), lambda p: p.size])
def test_content_of_which_nothing_can_be_built_is_refused(build):
    with pytest.raises(InputError, match="thing") as raised:
        thing(STAMPED, build, error=InputError)
    assert type(raised.value) is InputError
