"""Attention and uniform as torch operators: their numbers, gradients and fake forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.capture import operators
from weft.capture.operators import attention, attention_backward, uniform, uniform_shard
from weft.program import random

int64 = st.integers(-(2**63), 2**63 - 1)
sizes = st.lists(st.integers(1, 5), max_size=4).map(tuple)


def operands(dtype=torch.float64, t=5, s=5, grad=False):
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, 3, n, 4, dtype=dtype, generator=generator).requires_grad_(grad)
        for n in (t, s, s)
    )


@settings(max_examples=60)
@given(seed=int64, salt=st.integers(0, 2**31 - 1), size=sizes)
def test_uniform_gives_the_bits_of_its_definition(seed, salt, size):
    found = uniform(torch.tensor(seed), salt, size)
    assert found.numpy().tobytes() == random.uniform(seed, salt, size).tobytes()


@settings(max_examples=40)
@given(seed=int64, salt=st.integers(0, 100), data=st.data())
def test_a_shard_of_uniform_is_a_part_of_the_whole(seed, salt, data):
    size = data.draw(st.lists(st.integers(2, 6), min_size=1, max_size=3).map(tuple))
    ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in size]
    whole = uniform(torch.tensor(seed), salt, size)
    part = uniform_shard(
        torch.tensor(seed),
        salt,
        [b - a for a, b in ends],
        [a for a, _ in ends],
        random.row_major_strides(size),
    )
    assert torch.equal(part, whole[tuple(slice(a, b) for a, b in ends)])


def test_far_positions_of_a_huge_tensor_keep_their_bits():
    far, strides = (70_000, 3), (100_000, 1)
    found = uniform_shard(torch.tensor(5), 1, (2, 4), far, strides)
    wanted = random.uniform(5, 1, (2, 4), offsets=far, strides=strides)
    assert found.numpy().tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_scaled_dot_product_attention(dtype, causal):
    q, k, v = operands(dtype, s=5 if causal else 7)
    out, logsumexp = attention(q, k, v, causal, 0.3)
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=0.3)
    torch.testing.assert_close(out, wanted)
    assert logsumexp.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)


@pytest.mark.parametrize("causal", [False, True])
def test_the_gradient_of_attention_is_its_derivative(causal):
    inputs = operands(grad=True)
    assert torch.autograd.gradcheck(lambda *x: attention(*x, causal, 0.3)[0], inputs)


@pytest.mark.parametrize("causal", [False, True])
def test_the_plain_formula_agrees_with_the_kernel(causal):
    q, k, v = operands()
    out, logsumexp = attention(q, k, v, causal, 0.3)
    plain = operators._attention_formula(q, k, v, causal, 0.3)
    torch.testing.assert_close(plain, (out, logsumexp))
    grad = torch.randn_like(out)
    saved = (q, k, v, out, logsumexp, causal, 0.3)
    torch.testing.assert_close(
        operators._attention_backward_formula(grad, *saved), attention_backward(grad, *saved)
    )


@pytest.mark.parametrize("causal", [False, True])
def test_heads_whose_elements_lie_apart_are_attended_to_as_they_are(causal):
    together = operands()
    apart = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in together]
    assert all(x.stride(-1) > 1 for x in apart)
    out, logsumexp = attention(*together, causal, 0.3)
    torch.testing.assert_close(attention(*apart, causal, 0.3), (out, logsumexp))
    wanted = attention_backward(out.cos(), *together, out, logsumexp, causal, 0.3)
    strewn = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (out.cos(), *together, out)]
    lying = logsumexp.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(attention_backward(*strewn, lying, causal, 0.3), wanted)


@pytest.mark.parametrize("transposed", [False, True])
def test_fake_operators_have_the_shapes_and_strides_of_the_real_ones(transposed):
    q, k, v = operands(t=6)
    if transposed:
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    torch.library.opcheck(attention, (q, k, v, False, 0.3), test_utils="test_faketensor")
    out, logsumexp = attention(q, k, v, False, 0.3)
    saved = (torch.randn_like(out), q, k, v, out, logsumexp, False, 0.3)
    torch.library.opcheck(attention_backward, saved, test_utils="test_faketensor")
    torch.library.opcheck(uniform, (torch.tensor(1), 2, [3, 4]), test_utils="test_faketensor")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_on_cuda_agrees_with_the_formula(dtype, causal):
    q, k, v = (
        torch.randn(2, 3, 16, 8, dtype=dtype, device="cuda").transpose(1, 2).contiguous()
        for _ in range(3)
    )
    inputs = tuple(x.transpose(1, 2).requires_grad_() for x in (q, k, v))
    out = attention(*inputs, causal, 0.3)[0]
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, inputs, grad)
    wide = tuple(x.detach().double() for x in inputs)
    wanted, logsumexp = operators._attention_formula(*wide, causal, 0.3)
    saved = (grad.double(), *wide, wanted, logsumexp, causal, 0.3)
    tolerance = {"rtol": 3e-2, "atol": 3e-2} if dtype is torch.bfloat16 else {}
    torch.testing.assert_close(out, wanted.to(dtype), **tolerance)
    for ours, theirs in zip(found, operators._attention_backward_formula(*saved), strict=True):
        torch.testing.assert_close(ours, theirs.to(dtype), **tolerance)


@pytest.mark.gpu
def test_uniform_on_cuda_gives_the_bits_of_its_definition():
    found = uniform(torch.tensor(-7, device="cuda"), 3, (50, 40))
    assert found.cpu().numpy().tobytes() == random.uniform(-7, 3, (50, 40)).tobytes()
