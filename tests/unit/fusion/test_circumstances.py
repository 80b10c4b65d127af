"""`torch.compile(f, backend="weft")`: odd inputs, several threads and processes, bad folders."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tests.unit.fusion.compared import assert_alike, copies, normal
from weft.fusion import backend
from weft.fusion import compile as compile_module

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # what Dynamo and Inductor warn of themselves
    pytest.mark.usefixtures("apart"),
]


def compiled(f, strict=True):
    return torch.compile(f, backend="weft", options={"strict": strict, "every_region": True})


def softmax_of_sum(x, y):
    return (x * 2.0 + y).softmax(-1), x.sum(0) + 1.0


def plain(*shape):
    return normal(*shape, grad=False)


BAD = torch.tensor(
    [
        [torch.nan, 1.0, torch.inf, -torch.inf],
        [-0.0, 0.0, 1e38, -1e38],
        [torch.inf] * 4,
        [torch.nan] * 4,
        [-torch.inf] * 4,
    ]
)


def of_bad(x):
    y = x * 1.0
    found = (y.softmax(-1), y.log_softmax(0), F.layer_norm(y, (4,)), y.amin(0), y.sum(1))
    found = (*found, F.silu(y), y.sigmoid(), y.log(), y.rsqrt(), y.erf(), y.pow(3), y.isnan())
    return (*found, y == x, torch.where(y > 0, y * 2, y - 1), y.clamp(min=0), F.softplus(y))


def of_halves(x, y):
    return (x * 2 + y).exp(), (x * 2).sum(0), y.to(torch.float16) * x


ODD = {
    "one tensor twice": (softmax_of_sum, lambda: [plain(5, 7)] * 2),
    "columns and every second": (softmax_of_sum, lambda: [plain(7, 5).t(), plain(5, 14)[:, ::2]]),
    "repeated": (softmax_of_sum, lambda: [plain(5, 1).expand(5, 7), plain(1, 1).expand(5, 7)]),
    "windows that overlap": (
        lambda x: (x.exp() * 2.0, x.exp().sum(0)),
        lambda: [plain(20).as_strided((4, 5), (3, 1))],
    ),
    "no rows": (lambda x: ((x * 2).exp(), x.sum(0) * 2 + 1), lambda: [plain(0, 7)]),
    "one element": (
        lambda x: ((x * 2).softmax(0), x.mean() * 2, x.var(unbiased=False) + 1),
        lambda: [plain(1, 1)],
    ),
    "no dims": (lambda x, y: (x * y + 1, x.exp() - y), lambda: [plain(()), plain(())]),
    "a double without dims": (
        lambda x, y: (x * y + 1).exp(),
        lambda: [torch.tensor(0.3, dtype=torch.float64), plain(5, 7)],
    ),
    "no numbers and infinite ones": (of_bad, lambda: [BAD]),
    "an output that is an input": (
        lambda x, y: (x, (x + y).exp(), y, (x + y).exp()),
        lambda: [plain(5, 7), plain(5, 7)],
    ),
    "float16 and float32": (of_halves, lambda: [plain(5, 7), plain(5, 7).half()]),
    "float64 and float32": (
        lambda x, y: (x * 2 + y).exp() + x,
        lambda: [plain(5, 7).double(), plain(5, 7)],
    ),
    "bytes": (
        lambda x: (x.float() / 255 - 0.5).mul(2).sum(-1),
        lambda: [torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)],
    ),
    "many dims": (
        lambda x: ((x * 2).sum((1, 3, 5)) + 1, x.exp()),
        lambda: [plain(2, 3, 2, 3, 2, 3, 2)],
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_inputs_make_what_they_do_without_compiling(name):
    f, make = ODD[name]
    values = make()
    assert_alike(compiled(f)(*values), f(*values))


@pytest.mark.parametrize("name", ["one tensor twice", "repeated", "no dims"])
def test_kernels_are_called_for_odd_inputs(name, calls):
    f, make = ODD[name]
    compiled(f)(*make())
    assert calls


def test_an_input_that_is_written_in_part_holds_what_it_should():
    def f(x, y):
        x[1:3].mul_(2.0).add_(1.0)
        y.copy_((x * 2.0).exp())
        return x.sum(1) * 2.0

    values = [plain(5, 7), plain(5, 7)]
    ours, theirs = copies(values), copies(values)
    assert_alike(compiled(f)(*ours), f(*theirs))
    assert_alike(ours, theirs)


# --- threads ---------------------------------------------------------------------------------


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def rows_and_columns(x, w):
    y = F.layer_norm(x, (x.shape[-1],), w)
    return y.softmax(-1) + x.amax(0), (x * y).sum(0)


def large():
    return [plain(1024, 256), plain(256)]


@pytest.mark.usefixtures("two_threads")
def test_numbers_of_threads_may_change_after_compiling(calls):
    ours = compiled(rows_and_columns)
    values = large()
    for threads in (2, 1, 3, 2):
        torch.set_num_threads(threads)
        assert_alike(ours(*values), rows_and_columns(*values), rtol=1e-4, atol=1e-3)
    assert calls


@pytest.mark.usefixtures("two_threads")
def test_threads_may_call_one_kernel_at_once(calls):
    ours = compiled(rows_and_columns)
    values = [large() for _ in range(4)]
    alone = [ours(*own) for own in values]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, wanted in zip(pool.map(lambda own: ours(*own), values), alone, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert calls


@pytest.mark.usefixtures("two_threads")
def test_a_forked_process_of_one_thread_may_call_kernels():
    ours = compiled(rows_and_columns)
    values = large()
    wanted = ours(*values)
    child = os.fork()
    if not child:  # as workers that load data do: more threads hang in torch's own operators
        torch.set_num_threads(1)
        got = ours(*values)
        alike = all(torch.allclose(a, b, atol=1e-3) for a, b in zip(got, wanted, strict=True))
        os._exit(0 if alike else 1)
    assert os.waitpid(child, 0)[1] == 0


# --- folders and processes -------------------------------------------------------------------

PROCESS = """
import torch

