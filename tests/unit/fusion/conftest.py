"""Compiled functions of tests: caches of their own, and how often kernels are called."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inductor")


@pytest.fixture
def apart(monkeypatch, folder):
    """Caches of these tests' own, and nothing left in Dynamo's."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture
def calls(monkeypatch):
    """Grows by one with each call of a kernel."""
    from weft.fusion.kernel import Kernel

    found = []
    run = Kernel.__call__

    def counted(self, inputs):
        found.append(self)
        return run(self, inputs)

    monkeypatch.setattr(Kernel, "__call__", counted)
    return found
