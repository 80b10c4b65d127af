"""CLIP: a tower that reads images and a tower that reads texts, taught to agree.

    weft plan recipes/clip.py:clip_vit_l14 --machine dgx-h100x8 -o plan.json

The two towers are independent until their results meet: each image is compared with every text
of the batch. That loss mixes the samples of a step, so the step cannot be done in micro-batches:
a plan splits the batch over devices and gathers the towers' results, which are small.

Names of tensors end in their dims:

    B image   A text   T position   D model width   H head   N head width   F hidden width
    E width that both towers end in   C channel   Y, X row and column of patches
    U, V row and column within a patch

Source: Radford et al. 2021, arXiv 2103.00020, figure 3 (loss) and table 20 (ViT-L/14); the
larger size is ViT-bigG/14 of OpenCLIP (Cherti et al. 2022, arXiv 2212.07143), from
mlfoundations/open_clip src/open_clip/model_configs/ViT-bigG-14.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from real_data import digits_batch
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["CLIP", "Config", "Tower", "clip_tiny", "clip_vit_bigg14", "clip_vit_l14"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """Sizes of one tower."""

    num_layers: int
    width: int
    num_heads: int
    hidden: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a CLIP; images are square, and a text ends with the highest token.

    `quick_gelu` is x sigmoid(1.702 x), which the first models used for GELU.
    """

    vision: Tower
    text: Tower
    embedding: int
    image: int = 224
    patch: int = 14
    channels: int = 3
    context: int = 77
    vocabulary: int = 49_408
    quick_gelu: bool = False

    @property
    def patches(self) -> int:
        """Patches along one side of an image."""
        return self.image // self.patch


