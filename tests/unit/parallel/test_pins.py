"""Pins by path: how they are written, and what they name."""

from __future__ import annotations

import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InputError
from weft.parallel.pinning import describe, resolve
from weft.parallel.pins import Pin, matches, parse_pin, pin
from weft.parallel.recompute import expand, layer_nodes
from weft.program.annotation import Wish
from weft.program.graph import Phase, Program

PROGRAM = transformer(num_layers=3)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (pin("layers.*.attention", "query", split=0, ways=8), "layers.*.attention.query=S(0)x8"),
        (pin("tokens", "weight", replicated=True), "tokens.weight=R"),
        (pin("", "weight", split=-1), "weight=S(-1)"),
        (pin("layers.3.mlp", split=1), "layers.3.mlp output=S(1)"),
        (pin("encoder", stage=0), "encoder=stage 0"),
    ],
)
def test_a_pin_is_its_text(made: Pin, text: str) -> None:
    assert str(made) == text
    assert parse_pin(text) == made
    assert parse_pin(text.replace("=", " = ")) == made


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("encoder", "PATH=stage N"),
        ("encoder=", "S\\(<dim>\\)"),
        ("encoder=stage", "'stage'"),
        ("encoder=S0", "'S0'"),
        ("=R", "a module path"),
        ("layers..mlp=R", "layers..mlp"),
        ("a input=R", "PATH output"),
        ("encoder output=stage 1", "a module path"),
    ],
)
def test_a_text_that_is_no_pin_is_shown(text: str, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        parse_pin(text)
    assert caught.value.where == f"pin {text!r}"


def test_a_stage_is_for_modules() -> None:
    with pytest.raises(InputError, match="a module, whose operators"):
        pin("encoder", "weight", stage=0)


@pytest.mark.parametrize(
    ("pattern", "path", "named"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b.c", False),
        ("a.**", "a.b.c", True),
        ("a.**.c", "a.c", True),
        ("**", "a.b", True),
        ("l*.1?.x", "layers.12.x", True),
        ("l*.1?.x", "layers.1.x", False),
        ("A", "a", False),
    ],
)
def test_stars_stay_between_dots_and_two_do_not(pattern: str, path: str, named: bool) -> None:
    assert matches(pattern, path) is named


def pinned(program: Program, *texts: str) -> list[str]:
    values = resolve(program, [parse_pin(text) for text in texts]).values
    return [describe(program, value.node) for value in values]


def test_a_tensor_is_named_by_its_path() -> None:
    found = pinned(PROGRAM, "layers.*.attention.query=R", "batch.ids=S(0)")
    assert [text.split(" ")[1] for text in found] == [
        *(f"layers.{n}.attention.query" for n in range(3)),
        "batch.ids",
    ]


def test_an_output_is_what_is_read_outside_of_the_module() -> None:
    (found,) = resolve(PROGRAM, [pin("layers.1.mlp", split=1)]).values
    node = PROGRAM.nodes[found.node]
    assert (node.op, node.scope) == ("einsum", "layers.1.mlp")
    readers = [PROGRAM.nodes[reader] for reader, _ in PROGRAM.users[found.node]]
    assert [(reader.op, reader.scope) for reader in readers] == [("add.Tensor", "layers.1")]


def test_an_output_of_a_layer_is_that_of_its_last_module() -> None:
    (found,) = resolve(PROGRAM, [pin("layers.1", split=1)]).values
    assert PROGRAM.nodes[found.node].op == "add.Tensor"
    (loss,) = resolve(PROGRAM, [pin("loss", replicated=True)]).values
    assert loss == PROGRAM.loss


def test_a_stage_takes_in_all_of_a_module() -> None:
    stages = resolve(PROGRAM, [pin("layers.1", stage=1)]).stages
    forward = [
        n
        for n, node in enumerate(PROGRAM.nodes)
        if node.scope.startswith("layers.1") and node.phase is Phase.FORWARD
    ]
    assert sorted(stages) == forward


@pytest.mark.parametrize(
    ("made", "hint"),
    [
        (pin("layers.1.attention", "qurey", split=0), "layers.1.attention.query"),
        (pin("layers.1.mpl", split=0), "layers.1.mlp"),
        (pin("vision_tower", stage=0), "weft capture --text"),
        (pin("layers.1", "mlp", split=0), "to pin what layers.1.mlp returns, name no tensor"),
        (pin("layers.1.mlp.up", split=0), "layers.1.mlp.up is a tensor"),
    ],
)
def test_a_pin_that_names_nothing_says_what_comes_near(made: Pin, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(PROGRAM, [made])
    assert str(made) in caught.value.got
    assert hint in caught.value.hint


def test_pins_of_a_program_move_to_what_is_made_of_it() -> None:
    pinning = resolve(PROGRAM, [pin("layers.1.mlp", split=1), pin("layers.1", stage=0)])
    (value,) = pinning.values
    recomputing = expand(PROGRAM, layer_nodes(PROGRAM))
    moved = pinning.through(recomputing.origin, recomputing.program)
    (new,) = moved.values
    assert recomputing.origin[new.node] == value.node
    assert recomputing.program.nodes[new.node].phase is Phase.FORWARD
    assert moved.values[new] == pinning.values[value]
    assert all(recomputing.program.nodes[n].phase is Phase.FORWARD for n in moved.stages)


def test_of_equal_pins_one_counts() -> None:
    once = resolve(PROGRAM, [pin("embed", "weight", replicated=True)])
    assert once == resolve(PROGRAM, [pin("embed", "weight", replicated=True)] * 2)
    assert once.counts == {"embed.weight=R": 1}
    assert once.only([]).counts == {}


def test_without_pins_nothing_is_pinned() -> None:
    assert not resolve(mlp())
    assert resolve(mlp(), [pin("layers.0", "up", replicated=True)]).marks == {
        0: (Wish(replicated=True),)
    }
