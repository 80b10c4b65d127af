"""When what moves to another home leaves."""

from __future__ import annotations

from tests.homed import uneven_plan
from tests.programs import mlp
from weft.parallel.local import CollectiveKind, Run
from weft.parallel.validate import validate
from weft.parallel.weights import weight_values
from weft.program.graph import Value

LAYOUTS = ((1, 1, 0, 0), (0, 0, 1, 1))


def test_what_moves_to_another_home_leaves_as_soon_as_it_is_made() -> None:
    program = mlp(num_layers=3, batch=8, width=16)
    local = validate(uneven_plan(program, layouts=LAYOUTS, seed=1), program)
    weights = weight_values(program)
    makers = [i for i in local.instructions if isinstance(i, Run)]
    made = {slot: n for n, i in enumerate(makers) for slot in i.outputs}
    seen = waited = 0
    runs = 0
    for instruction in local.instructions:
        if isinstance(instruction, Run):
            runs += 1
        elif instruction.kind is CollectiveKind.MOVE and instruction.source in made:
            own = makers[made[instruction.source]]
            if own.phase is instruction.phase and Value(instruction.node) not in weights:
                seen += 1
                waited += runs - 1 - made[instruction.source]
    assert seen > 0
    assert waited == 0
