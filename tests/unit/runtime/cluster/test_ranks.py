"""How output of ranks is told while they run."""

from weft.runtime.cluster.ranks import _first_words, _Listener


def test_lines_are_told_once_they_are_whole_and_only_once(tmp_path):
    told = []
    listener = _Listener(logs=tmp_path, tell=lambda rank, line: told.append((rank, line)))
    (tmp_path / "0.out").write_text("one\ntw")
    for name in ("0.err", "1.out"):
        (tmp_path / name).touch()
    (tmp_path / "1.err").write_text("oops\n")
    listener.listen(2)
    assert told == [(0, "one"), (1, "oops")]
    with (tmp_path / "0.out").open("a") as file:
        file.write("o\n")
    listener.listen(2)
    listener.listen(2)
    assert told == [(0, "one"), (1, "oops"), (0, "two")]


def test_a_rank_without_last_words_is_known_by_how_it_ended(tmp_path):
    assert _first_words(tmp_path, [None, -9, 1]) == {
        "rank": "1",
        "cause": "its process ended with signal SIGKILL",
    }
    assert _first_words(tmp_path, [0, 3])["cause"] == "its process ended with status 3"
