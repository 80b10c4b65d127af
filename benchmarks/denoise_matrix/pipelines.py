"""Small video pipelines of diffusers' own classes, with random weights and without text encoders.

Good for counting and comparing bits; what they make looks like nothing. Prompts go in as
embeddings. Sizes are the least that the classes allow, with blocks enough to leave some out. Each
has a small relative, a denoiser of fewer blocks with weights of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PIPELINES", "Built", "Kind", "noise"]

diffusers: Any = importlib.import_module("diffusers")  # whose types say less than it takes

TOKENS = 16
"""Of a prompt."""
SMALL_SEED, SMALL_LAYERS = 3, 3
"""Of the small relatives."""
DENOISERS = ("transformer", "transformer_2")
"""Where pipelines have theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A pipeline, ready to be called.

    Attributes:
        pipe: itself.
        inputs: what it is called with, but for the noise.
    """

    pipe: Any
    inputs: Mapping[str, Any]

    def __call__(self, *, seed: int = 0, **inputs: object) -> Tensor:
        """The latents that a run ends with."""
        given = {**self.inputs, "generator": noise(seed), "output_type": "latent", **inputs}
        with torch.no_grad():
            return self.pipe(**given).frames

    def rows(self, count: int) -> Tensor:
        """The same of a batch, whose rows begin as runs of seeds 0, 1 and so on do."""
        inputs: dict[str, Any] = {
            name: value.repeat(count, *[1] * (value.ndim - 1))
            for name, value in self.inputs.items()
            if isinstance(value, Tensor)
        }
        return self(**inputs, generator=[noise(seed) for seed in range(count)])

    def denoisers(self) -> list[nn.Module]:
        """Those of the pipeline."""
        found = (getattr(self.pipe, name, None) for name in DENOISERS)
        return [own for own in found if isinstance(own, nn.Module)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of pipeline.

    Attributes:
        build: a pipeline of so many steps.
        relative: a small denoiser beside it.
        guided: whether there are two outputs a step.
        passes: calls of denoisers a step.
        blocks: of the denoiser.
        small_blocks: of the small one.
        experts: denoisers that share out the steps.
        batches: whether it makes more than one video at a time.
    """

    build: Callable[[int], Built]
    relative: Callable[[], nn.Module]
    guided: bool
    passes: int
    blocks: int = 4
    small_blocks: int = 3
    experts: int = 1
    batches: bool = True


def noise(seed: int) -> torch.Generator:
    """Where a run's first noise comes from."""
    return torch.Generator().manual_seed(seed)


def _prompt(width: int, tokens: int = TOKENS, *, seed: int) -> Tensor:
    return torch.randn(1, tokens, width, generator=noise(seed))


def _two_prompts(width: int) -> dict[str, Tensor]:
    return {
        "prompt_embeds": _prompt(width, seed=1),
        "negative_prompt_embeds": _prompt(width, seed=2),
    }


def _masks() -> dict[str, Tensor]:
    every = torch.ones(1, TOKENS, dtype=torch.bool)
    return {"prompt_attention_mask": every, "negative_prompt_attention_mask": every}


def _built(kind: str, inputs: Mapping[str, Any], **parts: object) -> Built:
    """A pipeline without text encoders."""
    pipe = getattr(diffusers, kind)(tokenizer=None, text_encoder=None, **parts)
    pipe.set_progress_bar_config(disable=True)
    return Built(pipe=pipe, inputs=inputs)


def _sizes(steps: int, frames: int, side: int = 16) -> dict[str, Any]:
    """What is asked for, but for its content."""
    return {
        "height": side,
        "width": side,
        "num_frames": frames,
        "num_inference_steps": steps,
    }


def _wan_denoiser(
    seed: int, layers: int = 4, kind: str = "WanTransformer3DModel", **more: object
) -> Any:  # noqa: ANN401
    torch.manual_seed(seed)
    return getattr(diffusers, kind)(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=64,
        ffn_dim=32,
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
        **more,
    ).eval()


def _wan_decoder() -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    return diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    ).eval()


def _wan_run(steps: int, denoiser: Any, kind: str = "WanPipeline", **more: object) -> Built:  # noqa: ANN401
    return _built(
        kind,
        {**_two_prompts(32), "guidance_scale": 5.0, **_sizes(steps, 9)},
        vae=_wan_decoder(),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=denoiser,
        **more,
    )


def _wan(steps: int) -> Built:
    return _wan_run(steps, _wan_denoiser(0))


def _wan_of_two(steps: int) -> Built:
    low_noise = _wan_denoiser(7)
    return _wan_run(steps, _wan_denoiser(0), transformer_2=low_noise, boundary_ratio=0.875)


def _wan_control_denoiser(seed: int, layers: int, controlled: list[int]) -> Any:  # noqa: ANN401
    control = {"vace_layers": controlled, "vace_in_channels": 96}
    return _wan_denoiser(seed, layers, "WanVACETransformer3DModel", **control)


def _wan_control(steps: int) -> Built:
    return _wan_run(steps, _wan_control_denoiser(0, 4, [0, 2]), "WanVACEPipeline")


def _cogvideo_denoiser(seed: int, layers: int) -> Any:  # noqa: ANN401
    torch.manual_seed(seed)
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=layers,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=TOKENS,
    ).eval()


