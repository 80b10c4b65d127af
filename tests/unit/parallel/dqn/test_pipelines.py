"""Programs as chains, and the pipelines that the policy makes of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InputError
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.dqn.cutting import POINTS
from weft.parallel.dqn.pieces import chain_of, line_of
from weft.parallel.dqn.pipelines import cut_pipelines
from weft.parallel.estimate import slowest_device
from weft.parallel.pinning import resolve
from weft.parallel.pins import parse_pin
from weft.parallel.pipeline.expert import forward_seconds
from weft.parallel.pipeline.kept import require_pipeline_kept
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.plan import StagedProgram
from weft.parallel.pipeline.stages import forward_nodes
from weft.parallel.pipeline.timing import pipeline_time
from weft.parallel.request import PlanRequest
from weft.program.builder import Builder
from weft.program.fold import fold
from weft.program.graph import Role
from weft.program.types import DType, TensorType

MACHINE = preset("dgx-h100x2")
DEVICE = slowest_device(MACHINE)
SIZES = {"batch": 64, "length": 32, "width": 64, "num_heads": 4, "vocabulary": 128, "slots": ("m",)}
LAYERS = transformer(num_layers=6, **SIZES)
BLOCKS = mlp(6, batch=12, width=512, hidden=lambda _: 2048, slots=("m",))
PART = in_micro_batches(LAYERS, 4)


def silent(text):
    """Nobody is told."""


def test_a_chain_holds_all_work_and_all_weights():
    chain, firsts = chain_of(PART, DEVICE, 4)
    nodes = forward_nodes(PART)
    assert chain.seconds.sum() == pytest.approx(12 * sum(forward_seconds(PART, nodes, DEVICE)))
    parameters = [i.node for i in PART.inputs if i.role is Role.PARAMETER]
    held = sum(PART.nodes[node].outputs[0].num_bytes for node in parameters)
    assert chain.weight_bytes.sum() == pytest.approx(held)
    assert len(firsts) == len(chain) <= POINTS
    assert list(firsts) == sorted(firsts)
    assert firsts[0] == nodes[0]


def test_what_crosses_between_layers_is_the_stream():
    chain, _ = chain_of(PART, DEVICE, 4)
    stream = 64 * 32 * 64 * 4  # rows, length and width, in four bytes
    assert np.min(chain.crossing_bytes) <= stream <= np.max(chain.crossing_bytes) * 1.5


def test_long_programs_are_thinned_out():
    long = in_micro_batches(transformer(num_layers=70, **SIZES), 4)
    chain, firsts = chain_of(long, DEVICE, 4)
    assert POINTS // 2 < len(chain) <= POINTS
    assert chain.seconds.max() < 0.1 * chain.seconds.sum()
    assert len(set(firsts)) == len(firsts)


def test_a_line_is_the_machine_node_by_node():
    line = line_of(MACHINE)
    assert (line.nodes, line.per_node, line.num_devices) == (2, 8, 16)
    assert line.inside_bytes_per_s > line.network_bytes_per_s


def test_pipelines_use_every_device_and_fit():
    found = cut_pipelines(PlanRequest(program=LAYERS, machine=MACHINE), None, silent, math.inf)
    assert found.plan is not None
    assert sum(found.plan.group_devices) == MACHINE.num_devices
    assert found.plan.prediction.peak_bytes <= found.plan.memory_limit_bytes
    for other in found.alternatives:
        assert other.step_s >= found.plan.prediction.step_s * (1 - 1e-9)


def test_pipelines_slower_than_what_is_known_are_not_the_answer():
    found = cut_pipelines(PlanRequest(program=LAYERS, machine=MACHINE), None, silent, 1e-9)
    assert found.plan is None
    assert found.alternatives


def test_pipelines_end_when_they_are_told_to():
    request = PlanRequest(program=LAYERS, machine=MACHINE)
    found = cut_pipelines(request, None, silent, math.inf, stop=lambda: True)
    assert found.plan is not None
    assert found.notes == ("pipelines were left out since the search was stopped",)


def test_what_fits_nowhere_says_how_much_it_needs():
    request = PlanRequest(program=LAYERS, machine=MACHINE, memory_limit_bytes=1000.0)
    found = cut_pipelines(request, None, silent, math.inf)
    assert found.plan is None
    assert "pipelines need" in found.tightest


def test_a_batch_that_does_not_divide_makes_no_pipelines():
    odd = transformer(num_layers=4, **{**SIZES, "batch": 5})
    found = cut_pipelines(PlanRequest(program=odd, machine=MACHINE), None, silent, math.inf)
    assert (found.plan, found.alternatives) == (None, ())


def test_a_program_that_cannot_be_cut_is_told_so():
    builder = Builder("one operator")
    x = builder.input("batch.x", Role.BATCH, TensorType(DType.F32, (8, 2)))
    program = builder.build(builder.add("sum", x, (0, 1)))
    with pytest.raises(InputError, match="a place to cut"):
        chain_of(program, DEVICE, 1)


def test_variables_are_cut_where_rows_do_not_divide_among_all_devices_of_a_stage():
    few = transformer(num_layers=6, **{**SIZES, "batch": 16})  # 4 rows for 8 devices of a stage
    found = cut_pipelines(PlanRequest(program=few, machine=MACHINE), None, silent, math.inf)
    assert found.plan is not None
    by_mesh = {plan.mesh.shape for plan in found.plan.plans}
    assert found.plan.group_devices == (8, 8)
    assert all(len(mesh) == 2 or mesh == (8,) for mesh in by_mesh)
    assert any(mesh[-1] > 1 for mesh in by_mesh)


def test_the_bubble_of_the_best_is_filled():
    found = cut_pipelines(PlanRequest(program=LAYERS, machine=MACHINE), None, silent, math.inf)
    assert found.plan is not None
    in_turn = pipeline_time(
        replace(found.plan, schedule="1f1b").orders, found.plan.prediction.stages
    )
    assert found.plan.prediction.pipeline_s <= in_turn.step_s * (1 + 1e-9)


def test_short_versions_make_the_same_pipelines():
    deep = transformer(num_layers=12, **SIZES)
    views = views_of(deep, fold(deep))
    assert views is not None
    request = PlanRequest(program=deep, machine=MACHINE)
    short, whole = (cut_pipelines(request, own, silent, math.inf) for own in (views, None))
    assert short.plan is not None
    assert short.plan == whole.plan


def test_pinned_stages_are_kept_though_other_cuts_are_shorter():
    pins = (parse_pin("layers.0=stage 0"), parse_pin("layers.5=stage 1"))
    request = PlanRequest(program=BLOCKS, machine=preset("dgx-h100x1"), pins=pins)
    free = cut_pipelines(replace(request, pins=()), None, silent, math.inf)
    kept = cut_pipelines(request, None, silent, math.inf)
    assert free.plan is not None and kept.plan is not None
    assert kept.plan.num_groups == 2 < free.plan.num_groups
    staged = StagedProgram(BLOCKS, kept.plan.micro_batches, kept.plan.cut)
    require_pipeline_kept(kept.plan.plans, staged, resolve(staged.part, pins))


def test_stages_that_no_pipeline_has_are_named():
    pins = (parse_pin("layers.0=stage 1"), parse_pin("layers.5=stage 0"))
    request = PlanRequest(program=BLOCKS, machine=preset("dgx-h100x1"), pins=pins)
    found = cut_pipelines(request, None, silent, math.inf)
    assert found.plan is None
    assert found.broken is not None and "layers.5=stage 0" in str(found.broken)
