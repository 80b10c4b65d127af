"""Compiling, and getting over what a killed compilation has left."""

import logging

import pytest
import torch
from torch import fx, nn

from weft.core.errors import RunError
from weft.runtime.inductor import compile_module


class Compiler:
    """Stands for Inductor: fails on a list of libraries, then gives the module back."""

    def __init__(self, torn, reason="file too short"):
        self.torn, self.reason, self.given = list(torn), reason, []

    def __call__(self, module, examples):
        self.given.append(module)
        for path in self.torn:
            if path.exists():
                raise RuntimeError(f"InductorError: ImportError: {path}: {self.reason}\nmore")
        return module


def build():
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output((graph.call_function(torch.ops.aten.neg.default, (x,)),))
    return fx.GraphModule(nn.Module(), graph)


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    torn = [tmp_path / name for name in ("a.so", "b.so")]
    for path in torn:
        path.write_bytes(b"")
    stand_in = Compiler(torn)
    monkeypatch.setattr(torch._inductor, "compile", stand_in)
    return stand_in


def test_torn_libraries_are_removed_with_a_line_in_the_log_and_compiled_anew(compiler, caplog):
    with caplog.at_level(logging.WARNING, logger="weft.runtime"):
        compiled = compile_module(build, [torch.ones(2)], "inductor")
    assert compiled(torch.ones(2))[0].tolist() == [-1.0, -1.0]
    assert not any(path.exists() for path in compiler.torn)
    assert [r.message.rpartition("/")[2] for r in caplog.records] == ["a.so", "b.so"]
    assert len(set(map(id, compiler.given))) == 3, "each attempt gets a graph of its own"


def test_a_library_that_is_torn_again_is_an_error(compiler, monkeypatch):
    path = compiler.torn[0]
    monkeypatch.setattr(type(path), "unlink", lambda *_, **__: None)
    with pytest.raises(RunError, match=r"a\.so: file too short"):
        compile_module(build, [torch.ones(2)], "inductor")


def test_other_errors_of_the_compiler_touch_no_file(compiler):
    compiler.reason = "undefined symbol: f"
    with pytest.raises(RunError, match="undefined symbol"):
        compile_module(build, [torch.ones(2)], "inductor")
    assert all(path.exists() for path in compiler.torn)
