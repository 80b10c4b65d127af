"""What belongs together is deployed, and nothing else."""

import dataclasses

import pytest
import torch

from tests.unit.runtime import workload
from weft.capture import initial_state
from weft.core.errors import MismatchError, VerifyError
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.parallel.placement import Mesh
from weft.runtime.deploy import assemble, deploy
from weft.runtime.world import alone


def test_a_plan_for_another_program_is_refused_and_both_digests_are_named():
    other = dataclasses.replace(workload.plan(), program_digest="feedfacefeedface")
    with pytest.raises(MismatchError) as caught:
        deploy(other, workload.tiny(), world=alone(), program=workload.program())
    assert "feedfacefeedface" in caught.value.need
    assert workload.program().digest in caught.value.got


def test_a_plan_that_claims_a_whole_loss_without_the_reduction_is_refused():
    program = workload.program()
    plan = expert_plan(program, preset("dgx-h100x8"), dp=2)
    assert plan.strategies[program.loss.node].outputs == ((-2,),)
    strategies = tuple(
        dataclasses.replace(s, outputs=((-1,),)) if node == program.loss.node else s
        for node, s in enumerate(plan.strategies)
    )
    copies = tuple(c for c in plan.copies if c.value != program.loss)
    edited = dataclasses.replace(plan, strategies=strategies, copies=copies)
    with pytest.raises(VerifyError, match=f"%{program.loss.node} "):
        deploy(edited, workload.tiny(), world=alone(), program=program)


def test_a_plan_for_more_ranks_than_there_are_is_refused():
    wide = dataclasses.replace(workload.plan(), mesh=Mesh((2,)))
    with pytest.raises(MismatchError, match="2 ranks for the plan's mesh 2") as caught:
        deploy(wide, workload.tiny(), world=alone(), program=workload.program())
    assert caught.value.got == "1 ranks"


def test_a_state_of_another_model_is_refused_by_name():
    state = initial_state(workload.tiny())
    without = {name: tensor for name, tensor in state.items() if name != "2.bias"}
    for wrong in ({**state, "2.bias": torch.zeros(3)}, without):
        with pytest.raises(MismatchError, match=r"2\.bias of type f32\[2\]"):
            assemble(workload.plan(), workload.program(), wrong, seed=0, world=alone())


def test_deploying_leaves_the_given_state_alone():
    state = initial_state(workload.tiny())
    kept = {name: tensor.clone() for name, tensor in state.items()}
    step = assemble(workload.plan(), workload.program(), state, seed=3, world=alone())
    step(workload.tiny().batch(0))
    assert all(torch.equal(state[name], kept[name]) for name in kept)


@pytest.mark.slow
# Inductor's own imports use a part of torch that torch has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_compiled_step_gives_the_losses_of_the_eager_one():
    tiny = workload.tiny()
    eager = workload.step()
    compiled = deploy(
        workload.plan(), tiny, compile=True, world=alone(), program=workload.program()
    )
    for number in range(3):
        batch = tiny.batch(number)
        torch.testing.assert_close(compiled(batch), eager(batch), rtol=1e-5, atol=0)
    pairs = zip(compiled.full_state().items(), eager.full_state().values(), strict=True)
    for (name, found), expected in pairs:
        torch.testing.assert_close(found, expected, msg=name)
