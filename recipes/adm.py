"""ADM, the U-Net of "Diffusion models beat GANs": blocks that know the noise, with attention.

    weft score recipes/adm.py:adm_256 --machine dgx-h100x1 --dp 8

Residual blocks on the way down, in the middle and on the way up, which reads again all that came
down; the time of the diffusion and the class of the image scale and shift every block. The model
learns the noise in an image; the variance that the published one learns besides is left out.
No two blocks are alike, so nothing folds: a search over one axis takes seconds, one over two axes
can take longer than a quarter of an hour (`weft.plan(..., mesh=(8,))` looks along one only).

Names of tensors end in their dims:

    B image   C channel   Y, X row and column   P pixel   H head   N head width   Z width of time

Source: Dhariwal and Nichol 2021, arXiv 2105.05233, section 3, table 4 and appendix I, with the
blocks of openai/guided-diffusion guided_diffusion/unet.py; the cosine schedule from Nichol and
Dhariwal 2021, arXiv 2102.09672, equation 17, the loss from Ho et al. 2020, arXiv 2006.11239.
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

__all__ = ["ADM", "Config", "adm_64", "adm_256", "adm_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of an ADM.

    Attributes:
        width: channels of the first level.
        factors: channels of each level over those; every level after the first halves the image.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attended: sides of the images at which blocks are followed by attention [pixels].
        times: steps of the diffusion.
    """

    width: int
    factors: tuple[int, ...]
    blocks: int
    image: int
    attended: tuple[int, ...]
    head_width: int = 64
    groups: int = 32
    channels: int = 3
    classes: int = 1000
    times: int = 1000
    dropout: float = 0.0

    @property
    def time_width(self) -> int:
        """Width of the vector that tells blocks time and class."""
        return 4 * self.width

    @property
    def wave_count(self) -> int:
        """Waves that a time is written in."""
        return self.width // 2


def halved(x_BCYX: Tensor) -> Tensor:
    """Means of squares of four pixels."""
    return F.avg_pool2d(x_BCYX, 2)


