"""What is done for tensors that no cache holds, done to small ones: stores past caches, fetches."""

import json

import pytest
import torch

from tests.unit.fusion.compared import assert_alike
from tests.unit.fusion.regions import region
from weft.fusion import backend, schedule
from weft.fusion.cost import Host
from weft.fusion.emit.cpp import emit
from weft.fusion.lower import lower
from weft.fusion.stitch import planned, scheduled

SHAPES = [(32, 32), (64, 48), (33, 31), (96, 17), (2, 40), (130, 65), (16, 200), (5, 3)]
NARROW = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "f64": torch.float64}


@pytest.fixture(autouse=True)
def no_caches(monkeypatch, apart):
    monkeypatch.setattr(schedule, "OWN_CACHE_BYTES", 0)
    monkeypatch.setattr(Host, "streamed_bytes", property(lambda own: 0.0))
    host = Host(threads=2, alone_bytes=0.0)
    monkeypatch.setattr(backend, "calibrated", lambda threads, folder: host)
    monkeypatch.setattr(backend, "_kernels", {})


@pytest.fixture
def plans(calls):
    """Checks that what was compiled stores past the caches, and shares out its work."""
    yield
    plans = [json.loads(kernel.description.plan) for kernel in calls]
    assert plans and all(plan["streams"] and plan["threads"] == 2 for plan in plans)


def compiled(f, *given):
    torch._dynamo.reset()
    return torch.compile(f, backend="weft", dynamic=False)(*given)


@pytest.mark.usefixtures("plans")
@pytest.mark.parametrize("dtype", NARROW.values(), ids=NARROW)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_cast_beside_its_transposition(shape, dtype):
    def f(x):
        own = (x * 0.5).to(dtype)
        return own, own.t().contiguous(), x.abs().amax()

    x = torch.randn(shape)
    assert_alike(compiled(f, x), f(x), rtol=0, atol=0)


@pytest.mark.usefixtures("plans")
@pytest.mark.parametrize("dtype", NARROW.values(), ids=NARROW)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_sum_with_a_transposition(shape, dtype):
    def f(x, y):
        total = x + y.t()
        return total, total > 0, total.t().contiguous()

    x, y = torch.randn(shape).to(dtype), torch.randn(shape[::-1]).to(dtype)
    assert_alike(compiled(f, x, y), f(x, y), rtol=0, atol=0)


@pytest.mark.usefixtures("plans")
@pytest.mark.parametrize("dtype", NARROW.values(), ids=NARROW)
@pytest.mark.parametrize("length", [1, 15, 16, 31, 32, 33, 64, 95, 160])
def test_rows_of_any_length(length, dtype):
    def f(x, y):
        own = x * y
        return own, torch.cat((own, y), -1), own.abs()

    x, y = (torch.randn(7, length).to(dtype) for _ in range(2))
    assert_alike(compiled(f, x, y), f(x, y), rtol=0, atol=0)


@pytest.mark.usefixtures("plans")
@pytest.mark.parametrize("dtype", NARROW.values(), ids=NARROW)
@pytest.mark.parametrize("columns", [16, 48, 80])
def test_sums_of_rows_and_columns_beside_what_is_stored(columns, dtype):
    def f(x):
        wide = x + 1
        own = wide.to(dtype)
        return own, wide.sum(0), wide.sum(1), own.t().contiguous()

    x = torch.randn(70, columns)
    assert_alike(compiled(f, x), f(x), rtol=1e-5, atol=1e-4)


def source_of(shape):
    def turned(add, x):
        own = add("cast", x, "bf16")
        return own, add("permute", own, (1, 0))

    made = region(turned, f"f32[{shape}]")
    points = lower(made)
    return emit(scheduled(points, planned(made, points, Host(threads=2))), "turned").text


@pytest.mark.parametrize("words", ["stream_two(", "store_two_squares<true", "ask_for("])
def test_lines_are_written_whole_and_fetched_only_where_no_cache_holds_them(words, monkeypatch):
    assert words in source_of("64,64")
    monkeypatch.undo()
    assert words not in source_of("64,64")
    assert words in source_of("16384,2048")
