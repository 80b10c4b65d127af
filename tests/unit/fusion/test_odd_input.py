"""What users' code does that the sixteen graphs do not: views that are read on both sides of a
border, whole numbers at their limits, remainders, folders that lost files, mistaken options."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from weft.fusion import explain
from weft.fusion.cache import folder

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # what Dynamo and Inductor warn of themselves
    pytest.mark.usefixtures("apart"),
]
EVERY = {"strict": True, "every_region": True}


def same(function, *inputs, **options):
    """Compiled and eager results are equal, as far as rounding goes."""
    found = torch.compile(function, backend="weft", options={**EVERY, **options})(*inputs)
    torch.testing.assert_close(found, function(*inputs), rtol=1e-4, atol=1e-5)


# --- views that are read inside and outside of a region -----------------------------------


def test_a_view_that_a_product_and_the_region_read():
    def both(x, w):
        made = x.exp() + 1
        turned = made.t()
        return turned @ w, (turned + made).sum(0)

    same(both, torch.randn(64, 64), torch.randn(64, 8))


def test_masks_that_are_made_in_every_layer(calls):
    def layers(a, b):
        for _ in range(2):
            later = ~torch.ones(64, 64, dtype=torch.bool).tril()
            a = a.masked_fill(later, float("-inf")).softmax(-1) @ b
        return a

    given = [torch.randn(4, 8, 64, 64, requires_grad=True) for _ in range(2)]
    found = torch.compile(layers, backend="weft", options=EVERY)(*given)
    grads = torch.autograd.grad(found.sum(), given)
    wanted = torch.autograd.grad(layers(*given).sum(), given)
    assert calls
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-4)


# --- numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_the_least_of_whole_numbers_at_their_limits(dtype):
    limits = torch.iinfo(dtype)
    x = torch.tensor([[0, 1, limits.min], [5, limits.max, 7]], dtype=dtype)
    same(lambda x: ((x + 0).amin(-1), (x + 0).min(), x.min(1).indices, x.argmin(0)), x)


@pytest.mark.parametrize("divisor", [1000, -7, 3])
def test_remainders_of_large_whole_numbers(divisor):
    x = torch.randint(-(2**60), 2**60, (64, 128))
    same(lambda x: (((x + 7) % divisor).amax(-1), ((x + 7) // divisor).amax(-1)), x)


@pytest.mark.parametrize("divisor", [0.1, 6.2831853, float("inf")])
def test_remainders_of_large_numbers_are_inductors(divisor):
    x = torch.rand(32, 64) * 1e6

    def largest(x):
        rest = torch.remainder(x * 1.0, divisor)
        return rest.amax(-1), rest.amin(-1)

    found = torch.compile(largest, backend="weft", options=EVERY)(x)
    torch._dynamo.reset()
    torch.testing.assert_close(found, torch.compile(largest)(x), rtol=0, atol=0, equal_nan=True)


def test_bytes_meet_numbers_that_are_none():
    x = torch.tensor([0, 1, 44, 255], dtype=torch.uint8)
    same(lambda x: ((x > -1) | (x == 300), (x + 1).clamp(-1, 2)), x)


def test_bools_are_finite():
    x = torch.tensor([True, False])
    same(lambda x: torch.isnan(x) | torch.isinf(~x), x)


# --- explain leaves things as they are ----------------------------------------------------------


def test_explaining_changes_no_gradient_and_forgets_nothing_compiled():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    x, compiled = torch.randn(4, 8), []

    def counted(module, inputs):
        compiled.append(module)
        return module

    own = torch.compile(model, backend=counted)
    own(x)
    state = torch.get_rng_state()
    explain(model, x)
    own(x)
    assert len(compiled) == 1
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "wrapped", [lambda x: x, lambda x: {"loss": x}, lambda x: (1, (x,))], ids=["", "dict", "nested"]
)
def test_backward_passes_are_explained_however_results_are_wrapped(wrapped):
    w = torch.randn(64, 64, requires_grad=True)
    found = explain(lambda x: wrapped((x @ w).square().mean()), torch.randn(64, 64))
    assert len(found.graphs) == 2


def test_explaining_many_times_finds_the_same():
    def function(x):
        return torch.softmax(x * 2 + 1, -1)

    counts = {len(explain(function, torch.randn(8, 8 + n)).regions) for n in range(12)}
    assert counts == {1}


# --- folders ------------------------------------------------------------------------------------

SCRIPT = """
import sys, torch
import torch._inductor.config
function = lambda x: torch.softmax(x @ x * 2 + 1, -1).sum(0)
torch.manual_seed(0)
x = torch.randn(64, 64)
found = torch.compile(function, backend="weft", options={"every_region": True})(x)
torch.testing.assert_close(found, function(x))
"""


def in_a_new_process(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


@pytest.mark.parametrize(
    "damage",
    [
        "cut short",
        pytest.param("gone", marks=pytest.mark.slow),
        pytest.param("all gone", marks=pytest.mark.slow),
    ],
)
def test_kernels_that_are_damaged_are_made_anew(damage, tmp_path, monkeypatch):
    in_a_new_process(tmp_path, monkeypatch)
    (home,) = {path.parent for path in tmp_path.rglob("region_*.json")}
    for path in [*home.iterdir()]:
        if damage == "all gone" or (path.suffix == ".so" and damage == "gone"):
            path.unlink()
        elif path.suffix == ".so":
            path.write_bytes(path.read_bytes()[:5000])
    if damage != "all gone":  # what Inductor compiled names the kernels, and looks for them
        (home / "identity").unlink()
    assert "left to Inductor" not in in_a_new_process(tmp_path, monkeypatch)
    assert any(path.suffix == ".so" for path in home.iterdir())


def test_the_folder_is_under_inductors():
    assert folder().parent.name == "weft"


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"options": {"strikt": True}}, "did you mean 'strict'"),
        ({"options": {"strict": "no"}}, "True or False"),
        ({"options": {"post_grad_custom_pre_pass": None}}, "which weft is"),
        ({"mode": "nonsense"}, "max-autotune"),
    ],
)
def test_mistaken_options_are_refused(named, said):
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=said):
        torch.compile(lambda x: x + 1, backend="weft", **named)(torch.ones(3))


def test_inductors_own_options_and_modes_are_passed_on():
    same(lambda x: torch.softmax(x + 1, -1), torch.randn(8, 8), max_autotune=False)
    found = torch.compile(lambda x: x.exp() + 1, backend="weft", mode="max-autotune-no-cudagraphs")
    torch.testing.assert_close(found(torch.zeros(3)), torch.full((3,), 2.0))
