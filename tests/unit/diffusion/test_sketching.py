"""Sketches preserve sums, and nearly lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from weft.diffusion.sketching import Sketcher


def test_the_sketch_of_a_sum_is_the_sum_of_sketches():
    sketch = Sketcher()
    a, b = (torch.randn(3, 1000, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    np.testing.assert_allclose(sketch(2 * a - b), 2 * sketch(a) - sketch(b), atol=1e-4)


@pytest.mark.parametrize("length", [100, 10_000, 300_000])
def test_lengths_are_nearly_preserved(length):
    sketch = Sketcher(numbers=2048)
    errors = []
    for seed in range(8):
        own = torch.randn(length, generator=torch.Generator().manual_seed(seed))
        errors.append(np.linalg.norm(sketch(own)) / own.double().norm().item() - 1)
    assert np.abs(errors).max() < 0.1


def test_what_is_sketched_twice_is_the_same():
    own = torch.arange(5000.0)
    assert np.array_equal(Sketcher()(own), Sketcher()(own))
