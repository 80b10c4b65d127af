"""What all tests share: one thread a process, hypothesis without a clock, marks by folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Workers and ranks share few cores. It has to stand before the first import of torch or NumPy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadlines: a slow machine is not a wrong program. Fixed examples where nobody watches.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")

_TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests/dist and tests/gpu, keep processes apart, and skip what lacks its device."""
    for item in items:
        for folder in ("dist", "gpu"):
            if item.path.is_relative_to(_TESTS / folder):
                item.add_marker(folder)
        if item.get_closest_marker("dist"):
            # One group is one worker under --dist loadgroup, so jobs never compete for cores.
            item.add_marker(pytest.mark.xdist_group("dist"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; this host has none"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
