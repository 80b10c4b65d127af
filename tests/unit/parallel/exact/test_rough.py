"""Rough costs are of a short program only where a micro-batch of it has layers that are alike."""

from __future__ import annotations

from benchmarks.fusion_models import bert
from tests.programs import mlp
from weft.capture import capture
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.exact.pipelines.rough import Rough
from weft.parallel.pipeline import in_pieces
from weft.parallel.request import PlanRequest
from weft.program.fold import Folding, fold

MACHINE = preset("dgx-h100x2")


def rows(program, batch: int, count: int):
    view = views_of(program, fold(program)).short
    assert view.gaps
    return Rough(PlanRequest(program=program, machine=MACHINE), view, batch, 0.0).rows_of(count)


def test_layers_that_draw_random_numbers_are_alike_in_a_micro_batch() -> None:
    config = bert.Config(num_layers=12, width=64, num_heads=2, sequence=16, vocabulary=64)
    assert config.dropout > 0
    found = rows(capture(bert.bert(config, batch=32)), 32, 8)
    assert found.view.gaps
    assert len(found.pieces.order) > len(found.pieces.lengths) > 1


def test_layers_that_differ_within_a_micro_batch_are_not_left_out(monkeypatch) -> None:
    apart = Folding(representative=(), multiplicity=(), layers=())
    monkeypatch.setattr(in_pieces, "fold", lambda *_: apart)
    found = rows(mlp(16, batch=64, width=32), 64, 8)
    assert not found.view.gaps


def test_layers_that_are_alike_are_left_out() -> None:
    found = rows(mlp(16, batch=64, width=32), 64, 8)
    assert found.view.gaps
    assert len(found.pieces.order) > 1