def doubled(x_BCYX: Tensor) -> Tensor:
    """Each pixel as a square of four."""
    rows, columns = x_BCYX.shape[2:]
    wide = x_BCYX[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    return wide.reshape(*x_BCYX.shape[:2], 2 * rows, 2 * columns)


def same(x_BCYX: Tensor) -> Tensor:
    """The image as it is."""
    return x_BCYX


_RESIZE = {"": same, "down": halved, "up": doubled}


class Block(nn.Module):
    """Two convolutions beside a shortcut, the second scaled and shifted by time and class."""

    def __init__(self, config: Config, channels_in: int, channels: int, resize: str = "") -> None:
        super().__init__()
        self.resize = _RESIZE[resize]
        self.first_norm = nn.GroupNorm(config.groups, channels_in)
        self.first = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.time = nn.Linear(config.time_width, 2 * channels)
        self.second_norm = nn.GroupNorm(config.groups, channels)
        self.dropout = nn.Dropout(config.dropout)
        self.second = _zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.match = nn.Identity()
        if channels_in != channels:
            self.match = nn.Conv2d(channels_in, channels, 1)

    def forward(self, x_BCYX: Tensor, time_BZ: Tensor) -> Tensor:
        h_BCYX = self.first(self.resize(F.silu(self.first_norm(x_BCYX))))
        scale_BC, shift_BC = self.time(F.silu(time_BZ)).chunk(2, dim=1)
        h_BCYX = self.second_norm(h_BCYX) * (1 + scale_BC[:, :, None, None])
        h_BCYX = F.silu(h_BCYX + shift_BC[:, :, None, None])
        return self.match(self.resize(x_BCYX)) + self.second(self.dropout(h_BCYX))


class Attention(nn.Module):
    """Self-attention by heads, every pixel with every other, added to the image."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.norm = nn.GroupNorm(config.groups, channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = _zeroed(nn.Linear(channels, channels))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        h_BPC = self.norm(x_BCYX).flatten(2).transpose(1, 2)
        q_BHPN = self._split(self.query(h_BPC))
        k_BHPN = self._split(self.key(h_BPC))
        v_BHPN = self._split(self.value(h_BPC))
        y_BHPN = F.scaled_dot_product_attention(q_BHPN, k_BHPN, v_BHPN)
        y_BPC = self.out(y_BHPN.transpose(1, 2).flatten(2))
        return x_BCYX + y_BPC.transpose(1, 2).unflatten(2, x_BCYX.shape[2:])

    def _split(self, x_BPC: Tensor) -> Tensor:
        return x_BPC.unflatten(2, (-1, self.head_width)).transpose(1, 2)


def _zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with zeros for a start: blocks begin by passing on what they read."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Step(nn.Module):
    """A block and, at some sizes of the image, attention."""

    def __init__(self, config: Config, channels_in: int, channels: int, side: int) -> None:
        super().__init__()
        self.block = Block(config, channels_in, channels)
        attends = side in config.attended
        self.attention = Attention(config, channels) if attends else nn.Identity()

    def forward(self, x_BCYX: Tensor, time_BZ: Tensor) -> Tensor:
        return self.attention(self.block(x_BCYX, time_BZ))


class Time(nn.Module):
    """The vector of a time and a class, and how much of image and noise there is at a time.

    Waves and the schedule are buffers, computed once: every rank of a plan then has the same.
    """

    frequencies: Tensor
    kept: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        exponents = torch.arange(config.wave_count) / config.wave_count
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * exponents), False)
        self.register_buffer("kept", kept_variance(config.times), False)
        self.first = nn.Linear(2 * config.wave_count, config.time_width)
        self.second = nn.Linear(config.time_width, config.time_width)
        self.classes = nn.Embedding(config.classes, config.time_width)

    def forward(self, times_B: Tensor, labels_B: Tensor) -> Tensor:
        angle_BW = times_B[:, None] * self.frequencies
        waves_BW = torch.cat((angle_BW.cos(), angle_BW.sin()), dim=1).to(self.first.weight.dtype)
        return self.second(F.silu(self.first(waves_BW))) + self.classes(labels_B)


def kept_variance(times: int) -> Tensor:
    """Share of the image in the variance at each time, by a cosine [times]."""
    steps = torch.arange(times + 1, dtype=torch.float64) / times
    level = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
    ratios = (level[1:] / level[:-1]).clamp(min=0.001)
    return ratios.cumprod(dim=0).float()


class ADM(nn.Module):
    """Steps on the way down, in the middle and on the way up."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.time = Time(config)
        self.enter = nn.Conv2d(config.channels, config.width, 3, padding=1)
        # By name, because steps are unlike: a list of them would be taken for repeated layers.
        self.down, self.up = nn.ModuleDict(), nn.ModuleDict()
        channels, side, skips = config.width, config.image, [config.width]
        for level, factor in enumerate(config.factors):
            for number in range(config.blocks):
                step = Step(config, channels, channels := config.width * factor, side)
                self.down[f"level{level}_step{number}"] = step
                skips.append(channels)
            if level + 1 < len(config.factors):
                self.down[f"level{level}_halve"] = Block(config, channels, channels, "down")
                skips.append(channels)
                side //= 2
        self.middle_first = Block(config, channels, channels)
        self.middle_attention = Attention(config, channels)
        self.middle_second = Block(config, channels, channels)
        for level, factor in reversed([*enumerate(config.factors)]):
            for number in range(config.blocks + 1):
                read = channels + skips.pop()
                step = Step(config, read, channels := config.width * factor, side)
                self.up[f"level{level}_step{number}"] = step
            if level:
                self.up[f"level{level}_double"] = Block(config, channels, channels, "up")
                side *= 2
        self.norm = nn.GroupNorm(config.groups, channels)
        self.leave = _zeroed(nn.Conv2d(channels, config.channels, 3, padding=1))

    def forward(
        self, images_BCYX: Tensor, noise_BCYX: Tensor, times_B: Tensor, labels_B: Tensor
    ) -> Tensor:
        """The noise that was found in images at some times of the diffusion [B,C,Y,X]."""
        kept_B111 = self.time.kept[times_B][:, None, None, None]
        x_BCYX = kept_B111.sqrt() * images_BCYX + (1 - kept_B111).sqrt() * noise_BCYX
        time_BZ = self.time(times_B, labels_B)
        h_BCYX = self.enter(x_BCYX.to(images_BCYX.dtype))
        skips = [h_BCYX]
        for block in self.down.values():
            h_BCYX = block(h_BCYX, time_BZ)
            skips.append(h_BCYX)
        h_BCYX = self.middle_attention(self.middle_first(h_BCYX, time_BZ))
        h_BCYX = self.middle_second(h_BCYX, time_BZ)
        for name, block in self.up.items():
            if not name.endswith("double"):
                h_BCYX = torch.cat((h_BCYX, skips.pop()), dim=1)
            h_BCYX = block(h_BCYX, time_BZ)
        return self.leave(F.silu(self.norm(h_BCYX)))


def noise_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean square error of the noise, never below single precision [scalar]."""
    found = model(batch["images"], batch["noise"], batch["times"], batch["labels"])
    if found.dtype is torch.bfloat16:
        return F.mse_loss(found.float(), batch["noise"].float())
    return F.mse_loss(found, batch["noise"])


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Images without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.channels, config.image, config.image)
    return {
        "images": torch.randn(shape, generator=generator),
        "noise": torch.randn(shape, generator=generator),
        "times": torch.randint(config.times, (batch,), generator=generator),
        "labels": torch.randint(config.classes, (batch,), generator=generator),
    }


def noisy_digits_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """The next digits, with noise and times that are the same for the same step."""
    entries = digits_batch(step, batch)
    generator = torch.Generator().manual_seed(step)
    return {
        **entries,
        "noise": torch.randn(entries["images"].shape, generator=generator),
        "times": torch.randint(config.times, (batch,), generator=generator),
    }


def adm(name: str, config: Config, *, batch: int) -> Workload:
    """An ADM of published size: master copies in float32, arithmetic in bfloat16."""
    return Workload(
        name=name,
        model=lambda: ADM(config),
        loss=noise_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=AdamW(lr=1e-4, weight_decay=0.0),
        compute_dtype=torch.bfloat16,
    )


def adm_64(*, batch: int = 512) -> Workload:
    """296 M parameters, for images of 64 x 64; the published one trained with 2,048 a step."""
    config = Config(
        width=192,
        factors=(1, 2, 3, 4),
        blocks=3,
        image=64,
        attended=(32, 16, 8),
        dropout=0.1,
    )
    return adm("adm_64", config, batch=batch)


def adm_256(*, batch: int = 64) -> Workload:
    """554 M parameters, for images of 256 x 256; the published one trained with 256 a step."""
    config = Config(
        width=256,
        factors=(1, 1, 2, 2, 4, 4),
        blocks=2,
        image=256,
        attended=(32, 16, 8),
    )
    return adm("adm_256", config, batch=batch)


def adm_tiny(*, batch: int = 16) -> Workload:
    """Two levels of 16 and 32 channels on digits of 8 x 8: milliseconds a step."""
    config = Config(
        width=16,
        factors=(1, 2),
        blocks=1,
        image=8,
        attended=(4,),
        head_width=16,
        groups=4,
        channels=1,
        classes=10,
    )
    return Workload(
        name="adm_tiny",
        model=lambda: ADM(config),
        loss=noise_loss,
        batch=lambda step: noisy_digits_batch(step, batch, config),
        optimizer=AdamW(lr=3e-3),
    )
