"""Vectors on each kind of register that this processor has."""

from __future__ import annotations

import pytest

from tests.unit.fusion.emit.vectors import TARGETS, built, reaches


@pytest.fixture(scope="session", params=TARGETS)
def library(request, tmp_path_factory):
    if reason := reaches(request.param):
        pytest.skip(reason)
    return built(request.param, tmp_path_factory.mktemp(request.param) / "kernels.so")
