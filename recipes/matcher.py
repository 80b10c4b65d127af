"""Does a text say what an image shows? Two towers that never meet before their last vectors.

    weft plan recipes/matcher.py:matcher_l14 --machine dgx-h100x8 -o plan.json

The towers are those of CLIP, but each image is judged with one text, so that samples do not mix
and the step can be done in micro-batches. The layers of the two are called in turn, one of each,
as code does that hides the copies of one tower behind the work of the other. In that order every
cut is crossed by both streams; on the graph each tower can be a stage of its own.

Names of tensors end in their dims, as in `clip`:

    B image and text   T position   D model width   E width that both towers end in

Source: the towers as in Radford et al. 2021, arXiv 2103.00020, figure 3 and table 20; the loss of
single pairs as in Zhai et al. 2023, arXiv 2303.15343, equation 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest

import torch
import torch.nn.functional as F
from clip import (
    VIT_L14,
    Config,
    TextTower,
    VisionTower,
    for_digits,
    named_digits_batch,
    random_batch,
)
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["Matcher", "matcher_l14", "matcher_tiny"]


class Matcher(nn.Module):
    """Both towers, and a scale and an offset of how well their vectors agree."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.vision = VisionTower(config)
        self.text = TextTower(config)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.offset = nn.Parameter(torch.tensor(-5.0))

    def forward(self, x_BCYX: Tensor, tokens_BT: Tensor) -> Tensor:
        """How well each image fits its text [B]."""
        image_BTD, text_BTD = self.vision.embed(x_BCYX), self.text.embed(tokens_BT)
        for image_layer, text_layer in zip_longest(self.vision.layers, self.text.layers):
            image_BTD = image_BTD if image_layer is None else image_layer(image_BTD)
            text_BTD = text_BTD if text_layer is None else text_layer(text_BTD)
        image_BE = F.normalize(self.vision.read(image_BTD), dim=1)
        text_BE = F.normalize(self.text.read(text_BTD, tokens_BT), dim=1)
        return self.scale * (image_BE * text_BE).sum(dim=1) + self.offset


def matching_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean binary cross entropy of whether pairs match [scalar], never below single precision."""
    fit_B = model(batch["images"], batch["tokens"])
    if fit_B.dtype is torch.bfloat16:
        fit_B = fit_B.float()
    return F.binary_cross_entropy_with_logits(fit_B, batch["match"].to(fit_B.dtype))


def with_strangers(step: int, entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """The pairs, about every other image with the text of the next one; `match` [B] says which."""
    generator = torch.Generator().manual_seed(step)
    own = torch.rand(len(entries["tokens"]), generator=generator) < 0.5
    strange = entries["tokens"].roll(1, dims=0)
    tokens = torch.where(own[:, None], entries["tokens"], strange)
    match = (tokens == entries["tokens"]).all(dim=1)
    return {"images": entries["images"], "tokens": tokens, "match": match.to(torch.float32)}


def matcher_l14(*, batch: int = 1024) -> Workload:
    """428 M parameters, the towers of CLIP ViT-L/14; random pairs."""
    config = replace(VIT_L14, quick_gelu=False)
    return Workload(
        name="matcher_l14",
        model=lambda: Matcher(config),
        loss=matching_loss,
        batch=lambda step: with_strangers(step, random_batch(step, batch, config)),
        optimizer=AdamW(lr=4e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2),
        compute_dtype=torch.bfloat16,
    )


def matcher_tiny(*, batch: int = 8) -> Workload:
    """Three layers of width 32 on each side, on digits and names: milliseconds a step."""
    config = for_digits(num_layers=3)
    return Workload(
        name="matcher_tiny",
        model=lambda: Matcher(config),
        loss=matching_loss,
        batch=lambda step: with_strangers(step, named_digits_batch(step, batch, config)),
        optimizer=AdamW(lr=3e-3, weight_decay=0.05),
    )
