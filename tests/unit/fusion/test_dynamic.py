"""`torch.compile(f, backend="weft", dynamic=True)`: a kernel for each set of sizes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

from tests.unit.fusion.compared import assert_alike, copies, normal, trained
from weft.core.errors import InputError, RunError
from weft.fusion.dynamic import Flexible
from weft.fusion.kernel import compile_region
from weft.fusion.recipe import Made, Recipe, Step

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # what Dynamo and Inductor warn of themselves
    pytest.mark.usefixtures("apart"),
]

DYNAMIC = "weft.fusion.dynamic"


def compiled(f, strict=True, **named):
    return torch.compile(
        f,
        backend="weft",
        options={"strict": strict, "every_region": True},
        **{"dynamic": True, **named},
    )


@pytest.fixture
def kernels(monkeypatch):
    """Regions that were compiled for sizes which turned up at run time."""
    found = []

    def counted(region, host, folder):
        found.append(region)
        return compile_region(region, host, folder)

    monkeypatch.setattr(f"{DYNAMIC}.compile_region", counted)
    monkeypatch.setattr(f"{DYNAMIC}._regions", {})
    return found


@pytest.fixture
def captured():
    """Counts the graphs that Dynamo captured."""
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


def norm(x, w, b):
    return F.layer_norm(x, (x.shape[-1],), w, b)


def rope(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def mean_and_range(x):
    n = x.shape[0]
    ramp = torch.arange(n, dtype=torch.float32)[:, None]
    return (x * ramp).mean() / n + torch.full((n,), 2.0).sum() * x.exp().mean(0) + x.shape[1] ** 0.5


def halves(x):
    half = (x.shape[0] + 1) // 2
    return x[:half].exp().sum(0) + (x[half:] * 2.0).sum(0)


def flat(x):
    return (x.view(-1) * 2.0).exp().view(x.shape[1], x.shape[0]).t() + x


CASES = {
    "layer norm": (norm, lambda a, b: (normal(a, 3, b), normal(b), normal(b))),
    "softmax": (lambda x: (x * 2.0).softmax(0), lambda a, b: (normal(a, b),)),
    "rope": (rope, lambda a, b: (normal(a, 3, 2 * b), normal(2 * b), normal(2 * b))),
    "cross entropy": (
        lambda x, t: F.cross_entropy(x * 2.0, t, ignore_index=1),
        lambda a, b: (normal(a, b), torch.randint(0, b, (a,))),
    ),
    "mean and range": (mean_and_range, lambda a, b: (normal(a, b),)),
    "halves": (halves, lambda a, b: (normal(a, b),)),
    "flat": (flat, lambda a, b: (normal(a, b),)),
    "between matmuls": (
        lambda x, w: F.gelu(x @ w, approximate="tanh").softmax(-1) @ w.t(),
        lambda a, b: (normal(a, b), normal(b, 7)),
    ),
}
SHAPES = [(4, 6), (3, 3), (17, 130)]


FEW = ("layer norm", "halves", "flat", "between matmuls")
"""One of each kind; the others take as long again."""


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_one_function_makes_what_eager_makes_at_many_shapes(name, kernels):
    f, make = CASES[name]
    ours = compiled(f)
    for shape in SHAPES:
        values = make(*shape)
        assert_alike(trained(ours, copies(values)), trained(f, copies(values)), atol=2e-5)
    assert len(kernels) >= len(SHAPES)


@pytest.mark.parametrize("shape", [(1, 9), (5, 1)])
def test_dims_of_size_one_are_right(shape):
    ours = compiled(norm)
    for own in ((4, 6), shape):
        values = CASES["layer norm"][1](*own)
        # Over one channel the norm divides rounding by the root of its epsilon.
        assert_alike(trained(ours, copies(values)), trained(norm, copies(values)), atol=1e-4)


def test_parts_of_size_one_and_none_are_right(kernels):
    def f(x):
        return (x[3:] * 2.0).exp().sum(0) + x.exp().sum(0), x[3:].exp() + x[3:].amax(1)[:, None]

    ours = compiled(f)
    for rows in (8, 5, 4, 3):
        x = normal(rows, 7, grad=False)
        assert_alike(ours(x), f(x))
    assert kernels


def test_after_a_second_shape_a_function_is_compiled_for_all(kernels, captured):
    ours = compiled(norm, dynamic=None)
    for rows in (4, 7, 9, 12):
        values = CASES["layer norm"][1](rows, 33)
        assert_alike(trained(ours, copies(values)), trained(norm, copies(values)))
    assert captured() == 2
    assert kernels


def test_a_dim_that_is_marked_is_compiled_for_all_at_once(kernels, captured):
    ours = compiled(norm, dynamic=None)
    for rows in (4, 7, 9):
        values = CASES["layer norm"][1](rows, 33)
        torch._dynamo.mark_dynamic(values[0], 0)
        assert_alike(ours(*values), norm(*values))
    assert captured() == 1
    assert len(kernels) == 3


def test_a_shape_that_was_seen_is_not_compiled_again(kernels):
    ours = compiled(lambda x: (x * 2.0).softmax(-1))
    for rows in (4, 5, 4, 5):
        ours(normal(rows, 9, grad=False))
    assert len(kernels) == 2


def test_numbers_that_are_no_sizes_are_not_compiled_in(kernels):
    def f(x, step):
        return (x * 2.0).softmax(-1) * step

    ours = compiled(f)
    x = normal(4, 9, grad=False)
    for step in range(2, 6):
        assert_alike(ours(x, step), f(x, step))
    assert len(kernels) == 1


def test_sizes_in_bf16_are_right(kernels):
    ours = compiled(norm)
    for rows in (4, 7):
        values = [v.detach().bfloat16() for v in CASES["layer norm"][1](rows, 33)]
        assert_alike(ours(*values), norm(*values), rtol=2e-2, atol=2e-2)
    assert kernels


# --- too many, and what cannot be compiled ---------------------------------------------------


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "weft.fusion"]


def test_beyond_so_many_sizes_inductor_runs_them_all(monkeypatch, caplog, kernels):
    monkeypatch.setattr(f"{DYNAMIC}.MOST_KERNELS", 2)

    def f(x):
        return (x * 3.0).softmax(-1), x.exp().sum(0)

    ours = compiled(f)
    with caplog.at_level(logging.WARNING, logger="weft.fusion"):
        for rows in (4, 5, 6, 7, 4, 8):
            x = normal(rows, 9, grad=False)
            assert_alike(ours(x), f(x))
    assert len(kernels) == 2
    (said,) = messages(caplog)
    assert "2 sets of sizes" in said


def refuse(monkeypatch):
    def compile_region(*given):
        raise RunError(need="code that compiles", got="some that does not", hint="none")

    monkeypatch.setattr(f"{DYNAMIC}.compile_region", compile_region)


def f_of_two(x):
    return (x * 4.0).exp().sum(1), x.t() + 1.0


def test_strictly_sizes_that_cannot_be_compiled_are_an_error(monkeypatch):
    refuse(monkeypatch)
    with pytest.raises(RunError, match="some that does not"):
        compiled(f_of_two)(normal(5, 37, grad=False))


def test_else_torch_runs_them_with_a_warning_that_names_the_shape(monkeypatch, caplog):
    refuse(monkeypatch)
    ours = compiled(f_of_two, strict=False)
    x = normal(5, 37, grad=False)
    with caplog.at_level(logging.WARNING, logger="weft.fusion"):
        for _ in range(2):
            assert_alike(ours(x), f_of_two(x))
    (said,) = messages(caplog)
    assert "(5, 37)" in said
    assert "some that does not" in said


# --- kept ------------------------------------------------------------------------------------

PROCESS = """
import torch, weft.fusion.kernel as kernel, torch._inductor.codecache as codecache
from weft.fusion.dynamic import Flexible
built = []
build = kernel.build
kernel.build = lambda *given: built.append(given) or build(*given)
calls = []
run = Flexible.__call__
Flexible.__call__ = lambda *given: calls.append(given) or run(*given)

