"""Inner products over shards, and what they are taken of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from weft.rl.moments import _fused_products, measure
from weft.rl.shards import CPU_PIECE, batches, collect

PAIRS = ((0, 0), (0, 1), (1, 1))


def shards_of(*gradients, **options):
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient
        parameters.append(parameter)
    return collect([{"params": parameters}], **options)


def measured(shards, references, **options):
    return measure(list(batches(shards, references)), **options).on_device()


def test_products_are_accurate_over_many_pieces():
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(3 * CPU_PIECE + 17, generator=generator)
    reference = 0.01 * gradient + torch.randn(gradient.shape, generator=generator)
    found = measured(shards_of(gradient), lambda _: [reference], count=1).gram[0]
    exact = torch.stack((gradient, reference)).double()
    assert torch.allclose(found, exact @ exact.T, rtol=1e-8, atol=1e-8 * gradient.numel())
    assert torch.equal(found, found.T) and found.dtype is torch.float64


def test_batches_hold_every_element_once_and_change_it_in_place():
    shapes = [(3,), (), (2, 2), (CPU_PIECE + 5,), (0,), (2100, 300), (4,)]
    gradients = [torch.zeros(shape) for shape in shapes]
    gradients[5] = torch.zeros(300, 2100).T
    for batch in batches(shards_of(*gradients), lambda _: ()):
        assert sum(part.numel() for part in batch.gradients) <= CPU_PIECE
        for part in batch.gradients:
            part += 1.0
    assert all((gradient == 1.0).all() for gradient in gradients)


def test_small_tensors_are_put_together():
    many = [torch.ones(10) for _ in range(50)]
    assert len(list(batches(shards_of(*many), lambda _: ()))) == 1
    assert len(list(batches(shards_of(*many, per="parameter"), lambda _: ()))) == 50


def test_the_kernels_for_other_devices_give_the_same():
    generator = torch.Generator().manual_seed(0)
    vectors = [[torch.randn(n, generator=generator) for n in (1000, 50)] for _ in range(2)]
    found = _fused_products(vectors, PAIRS)
    whole = [torch.cat(parts).double() for parts in vectors]
    for (i, j), product in zip(PAIRS, found.tolist(), strict=True):
        assert product == pytest.approx((whole[i] @ whole[j]).item(), abs=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["gradient", "reference"])
def test_what_is_not_finite_is_flagged_and_leaves_no_trace(bad, where):
    gradient, reference = torch.ones(3), torch.ones(3)
    {"gradient": gradient, "reference": reference}[where][1] = bad
    found = measured(shards_of(gradient), lambda _: [reference], count=1)
    assert found.invalid and found.gram.isfinite().all()
    assert not measured(shards_of(torch.ones(3)), lambda _: [torch.ones(3)], count=1).invalid


def test_small_tensors_are_summed_together():
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) for shape in ((7, 3), (), (0,), (40,))]
    gradients[0] = gradients[0].T  # which is not contiguous
    references = {g.shape: torch.randn(g.shape, generator=generator).bfloat16() for g in gradients}
    found = measured(shards_of(*gradients), lambda s: [references[s.gradient.shape]], count=1)
    exact = torch.stack(
        [
            torch.cat([g.double().flatten() for g in parts])
            for parts in (gradients, [references[g.shape] for g in gradients])
        ]
    )
    assert torch.allclose(found.gram[0], exact @ exact.T, rtol=1e-6)


def test_types_are_not_mixed_in_a_batch():
    kinds = [torch.float32, torch.bfloat16, torch.bfloat16]
    shards = shards_of(*[torch.ones(4) for _ in kinds])
    kept = {s.parameter: torch.ones(4, dtype=d) for s, d in zip(shards, kinds, strict=True)}
    found = list(batches(shards, lambda shard: [kept[shard.parameter]]))
    assert [len(batch.gradients) for batch in found] == [1, 2]
    assert [batch.references[0][0].dtype for batch in found] == kinds[:2]


def test_copies_are_counted_by_their_share():
    shards = shards_of(torch.ones(4), size=4)
    assert [shard.copies for shard in shards] == [4]
    assert measured(shards, lambda _: (), count=1, has_history=False).gram[0, 0, 0] == 1.0
    assert shards_of(torch.ones(4), size=4, copies=lambda _: 2)[0].copies == 2


def test_a_missing_history_is_said():
    found = measured(shards_of(torch.ones(4)), lambda _: (), count=2, has_history=False)
    assert found.first and found.gram.shape == (1, 3, 3)
    assert found.gram.sum() == found.gram[0, 0, 0] == 4.0


def test_nothing_at_all_has_products_too():
    found = measure([], count=1, groups=2).on_device()
    assert found.gram.shape == (2, 2, 2) and not found.gram.any() and not found.invalid