def _cogvideo(steps: int) -> Built:
    denoiser = _cogvideo_denoiser(0, 4)
    decoder = diffusers.AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    ).eval()
    inputs = {
        **_two_prompts(32),
        "guidance_scale": 6.0,
        **_sizes(steps, 8),
        "max_sequence_length": TOKENS,
    }
    return _built(
        "CogVideoXPipeline",
        inputs,
        vae=decoder,
        transformer=denoiser,
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )


def _hunyuan_denoiser(seed: int, double: int, single: int) -> Any:  # noqa: ANN401
    torch.manual_seed(seed)
    return diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=double,
        num_single_layers=single,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    ).eval()


def _hunyuan(steps: int, guidance: float = 1.0) -> Built:
    denoiser = _hunyuan_denoiser(0, 2, 2)
    decoder = diffusers.AutoencoderKLHunyuanVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        act_fn="silu",
        norm_num_groups=4,
        scaling_factor=0.476986,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        mid_block_add_attention=True,
    ).eval()
    every = torch.ones(1, TOKENS, dtype=torch.bool)
    inputs: dict[str, Any] = {
        "prompt_embeds": _prompt(16, seed=1),
        "pooled_prompt_embeds": _prompt(8, 1, seed=3)[0],
        "prompt_attention_mask": every,
        "guidance_scale": 4.5,
        **_sizes(steps, 9),
    }
    if guidance > 1.0:
        inputs |= {
            "true_cfg_scale": guidance,
            "negative_prompt_embeds": _prompt(16, seed=2),
            "negative_pooled_prompt_embeds": _prompt(8, 1, seed=4)[0],
            "negative_prompt_attention_mask": every,
        }
    return _built(
        "HunyuanVideoPipeline",
        inputs,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=denoiser,
        vae=decoder,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def _ltx_denoiser(seed: int, layers: int) -> Any:  # noqa: ANN401
    torch.manual_seed(seed)
    return diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=layers,
        caption_channels=32,
    ).eval()


def _ltx(steps: int) -> Built:
    denoiser = _ltx_denoiser(0, 4)
    decoder = diffusers.AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    ).eval()
    inputs = {
        **_two_prompts(32),
        **_masks(),
        "guidance_scale": 3.0,
        **_sizes(steps, 9, 32),
    }
    return _built(
        "LTXPipeline",
        inputs,
        vae=decoder,
        transformer=denoiser,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def _mochi_denoiser(seed: int, layers: int) -> Any:  # noqa: ANN401
    torch.manual_seed(seed)
    denoiser = diffusers.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=layers,
        pooled_projection_dim=16,
        in_channels=12,
        out_channels=None,
        qk_norm="rms_norm",
        text_embed_dim=32,
        time_embed_dim=4,
        activation_fn="swiglu",
        max_sequence_length=TOKENS,
    ).eval()
    torch.nn.init.zeros_(denoiser.pos_frequencies)  # left as allocated by the class
    return denoiser


def _mochi(steps: int) -> Built:
    denoiser = _mochi_denoiser(0, 4)
    decoder = diffusers.AutoencoderKLMochi(
        latent_channels=12,
        out_channels=3,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    ).eval()
    inputs = {
        **_two_prompts(32),
        **_masks(),
        "guidance_scale": 4.5,
        **_sizes(steps, 7),
    }
    return _built(
        "MochiPipeline",
        inputs,
        vae=decoder,
        transformer=denoiser,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def _small_wan() -> nn.Module:
    return _wan_denoiser(SMALL_SEED, SMALL_LAYERS)


def _small_wan_control() -> nn.Module:
    """Controlled in more of its blocks than the large one is, as the published relative is."""
    return _wan_control_denoiser(SMALL_SEED, SMALL_LAYERS, [0, 1, 2])


def _small_hunyuan() -> nn.Module:
    return _hunyuan_denoiser(SMALL_SEED, SMALL_LAYERS - 1, 1)


PIPELINES: Mapping[str, Kind] = MappingProxyType(
    {
        "Wan 2.1": Kind(build=_wan, relative=_small_wan, guided=True, passes=2),
        "Wan 2.2": Kind(build=_wan_of_two, relative=_small_wan, guided=True, passes=2, experts=2),
        "Wan VACE": Kind(
            build=_wan_control, relative=_small_wan_control, guided=True, passes=2, batches=False
        ),
        "CogVideoX": Kind(
            build=_cogvideo,
            relative=lambda: _cogvideo_denoiser(SMALL_SEED, SMALL_LAYERS),
            guided=True,
            passes=1,
        ),
        "HunyuanVideo": Kind(build=_hunyuan, relative=_small_hunyuan, guided=False, passes=1),
        "HunyuanVideo, guided": Kind(
            build=lambda steps: _hunyuan(steps, 3.0),
            relative=_small_hunyuan,
            guided=True,
            passes=2,
        ),
        "LTX": Kind(
            build=_ltx,
            relative=lambda: _ltx_denoiser(SMALL_SEED, SMALL_LAYERS),
            guided=True,
            passes=1,
        ),
        "Mochi": Kind(
            build=_mochi,
            relative=lambda: _mochi_denoiser(SMALL_SEED, SMALL_LAYERS),
            guided=True,
            passes=1,
        ),
    }
)
