"""Videos of one moving shape, and small denoisers that were trained on them.

A prompt is three tokens: a shape, a colour, a direction. A video has 8 frames of 16 x 16 pixels
on a torus, and is its own latent: pipelines run without decoders. What was asked for can be read
off a video again (`seen`), so that prompt adherence needs no other network.

    B batch   C channels   T frames   H, W rows and columns
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.errors import InputError

__all__ = [
    "CHANNELS",
    "FRAMES",
    "KINDS",
    "SIDE",
    "Colour",
    "Direction",
    "Prompt",
    "Shape",
    "denoiser",
    "embedding",
    "embeddings",
    "is_trained",
    "pipeline",
    "prompts",
    "scale",
    "scheduler",
    "seen",
    "videos",
    "videos_of",
]

CHANNELS, FRAMES, SIDE = 3, 8, 16
TEXT_WIDTH = 32
WEIGHTS = Path(__file__).parent / "moving_shapes"


class Shape(Enum):
    """Distance from the centre that is the same all around a shape, of offsets along each axis."""

    DISC = "disc"
    SQUARE = "square"
    DIAMOND = "diamond"


class Colour(Enum):
    """Of the shape, as channels."""

    RED = (1.0, -1.0, -1.0)
    GREEN = (-1.0, 1.0, -1.0)
    BLUE = (-1.0, -1.0, 1.0)
    YELLOW = (1.0, 1.0, -1.0)


class Direction(Enum):
    """Of its motion, as steps along columns and rows."""

    STILL = (0, 0)
    RIGHT = (1, 0)
    LEFT = (-1, 0)
    DOWN = (0, 1)
    UP = (0, -1)


KINDS: tuple[type[Enum], ...] = (Shape, Colour, Direction)
"""Of a prompt's words, in order."""
SPEEDS, ASIDE = (0.75, 1.15), 1.5
"""Of what moves [pixels a frame], and how far from the middle it is half way [pixels]."""
LIGHTER = 1.0
"""By how much the ground is lighter in the last frame than in the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a video shows."""

    shape: Shape
    colour: Colour
    direction: Direction


def prompts(count: int, generator: torch.Generator) -> list[Prompt]:
    """Random ones."""

    def one(kind: type[Enum]) -> Any:  # noqa: ANN401
        options = list(kind)
        return options[int(torch.randint(len(options), (), generator=generator))]

    return [
        Prompt(shape=one(Shape), colour=one(Colour), direction=one(Direction)) for _ in range(count)
    ]


def embedding(prompt: Prompt | None) -> Tensor:
    """Tokens of a prompt [3, width]; zeros for none."""
    if prompt is None:
        return torch.zeros(3, TEXT_WIDTH)
    return embeddings(_words([prompt]))[0]


def embeddings(words: Tensor) -> Tensor:
    """Tokens of prompts [B,3,width].

    Args:
        words: of each prompt, by number of its shape, colour and direction [B,3].
    """
    table, many = _vocabulary(words.device), [len(kind) for kind in KINDS]
    shape, colour, direction = words.unbind(1)
    return table[torch.stack([shape, many[0] + colour, many[0] + many[1] + direction], 1)]


@cache
def _vocabulary(device: torch.device) -> Tensor:
    words = sum(len(kind) for kind in KINDS)
    drawn = torch.randn(words, TEXT_WIDTH, generator=torch.Generator().manual_seed(1234))
    return drawn.to(device)


@cache
def _values(kind: type[Enum], device: torch.device) -> Tensor:
    """What each option is [options, components]."""
    return torch.tensor([option.value for option in kind], dtype=torch.float32, device=device)


def _words(asked: list[Prompt]) -> Tensor:
    """Numbers of each prompt's shape, colour and direction [B,3]."""
    numbers = [{option: number for number, option in enumerate(kind)} for kind in KINDS]
    return torch.tensor(
        [[numbers[n][getattr(p, field.name)] for n, field in enumerate(fields(p))] for p in asked]
    )


def videos(asked: list[Prompt], generator: torch.Generator) -> Tensor:
    """A video for each prompt, from -1 to 1; place, size, speed and ground random [B,C,T,H,W]."""
    return videos_of(_words(asked), generator)


