"""The command as a process: what it does with its streams, its locale and an interrupt."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import weft
from weft.cli import main as start

WEFT = [sys.executable, "-m", "weft"]
ENV = {**os.environ, "PYTHONPATH": str(Path(weft.__file__).parents[1])}


def in_shell(tail, *arguments, **variables):
    """Exit code and errors of `weft ARGUMENTS TAIL` in a shell."""
    done = subprocess.run(
        ["sh", "-c", f'"$@" {tail}', "sh", *WEFT, *arguments],
        env={**ENV, **variables},
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def test_a_reader_that_goes_away_is_no_error():
    child = subprocess.Popen(
        [*WEFT, "machine", "dgx-h100x8"],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(120) == 0


@pytest.mark.parametrize(
    "arguments", [["machine"], ["machine", "dgx-h100x8", "--json"], ["--help"], ["--version"]]
)
def test_a_full_disk_is_an_error_in_three_parts(arguments):
    code, _, err = in_shell("> /dev/full", *arguments)
    assert code == 2
    assert err.startswith("weft: this file cannot be used.")
    assert err.count("\n") == 4
    assert "No space left" in err


def test_a_closed_output_is_an_error_in_three_parts():
    code, _, err = in_shell(">&-", "machine")
    assert code == 2
    assert "  got   a closed one" in err


def test_closed_errors_are_not_missed():
    assert in_shell("2>&-", "machine", "nonsense") == (2, b"", "")


def test_names_in_any_alphabet_are_printed_in_every_locale(tmp_path):
    path = tmp_path / "\u00e9.yaml"
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, out, err = in_shell("", "machine", "dgx-h100x1", "-o", str(path), **bare)
    assert (code, err) == (0, "")
    assert b"wrote " in out
    code, _, err = in_shell("", "machine", f"{path}.yaml", **bare)
    assert code == 2
    assert "Traceback" not in err


def test_an_interrupt_while_the_command_is_loaded_ends_in_order(monkeypatch, capsys):
    class Interrupting:
        def find_spec(self, name, path=None, target=None):
            if name == "weft.cli.border":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "weft.cli.border", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    assert start.main(["machine"]) == 130
    assert capsys.readouterr().err == "weft: stopped.\n"


def test_next_to_nothing_is_loaded_before_interrupts_are_answered():
    code = "import sys, weft.cli.main as m; print(*(n for n in sys.modules if 'weft' in n))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["weft", "weft.cli", "weft.cli.main"]
