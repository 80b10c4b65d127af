import json

from weft.cli.main import main
from weft.program.text import from_text


def test_the_text_is_the_program_that_was_described(recipe, tmp_path, capsys):
    path = tmp_path / "program.txt"
    assert main(["capture", recipe, "--text", str(path), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    program = from_text(path.read_text())
    assert plain["digest"] == program.digest
    assert plain["num_parameters"] == 8 * 16 + 16 + 16 * 4 + 4
    assert sum(plain["operators"].values()) == plain["num_nodes"] == len(program.nodes)
    assert plain["input_bytes_by_role"]["batch"] == 8 * 8 * 4


def test_people_get_a_table(recipe, capsys):
    assert main(["capture", recipe]) == 0
    out = capsys.readouterr().out
    assert "212 in 4 tensors" in out
    assert "backward" in out


def test_a_missing_recipe_is_an_error_in_three_parts(tmp_path, capsys):
    assert main(["capture", f"{tmp_path}/none.py:gpt"]) == 2
    assert "none.py, which does not exist" in capsys.readouterr().err


def test_a_text_that_finds_no_room_is_an_error_in_three_parts(recipe, capsys):
    assert main(["capture", recipe, "--text", "/dev/full"]) == 2
    assert "No space left" in capsys.readouterr().err
