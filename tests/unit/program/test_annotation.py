"""What pins ask for: one thing each, in words that parse back."""

from dataclasses import replace

import pytest

from tests.programs import mlp
from weft.core.errors import InputError, VerifyError
from weft.program.annotation import Annotation, Wish
from weft.program.builder import Builder
from weft.program.fold import fold, verify_folding
from weft.program.graph import Phase, Program, Role
from weft.program.text import from_text, to_text
from weft.program.types import DType, TensorType
from weft.program.verify import verify

WISHES = [
    Wish(split=0),
    Wish(split=-1, ways=8),
    Wish(replicated=True),
    Wish(stage=0),
    Wish(stage=12),
]


@pytest.mark.parametrize("wish", WISHES, ids=str)
@pytest.mark.parametrize("source", ["", "model.py:12", "my model.py:3"])
def test_a_wish_parses_back_with_its_line(wish: Wish, source: str) -> None:
    assert Wish.parse(str(wish)) == wish
    assert Annotation.parse(str(Annotation(wish, source))) == Annotation(wish, source)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"split": 0, "replicated": True},
        {"split": 0, "stage": 1},
        {"ways": 2},
        {"split": 0, "ways": 1},
        {"stage": -1},
        {"split": True},
        {"split": 0.5},
        {"replicated": True, "ways": 2},
    ],
)
def test_a_wish_is_one_thing(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="one of split="):
        Wish(**arguments)


@pytest.mark.parametrize("text", ["S0", "S(0)x", "S(0)x1", "P", "stage", "stage -1", "", "S(٣)"])
def test_a_text_of_another_form_is_named(text: str) -> None:
    with pytest.raises(InputError):
        Wish.parse(text)


@pytest.mark.parametrize(
    ("split", "dim"), [(0, 0), (2, 2), (3, None), (-1, 2), (-3, 0), (-4, None)]
)
def test_negative_dims_count_from_the_last(split: int, dim: int | None) -> None:
    assert Wish(split=split).dim(3) == dim


def pinned_mlp(**wishes: Wish) -> Program:
    """Six layers; `relu1=Wish(...)` pins the relu of layer 1."""
    program = mlp(num_layers=6)
    nodes = list(program.nodes)
    for name, wish in wishes.items():
        number = next(
            n
            for n, node in enumerate(nodes)
            if node.op == "relu.default" and node.scope == f"layers.{name.removeprefix('relu')}"
        )
        nodes[number] = replace(nodes[number], pins=(Annotation(wish, "model.py:7"),))
    return replace(program, nodes=tuple(nodes))


def test_text_and_digest_keep_pins() -> None:
    program = pinned_mlp(relu1=Wish(split=2, ways=4))
    assert '"S(2)x4 at model.py:7"' in to_text(program)
    assert from_text(to_text(program)) == program
    others = [mlp(num_layers=6), pinned_mlp(relu1=Wish(split=2)), pinned_mlp(relu2=Wish(split=2))]
    assert len({program.digest, *(other.digest for other in others)}) == 4


def test_pins_without_scope_and_line_parse_back() -> None:
    builder = Builder("square")
    x = builder.input("batch.x", Role.BATCH, TensorType(DType.F32, (4,)))
    builder.pin(x, (Annotation(Wish(replicated=True)),))
    total = builder.add("sum", x, (0,))
    builder.pin(total, (Annotation(Wish(replicated=True)), Annotation(Wish(stage=1))))
    program = builder.build(total)
    assert from_text(to_text(program)) == program
    assert len(program.nodes[1].pins) == 2


def test_only_first_outputs_have_pins() -> None:
    builder = Builder("norm")
    x = builder.input("batch.x", Role.BATCH, TensorType(DType.F32, (4,)))
    out = builder.add_all("native_layer_norm.default", x, (4,), None, None, 1e-5)
    with pytest.raises(VerifyError, match="pins of first outputs"):
        builder.pin(out[1], (Annotation(Wish(replicated=True)),))


def test_layers_that_are_pinned_differently_are_not_folded() -> None:
    plain = fold(mlp(num_layers=6)).num_representatives
    alike = pinned_mlp(**{f"relu{n}": Wish(split=2) for n in range(6)})
    assert fold(alike).num_representatives == plain
    one = fold(pinned_mlp(relu2=Wish(split=2)))
    assert one.num_representatives > plain
    assert [layer.representative for layer in one.layers].count(2) == 1


def test_marks_from_outside_keep_layers_apart_too() -> None:
    program = mlp(num_layers=6)
    node = program.input_by_name["layers.2.up"].node
    folding = fold(program, {node: "pinned"})
    assert folding.representative[node] == node
    assert folding.num_representatives > fold(program).num_representatives
    with pytest.raises(VerifyError, match="equal marks"):
        verify_folding(program, fold(program), {node: "pinned"})


def test_a_folding_of_nodes_pinned_differently_is_a_lie() -> None:
    with pytest.raises(VerifyError, match="equal pins"):
        verify_folding(pinned_mlp(relu2=Wish(split=2)), fold(mlp(num_layers=6)))


def test_the_backward_pass_has_no_pins() -> None:
    program = mlp(num_layers=1)
    number = next(n for n, node in enumerate(program.nodes) if node.phase is Phase.BACKWARD)
    nodes = list(program.nodes)
    nodes[number] = replace(nodes[number], pins=(Annotation(Wish(replicated=True)),))
    with pytest.raises(VerifyError, match="pins in the forward phase"):
        verify(replace(program, nodes=tuple(nodes)))
    verify(pinned_mlp(relu0=Wish(split=0)))