def f(x, w):
    return torch.nn.functional.layer_norm(x @ w, (w.shape[1],)).softmax(-1)

options = {"strict": True, "every_region": True}
ours = torch.compile(f, backend="weft", dynamic=True, options=options)
for rows in (4, 7):
    x, w = torch.randn(rows, 9), torch.randn(9, 13)
    torch.testing.assert_close(ours(x, w), f(x, w))
print(len(built), len(calls))
"""


def test_another_process_finds_recipes_and_kernels(folder):
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROCESS],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert int(found[0][0]) >= 2
    assert found[1] == ["0", "2"]


def test_a_recipe_survives_json_and_one_of_another_version_is_refused():
    recipe = Recipe(
        inputs=1,
        sizes=1,
        steps=(
            Step(target="aten::mul.Tensor", args=({"node": 0}, {"size": ("size", 0)}), kwargs={}),
            Step(target="aten::exp", args=({"node": 1},), kwargs={}),
        ),
        outputs=(Made(node=2, dtype="float32", shape=(("size", 0), 3), strides=(3, 1)),),
        threads=1,
        strict=True,
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Flexible(recipe, None).layouts([5]) == [((5, 3), (3, 1))]
    old = json.dumps({**json.loads(recipe.to_json()), "version": 0})
    with pytest.raises(InputError, match="a recipe of version"):
        Recipe.from_json(old)
