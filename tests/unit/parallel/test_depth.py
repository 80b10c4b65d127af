"""Short versions of deep programs predict the whole ones."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs import mlp, transformer
from tests.unit.capture.models import decoder
from weft.capture import AdamW, Workload, capture
from weft.machine.presets import preset
from weft.parallel.degrees import Degrees
from weft.parallel.depth import shorten, views_of
from weft.parallel.experts import expert_candidate
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.plan import Prediction
from weft.program.fold import fold
from weft.program.graph import Program
from weft.program.verify import verify

MACHINE = preset("dgx-h100x1")


class Layer(nn.Module):
    """A product with dropout, added to the stream; of the second stack, beside what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, y: Tensor, x: Tensor | None = None) -> Tensor:
        read = y if x is None else y * x
        return y + F.dropout(self.linear(read).relu(), 0.1)


class Translator(nn.Module):
    """Two stacks; every layer of the second reads what the first one made."""

    def __init__(self, above: int, below: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(Layer() for _ in range(below))
        self.decoder = nn.ModuleList(Layer() for _ in range(above))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.encoder:
            x = layer(x)
        y = x
        for layer in self.decoder:
            y = layer(y, x)
        return y


def translator(*, above: int = 12, below: int = 12) -> Program:
    return capture(
        Workload(
            name="translator",
            model=lambda: Translator(above, below),
            loss=lambda model, batch: model(batch["x"]).square().mean(),
            batch=lambda step: {"x": torch.ones(16, 8)},
            optimizer=AdamW(lr=1e-3),
        )
    )


@pytest.fixture(scope="module")
def deep() -> Program:
    return transformer(
        num_layers=12, batch=8, length=256, width=512, num_heads=8, vocabulary=1024, slots=("m",)
    )


def test_a_short_version_is_a_legal_program_with_fewer_layers(deep: Program) -> None:
    short = shorten(deep, fold(deep), 3)
    assert short is not None
    verify(short.program)
    assert [gap.dropped for gap in short.gaps] == [7]
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


@pytest.mark.parametrize("count", [0, 4])
@pytest.mark.parametrize(("above", "below"), [(13, 12), (12, 13)])
def test_several_stacks_are_shortened_each(above: int, below: int, count: int) -> None:
    whole = translator(above=above, below=below)
    views = views_of(whole, fold(whole))
    assert views is not None
    assert {gap.stack for gap in views.short.gaps} == {"decoder", "encoder"}
    # The layer below the last of the decoder is of its own kind; equally long runs grow together.
    assert len(views.longer) == (1 if above == below + 1 else 2)
    parts = [in_micro_batches(p, count) if count else p for p in (views.short.program, whole)]
    grown = views.short.lengthened(parts[0])
    assert grown is not None
    assert grown.program == parts[1]
    assert sum(views.short.times) == len(whole.nodes)


@pytest.mark.parametrize(("above", "below"), [(13, 12), (12, 13)])
def test_several_stacks_predict_the_whole(above: int, below: int) -> None:
    whole = translator(above=above, below=below)
    views = views_of(whole, fold(whole))
    assert views is not None

    def step_s(program: Program) -> Prediction:
        degrees = Degrees(dp=8, zero=1)
        candidate = expert_candidate(program, MACHINE, degrees, memory_limit_bytes=1e12)
        return candidate.plan.prediction

    predicted = views.predict(lambda view: step_s(view.program))
    assert predicted.step_s == pytest.approx(step_s(whole).step_s, rel=0.05)
    assert predicted.state_bytes == pytest.approx(step_s(whole).state_bytes)


def test_layers_of_other_kinds_at_either_end_stay() -> None:
    odd = mlp(num_layers=14, hidden=lambda layer: 24 if layer in (1, 12) else 16)
    views = views_of(odd, fold(odd))
    assert views is not None
    (gap,) = views.short.gaps
    assert views.short.lengthened(views.short.program).program == odd
    assert gap.dropped == 14 - 2 - 2 - 2 - 2  # outer ones, odd ones, their neighbours, two kept


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
