"""TRL's asynchronous trainer on machines without a GPU.

    with weft.rl.trl.on_cpu():
        trainer = AsyncGRPOTrainer(..., rollout_worker=worker, weight_transfer=transfer)
        trainer.train()

TRL asks CUDA for the device's peak performance, and gets attention over a tree of samples from a
kernel for GPUs. In this block it does neither: the peak is unknown, as TRL itself says it of a
device that it does not know, and attention is torch's own under a mask of the same tree. When the
block ends all is as before. It needs a worker and a transfer of weights that work without a vLLM
server, such as those in `weft.rl.trl.worker`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from weft.core.errors import InputError
from weft.rl.trl.layout import part_of, trl_module

__all__ = ["on_cpu", "tree_attention", "tree_mask"]


@contextmanager
def on_cpu() -> Generator[None]:
    """Let TRL's asynchronous trainer be made, and train, without CUDA.

    Raises:
        InputError: TRL is not installed.
        MismatchError: a TRL whose layout is not known.
    """
    trainer, packing = trl_module("async_grpo_trainer"), trl_module("packing")
    name = part_of(packing, "TREE_ATTENTION")
    replaced = {
        "get_peak_flops_per_device": lambda accelerator, dtype: None,
        "register_tree_attention": lambda: _register(name),
    }
    before = {known: part_of(trainer, known) for known in replaced}
    with _restored(AttentionInterface, name), _restored(AttentionMaskInterface, name):
        _set(trainer, replaced)
        try:
            yield
        finally:
            _set(trainer, before)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree_kv_index: Tensor,
    tree_cu_seqlens_q: Tensor,
    tree_cu_seqlens_k: Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention where each token sees its own path from the root of a tree of samples.

    Args:
        module: of transformers, which asks.
        query: [1, heads, N, width].
        key, value: [1, groups, N, width], with heads a multiple of groups.
        attention_mask: not used.
        tree_kv_index: positions of the tokens of all paths, one path after the other [K].
        tree_cu_seqlens_q: where each segment begins in the row, and the end [S + 1].
        tree_cu_seqlens_k: where the path to each segment begins in the index, and the end [S + 1].
        scaling: what products are multiplied by.
        sliding_window: how many tokens of its path a token sees; None for all.
        softcap: a bound on products, which torch's attention does not have.

    Returns:
        [1, N, heads, width], and no weights.

    Raises:
        InputError: a model with a soft cap.
    """
    if softcap:
        raise InputError(
            need="a model without a soft cap on attention, on a CPU",
            got=f"softcap {softcap}",
            hint="train it on a GPU, or another model here",
        )
    mask = tree_mask(tree_kv_index, tree_cu_seqlens_q, tree_cu_seqlens_k, sliding_window)
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2), None


def tree_mask(
    index: Tensor, starts_q: Tensor, starts_k: Tensor, window: int | None = None
) -> Tensor:
    """Which token of a row sees which [N, N]; arguments as those of `tree_attention`.

    Example:
        >>> index = torch.tensor([0, 1, 0, 1, 2, 0, 1, 3])  # token 1 goes on with 2, or with 3
        >>> starts_q, starts_k = torch.tensor([0, 2, 3, 4]), torch.tensor([0, 2, 5, 8])
        >>> tree_mask(index, starts_q, starts_k).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    own, path = starts_q.diff(), starts_k.diff()
    segment = torch.arange(len(own)).repeat_interleave(path)  # of each token of each path
    depth = torch.arange(len(index)) - starts_k[:-1][segment]
    mask = torch.zeros(int(starts_q[-1]), int(starts_q[-1]), dtype=torch.bool)
    # A path is as deep as its segment ends; the first of the segment's tokens sees all before it.
    first = (depth - (path - own)[segment]).clamp(min=0)
    last = own[segment]
    if window is not None:
        last = torch.minimum(last, depth - (path - own)[segment] + window)
    count = (last - first).clamp(min=0)
    seen = torch.arange(len(index)).repeat_interleave(count)
    within = torch.arange(int(count.sum())) - (count.cumsum(0) - count)[seen]
    mask[starts_q[:-1][segment[seen]] + first[seen] + within, index[seen]] = True
    return mask


def _register(name: str) -> None:
    AttentionInterface.register(name, tree_attention)
    AttentionMaskInterface.register(name, lambda **_: None)


def _set(module: ModuleType, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(module, name, value)


@contextmanager
def _restored(interface: Any, name: str) -> Generator[None]:
    """Put back what transformers knew under a name."""
    known = part_of(interface, "_global_mapping")
    missing = object()
    before = known.get(name, missing)
    try:
        yield
    finally:
        if before is missing:
            known.pop(name, None)
        else:
            known[name] = before
