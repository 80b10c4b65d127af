import json

import pytest

from weft.cli.main import main
from weft.machine import load_machine


def test_a_preset_is_shown_with_sources(capsys):
    assert main(["machine", "dgx-h100x8"]) == 0
    out = capsys.readouterr().out
    assert "8 nodes of 8" in out
    assert "data sheet" in out


def test_json_has_the_digest_of_the_machine(capsys):
    assert main(["machine", "dgx-a100x2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == load_machine("dgx-a100x2").digest


def test_a_written_machine_is_the_same_machine(tmp_path, capsys):
    path = tmp_path / "box.yaml"
    assert main(["machine", "dgx-h100x1", "-o", str(path)]) == 0
    assert load_machine(str(path)).digest == load_machine("dgx-h100x1").digest


def test_without_a_name_the_presets_are_listed(capsys):
    assert main(["machine"]) == 0
    assert "dgx-h100x8" in capsys.readouterr().out


def test_an_unknown_preset_is_an_error_in_three_parts(capsys):
    assert main(["machine", "dgx-h1000x8"]) == 2
    err = capsys.readouterr().err
    assert "dgx-h1000x8" in err
    assert "  try   " in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["-o", "x.yaml"], "the machine to write"),
        (["--ranks", "2"], "probe` only"),
        (["dgx-h100x8", "--ranks", "2"], "probe` only"),
        (["probe", "--ranks", "0"], "at least one rank"),
        (["--cluster", "c.yaml"], "without --ranks"),
        (["dgx-h100x8", "--cluster", "c.yaml"], "--cluster c.yaml with dgx-h100x8"),
        (["probe", "--cluster", "c.yaml", "--ranks", "2"], "and --ranks 2"),
        (["probe", "--cluster", "c.yaml"], "c.yaml"),
    ],
)
def test_what_would_be_passed_over_is_refused(arguments, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["machine", *arguments]) == 2
    assert word in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
