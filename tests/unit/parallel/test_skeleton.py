"""Which movements a planner may take to be hidden."""

from __future__ import annotations

from tests.programs import mlp, transformer
from weft.parallel.skeleton import Link, build_skeleton
from weft.program.fold import fold
from weft.program.graph import Phase, Program


def links(program: Program) -> list[Link]:
    return list(build_skeleton(program, fold(program)).links)


def weights_read_forward(program: Program) -> dict[str, bool]:
    """By name of each weight that the forward pass reads directly, whether its gather can hide."""
    skeleton = build_skeleton(program, fold(program))
    found: dict[str, bool] = {}
    for link in skeleton.links:
        source = program.input_by_node.get(link.value.node)
        nodes = skeleton.units[link.head].nodes
        forward = nodes and program.nodes[nodes[0]].phase is Phase.FORWARD
        if source is not None and source.role.value == "parameter" and forward:
            found[source.name] = link.hideable
    return found


def test_a_weight_hides_behind_the_products_before_it() -> None:
    hides = weights_read_forward(mlp(3))
    assert list(hides.values()) == [False, True, True, True, True, True]


def test_a_gradient_hides_before_the_products_behind_it() -> None:
    program = mlp(3)
    gradients = [
        link
        for link in links(program)
        if program.nodes[link.value.node].phase is Phase.BACKWARD
        and program.nodes[link.value.node].outputs[0].shape
    ]
    to_update = {link.value.node: link.hideable for link in gradients if link.hideable}
    last = max(link.value.node for link in gradients)
    assert to_update
    assert last not in to_update


def test_an_embedding_hides_neither_way() -> None:
    program = transformer(num_layers=2, batch=8, length=8, width=16, vocabulary=16, slots=("m",))
    hides = weights_read_forward(program)
    assert not next(hidden for name, hidden in hides.items() if "embed" in name)
    assert any(hides.values())
