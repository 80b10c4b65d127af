"""Pins that cannot be kept: which, where and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import mlp, transformer
from weft.core.errors import InfeasibleError
from weft.machine.presets import preset
from weft.parallel.exact.conflict import smallest_failing
from weft.parallel.pins import parse_pin
from weft.parallel.planning import plan

MACHINE = preset("dgx-h100x1")
PROGRAM = transformer(num_layers=4, batch=8, length=16, width=24, num_heads=4, vocabulary=40)


def refusal(*texts: str, **more: object) -> InfeasibleError:
    with pytest.raises(InfeasibleError) as caught:
        plan(PROGRAM, MACHINE, pins=[parse_pin(text) for text in texts], **more)
    assert caught.value.constraint == "pins"
    return caught.value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("embed.weight=S(0)x3", "make 3 parts: they make 2 or 4 or 8"),
        ("embed.weight=S(2)", "the tensor has 2 dims, and no dim 2"),
        ("batch.ids=S(-3)", "the tensor has 2 dims, and no dim -3"),
        ("layers.1.attention.query=S(0)x16", "make 16 parts"),
        ("loss output=S(0)", "the tensor has 0 dims"),
        ("layers.1.norm1 output=S(2)", "no sharding rule of native_layer_norm.default makes S(2)"),
    ],
)
def test_a_pin_that_is_impossible_alone_says_why(text: str, reason: str) -> None:
    possible = ["head.weight=R", "layers.*.mlp.up=S(0)x2"]
    error = refusal(possible[0], text, possible[1])
    assert error.need == f"a plan that keeps {text}"
    assert reason in error.got
    assert not any(other in str(error) for other in possible)


def test_a_size_that_does_not_divide_is_named() -> None:
    error = refusal("embed.weight=S(1)x16", mesh=(8,))
    assert "they make 8" in error.got
    odd = mlp(num_layers=2, batch=8, width=6)
    with pytest.raises(InfeasibleError, match="dim 1 has 6 elements, which do not divide by 4"):
        plan(odd, MACHINE, pins=[parse_pin("layers.0.up=S(1)x4")])


def test_the_operator_and_its_line_are_named() -> None:
    error = refusal("layers.1.mlp output=S(0)x16")
    assert "einsum f32[8,16,24] in layers.1.mlp at model.py:1" in error.got


def test_two_wishes_for_one_tensor_collide() -> None:
    error = refusal("embed.weight=R", "layers.*.mlp.up=S(0)", "layers.2.mlp.*=R", "head.weight=R")
    assert error.need == "a plan that keeps layers.*.mlp.up=S(0) and layers.2.mlp.*=R"
    assert "one tensor cannot be S(0) and R" in error.got
    assert "%" in error.got and "layers.2.mlp.up f32[96,24]" in error.got
    assert error.options == ("without layers.*.mlp.up=S(0)", "without layers.2.mlp.*=R")


def test_pins_that_want_different_meshes_collide() -> None:
    error = refusal(
        "layers.0.mlp.up=S(0)x2", "layers.1.mlp.up=S(1)x4", "embed.weight=S(0)x8", mesh=(8,)
    )
    assert "S(0)x8" not in error.need
    both = [parse_pin("layers.0.mlp.up=S(0)x2"), parse_pin("layers.1.mlp.up=S(1)x4")]
    assert plan(PROGRAM, MACHINE, pins=both).mesh.shape in {(2, 4), (4, 2)}


def test_neither_pin_is_blamed_that_has_a_mesh_in_common_with_the_other() -> None:
    program = mlp(num_layers=2, batch=8, width=16, hidden=lambda layer: 16)
    texts = ["layers.0.up=S(0)x2", "layers.0.up=S(1)x2", "layers.1.up=R"]
    with pytest.raises(InfeasibleError) as caught:
        plan(program, preset("dgx-h100x1"), max_stages=1, pins=[parse_pin(t) for t in texts])
    assert caught.value.need == "a plan that keeps layers.0.up=S(0)x2 and layers.0.up=S(1)x2"
    assert "alone on mesh 4x2 or 2x4" in caught.value.got


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
)
def test_what_is_left_fails_and_nothing_can_be_spared(first: list[int], second: list[int]) -> None:
    """Two sets of items each fail; the answer is one of those that is minimal."""
    items = [str(n) for n in range(10)]
    cores = [{str(n) for n in core} for core in (first, second)]

    def fails(some: object) -> bool:
        return any(core <= set(some) for core in cores)

    found = smallest_failing(items, fails)
    assert fails(found)
    assert not any(fails([x for x in found if x != item]) for item in found)
    assert found == sorted(found)
