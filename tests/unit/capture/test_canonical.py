"""Every operation that a model may use becomes a program that computes the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.unit.capture.harness import applied, assert_same_step

X = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
IMAGE = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
IDS = torch.tensor([[0, 2, 1], [3, 3, -1 + 1]])
CLASS = torch.tensor([0, 5, 3, -100])
HEADS = torch.randn(2, 4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def changed_in_place(w, x):
    y = w * x
    y[:, 0] = 0.0
    y[1:3, 2:4].mul_(2.0)
    y[:, ::2] += 1.0
    return y.relu_()


def written_by_mask(w, x):
    y = w.clone()
    y.masked_fill_(x > 0, 0.5)
    return y * x


def summed_by_index(w, x):
    return torch.zeros(4, 6, dtype=w.dtype).index_add(0, torch.tensor([1, 1, 0, 3]), w * x)


def attended(**options):
    return lambda w, x: F.scaled_dot_product_attention(w, x, x * 2.0, **options)


MASK = torch.tensor([[True, False, True, True, True]]).expand(5, 5)

POINTWISE = {
    "add with alpha": lambda w, x: torch.add(w, x, alpha=2.5),
    "subtract from a number": lambda w, x: 3.0 - w * x,
    "divide a number": lambda w, x: 2.0 / (w.abs() + 1.0) + x,
    "integer times float": lambda w, x: torch.arange(6) * w + x,
    "single precision": lambda w, x: w.float() * x.float(),
    "powers": lambda w, x: w.pow(2) + (w.abs() + 1) ** 0.5 + 2.0**w + x.pow(3) * w,
    "roots": lambda w, x: (w.abs() + 1).sqrt() + (x.abs() + 1).rsqrt() * w,
    "logarithms": lambda w, x: (w.abs() + 1).log() + torch.log1p(w.abs()) * x,
    "waves": lambda w, x: w.sin() + w.cos() * x,
    "sigmoids": lambda w, x: w.sigmoid() + w.tanh() * torch.erf(x * w),
    "relu": lambda w, x: F.relu(w * x),
    "gelu": lambda w, x: F.gelu(w * x) + F.gelu(w, approximate="tanh"),
    "silu": lambda w, x: F.silu(w * x),
    "leaky relu": lambda w, x: F.leaky_relu(w * x, 0.2) + F.elu(w),
    "soft pluses": lambda w, x: F.softplus(w * x) + F.mish(w),
    "hard functions": lambda w, x: F.hardswish(w * x) + F.hardtanh(w) + F.relu6(w),
    "absolute and sign": lambda w, x: w.abs() * x.sign(),
    "clamps": lambda w, x: w.clamp(-0.5, 0.5) + w.clamp(min=0.1) + (x * w).clamp(max=0.2),
    "clamp by tensors": lambda w, x: torch.clamp(w, min=x),
    "larger and smaller": lambda w, x: torch.maximum(w, x) + torch.minimum(w, 2 * x),
    "comparisons": lambda w, x: w * (x > 0) + w * (x <= 0.5) * 2 + (w != x) * w,
    "logic": lambda w, x: torch.where((x > 0) & ~(x > 1) | (x < -1), w, w * 2),
    "where with numbers": lambda w, x: torch.where(x > 0, w, 0.0),
    "interpolation": lambda w, x: torch.lerp(w, x, 0.3) + torch.addcmul(w, w, x, value=2.0),
    "remainders": lambda w, x: w * (torch.arange(6) % 4) + w * (torch.arange(6) // 4) + x,
    "masked fill": written_by_mask,
    "in place": changed_in_place,
}

SHAPES = {
    "reshape": lambda w, x: (w * x).reshape(2, 12).t(),
    "transpose and move": lambda w, x: (w * x).view(2, 2, 6).movedim(0, 2).transpose(0, 1),
    "squeeze": lambda w, x: w[None, :, None].squeeze(0).squeeze() * x,
    "expand": lambda w, x: w[:, :1].expand(4, 6) * x + w[0].expand_as(x),
    "repeat": lambda w, x: w.repeat(2, 1) * x.repeat_interleave(2, 0),
    "slices": lambda w, x: w[1:, ::2] * x[:3, 1::2],
    "negative slices": lambda w, x: w[-2:, :-1] * x[:2, 1:],
    "select": lambda w, x: w[1] * x[:, 2:3] + w[-1, -1],
    "chunk": lambda w, x: torch.cat([p * x[:, :2] for p in w.chunk(3, 1)], dim=1),
    "split": lambda w, x: w.split([1, 2, 3], dim=1)[2] * x[:, :3],
    "stack and unbind": lambda w, x: torch.stack([*w.unbind(0)][::-1], dim=1) * x.t(),
    "flip and roll": lambda w, x: w.flip(1) * x + w.roll(2, 0) + w.roll((1, -2), (0, 1)),
    "pad": lambda w, x: F.pad(w, (1, 2, 0, 1), value=3.0)[:4, :6] * x + F.pad(w, (-1, 1)),
    "triangles": lambda w, x: w.tril(1) + (w * x).triu(-1),
    "diagonal": lambda w, x: torch.eye(4, 6, dtype=w.dtype) * w + torch.linspace(0, 1, 6) * x * w,
    "constants": lambda w, x: w * torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0, 9.0]) + x * 2,
    "full tensors": lambda w, x: w * torch.full_like(x, 2.0) + torch.ones(6) + torch.zeros(4, 1),
    "new tensors": lambda w, x: w * w.new_ones(6) + w.new_full((4, 1), 3.0) + w.new_zeros(4, 6),
}

REDUCTIONS = {
    "sums": lambda w, x: w.sum() * x + w.sum(1, keepdim=True) + (w * x).sum(0),
    "means": lambda w, x: w.mean() + (w * x).mean(-1, keepdim=True) + w.mean((0, 1)),
    "variance": lambda w, x: w.var(1) + (w * x).std(1) + w.var(1, correction=0),
    "norms": lambda w, x: (w * x).norm() + w.norm(dim=1) + w.norm(1, dim=1) + F.normalize(w)[:, 0],
    "amax": lambda w, x: (w * x).amax(1) + w.max() + w.amin(1) - w.min(),
    "max with index": lambda w, x: (w * x).max(1).values + w.min(1).values,
    "argmax": lambda w, x: w * (x.argmax(1) + x.argmin(1))[:, None],
    "cumsum": lambda w, x: (w * x).cumsum(1),
    "logsumexp": lambda w, x: (w * x).logsumexp(1),
    "softmax": lambda w, x: (w * x).softmax(1) + w.log_softmax(0),
    "topk": lambda w, x: (w * x).topk(2, dim=1).values,
    "cosine": lambda w, x: F.cosine_similarity(w, x, dim=1),
}

INDEXING = {
    "lookup": lambda w, x: F.embedding(IDS, w) * x[0],
    "lookup with padding": lambda w, x: F.embedding(IDS, w, padding_idx=3) * x[0],
    "index by tensor": lambda w, x: w[torch.tensor([2, -1, 0])] * x[:3],
    "index on a later dim": lambda w, x: w[:, torch.tensor([[0, 5], [1, 2]])] + x[:, 0, None, None],
    "index select": lambda w, x: w.index_select(1, torch.tensor([5, 1])) * x[:, :2],
    "gather": lambda w, x: w.gather(1, torch.tensor([[0, 1], [5, 2], [3, 3], [4, 0]])) * x[:, :2],
    "scatter add": lambda w, x: torch.zeros_like(x).scatter_add(1, torch.zeros(4, 6).long(), w * x),
    "index add": summed_by_index,
    "one hot": lambda w, x: F.one_hot(torch.tensor([1, 0, 5, 5]), 6) * w * x,
    "dropped": lambda w, x: F.dropout(w * x, 0.4),
    "dropped channels": lambda w, x: F.dropout1d(w[None], 0.5)[0] * x,
    "random mask": lambda w, x: w * torch.rand_like(x) + w * (torch.rand(4, 1) < 0.5),
    "drop path": lambda w, x: w * x.new_empty(4, 1).bernoulli_(0.7) + torch.bernoulli(x.sigmoid()),
}

PRODUCTS = {
    "matrix product": lambda w, x: w @ x.t(),
    "vector products": lambda w, x: torch.mv(w, x[0]) @ w + torch.dot(w[0], x[0]),
    "outer": lambda w, x: torch.outer(w[0], x[0]),
    "addmm": lambda w, x: torch.addmm(w[:, :4], w, x.t(), beta=0.5, alpha=2.0),
    "linear": lambda w, x: F.linear(x, w, w[:, 0]),
    "batched by broadcasting": lambda w, x: (
        x[None, None] @ w.view(2, 2, 6).transpose(1, 2)[:, None]
    ),
    "batched vector": lambda w, x: w.view(2, 2, 6) @ x[0],
    "einsum": lambda w, x: torch.einsum("ij,kj->ik", w, x) + torch.einsum("ij,ij->i", w, x),
    "einsum with batch": lambda w, x: torch.einsum("abc,dc->bad", w.view(2, 2, 6), x),
    "einsum of experts": lambda w, x: torch.einsum(
        "gsec,gsm->egcm", w.view(2, 2, 3, 2), x.view(2, 2, 6)
    ),
    "baddbmm": lambda w, x: torch.baddbmm(
        w.view(2, 2, 6)[:, :, :2], w.view(2, 2, 6), x.view(2, 6, 2), beta=0.5, alpha=3.0
    ),
}

LOSSES = {
    "cross entropy": lambda w, x: F.cross_entropy(w * x, CLASS),
    "all counted": lambda w, x: F.cross_entropy(w * x, CLASS.clamp(min=0)),
    "a class ignored": lambda w, x: F.cross_entropy(w * x, CLASS.clamp(min=0), ignore_index=3),
    "summed": lambda w, x: F.cross_entropy(w * x, CLASS, reduction="sum"),
    "each": lambda w, x: F.cross_entropy(w * x, CLASS, reduction="none"),
    "weighted": lambda w, x: F.cross_entropy(w * x, CLASS, weight=x[0].abs()),
    "smoothed": lambda w, x: F.cross_entropy(w * x, CLASS, label_smoothing=0.1),
    "soft targets": lambda w, x: F.cross_entropy(w * x, x.softmax(1)),
    "likelihood": lambda w, x: F.nll_loss((w * x).log_softmax(1), CLASS),
    "one row": lambda w, x: F.cross_entropy(w[0] * x[0], CLASS[0]),
    "squared": lambda w, x: F.mse_loss(w, x) + F.smooth_l1_loss(w, x) + F.l1_loss(w, x),
    "huber": lambda w, x: F.huber_loss(w, x),
    "binary": lambda w, x: F.binary_cross_entropy_with_logits(w, x.sigmoid()),
    "divergence": lambda w, x: F.kl_div(w.log_softmax(1), x.softmax(1), reduction="batchmean"),
}

NORMS = {
    "layer norm": lambda w, x: F.layer_norm(x * w, (6,), w[0], w[1]),
    "layer norm, plain": lambda w, x: F.layer_norm(x * w, (4, 6)),
    "rms norm": lambda w, x: F.rms_norm(x * w, (6,), w[0]),
    "group norm": lambda w, x: F.group_norm((x * w)[:, :, None], 3, w[0], w[1]),
    "batch norm": lambda w, x: F.batch_norm(x * w, None, None, w[0], w[1], training=True),
}

IMAGES = {
    "convolution": lambda w, x: F.conv2d(x, w, w[:, 0, 0, 0], stride=2, padding=1),
    "grouped convolution": lambda w, x: F.conv2d(x, w[:, :2], groups=2, dilation=2),
    "transposed convolution": lambda w, x: F.conv_transpose2d(x, w, stride=2),
    "one dim": lambda w, x: F.conv1d(x[:, :, 0], w[..., 0], padding=1),
    "max pool": lambda w, x: F.max_pool2d(F.conv2d(x, w), 2),
    "average pool": lambda w, x: F.avg_pool2d(F.conv2d(x, w, padding=1), 2),
    "adaptive pool": lambda w, x: F.adaptive_avg_pool2d(F.conv2d(x, w, padding=1), 2),
    "global pool": lambda w, x: F.adaptive_avg_pool2d(F.conv2d(x, w), 1),
    "per-pixel classes": lambda w, x: F.cross_entropy(
        F.conv2d(x, w, padding=1), (x.sum(1) > 0).long(), ignore_index=0
    ),
    "dropped channels": lambda w, x: F.dropout2d(F.conv2d(x, w), 0.5),
}

ATTENTION = {
    "attention": attended(),
    "causal": attended(is_causal=True),
    "scaled": attended(scale=0.3),
    "masked": attended(attn_mask=MASK),
    "biased": attended(attn_mask=torch.ones(5, 5, dtype=torch.float64).tril()),
    "dropped": attended(dropout_p=0.3),
    "grouped": lambda w, x: F.scaled_dot_product_attention(w, x[:, :2], x[:, 2:], enable_gqa=True),
    "other lengths": lambda w, x: F.scaled_dot_product_attention(w[:, :, :2], x, x),
    "causal, other lengths": lambda w, x: F.scaled_dot_product_attention(
        w[:, :, :2], x, x, is_causal=True
    ),
    "three dims": lambda w, x: F.scaled_dot_product_attention(w[0], x[0], x[0]),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_element_wise_operations_keep_their_meaning(name):
    tolerance = 1e-6 if name == "single precision" else 1e-10
    assert_same_step(applied(POINTWISE[name], (4, 6), X), rtol=tolerance)


@pytest.mark.parametrize("name", SHAPES)
def test_shape_operations_keep_their_meaning(name):
    assert_same_step(applied(SHAPES[name], (4, 6), X))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_keep_their_meaning(name):
    assert_same_step(applied(REDUCTIONS[name], (4, 6), X))


@pytest.mark.parametrize("name", INDEXING)
def test_lookups_and_random_masks_keep_their_meaning(name):
    assert_same_step(applied(INDEXING[name], (4, 6), X))


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_keep_their_meaning(name):
    assert_same_step(applied(PRODUCTS[name], (4, 6), X))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_keep_their_meaning(name):
    assert_same_step(applied(LOSSES[name], (4, 6), X))


@pytest.mark.parametrize("name", NORMS)
def test_normalisations_keep_their_meaning(name):
    assert_same_step(applied(NORMS[name], (4, 6), X), rtol=1e-9)


@pytest.mark.parametrize("name", IMAGES)
def test_image_operations_keep_their_meaning(name):
    assert_same_step(applied(IMAGES[name], (4, 4, 3, 3), IMAGE))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_keeps_its_meaning(name):
    assert_same_step(applied(ATTENTION[name], (2, 4, 5, 3), HEADS))
