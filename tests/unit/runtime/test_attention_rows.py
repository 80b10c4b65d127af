"""Rows of causal attention are the rows of all of it."""

from __future__ import annotations

import pytest
import torch

from weft.capture.operators import attention, attention_backward
from weft.runtime.attention_rows import attention_rows, attention_rows_backward

SCALE = 0.3


def operands(dtype):
    random = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 8, 4, generator=random, dtype=dtype) for _ in range(4)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_put_together_are_the_whole(dtype, parts):
    q, k, v, grad = operands(dtype)
    out, logsumexp = attention(q, k, v, True, SCALE)
    whole = attention_backward(grad, q, k, v, out, logsumexp, True, SCALE)
    size = 8 // parts
    # Partial results are rounded before they are joined.
    close = {"rtol": 0.03, "atol": 0.03} if dtype is torch.bfloat16 else {}
    made, keys, values = [], torch.zeros_like(k), torch.zeros_like(v)
    for first in range(0, 8, size):
        rows = slice(first, first + size)
        some, total = attention_rows(q[:, :, rows], k, v, first, SCALE)
        torch.testing.assert_close(some, out[:, :, rows], **close)
        torch.testing.assert_close(total, logsumexp[:, :, rows])
        saved = (q[:, :, rows], k, v, some, total)
        dq, dk, dv = attention_rows_backward(grad[:, :, rows], *saved, first, SCALE)
        made.append(dq)
        keys, values = keys + dk, values + dv
    for found, wanted in zip((torch.cat(made, 2), keys, values), whole, strict=True):
        torch.testing.assert_close(found, wanted, **close)


def test_fake_operators_have_the_shapes_of_the_real_ones():
    q, k, v, grad = operands(torch.float64)
    q, grad = q[:, :, :4].contiguous(), grad[:, :, :4].contiguous()
    torch.library.opcheck(attention_rows, (q, k, v, 4, SCALE), test_utils="test_faketensor")
    saved = (q, k, v, *attention_rows(q, k, v, 4, SCALE))
    about = (grad, *saved, 4, SCALE)
    torch.library.opcheck(attention_rows_backward, about, test_utils="test_faketensor")