class Attention(nn.Module):
    """Self-attention by heads."""

    def __init__(self, tower: Tower, *, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.causal = tower.num_heads, causal
        self.query = nn.Linear(tower.width, tower.width)
        self.key = nn.Linear(tower.width, tower.width)
        self.value = nn.Linear(tower.width, tower.width)
        self.out = nn.Linear(tower.width, tower.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q_BHTN = self._split(self.query(x_BTD))
        k_BHTN = self._split(self.key(x_BTD))
        v_BHTN = self._split(self.value(x_BTD))
        y_BHTN = F.scaled_dot_product_attention(q_BHTN, k_BHTN, v_BHTN, is_causal=self.causal)
        return self.out(y_BHTN.transpose(1, 2).flatten(2))

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to the residual stream."""

    def __init__(self, tower: Tower, *, causal: bool, quick_gelu: bool) -> None:
        super().__init__()
        self.quick_gelu = quick_gelu
        self.attention_norm = nn.LayerNorm(tower.width)
        self.attention = Attention(tower, causal=causal)
        self.mlp_norm = nn.LayerNorm(tower.width)
        self.up = nn.Linear(tower.width, tower.hidden)
        self.down = nn.Linear(tower.hidden, tower.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        h_BTF = self.up(self.mlp_norm(x_BTD))
        h_BTF = h_BTF * torch.sigmoid(1.702 * h_BTF) if self.quick_gelu else F.gelu(h_BTF)
        return x_BTD + self.down(h_BTF)


class VisionTower(nn.Module):
    """Patches and a class token through the layers; the class token is the image's vector."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        tower = config.vision
        self.patches, self.patch = config.patches, config.patch
        self.project = nn.Linear(config.channels * config.patch**2, tower.width, bias=False)
        self.token = nn.Parameter(torch.empty(tower.width))
        self.positions = nn.Parameter(torch.empty(config.patches**2 + 1, tower.width))
        self.first_norm = nn.LayerNorm(tower.width)
        self.layers = nn.ModuleList(
            Block(tower, causal=False, quick_gelu=config.quick_gelu)
            for _ in range(tower.num_layers)
        )
        self.norm = nn.LayerNorm(tower.width)
        self.out = nn.Linear(tower.width, config.embedding, bias=False)
        for table in (self.token, self.positions, self.out.weight):
            nn.init.normal_(table, std=tower.width**-0.5)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Vectors of images [B,E]."""
        x_BTD = self.embed(x_BCYX)
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return self.read(x_BTD)

    def embed(self, x_BCYX: Tensor) -> Tensor:
        """What the layers begin with [B,T,D]."""
        cut = (self.patches, self.patch)
        x_BCYUXV = x_BCYX.unflatten(3, cut).unflatten(2, cut)
        x_BYXCUV = x_BCYUXV.permute(0, 2, 4, 1, 3, 5)
        patches_BTD = self.project(x_BYXCUV.flatten(3).flatten(1, 2))
        token_BTD = self.token.expand(len(patches_BTD), 1, -1).to(patches_BTD.dtype)
        x_BTD = torch.cat((token_BTD, patches_BTD), dim=1) + self.positions
        return self.first_norm(x_BTD)

    def read(self, x_BTD: Tensor) -> Tensor:
        """Vectors from what the layers end with [B,E]."""
        return self.out(self.norm(x_BTD[:, 0]))


class TextTower(nn.Module):
    """Tokens through causal layers; the last token, which has seen all, is the text's vector."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        tower = config.text
        self.end = config.vocabulary - 1
        self.tokens = nn.Embedding(config.vocabulary, tower.width)
        self.positions = nn.Parameter(torch.empty(config.context, tower.width))
        self.layers = nn.ModuleList(
            Block(tower, causal=True, quick_gelu=config.quick_gelu) for _ in range(tower.num_layers)
        )
        self.norm = nn.LayerNorm(tower.width)
        self.out = nn.Linear(tower.width, config.embedding, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        nn.init.normal_(self.out.weight, std=tower.width**-0.5)

    def forward(self, tokens_AT: Tensor) -> Tensor:
        """Vectors of texts [A,E]."""
        x_ATD = self.embed(tokens_AT)
        for layer in self.layers:
            x_ATD = layer(x_ATD)
        return self.read(x_ATD, tokens_AT)

    def embed(self, tokens_AT: Tensor) -> Tensor:
        """What the layers begin with [A,T,D]."""
        return self.tokens(tokens_AT) + self.positions

    def read(self, x_ATD: Tensor, tokens_AT: Tensor) -> Tensor:
        """Vectors from what the layers end with [A,E]."""
        # A sum over one position in place of a look-up, so that the texts can be split.
        is_end_AT = (tokens_AT == self.end).to(x_ATD.dtype)
        end_AD = (self.norm(x_ATD) * is_end_AT[..., None]).sum(dim=1)
        return self.out(end_AD)


class CLIP(nn.Module):
    """Both towers, and how sharply their agreement is judged."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.vision = VisionTower(config)
        self.text = TextTower(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, x_BCYX: Tensor, tokens_AT: Tensor) -> Tensor:
        """How well each image fits each text [B,A]."""
        image_BE = F.normalize(self.vision(x_BCYX), dim=1)
        text_AE = F.normalize(self.text(tokens_AT), dim=1)
        return self.log_scale.exp() * (image_BE @ text_AE.T)


def contrastive_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the right text for an image and of the right image [scalar].

    Never below single precision.
    """
    fit_BA = model(batch["images"], batch["tokens"])
    if fit_BA.dtype is torch.bfloat16:
        fit_BA = fit_BA.float()
    own = torch.arange(len(fit_BA), device=fit_BA.device)
    return (F.cross_entropy(fit_BA, own) + F.cross_entropy(fit_BA.T, own)) / 2


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Pairs without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.channels, config.image, config.image)
    tokens = torch.randint(config.vocabulary - 1, (batch, config.context), generator=generator)
    tokens[:, -1] = config.vocabulary - 1
    return {"images": torch.randn(shape, generator=generator), "tokens": tokens}


_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def named_digits_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """The next digits, each with its English name in bytes."""
    entries = digits_batch(step, batch)
    tokens = torch.zeros(len(_NAMES), config.context, dtype=torch.long)
    for row, name in zip(tokens, _NAMES, strict=True):
        row[: len(name)] = torch.tensor(list(name.encode()))
        row[len(name)] = config.vocabulary - 1
    return {"images": entries["images"], "tokens": tokens[entries["labels"]]}


VIT_L14 = Config(
    vision=Tower(num_layers=24, width=1024, num_heads=16, hidden=4096),
    text=Tower(num_layers=12, width=768, num_heads=12, hidden=3072),
    embedding=768,
    quick_gelu=True,
)
"""Sizes of ViT-L/14."""


def for_digits(*, num_layers: int) -> Config:
    """Sizes for digits and their names, with so many layers of width 32 on each side."""
    return Config(
        vision=Tower(num_layers=num_layers, width=32, num_heads=4, hidden=64),
        text=Tower(num_layers=num_layers, width=32, num_heads=2, hidden=64),
        embedding=16,
        image=8,
        patch=2,
        channels=1,
        context=8,
        vocabulary=129,
    )


def clip(name: str, config: Config, *, batch: int, lr: float) -> Workload:
    """A CLIP of published size: master copies in float32, arithmetic in bfloat16."""
    return Workload(
        name=name,
        model=lambda: CLIP(config),
        loss=contrastive_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=AdamW(lr=lr, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2),
        compute_dtype=torch.bfloat16,
    )


def clip_vit_l14(*, batch: int = 256) -> Workload:
    """428 M parameters; OpenAI trained with 32,768 pairs a step."""
    return clip("clip_vit_l14", VIT_L14, batch=batch, lr=4e-4)


def clip_vit_bigg14(*, batch: int = 256) -> Workload:
    """2.54 B parameters, 1.84 B of them in the image tower."""
    config = Config(
        vision=Tower(num_layers=48, width=1664, num_heads=16, hidden=8192),
        text=Tower(num_layers=32, width=1280, num_heads=20, hidden=5120),
        embedding=1280,
    )
    return clip("clip_vit_bigg14", config, batch=batch, lr=1e-3)


def clip_tiny(*, batch: int = 8) -> Workload:
    """Two layers of width 32 on each side, on digits and their names: milliseconds a step."""
    config = for_digits(num_layers=2)
    return Workload(
        name="clip_tiny",
        model=lambda: CLIP(config),
        loss=contrastive_loss,
        batch=lambda step: named_digits_batch(step, batch, config),
        optimizer=AdamW(lr=3e-3, weight_decay=0.05),
    )
