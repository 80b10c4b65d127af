"""A fused projection is planned as well as the three that it fuses."""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache

import pytest

from benchmarks.equality.machine import slow_machine
from benchmarks.job import ROOT, program_of
from weft.capture import capture
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.planning import plan
from weft.parallel.validate import validate
from weft.program.graph import Phase

NODE = preset("dgx-h100x1")
TINY = {"fused": "gpt_fused.py:gpt_fused_tiny", "unfused": "gpt.py:gpt_tiny"}


def moved(program, decided):
    """Collectives of forward and backward that communicate, by kind and bytes of their result."""
    local = validate(decided, program)
    return Counter(
        (step.kind, str(local.slots[step.target]))
        for step in local.instructions
        if isinstance(step, Collective)
        and step.phase is not Phase.UPDATE
        and step.kind is not CollectiveKind.SLICE
    )


@pytest.mark.parametrize("degrees", [{"tp": 2}, {"tp": 4}, {"tp": 2, "sp": True}])
def test_tensor_parallelism_communicates_what_it_does_without_fusion(degrees):
    fused, unfused = (program_of(TINY[kind]) for kind in ("fused", "unfused"))
    ours, theirs = (expert_plan(p, NODE, **degrees) for p in (fused, unfused))
    assert moved(fused, ours) == moved(unfused, theirs)


def test_the_fused_weight_is_cut_and_never_gathered():
    program = program_of(TINY["fused"])
    decided = expert_plan(program, NODE, tp=2)
    local = validate(decided, program)
    shardings = {i.name: i.sharding for i in local.inputs}
    for slot in ("", "optimizer.exp_avg.", "optimizer.exp_avg_sq."):
        assert shardings[f"{slot}layers.0.attention.qkv.weight"] == (1,)
    gathered = {
        program.nodes[step.node].scope
        for step in local.instructions
        if isinstance(step, Collective) and step.kind is CollectiveKind.ALL_GATHER
        if step.phase is not Phase.UPDATE
    }
    assert not any("qkv" in scope or "attention" in scope for scope in gathered)


def test_small_models_cost_no_more_than_without_fusion():
    for machine in (NODE, slow_machine(2)):
        ours, theirs = (plan(program_of(TINY[kind]), machine) for kind in ("fused", "unfused"))
        assert ours.prediction.step_s <= 1.02 * theirs.prediction.step_s


@cache
def wide(kind):
    """Two layers of width 4096: products take nearly all of the time, and launches none."""
    sys.path.insert(0, str(ROOT / "recipes"))
    try:
        from gpt import Config, gpt
        from gpt_fused import gpt_fused
    finally:
        sys.path.remove(str(ROOT / "recipes"))
    config = Config(num_layers=2, width=4096, num_heads=32, sequence=2048)
    return capture({"fused": gpt_fused, "unfused": gpt}[kind]("wide", config, batch=8, lr=1e-3))


@pytest.mark.parametrize(
    "planned",
    [lambda p: expert_plan(p, NODE, tp=2), lambda p: plan(p, NODE)],
    ids=["expert", "search"],
)
def test_a_wide_model_costs_the_same_within_2_percent(planned):
    ours, theirs = (planned(wide(kind)).prediction for kind in ("fused", "unfused"))
    assert ours.step_s == pytest.approx(theirs.step_s, rel=0.02)