def videos_of(words: Tensor, generator: torch.Generator | None) -> Tensor:
    """The same, on the device of the prompts' words.

    What moves crosses the middle, and the ground becomes lighter from frame to frame: so the first
    thing that a denoiser learns of a direction is what is where when, without which it draws
    motions with the axis that was asked for and either sign.

    Args:
        words: of each prompt, by number of its shape, colour and direction [B,3].
        generator: of that device; its default one if None.
    """
    many, device = len(words), words.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(many, *shape, generator=generator, device=device)
        return low + (high - low) * drawn

    places, speed, radius = uniform(0, SIDE, 2), uniform(*SPEEDS, 1), uniform(3.5, 5.0)
    middle, ground = SIDE / 2 + uniform(-ASIDE, ASIDE, 2), uniform(-1.0, -0.8, 1, 1, 1, 1)
    times = torch.arange(FRAMES, dtype=torch.float32, device=device)
    steps = _values(Direction, device)[words[:, 2]] * speed
    mid = torch.where(steps == 0, places, middle)
    centres = mid[:, None] + steps[:, None] * (times[None, :, None] - times[-1] / 2)
    ground = ground + LIGHTER * (times / times[-1])[:, None, None]
    every = [_mask(shape, centres, radius[:, None, None, None]) for shape in Shape]
    inside = torch.stack(every, 1)[torch.arange(many, device=device), words[:, 0]]
    colours = _values(Colour, device)[words[:, 1]][:, :, None, None, None]
    return inside[:, None] * colours + (1 - inside[:, None]) * ground


def _mask(shape: Shape, centres: Tensor, radius: Tensor | float) -> Tensor:
    """How far each pixel is inside of a shape, softly, from 0 to 1 [...,H,W].

    Shapes of one radius cover equal areas.

    Args:
        shape: of which kind.
        centres: [...,2].
        radius: one, or one for each [...,1,1].
    """
    along = torch.arange(SIDE, dtype=torch.float32, device=centres.device)
    half = SIDE / 2
    x = (along[None, :] - centres[..., 0, None, None] + half) % SIDE - half
    y = (along[:, None] - centres[..., 1, None, None] + half) % SIDE - half
    if shape is Shape.DISC:
        reach, size = (x.square() + y.square()).sqrt(), 1.0
    elif shape is Shape.SQUARE:
        reach, size = torch.maximum(*torch.broadcast_tensors(x.abs(), y.abs())), 0.886
    else:
        reach, size = x.abs() + y.abs(), 1.253
    return torch.sigmoid(2.5 * (size * radius - reach))


def seen(video: Tensor) -> Prompt:
    """What a video shows, however blurred [C,T,H,W].

    The ground is the median colour of a frame; what stands out is the shape. Its colour is the
    mean of what stands out, its direction the median step of its centre on the torus, and its
    shape the one that, drawn around the centres in the best of some sizes, is nearest.
    """
    ground = video.flatten(2).median(2).values[:, :, None, None]
    out = (video - ground).norm(dim=0)
    weight = (out / out.amax().clamp_min(1e-6)).clamp(0, 1)
    solid = torch.where(weight > 0.5, weight, 0.0)
    mean = (video * solid).flatten(1).sum(1) / solid.sum().clamp_min(1e-6)
    colour = min(Colour, key=lambda c: float((mean - torch.tensor(c.value)).norm()))
    centres = _centres(solid)
    return Prompt(shape=_shape(weight, centres), colour=colour, direction=_direction(centres))


def _centres(solid: Tensor) -> Tensor:
    """Centre of what is solid in each frame, on a torus [T,2]."""
    angle = torch.arange(SIDE) * (2 * math.pi / SIDE)
    found = []
    for dim in (1, 2):  # sums over rows leave columns, and the other way round
        profile = solid.sum(dim)
        sine, cosine = (profile * angle.sin()).sum(1), (profile * angle.cos()).sum(1)
        found.append(torch.atan2(sine, cosine) * (SIDE / (2 * math.pi)) % SIDE)
    return torch.stack(found, 1)