def f(x, w):
    return torch.nn.functional.layer_norm(x * 3.0, (9,), w).softmax(-1)

x, w = torch.randn(7, 9), torch.randn(9)
ours = torch.compile(f, backend="weft", options={"strict": True, "every_region": True})
torch.testing.assert_close(ours(x, w), f(x, w))
"""


def test_processes_may_compile_into_one_folder_at_once():
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROCESS],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said


@pytest.fixture
def bad_folder(apart, tmp_path, monkeypatch):
    """A cache folder of Inductor's in which weft cannot make one of its own."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    (tmp_path / "weft").write_text("in the way")


@pytest.mark.usefixtures("bad_folder")
def test_a_folder_that_cannot_be_written_is_said_and_inductor_goes_on(caplog):
    def f(x):
        return (x * 3.5).softmax(-1)

    x = plain(5, 7)
    with caplog.at_level(logging.WARNING, logger="weft.fusion"):
        assert_alike(compiled(f, strict=False)(x), f(x))
    said = [record.getMessage() for record in caplog.records if record.name == "weft.fusion"]
    assert said
    assert all("TORCHINDUCTOR_CACHE_DIR" in line and "left to Inductor" in line for line in said)


@pytest.mark.usefixtures("bad_folder")
def test_strictly_such_a_folder_is_an_error():
    with pytest.raises(Exception, match="TORCHINDUCTOR_CACHE_DIR"):
        compiled(lambda x: (x * 4.5).softmax(-1))(plain(5, 7))


@pytest.fixture
def no_compiler(monkeypatch):
    """A host without g++, as far as weft can tell; Inductor still finds one."""
    run = subprocess.run

    def without(command, *args, **named):
        if command[0] == "g++":
            raise FileNotFoundError(2, "No such file or directory", "g++")
        return run(command, *args, **named)

    named = SimpleNamespace(run=without, CalledProcessError=subprocess.CalledProcessError)
    monkeypatch.setattr(compile_module, "subprocess", named)
    monkeypatch.setattr(backend, "_kernels", {})
    for known in (compile_module.generation, compile_module._compiler):
        known.cache_clear()
    yield
    for known in (compile_module.generation, compile_module._compiler):
        known.cache_clear()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_inductor_goes_on(caplog):
    x, y = plain(32, 48), plain(32, 48)
    with caplog.at_level(logging.WARNING, "weft.fusion"):
        got = compiled(softmax_of_sum, strict=False)(x, y)
    assert_alike(got, softmax_of_sum(x, y))
    assert "g++" in caplog.text and "left to Inductor" in caplog.text


@pytest.mark.usefixtures("no_compiler")
def test_strictly_a_missing_compiler_is_an_error():
    with pytest.raises(Exception, match="install your system's g\\+\\+ package"):
        compiled(softmax_of_sum)(plain(16, 48), plain(16, 48))
