"""Pieces of a stage: what each reads is there, and only tensors of their own go between them."""

from __future__ import annotations

import functools

import pytest

from benchmarks.job import program_of
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import StagedProgram
from weft.parallel.pipeline.segments import Part
from weft.parallel.prefetch import is_view, slots_read, slots_written
from weft.program.graph import Phase
from weft.runtime.pieces import cut_in_pieces


@functools.cache
def staged(recipe, **degrees):
    program = program_of(recipe, double=True)
    plan = pipeline_expert(program, preset("dgx-h100x1"), **degrees)
    whole = StagedProgram(program, plan.micro_batches, plan.cut)
    stages = zip(whole.stages, plan.plans, strict=True)
    return [(stage, whole.segments(stage.number, decided)) for stage, decided in stages]


CASES = {
    "a table at both ends": ("gpt.py:gpt_tiny", {"pp": 2, "micro_batches": 4}),
    "skips": ("unet.py:unet_tiny", {"pp": 2, "micro_batches": 4, "schedule": "zero-bubble"}),
    "one stage that cuts weights": (
        "llama3.py:llama_tiny",
        {"pp": 1, "dp": 2, "fsdp": True, "micro_batches": 2},
    ),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_what_a_piece_reads_was_given_summed_up_or_made_before(name, compiled):
    recipe, degrees = CASES[name]
    for stage, segments in staged(recipe, **degrees):
        there = {source.slot for source in segments.local.inputs}
        pieces = cut_in_pieces(segments, stage.sends, compiled=compiled)
        for part in Part:
            for key in (key for key in pieces if key[0] is part):
                assert there.issuperset(pieces[key].reads), key
                if part is not Part.SURVEY:
                    there.update(pieces[key].writes)
                    there.update(new for _, new in pieces[key].replaces)
            there.update(total for _, total in segments.sums[part])
        assert there.issuperset(slot for _, slot in segments.local.updates)
        assert segments.local.loss in there


@pytest.mark.parametrize("name", CASES)
def test_no_view_goes_from_piece_to_piece_where_views_are_made_anew(name):
    recipe, degrees = CASES[name]
    viewed = 0
    for stage, segments in staged(recipe, **degrees):
        instructions = segments.local.instructions
        views = {s for i in instructions if is_view(i) for s in slots_written(i)}
        pieces = cut_in_pieces(segments, stage.sends, compiled=True)
        assert all(views.isdisjoint(piece.reads) for piece in pieces.values())
        plain = cut_in_pieces(segments, stage.sends, compiled=False)
        viewed += sum(not views.isdisjoint(piece.reads) for piece in plain.values())
    assert viewed > 0


def test_what_is_sent_once_is_made_by_a_piece_of_its_own():
    found = []
    for stage, segments in staged("gpt.py:gpt_tiny", pp=2, micro_batches=4):
        pieces = cut_in_pieces(segments, stage.sends, compiled=False)
        for parcel in (parcel for parcel in stage.sends if parcel.once):
            part = Part.FINISH if parcel.phase is Phase.UPDATE else Part.SETUP
            own = {number for key, piece in pieces.items() if key[1] for number in piece.numbers}
            rest = pieces[part, ""].numbers
            assert own.isdisjoint(rest)
            for number in own:
                reads = slots_read(segments.local.instructions[number])
                made = {s for n in rest for s in slots_written(segments.local.instructions[n])}
                assert made.isdisjoint(reads)
            found.append(parcel)
    assert found


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_update_is_written_over_the_old_state(name):
    recipe, degrees = CASES[name]
    replaced = 0
    for stage, segments in staged(recipe, **degrees):
        own = {source.name: source.slot for source in segments.local.inputs}
        last = cut_in_pieces(segments, stage.sends, compiled=True)[Part.FINISH, ""]
        changed = {(own[n], slot) for n, slot in segments.local.updates if slot != own[n]}
        assert set(last.replaces) == changed
        assert not {new for _, new in last.replaces} & set(last.writes)
        plain = cut_in_pieces(segments, stage.sends, compiled=False)
        assert not any(piece.replaces for piece in plain.values())
        replaced += len(last.replaces)
    assert replaced > 30