def _direction(centres: Tensor) -> Direction:
    half = SIDE / 2
    step = ((centres[1:] - centres[:-1] + half) % SIDE - half).median(0).values
    if float(step.norm()) < 0.5:
        return Direction.STILL
    moving = [d for d in Direction if d is not Direction.STILL]
    return max(moving, key=lambda d: float(step @ torch.tensor(d.value, dtype=torch.float32)))


def _shape(weight: Tensor, centres: Tensor) -> Shape:
    sizes = torch.arange(3.0, 5.6, 0.25).tolist()

    def distance(shape: Shape) -> float:
        return min(float((_mask(shape, centres, r) - weight).square().mean()) for r in sizes)

    return min(Shape, key=distance)


# ------------------------------------------------------------------------------- denoisers

LAYERS: Mapping[str, int] = {"wan": 10, "wan_small": 2, "cogvideo": 6, "cogvideo_small": 2}
"""Blocks of each denoiser; all are 96 wide."""


def denoiser(name: str, *, trained: bool = True) -> nn.Module:
    """A denoiser of diffusers' own class.

    Args:
        name: see `LAYERS`.
        trained: whether it has the weights that `benchmarks/denoise/train.py` made.
    """
    diffusers: Any = importlib.import_module("diffusers")
    torch.manual_seed(0)
    if name.startswith("wan"):
        made: Any = diffusers.WanTransformer3DModel(
            patch_size=(1, 4, 4),
            num_attention_heads=4,
            attention_head_dim=24,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            text_dim=TEXT_WIDTH,
            freq_dim=128,
            ffn_dim=288,
            num_layers=LAYERS[name],
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        )
    else:
        made = diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=24,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            time_embed_dim=96,
            text_embed_dim=TEXT_WIDTH,
            num_layers=LAYERS[name],
            sample_width=SIDE,
            sample_height=SIDE,
            sample_frames=4 * (FRAMES - 1) + 1,
            patch_size=4,
            temporal_compression_ratio=4,
            max_text_seq_length=3,
        )
    if trained:
        from safetensors.torch import load_file

        if not is_trained(name):
            raise InputError(
                need=f"the weights of {name}",
                got=f"no {_weights_of(name)}",
                hint=f"python -m benchmarks.denoise.train {name} makes them",
            )
        made.load_state_dict(load_file(_weights_of(name)))  # kept in half, used in single precision
    return made.eval().requires_grad_(False)


def scheduler(name: str) -> Any:  # noqa: ANN401
    """What a denoiser was trained for.

    The large and the small CogVideoX have the noise of CogVideoX's 5 B and 2 B.

    Source: scheduler/scheduler_config.json of the published CogVideoX-5b and CogVideoX-2b.
    """
    diffusers: Any = importlib.import_module("diffusers")
    if name.startswith("wan"):
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=3.0 if name.endswith("small") else 1.0,
    )


def is_trained(name: str) -> bool:
    """Whether a denoiser has weights here."""
    return _weights_of(name).exists()


def _weights_of(name: str) -> Path:
    return WEIGHTS / f"{name}.safetensors"


SCALES: Mapping[str, float] = {"cogvideo": 0.7, "cogvideo_small": 1.15258426}
"""What a decoder's latents are multiplied by for each denoiser; those of others by 1.

Source: vae/config.json of the published CogVideoX-5b and CogVideoX-2b.
"""


def scale(name: str) -> float:
    """Of a denoiser's latents over the videos themselves."""
    return SCALES.get(name, SCALES["cogvideo"]) / SCALES["cogvideo"]


def pipeline(name: str, *, trained: bool = True) -> Any:  # noqa: ANN401
    """A pipeline with a denoiser, for latents only."""
    diffusers: Any = importlib.import_module("diffusers")
    model = denoiser(name, trained=trained)
    if name.startswith("wan"):
        decoder = diffusers.AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1
        )
        made: Any = diffusers.WanPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=decoder,
            scheduler=scheduler(name),
            transformer=model,
        )
    else:
        made = diffusers.CogVideoXPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=diffusers.AutoencoderKLCogVideoX(
                block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2
            ),
            scheduler=scheduler(name),
            transformer=model,
        )
    made.set_progress_bar_config(disable=True)
    return made
