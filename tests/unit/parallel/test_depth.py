"""Short versions of deep programs predict the whole ones."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.programs import mlp, transformer
from tests.unit.capture.models import decoder
from weft.capture import capture
from weft.machine.presets import preset
from weft.parallel.degrees import Degrees
from weft.parallel.depth import shorten, views_of
from weft.parallel.experts import expert_candidate
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.program.fold import fold
from weft.program.graph import Program
from weft.program.verify import verify

MACHINE = preset("dgx-h100x1")


@pytest.fixture(scope="module")
def deep() -> Program:
    return transformer(
        num_layers=12, batch=8, length=256, width=512, num_heads=8, vocabulary=1024, slots=("m",)
    )


def test_a_short_version_is_a_legal_program_with_fewer_layers(deep: Program) -> None:
    short = shorten(deep, fold(deep), 3)
    assert short is not None
    verify(short.program)
    assert short.dropped == 7
    stacks = {n.scope.split(".")[1] for n in short.program.nodes if n.scope.startswith("layers.")}
    assert stacks == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize(
    "degrees",
    [Degrees(dp=8), Degrees(dp=8, zero=3), Degrees(dp=2, tp=4, sp=True)],
)
def test_the_whole_follows_from_two_short_ones(deep: Program, degrees: Degrees) -> None:
    views = views_of(deep, fold(deep))
    assert views is not None

    def simulated(program: Program) -> object:
        candidate = expert_candidate(program, MACHINE, degrees, memory_limit_bytes=1e12)
        return candidate.plan.prediction

    predicted = views.predict(lambda view: simulated(view.program))
    whole = simulated(deep)
    for field in fields(whole):
        # Stored bytes grow evenly with depth, times but for where messages of small tensors are
        # closed; a peak is the larger of several ends.
        rel = 0.1 if field.name == "peak_bytes" else 0.05
        # What is exposed is the small difference of two times.
        apart = 0.1 * whole.step_s if field.name == "exposed_s" else 0.0
        expected = pytest.approx(getattr(whole, field.name), rel=rel, abs=apart)
        assert getattr(predicted, field.name) == expected


def test_shallow_or_mixed_programs_have_no_short_version() -> None:
    assert views_of(mlp(num_layers=3), fold(mlp(num_layers=3))) is None
    mixed = mlp(num_layers=12, hidden=lambda layer: 16 + 16 * (layer % 2))
    assert views_of(mixed, fold(mixed)) is None


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_short_version_grows_back_into_the_whole_program(rate: float, count: int) -> None:
    whole = capture(decoder(10, dropout=rate))
    short = shorten(whole, fold(whole), 2)
    assert short is not None
    parts = [in_micro_batches(p, count) if count else p for p in (short.program, whole)]
    grown = short.lengthened(parts[0])
    assert grown is not None
    assert grown.program == parts[1]
