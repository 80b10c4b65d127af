"""A Llama from Hugging Face transformers: its configuration and random weights, no download.

The model is used as it is; the recipe only says what goes in and what the loss is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from real_data import text_batch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from weft.capture import AdamW, Workload

__all__ = ["hf_llama_small", "hf_llama_tiny"]


def next_token_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the next token [scalar]."""
    logits_BTV = model(input_ids=batch["tokens"], use_cache=False).logits
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())


def hf_llama(name: str, config: LlamaConfig, *, batch: int, sequence: int, lr: float) -> Workload:
    """Any Llama configuration on English text, byte by byte."""
    return Workload(
        name=name,
        model=lambda: LlamaForCausalLM(config),
        loss=next_token_loss,
        batch=lambda step: text_batch(step, batch, sequence),
        optimizer=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=0.1),
    )


def hf_llama_tiny(*, batch: int = 8, num_layers: int = 2) -> Workload:
    """Width 32 with four query and two key heads: milliseconds a step."""
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return hf_llama("hf_llama_tiny", config, batch=batch, sequence=16, lr=1e-2)


def hf_llama_small(*, batch: int = 16) -> Workload:
    """Six layers of width 256."""
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    return hf_llama("hf_llama_small", config, batch=batch, sequence=128, lr=1e-3)
