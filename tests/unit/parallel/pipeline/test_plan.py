"""Plans of pipelines: written by hand, as files, and what they are predicted to cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import mlp, transformer
from weft.core.errors import FileError, InputError, MismatchError
from weft.machine.presets import preset
from weft.parallel.explaining import explain
from weft.parallel.pipeline.expert import even_cuts, even_runs, pipeline_expert
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.serialize import (
    pipeline_digest,
    pipeline_from_json,
    pipeline_to_json,
)
from weft.parallel.plan_files import load_plan, save_plan

MACHINE = preset("dgx-h100x1")
DEVICE = MACHINE.groups[0].device


@cache
def program():
    return mlp(8, batch=65_536, width=1024, hidden=lambda _: 4096, slots=("m",))


@cache
def plan(
    schedule: str = "1f1b", pp: int = 4, micro_batches: int = 8, **degrees: int
) -> PipelinePlan:
    return pipeline_expert(
        program(), MACHINE, pp=pp, micro_batches=micro_batches, schedule=schedule, **degrees
    )


def test_equal_layers_are_cut_between_layers_into_equal_stages() -> None:
    part = in_micro_batches(program(), 8)
    cuts = even_cuts(part, DEVICE, [1.0] * 4)
    firsts = [node for node, _ in cuts.runs[1:]]
    scopes = [part.nodes[node].scope for node in firsts]
    assert scopes == ["layers.2", "layers.4", "layers.6"]
    for node in firsts:
        assert part.nodes[node - 1].scope != part.nodes[node].scope


def test_stages_that_are_alike_are_known_as_such() -> None:
    staged = StagedProgram(program(), 8, plan().cut)
    assert staged.alike[1] == staged.alike[2] == 1
    assert staged.alike[0] == 0
    assert staged.alike[3] == 3


def test_the_bubble_is_near_the_textbook_and_shrinks_with_more_micro_batches() -> None:
    few, many = plan(micro_batches=8).prediction, plan(micro_batches=32).prediction
    assert few.bubble == pytest.approx(3 / 11, abs=0.05)
    assert many.bubble < few.bubble


def test_zero_bubble_waits_less_and_keeps_no_more_micro_batches() -> None:
    plain, split = plan().prediction, plan("zero-bubble").prediction
    assert split.bubble < plain.bubble
    assert split.pipeline_s < plain.pipeline_s


def test_earlier_groups_of_1f1b_keep_more() -> None:
    peaks = plan().prediction.group_peak_bytes
    assert len(peaks) == 4
    assert peaks[1] > peaks[2]


def test_a_plan_survives_its_file(tmp_path) -> None:
    path = tmp_path / "plan.json"
    save_plan(plan(dp=2), path)
    found = load_plan(path)
    assert found == plan(dp=2)
    assert isinstance(found, PipelinePlan)
    assert pipeline_digest(found) == pipeline_digest(plan(dp=2))
    assert pipeline_digest(found) != pipeline_digest(plan())


def test_a_plan_of_unequal_groups_survives_its_file(tmp_path) -> None:
    uneven = pipeline_expert(
        program(), MACHINE, pp=2, micro_batches=8, by_group=[{}, {"dp": 2, "tp": 2}]
    )
    path = tmp_path / "plan.json"
    save_plan(uneven, path)
    assert load_plan(path) == uneven
    assert "groups of one device and of 4 devices as 2x2" in explain(uneven, program(), MACHINE)


def test_stages_of_a_group_have_equally_many_devices() -> None:
    interleaved = plan("interleaved", 2, 8, chunks=2, dp=2)
    other = plan("interleaved", 2, 8, chunks=2)
    mixed = (*interleaved.plans[:3], other.plans[3])
    with pytest.raises(InputError, match="in group 1"):
        replace(interleaved, plans=mixed)


def test_degrees_are_given_for_every_group() -> None:
    with pytest.raises(InputError, match="each of 2 groups"):
        pipeline_expert(program(), MACHINE, pp=2, micro_batches=8, by_group=[{}, {}, {}])


@given(
    st.lists(st.integers(1, 9), min_size=4, max_size=8),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
def test_runs_are_shortest_for_their_shares(pieces: list[int], shares: list[int]) -> None:
    def longest(cuts: Sequence[int]) -> float:
        bounds = pairwise([0, *cuts, len(pieces)])
        return max(sum(pieces[i:j]) / s for (i, j), s in zip(bounds, shares, strict=True))

    found = even_runs([float(piece) for piece in pieces], [float(share) for share in shares])
    every = combinations(range(1, len(pieces)), len(shares) - 1)
    assert longest(found) == pytest.approx(min(map(longest, every)))


def changed(change: Callable[[dict], object]) -> str:
    """A file with another content and a checksum that fits."""
    from weft.core.digest import digest

    outer = json.loads(pipeline_to_json(plan()))
    change(outer["plan"])
    outer["checksum"] = digest(outer["plan"])
    return json.dumps(outer)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("schedule"),
        lambda raw: raw.update(schedule="none"),
        lambda raw: raw.update(micro_batches="many"),
        lambda raw: raw.update(num_groups=3),
        lambda raw: raw.update(cut=[[0, 0], [3, 1], [2, 2], [7, 3]]),
        lambda raw: raw.update(cut=[[0, 0], [3, 1], [9, 3]]),
        lambda raw: raw.update(cut=[[0, 0], [3, 1.0]]),
        lambda raw: raw["plans"].pop(),
        lambda raw: raw["plans"][0].update(mesh=[0]),
        lambda raw: raw["prediction"].pop("stages"),
        lambda raw: raw["prediction"]["stages"][0].pop("forward_s"),
    ],
)
def test_a_file_that_was_edited_is_refused(change) -> None:
    with pytest.raises(FileError):
        pipeline_from_json(changed(change))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"weft_pipeline_plan":2}', "null"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(FileError):
        pipeline_from_json(text)


def test_a_newer_format_is_refused() -> None:
    text = pipeline_to_json(plan()).replace('"weft_pipeline_plan":2', '"weft_pipeline_plan":4', 1)
    with pytest.raises(FileError, match=r"format 2 or 3\n.*format 4"):
        pipeline_from_json(text)


def test_cuts_and_plans_have_to_match() -> None:
    with pytest.raises(InputError, match="3 plans"):
        replace(plan(), plans=plan().plans[:3])


@pytest.mark.parametrize(
    "degrees",
    [
        {"pp": 16, "micro_batches": 2},
        {"pp": 2, "micro_batches": 3},
        {"pp": 2, "micro_batches": 4, "tp": 7},
        {"pp": 2, "micro_batches": 4, "recompute": "some"},
    ],
)
def test_degrees_that_do_not_go_together_are_refused(degrees) -> None:
    with pytest.raises(InputError):
        pipeline_expert(program(), MACHINE, **degrees)


def test_a_micro_batch_of_one_row_is_possible() -> None:
    rows = transformer(num_layers=2, batch=8, length=8, width=16, vocabulary=16, slots=("m",))
    found = pipeline_expert(rows, MACHINE, pp=2, micro_batches=8)
    assert found.prediction.step_s > 0


def test_a_pipeline_is_explained_in_words_and_figures() -> None:
    text = explain(plan(dp=2), program(), MACHINE)
    first, *rest = text.splitlines()
    assert "a step, peak" in first
    assert any("4 stages on 4 groups of 2 devices as 2, 8 micro-batches, 1f1b" in r for r in rest)
    assert any("layers.2" in row and "a micro-batch" in row for row in rest)
    assert any("axis 0 of 2: batch 100 %" in row for row in rest)
    with pytest.raises(MismatchError):
        explain(plan(dp=2), mlp(2), MACHINE)
