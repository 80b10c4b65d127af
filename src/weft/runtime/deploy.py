"""From a plan and a workload to this rank's `Step`.

Checks that plan, program and world belong together, on this rank and between ranks, puts this
rank's part of the initial state on its device, and builds the module that runs the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, overload

from torch import Tensor, fx

from weft.capture import Workload, capture
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import ParallelPlan
from weft.parallel.recompute import with_recompute
from weft.parallel.serialize import plan_digest
from weft.parallel.specialize import partial_meetings, specialized
from weft.parallel.validate import require_program, validate
from weft.program.graph import Program
from weft.runtime.ahead import Tell, silent
from weft.runtime.failure import patient_work
from weft.runtime.inductor import Compiler, compile_module, examples
from weft.runtime.lower import eager_module, in_place_module
from weft.runtime.own_state import StateSource, own_state, state_at_hand, state_of_workload
from weft.runtime.pipeline import PipelineStep, deploy_pipeline
from weft.runtime.place import Layout, Place
from weft.runtime.step import Advance, Deployment, Step
from weft.runtime.world import World, device_mesh, join, meet, place_in, require_agreement

__all__ = ["assemble", "deploy"]


@overload
def deploy(
    plan: ParallelPlan,
    workload: Workload,
    *,
    compile: Compiler | None = None,
    world: World | None = None,
    program: Program | None = None,
    tell: Tell = silent,
) -> Step: ...
@overload
def deploy(
    plan: PipelinePlan,
    workload: Workload,
    *,
    compile: Compiler | None = None,
    world: World | None = None,
    program: Program | None = None,
    tell: Tell = silent,
) -> PipelineStep: ...
def deploy(
    plan: ParallelPlan | PipelinePlan,
    workload: Workload,
    *,
    compile: Compiler | None = None,  # noqa: A002 - the word that torch uses for it
    world: World | None = None,
    program: Program | None = None,
    tell: Tell = silent,
) -> Step | PipelineStep:
    """This rank's share of a planned training step, with the workload's initial state.

    The rank makes one whole tensor of the state at a time and keeps its part. A model factory
    that reads values out of its tensors does not allow that: the state is then built whole, and
    `built_whole` of the step says why.

    Args:
        plan: made for the workload's program and as many devices as there are ranks.
        workload: what to train.
        compile: who compiles the step, if anybody, which takes minutes for a large model: "weft",
            which is Inductor with weft's kernels for memory-bound operators, or "inductor" alone.
            Of a pipeline each part of a stage is compiled by itself.
        world: the ranks; those that torchrun started if left out.
        program: the captured workload, if it is at hand; captured here if left out.
        tell: told on rank 0 what is being compiled.

    Raises:
        MismatchError: the plan was made for another program or another number of devices, or
            the ranks do not hold the same program and plan.
        VerifyError: the plan does not compute what the program does.
        RunError: the compiler failed on this rank, or another rank failed meanwhile.
    """
    if isinstance(plan, PipelinePlan):
        return deploy_pipeline(
            plan, workload, compile=compile, world=world, program=program, tell=tell
        )
    world = join() if world is None else world
    captured = capture(workload) if program is None else program
    require_program(plan, captured)
    source = state_of_workload(workload)
    return _assembled(
        plan, captured, source, seed=workload.seed, compile=compile, world=world, tell=tell
    )


def assemble(
    plan: ParallelPlan,
    program: Program,
    state: Mapping[str, Tensor],
    *,
    seed: int,
    compile: Compiler | None = None,  # noqa: A002 - the word that torch uses for it
    world: World,
) -> Step:
    """`deploy` for a program and a whole state that are at hand.

    Args:
        plan: made for the program.
        program: as captured.
        state: whole parameters, buffers and optimizer state by input name, in the model's own
            shapes, equal on all ranks.
        seed: what the seeds of the steps are made from.
        compile: who compiles the step, if anybody.
        world: the ranks.

    Raises:
        MismatchError: as `deploy`, or the state is not the program's.
        VerifyError: the plan does not compute what the program does.
    """
    source = state_at_hand(state)
    return _assembled(plan, program, source, seed=seed, compile=compile, world=world, tell=silent)


def _assembled(
    plan: ParallelPlan,
    program: Program,
    source: StateSource,
    *,
    seed: int,
    compile: Compiler | None,  # noqa: A002 - the word that torch uses for it
    world: World,
    tell: Tell,
) -> Step:
    every = validate(plan, program)
    local = specialized(every, plan.mesh.coordinate(world.rank))
    deployment = Deployment(
        program=with_recompute(program, plan.recompute),
        plan=plan,
        local=local,
        inputs=every.inputs,
        program_digest=program.digest,
        plan_digest=plan_digest(plan),
        seed=seed,
    )
    devices = device_mesh(world, plan.mesh)
    require_agreement(world, "program", deployment.program_digest)
    require_agreement(world, "plan", deployment.plan_digest)
    meetings = meet(world, plan.mesh, partial_meetings(every))
    place = place_in(world, plan.mesh, devices, homes=every.homes, meetings=meetings)
    layouts = {
        i.name: Layout(i.sharding, place.at(i.home))
        for i in local.inputs
        if deployment.program.input_by_name[i.name].role.is_persistent
    }
    state, built_whole = own_state(source, deployment.program, layouts)
    return Step(
        deployment=deployment,
        world=world,
        place=place,
        devices=devices,
        advance=_eager(deployment, place)
        if compile is None
        else _compiled(deployment, place, world, compile, tell),
        in_place=compile is not None,
        state=state,
        built_whole=built_whole,
    )


def _eager(deployment: Deployment, place: Place) -> Advance:
    return cast("Advance", eager_module(deployment.local, deployment.program, place))


def _compiled(
    deployment: Deployment, place: Place, world: World, compiler: Compiler, tell: Tell
) -> Advance:
    """The compiled step; the ranks wait for each other once it is compiled."""
    local = deployment.local

    def build() -> fx.GraphModule:
        return in_place_module(local, deployment.program, place)

    said = tell if world.is_first else silent
    with patient_work(world, "compile", said):
        said(f"compiling the step ({len(local.instructions)} instructions)")
        types = [local.slots[source.slot] for source in local.inputs]
        compiled = compile_module(build, examples(types, place.device), compiler)

    def advance(inputs: list[Tensor | None]) -> tuple[Tensor, ...]:
        return tuple(compiled(*inputs))

    return advance
