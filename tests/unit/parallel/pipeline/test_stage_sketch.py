"""Where a sketch would cut stages: what crosses counts, and so does the longest stage."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.programs import mlp
from weft.machine.presets import preset
from weft.parallel.degrees import Degrees
from weft.parallel.pins import Pin
from weft.parallel.pipeline.stage_sketch import StageSketch
from weft.parallel.pipeline.staged import Shape, Staged
from weft.parallel.request import PlanRequest
from weft.program.annotation import Wish

NODE = preset("dgx-h100x1")
SHAPE, INSIDE = Shape((1, 1), (0, 1), 4), (Degrees(dp=1),) * 2
PROGRAM = mlp(2, batch=4096, width=512, hidden=lambda _: 2048, slots=("m",))


def sketch_with(bytes_per_s: float, *pins: Pin) -> StageSketch:
    """Of two devices so far apart."""
    network = replace(
        NODE.network, bytes_per_s=replace(NODE.network.bytes_per_s, value=bytes_per_s)
    )
    groups = (replace(NODE.groups[0], devices_per_node=1, num_nodes=2),)
    machine = replace(NODE, name="two", network=network, groups=groups)
    return StageSketch(PlanRequest(program=PROGRAM, machine=machine, pins=pins), None)


def step_s(sketch: StageSketch, *cuts: int) -> float:
    staged = Staged(shape=SHAPE, inside=INSIDE, schedule="1f1b", chunks=1, cuts=cuts)
    return sketch.staging(staged).step_s


def num_pieces(sketch: StageSketch) -> int:
    rows = sketch.rows(SHAPE.micro_batches)
    assert rows is not None
    return len(rows.pieces.order)


def test_a_wide_value_is_not_cut_through_if_the_network_is_slow() -> None:
    sketch = sketch_with(5e9)
    even, sparing = sketch.cuts(SHAPE, INSIDE, 1)
    every = [step_s(sketch, cut) for cut in range(1, num_pieces(sketch))]
    assert step_s(sketch, *sparing) == min(every) < 0.9 * step_s(sketch, *even)


def test_even_stages_are_all_that_is_tried_if_nothing_crosses_slowly() -> None:
    sketch = sketch_with(1e15)
    (even,) = sketch.cuts(SHAPE, INSIDE, 1)
    assert step_s(sketch, *even) == min(step_s(sketch, cut) for cut in range(1, num_pieces(sketch)))


@pytest.mark.parametrize("stage", [0, 1])
def test_cuts_keep_pinned_stages(stage: int) -> None:
    sketch = sketch_with(5e9, Pin("layers.1", Wish(stage=stage)))
    found = sketch.cuts(SHAPE, INSIDE, 1)
    assert found
    assert all(sketch.keeps_stages(SHAPE.micro_batches, cuts) for cuts in found)
    assert set(found) != set(sketch_with(5e9).cuts(SHAPE, INSIDE, 1))
    assert sketch.broken is None


def test_what_forbids_pins_is_said_of_the_most_stages() -> None:
    sketch = sketch_with(5e9, Pin("layers.1", Wish(stage=0)), Pin("layers.0", Wish(stage=1)))
    assert sketch.cuts(SHAPE, INSIDE, 1) == ()
    assert not sketch.may_be_pinned(SHAPE.micro_batches, 1)
    assert "layers.0" in str(sketch.broken)
