"""Groups of a pipeline on blocks of ranks in any order: as data, in files, in words, in prices."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import mlp
from tests.uneven import device, link, machine
from weft.core.digest import digest
from weft.core.errors import FileError, InputError
from weft.machine.presets import preset
from weft.parallel.explaining import explain
from weft.parallel.pipeline.estimate import estimate_pipeline
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.serialize import (
    pipeline_digest,
    pipeline_from_json,
    pipeline_to_json,
)
from weft.parallel.pipeline.standing import ranks_of_groups
from weft.report.pipeline_summary import pipeline_plain, stage_table

THREE = machine(
    (device("slow", 1.0, 4e6), 1), (device("fast", 3.0, 8e6), 2), (device("late", 2.0, 6e6), 1)
)
"""Three nodes of unlike devices, of which the middle one has two."""
REMOTE = replace(THREE, groups=(*THREE.groups[:2], replace(THREE.groups[2], network=link(1e-3))))
"""The same with a slow way to the last one."""


@cache
def program():
    return mlp(12, batch=16, width=16, hidden=lambda _: 64, slots=("m",))


@cache
def plan(standing: tuple[int, ...] = (), *, remote: bool = False) -> PipelinePlan:
    """A pipeline with a stage on each node."""
    where = REMOTE if remote else THREE
    sizes = [where.groups[block].num_devices for block in standing or (0, 1, 2)]
    by_group = [{"dp": size} for size in sizes]
    return pipeline_expert(
        program(),
        where,
        pp=3,
        micro_batches=4,
        by_group=by_group,
        standing=standing,
    )


@given(st.data())
def test_blocks_cut_the_ranks_without_a_gap_in_the_order_of_the_standing(data) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    standing = data.draw(st.permutations(range(len(sizes))))
    ranks = ranks_of_groups(sizes, standing)
    assert [len(own) for own in ranks] == sizes
    by_rank = sorted(range(len(sizes)), key=lambda group: ranks[group].start)
    assert [standing[group] for group in by_rank] == list(range(len(sizes)))
    assert [rank for group in by_rank for rank in ranks[group]] == list(range(sum(sizes)))


@given(st.permutations(range(3)))
def test_each_rank_is_of_the_group_that_has_it(standing) -> None:
    found = plan(tuple(standing))
    for group in range(3):
        assert all(found.group_of(rank) == group for rank in found.ranks_of(group))
        ranks = {0: [0], 1: [1, 2], 2: [3]}[standing[group]]
        assert [*found.ranks_of(group)] == ranks


def test_in_the_order_of_ranks_nothing_is_said_of_it_in_files_and_digests() -> None:
    said = replace(plan(), standing=(0, 1, 2))
    assert said == plan()
    assert pipeline_to_json(said) == pipeline_to_json(plan())
    assert "standing" not in pipeline_to_json(plan())
    assert '"weft_pipeline_plan":2' in pipeline_to_json(plan())
    assert pipeline_digest(said) == pipeline_digest(plan())


def test_another_order_survives_its_file_and_has_a_digest_of_its_own() -> None:
    found = pipeline_from_json(pipeline_to_json(plan((2, 0, 1))))
    assert found == plan((2, 0, 1))
    assert found.standing == (2, 0, 1)
    # Readers that know of no other order would not notice, so the format is another one.
    assert '"weft_pipeline_plan":3' in pipeline_to_json(found)
    stages_as_they_are = replace(found, standing=(1, 0, 2))
    assert pipeline_digest(found) == pipeline_digest(plan((2, 0, 1)))
    assert pipeline_digest(found) != pipeline_digest(stages_as_they_are)


@pytest.mark.parametrize("standing", [(0, 1), (0, 1, 1), (1, 2, 3), (0, 1, 2, 3), (-1, 0, 1)])
def test_what_is_no_permutation_is_refused_by_name(standing) -> None:
    text = ", ".join(map(str, standing))
    with pytest.raises(InputError, match=f"each block of ranks from 0 to 2 once.*\n.*{text}"):
        replace(plan(), standing=standing)
    with pytest.raises(InputError, match="each block of ranks"):
        pipeline_expert(program(), THREE, pp=3, micro_batches=4, standing=standing)


@pytest.mark.parametrize("standing", [[2, 0, 0], [2, 0], [2, 0, True], [2.0, 0, 1], {}, 7])
def test_a_file_with_another_standing_than_one_is_refused(standing) -> None:
    outer = json.loads(pipeline_to_json(plan((2, 0, 1))))
    outer["plan"]["standing"] = standing
    outer["checksum"] = digest(outer["plan"])
    with pytest.raises(FileError):
        pipeline_from_json(json.dumps(outer))


def test_a_group_has_the_speed_and_the_memory_of_where_it_stands() -> None:
    in_order, turned = plan(), plan((1, 2, 0))
    # The stage of two fast devices has most layers, wherever in the pipeline it is.
    assert layers(in_order).index(max(layers(in_order))) == 1
    assert layers(turned).index(max(layers(turned))) == 0
    assert in_order.limits_bytes == (4e6, 8e6, 6e6)
    assert turned.limits_bytes == (8e6, 6e6, 4e6)
    # The same stages elsewhere: what was on the slow device is on a fast one.
    moved = replace(even(), standing=(2, 1, 0))
    before, after = (estimate_pipeline(own, staged(own), EVEN) for own in (even(), moved))
    assert after.stages[0].forward_s < before.stages[0].forward_s
    assert after.stages[1].forward_s == before.stages[1].forward_s
    assert after.stages[2].forward_s > before.stages[2].forward_s


def test_what_stages_send_takes_the_links_between_where_they_stand() -> None:
    near, far = plan((0, 1, 2), remote=True), plan((0, 2, 1), remote=True)
    assert near.prediction.stages[0].send_forward_s < near.prediction.stages[1].send_forward_s
    # With the remote node in the middle both neighbours send over its way.
    sending = [stage.send_forward_s for stage in far.prediction.stages[:2]]
    assert min(sending) > 100 * near.prediction.stages[0].send_forward_s


def test_the_group_with_least_room_says_whether_a_plan_fits() -> None:
    roomy = plan()
    assert roomy.fits
    peaks = roomy.prediction.group_peak_bytes
    tight = replace(roomy, group_limits_bytes=(peaks[0] * 1.01, peaks[1] * 0.99, 8e6))
    assert not tight.fits
    assert tight.tightest_group == 1
    assert tight.tightest_bytes == (peaks[1], peaks[1] * 0.99)
    assert pipeline_plain(tight)["fits"] is False
    with pytest.raises(InputError, match="3 groups, 2 limits"):
        replace(roomy, group_limits_bytes=(1.0, 2.0))


def test_it_is_said_where_groups_stand() -> None:
    turned = plan((1, 2, 0))
    rows = explain(turned, program(), THREE).splitlines()
    said = [row.removeprefix("  groups").strip() for row in rows]
    assert [row for row in said if "rank" in row] == [
        "0: ranks 1 to 2, fast",
        "1: rank 3, late",
        "2: rank 0, slow; the order of groups is not that of ranks",
    ]
    assert [row[2] for row in stage_table(turned).rows] == ["ranks 1 to 2", "rank 3", "rank 0"]
    assert pipeline_plain(turned)["standing"] == [1, 2, 0]
    assert any("least room in group" in row for row in rows)
    assert "not that of ranks" not in explain(plan(), program(), THREE)
    uniform = pipeline_expert(program(), preset("dgx-h100x1"), pp=2, micro_batches=4)
    assert "rank 0" not in explain(uniform, program(), preset("dgx-h100x1"))


EVEN = machine((device("slow", 1.0), 1), (device("mean", 2.0), 1), (device("fast", 4.0), 1))


@cache
def even() -> PipelinePlan:
    return pipeline_expert(program(), EVEN, pp=3, micro_batches=4)


def staged(own: PipelinePlan) -> StagedProgram:
    return StagedProgram(program(), own.micro_batches, own.cut)


def layers(own: PipelinePlan) -> list[int]:
    """Layers of each stage."""
    return [
        len({node.scope for node in stage.program.nodes if "layers" in node.scope})
        for stage in staged(own).stages
    ]
