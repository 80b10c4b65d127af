"""Compiled kernels do what operators do, and are used where they can be and are worth it."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import warnings

import pytest
import torch
from torch import nn

from tests.unit.rl.known import equal, make_model, train, weights
from weft.core.errors import RunError
from weft.rl import GAC, Applied, Ema, Previous, Regime, gac, native
from weft.rl.moments import measure
from weft.rl.shards import collect

TYPES = [torch.float32, torch.bfloat16, torch.float16]
PAIRS = list(itertools.product(TYPES, TYPES))
PIECE = 1 << 16
SIZES = [0, 1, 15, 16, 63, 64, 65, 1023, 1025, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17]
REFERENCES = [Ema(), Ema(decay=0.9), Ema(decay=0.0), Previous()]


def names(value):
    return type(value).__name__ + str(getattr(value, "decay", ""))


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def shards_of(*gradients, **options):
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient
        parameters.append(parameter)
    return collect([{"params": parameters}], **options)


def tabulated(shards, references):
    kept = {shard.parameter: other for shard, other in zip(shards, references, strict=True)}
    return native.tabulate(shards, lambda shard: [kept[shard.parameter]])


def pairs(sizes, gradient_type, reference_type):
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(n, generator=generator).to(gradient_type) for n in sizes]
    references = [
        (0.3 * one + torch.randn(one.shape, generator=generator)).to(reference_type)
        for one in gradients
    ]
    return gradients, references


@pytest.mark.parametrize(("gradient_type", "reference_type"), PAIRS)
def test_products_are_those_of_float64(gradient_type, reference_type):
    gradients, references = pairs(SIZES, gradient_type, reference_type)
    shards = shards_of(*gradients, per="parameter", size=6, copies=lambda p: 1 + p.numel() % 3)
    sums = torch.ones(len(SIZES), 3, dtype=torch.float64)
    table = tabulated(shards, references)
    assert (table.rest, table.elements) == ([], sum(SIZES))
    table.add_products(sums)
    for found, g, r in zip(sums - 1.0, gradients, references, strict=True):
        one, other = g.double(), r.double()
        exact = torch.stack((one @ one, one @ other, other @ other)) / (1 + g.numel() % 3)
        assert torch.allclose(found, exact, rtol=1e-7, atol=1e-7 * math.sqrt(g.numel()))


def test_sums_are_accurate_and_the_same_on_any_number_of_threads():
    (gradient,), (reference,) = pairs([1 << 22], torch.float32, torch.float32)
    table, found = tabulated(shards_of(gradient), [reference]), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(torch.zeros(1, 3, dtype=torch.float64))
        table.add_products(found[-1])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    one, other = gradient.double(), reference.double()
    exact = torch.stack((one @ one, one @ other, other @ other))
    assert torch.allclose(found[0][0], exact, rtol=2e-9)


DECISIONS = [  # factor, scale, weight, wipes
    (0.7, 1.0, 0.5, 0.0),
    (0.7, 0.5, 0.1, 0.0),
    (0.0, 1.0, 0.5, 0.0),
    (0.0, 1.0, 0.1, 0.0),
    (0.0, 0.9, 1.0, 0.0),
    (0.3, 1.0, 1.0, 0.0),
    (0.0, 1.0, 0.5, 1.0),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("gradient_type", "reference_type"), PAIRS)
def test_gradients_and_references_change_as_decided(gradient_type, reference_type, threads):
    torch.set_num_threads(threads)
    decisions = torch.tensor(DECISIONS, dtype=torch.float64)
    sizes = [SIZES[-1], 1025, 70, 5, 0, 1, 16]
    gradients, references = pairs(sizes, gradient_type, reference_type)
    before = [(g.clone(), r.clone()) for g, r in zip(gradients, references, strict=True)]
    tabulated(shards_of(*gradients, per="parameter"), references).advance(decisions)
    for decision, (g, r), own, other in zip(DECISIONS, before, gradients, references, strict=True):
        factor, scale, weight, wipes = decision
        one, past = g.double(), r.double()
        wanted = scale * one - factor * past
        mean = (past + weight * (one - past)) * (1.0 - wipes)
        for found, exact in ((own, wanted), (other, mean)):
            eps = torch.finfo(found.dtype).eps
            size = scale * one.abs() + factor * past.abs() + past.abs() + one.abs()
            assert ((found.double() - exact).abs() <= eps * size).all()
        if (factor, scale) == (0.0, 1.0):
            assert torch.equal(own, g)
        if weight == 1.0:
            assert torch.equal(other, g.to(other.dtype))


def test_what_kernels_cannot_take_is_left():
    double = torch.ones(3, dtype=torch.float64)
    turned = torch.ones(3, 4).T
    fit = torch.ones(5)
    shards = shards_of(double, fit, turned, torch.ones(2))
    references = [double, fit, torch.ones(4, 3), torch.ones(2, dtype=torch.float64)]
    table = tabulated(shards, references)
    assert [shard.gradient.shape for shard in table.rest] == [(3,), (4, 3), (2,)]
    assert table.elements == 5
    assert tabulated([], []).elements == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 40, 1030])
def test_what_is_not_finite_is_flagged(bad, at):
    (gradient,), (reference,) = pairs([1031], torch.bfloat16, torch.float32)
    gradient[at] = bad
    found = measure([], count=1, table=tabulated(shards_of(gradient), [reference])).on_device()
    assert found.invalid and found.gram.isfinite().all()


def run(steps=7, *, data=None, **options):
    model = make_model(width=130)
    groups = [{"params": list(layer.parameters())} for layer in (model[0], model[1], model[3])]
    optimizer = GAC(torch.optim.AdamW(groups, lr=0.02), **options)
    said = train(model, optimizer, range(steps))
    kept = [t for p in optimizer.parameters() for t in optimizer.history.kept(p)]
    return said, weights(model), kept, optimizer


@pytest.mark.parametrize("synchronise", [True, False])
@pytest.mark.parametrize("mode", ["orthogonal", "cap", "shrink"])
@pytest.mark.parametrize("per", ["model", "group", "parameter"])
@pytest.mark.parametrize("reference", REFERENCES, ids=names)
def test_compiled_steps_are_those_of_operators(reference, per, mode, synchronise):
    options = {"reference": reference, "per": per, "mode": mode, "synchronise": synchronise}
    found = [run(cosine_low=0.1, compiled=c, **options) for c in (True, False)]
    (ones, mine, my_kept, one), (others, theirs, their_kept, other) = found
    assert one.counts == other.counts and one.counts[Regime.PROJECT] > 0
    for a, b in zip(ones, others, strict=True):
        assert a.regime is b.regime
        assert a.cosine_raw == pytest.approx(b.cosine_raw, abs=1e-5)
    for a, b in ((mine, theirs), (my_kept, their_kept)):
        assert all(torch.allclose(x, y, atol=2e-6) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("reference", [*REFERENCES, Applied(count=2)], ids=names)
@pytest.mark.parametrize("synchronise", [True, False])
def test_a_bad_step_wipes_references_here_too(reference, synchronise):
    weight = nn.Parameter(torch.zeros(100))
    optimizer = GAC(
        torch.optim.SGD([weight], lr=0.0),
        reference=reference,
        synchronise=synchronise,
        compiled=True,
    )
    regimes = []
    for number in (1.0, 2.0, math.nan, 3.0, 1.0):
        weight.grad = torch.full((100,), number)
        optimizer.step()
        regimes.append(optimizer.last.regime)
    first, project = Regime.FIRST, Regime.PROJECT
    assert regimes == [first, project, Regime.INVALID, first, project]
    assert torch.allclose(weight.grad, torch.zeros(100), atol=1e-6)


def test_a_threshold_that_is_never_reached_changes_not_a_bit():
    plain, model = make_model(), make_model()
    inner = torch.optim.AdamW(model.parameters(), lr=0.05)
    train(plain, torch.optim.AdamW(plain.parameters(), lr=0.05), range(5))
    train(model, GAC(inner, cosine_low=0.9999, compiled=True), range(5))
    assert equal(weights(plain), weights(model))


def test_a_run_goes_on_from_its_checkpoint_and_in_copies():
    _, _, _, one = run(4, reference=Ema(dtype=torch.bfloat16), compiled=True)
    _, _, _, other = run(0, reference=Ema(dtype=torch.bfloat16), compiled=True)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    third = copy.deepcopy(one)
    found = []
    for optimizer in (one, other, third):
        for parameter in optimizer.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        found.append([p.grad for p in optimizer.parameters()])
        assert optimizer.last.regime is not Regime.FIRST
    assert equal(found[0], found[1]) and equal(found[0], found[2])


def test_gradients_that_kernels_cannot_take_share_the_decision():
    generator = torch.Generator().manual_seed(0)
    shapes, types = [(40, 30), (30, 40), (7,)], [torch.float32, torch.float32, torch.float64]
    raw = [[torch.randn(shape, generator=generator) + 1.0 for shape in shapes] for _ in range(2)]
    found = []
    for compiled in (True, False):
        parameters = [
            nn.Parameter(torch.zeros(shape, dtype=kind))
            for shape, kind in zip(shapes, types, strict=True)
        ]
        optimizer = GAC(torch.optim.SGD(parameters, lr=0.0), compiled=compiled)
        for gradients in raw:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone().to(parameter.dtype)
            parameters[1].grad = parameters[1].grad.T.contiguous().T
            optimizer.step()
        found.append(([p.grad for p in parameters], optimizer.last))
    (mine, one), (theirs, other) = found
    assert one.regime is other.regime is Regime.PROJECT
    assert one.cosine_raw == pytest.approx(other.cosine_raw, abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(mine, theirs, strict=True))


# Which is used, and what is said where none can be.


@pytest.fixture
def counted(monkeypatch):
    """Every table that is used."""
    used, add = [], native.Table.add_products
    monkeypatch.setattr(
        native.Table, "add_products", lambda self, sums: used.append(self) or add(self, sums)
    )
    return used


@pytest.mark.parametrize(
    ("compiled", "size", "uses"),
    [
        (None, 99, 0),
        (None, 100, 1),
        (True, 1, 1),
        (False, 1000, 0),
    ],
)
def test_large_models_are_compiled_for(monkeypatch, counted, compiled, size, uses):
    monkeypatch.setattr(gac, "LARGE", 100)
    weight = nn.Parameter(torch.zeros(size))
    weight.grad = torch.ones(size)
    GAC(torch.optim.SGD([weight], lr=0.0), compiled=compiled).step()
    assert len(counted) == uses


def test_references_of_another_kind_stay_with_operators(counted):
    run(3, reference=Applied(count=1), compiled=True)
    assert not counted


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    """A host without g++, as far as weft can tell."""
    whole = subprocess.run

    def without(command, *args, **kwargs):
        if command[0] == "g++":
            raise FileNotFoundError(2, "No such file or directory", "g++")
        return whole(command, *args, **kwargs)

    from weft.fusion import compile as building

    for found in (building._compiler, building.generation, native.kernels):
        found.cache_clear()
    monkeypatch.setattr(subprocess, "run", without)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    yield
    for found in (building._compiler, building.generation, native.kernels):
        found.cache_clear()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_operators_do_it_and_one_warning_says_why():
    with pytest.warns(UserWarning, match=r"(?s)not compiled.*g\+\+") as caught:
        compiled = run(compiled=True)
    assert len(caught) == 1 and caught[0].filename.endswith("known.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = run(compiled=False)
    assert equal(compiled[1], plain[1])


def test_code_that_does_not_compile_is_said(monkeypatch):
    def refused(*_):
        raise RunError(need="generated code that g++ compiles", got="error: no", hint="")

    monkeypatch.setattr(gac, "kernels", refused)
    with pytest.warns(UserWarning, match="(?s)not compiled.*error: no"):
        _, _, _, optimizer = run(2, compiled=True)
    assert optimizer.compiled is False


def test_a_folder_that_cannot_be_written_is_said(monkeypatch, tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    native.kernels.cache_clear()
    monkeypatch.setattr(native, "folder", lambda: place / "kernels")
    with pytest.warns(UserWarning, match="(?s)not compiled.*TORCHINDUCTOR_CACHE_DIR"):
        run(2, compiled=True)
    native.kernels.cache_clear()
