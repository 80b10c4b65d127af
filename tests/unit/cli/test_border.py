import argparse
import json
import os
import signal

import pytest

from weft.cli import border
from weft.cli.command import Command
from weft.core.errors import InputError


def command(execute):
    def add_arguments(parser):
        parser.add_argument("--size", type=int, default=1)

    return Command(
        name="toy",
        summary="does what a test wants",
        example="example: weft toy",
        add_arguments=add_arguments,
        execute=execute,
    )


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `weft toy` with a given body; returns exit code, out and err."""

    def run(execute, *arguments):
        monkeypatch.setattr(border, "COMMANDS", (command(execute),))
        code = border.run(["toy", *arguments])
        return code, *capsys.readouterr()

    return run


def refuse(args, console):
    raise InputError(need="a number", got="a word", hint="type digits")


def stumble(args, console):
    raise ZeroDivisionError("first line\nsecond line")


def interrupt(args, console):
    raise KeyboardInterrupt


def work(args, console):
    console.line(f"size {args.size}")
    console.result({"size": args.size})


def test_what_works_ends_with_zero(run):
    assert run(work, "--size", "3") == (0, "size 3\n", "")


def test_json_prints_one_line_and_nothing_else(run):
    code, out, _ = run(work, "--json")
    assert (code, json.loads(out)) == (0, {"size": 1})
    assert out.count("\n") == 1


def test_an_error_of_weft_prints_its_three_parts_without_a_traceback(run):
    code, out, err = run(refuse)
    assert (code, out) == (2, "")
    assert err == (
        "weft: this input cannot be used.\n  need  a number\n  got   a word\n  try   type digits\n"
    )


def test_any_other_error_is_one_line_that_says_how_to_learn_more(run):
    code, _, err = run(stumble)
    assert code == 1
    assert err.count("\n") == 1
    assert "ZeroDivisionError: first line" in err
    assert "raised in" in err
    assert "test_border.py, line" in err
    assert "--debug" in err


def test_what_fails_inside_of_weft_may_be_a_bug(run):
    code, _, err = run(lambda args, console: console.table(None))
    assert code == 1
    assert "a bug in weft or in the recipe" in err


@pytest.mark.parametrize("body", [refuse, stumble])
def test_debug_shows_the_traceback_before_the_message(run, body):
    code, _, err = run(body, "--debug")
    assert code in (1, 2)
    assert err.startswith("Traceback")
    assert body.__name__ in err
    assert "weft: " in err


def test_an_interrupt_ends_with_the_shells_code(run):
    code, _, err = run(interrupt)
    assert (code, err) == (130, "weft: stopped.\n")


def test_a_request_to_end_runs_clean_ups_and_leaves_the_signal_as_it_was(run):
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def body(args, console):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 5)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit) as caught:
        run(body)
    assert caught.value.code == 128 + signal.SIGTERM
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_ranks_other_than_the_first_are_quiet_but_say_who_failed(run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run(work)[:2] == (0, "")
    assert run(refuse)[2].startswith("weft (rank 1): this input")


@pytest.mark.parametrize("rank", ["abc", "-1", "", "1.0"])
def test_a_rank_that_is_no_number_is_an_error_in_three_parts(rank, run, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    code, out, err = run(work)
    assert (code, out) == (2, "")
    assert "RANK" in err
    assert repr(rank) in err


@pytest.mark.parametrize("arguments", [["nonsense"], [], ["toy", "--size", "big"], ["toy", "--x"]])
def test_a_command_line_that_cannot_be_read_is_an_error_in_three_parts(
    arguments, monkeypatch, capsys
):
    monkeypatch.setattr(border, "COMMANDS", (command(work),))
    assert border.run(arguments) == 2
    err = capsys.readouterr().err
    for part in ("weft: ", "  need  ", "  got   ", "  try   usage: "):
        assert part in err


def test_an_option_that_an_action_lacks_is_answered_with_the_help_of_the_action(capsys):
    assert border.run(["rl", "train", "recipes/rl_reverse.py", "--stale", "8"]) == 2
    err = capsys.readouterr().err
    assert "`weft rl train --help`" in err
    assert "--stale 8" in err
    assert "[--staleness N]" in err


def test_every_command_has_help_with_an_example_and_takes_json_and_debug(capsys):
    names = [c.name for c in border.COMMANDS]
    planning = ["demo", "machine", "capture", "plan", "score", "run", "show"]
    assert names == [*planning, "fuse", "denoise", "rl", "tokens", "bench"]
    for name in names:
        with pytest.raises(SystemExit) as caught:
            border.run([name, "--help"])
        out = capsys.readouterr().out
        assert caught.value.code == 0
        assert "example: " in out
        assert "--json" in out
        assert "--debug" in out


def test_options_are_not_guessed_from_their_first_letters():
    parser = border.build_parser()
    assert isinstance(parser, argparse.ArgumentParser)
    with pytest.raises(InputError):
        parser.parse_args(["machine", "--outp", "x.yaml"])
