"""With `measure`, the plans that the search ends with and Inductor's kernels are timed."""

from __future__ import annotations

import json

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore")  # what Dynamo and Inductor warn of themselves


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Caches of this test's own, and nothing left of other tests."""
    from weft.fusion import backend

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(backend, "_kernels", {})
    torch._dynamo.reset()
    yield tmp_path
    torch._dynamo.reset()


def softmax_of_sum(x, y):
    return torch.softmax(x + y, -1) * y


def compiled(f):
    return torch.compile(f, backend="weft", options={"strict": True, "measure": True})


def times_from(monkeypatch, seconds):
    """Let runs take what a function of their names says; gives the names that were timed."""
    from weft.fusion import measure

    timed = []

    def pretended(calls):
        timed.append(sorted(calls))
        for call in calls.values():
            call()
        return {name: seconds(name) for name in calls}

    monkeypatch.setattr(measure, "_shortest", pretended)
    return timed


def test_all_are_timed_and_the_times_are_kept(folder):
    x, y = torch.randn(64, 300), torch.randn(64, 300)
    torch.testing.assert_close(compiled(softmax_of_sum)(x, y), softmax_of_sum(x, y))
    (path,) = folder.rglob("*_measured.json")
    measured = json.loads(path.read_text())["measured"]
    assert "Inductor" in measured
    assert len(measured) > 2
    assert all(seconds > 0 for seconds in measured.values())


def test_the_fastest_plan_is_taken_and_remembered(monkeypatch, folder):
    from weft.fusion import backend

    timed = times_from(monkeypatch, lambda name: 1.0 if name == "plan 1" else 2.0)
    x, y = torch.randn(64, 300), torch.randn(64, 300)
    expected = softmax_of_sum(x, y)
    torch.testing.assert_close(compiled(softmax_of_sum)(x, y), expected)
    (kernel,) = backend._kernels.values()
    assert kernel.description.name.endswith("_1")
    backend._kernels.clear()
    torch._dynamo.reset()
    torch.testing.assert_close(compiled(softmax_of_sum)(x, y), expected)
    assert len(timed) == 1
    assert len(timed[0]) > 2


def test_what_inductor_does_faster_is_left_to_it(monkeypatch):
    from weft.fusion.backend import compile_graph

    timed = times_from(monkeypatch, lambda name: 1e-5 if name == "Inductor" else 2e-5)
    seen = []

    def backend(module, inputs):
        return compile_graph(module, inputs, observer=seen.append, options={"measure": True})

    x, y = torch.randn(64, 300), torch.randn(64, 300)
    found = torch.compile(softmax_of_sum, backend=backend)(x, y)
    torch.testing.assert_close(found, softmax_of_sum(x, y))
    # Once for the graph as a whole, and told again where the pass comes upon it.
    left = [one.left for one in seen if one.region is not None]
    assert left == 2 * ["measured: 20 us, by Inductor 10 us"]
    assert len(timed) == 1


def test_regions_that_read_what_others_make_are_timed_as_well(monkeypatch):
    times_from(monkeypatch, lambda name: 1.0 if name == "Inductor" else 1e-9)

    def around_products(x, weight):
        y = torch.softmax(x * 2 + 1, -1)
        z = (y @ weight).sigmoid() * y
        return torch.softmax(z - 1, -1) @ weight + z

    from weft.fusion.backend import compile_graph

    seen = []

    def backend(module, inputs):
        options = {"strict": True, "measure": True}
        return compile_graph(module, inputs, observer=seen.append, options=options)

    x, weight = torch.randn(512, 512), torch.randn(512, 512)
    found = torch.compile(around_products, backend=backend)(x, weight)
    torch.testing.assert_close(found, around_products(x, weight))
    left = [one.left for one in seen if one.region is not None]
    assert len(left) > 1 and not any(left), "all are taken, the first before the others are timed"


def test_an_input_whose_elements_lie_on_one_another_is_timed(monkeypatch):
    times_from(monkeypatch, lambda name: 1e-9)
    x, y = torch.randn(64, 300), torch.randn(300).expand(64, 300)
    torch.testing.assert_close(compiled(softmax_of_sum)(x, y), softmax_of_sum(x, y))
