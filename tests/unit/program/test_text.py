from dataclasses import replace
from pathlib import Path

import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InputError, VerifyError
from weft.program.text import from_text, to_text
from weft.program.verify import verify

GOLDEN = Path(__file__).parents[2] / "golden" / "programs"


@pytest.mark.parametrize(
    "program",
    [mlp(1, slots=("momentum",)), transformer(1, dropout=0.1)],
    ids=lambda program: program.name,
)
def test_the_text_is_the_golden_one_and_parses_back(program):
    text = (GOLDEN / f"{program.name}.txt").read_text()
    assert to_text(program) == text
    assert from_text(text) == program
    verify(from_text(text))


def test_one_change_is_one_line_of_difference():
    before, after = (to_text(mlp(2, hidden=lambda _: 4)).split("\n") for _ in range(2))
    number = next(n for n, line in enumerate(after) if "relu" in line)
    after[number] = after[number].replace("relu.default", "silu.default")
    changed = to_text(from_text("\n".join(after))).split("\n")
    assert [n for n, (a, b) in enumerate(zip(before, changed, strict=True)) if a != b] == [number]


def test_an_order_of_inputs_of_its_own_survives():
    program = mlp(1)
    mixed = replace(program, inputs=program.inputs[::-1])
    assert "\ninputs %3 %2 %1 %0\n" in to_text(mixed)
    assert from_text(to_text(mixed)) == mixed


def test_blank_lines_and_comments_mean_nothing():
    program = mlp(1)
    assert from_text("# made by hand\n\n" + to_text(program).replace("\n", "\n\n")) == program


LINES = to_text(mlp(1)).split("\n")
RELU = next(n for n, line in enumerate(LINES) if "relu" in line)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("relu.default", "", "an operator"),
        ("(%4)", "(%4", r"'\)'"),
        ("(%4)", "(%x)", "a value, a number"),
        ("(%4)", '("\\q")', "a constant that Python can hold"),
        ("(%4)", "%4", "arguments in brackets"),
        ("f32[", "f33[", "a tensor type"),
        ("f32[", "f32", "a type or #"),
        ("# forward", "# sideways", "one of forward, backward, update, not 'sideways'"),
        ("# forward", "", "a type or #"),
        ("%5 =", "%7 =", "node %5, as nodes are numbered from 0"),
        ("%5 =", "6 =", "a value such as"),
        ("%5 =", "%5", "'='"),
        ("model.py:1", "model.py:1 more", "the end of the line"),
    ],
)
def test_errors_name_the_line(old, new, words):
    lines = LINES.copy()
    assert old in lines[RELU]
    lines[RELU] = lines[RELU].replace(old, new)
    with pytest.raises(InputError, match=words) as caught:
        from_text("\n".join(lines))
    assert caught.value.where == f"line {RELU + 1}"


@pytest.mark.parametrize("start", ["program", "loss"])
def test_a_program_has_a_name_and_a_loss(start):
    lines = [line for line in LINES if not line.startswith(start)]
    with pytest.raises(InputError, match="starts with program and one that starts with loss"):
        from_text("\n".join(lines))


def test_the_line_of_inputs_has_each_once():
    with pytest.raises(InputError, match="each input once"):
        from_text("\n".join([*LINES, "inputs %0 %0 %1 %2"]))


def test_an_input_without_an_entry_has_no_text():
    program = mlp(1)
    with pytest.raises(VerifyError, match="one entry in the list of inputs"):
        to_text(replace(program, inputs=program.inputs[1:]))
