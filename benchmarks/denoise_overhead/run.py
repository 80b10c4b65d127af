"""What deciding costs beside computing, at Wan 1.3B's real shapes: `weft bench denoise-overhead`.

One block of the denoiser is timed at full size. Then a pipeline runs whose blocks pass on what they
are given, with hooks and without: the difference is what hooks, kept values, distances and choices
take of a step in which everything is computed, which is when most is kept and compared.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from weft.diffusion import DenoisePlan, MixCache, Mode, StepPlan, accelerate, restore
from weft.report.bench import BenchReport, at_most, print_report
from weft.report.table import Table

__all__ = ["run"]

LAYERS, HEADS, HEAD, FEED_FORWARD, TEXT = 30, 12, 128, 8960, 4096
"""Source: transformer/config.json of the published Wan2.1-T2V-1.3B-Diffusers."""
CHANNELS, FRAMES, HEIGHT, WIDTH = 16, 81, 480, 832
"""Source: what its model card runs it with."""
TOKENS = 512
STEPS, ROUNDS, SHARE = 6, 3, 0.01
POLICIES = {
    "a plan without blocks": DenoisePlan(steps=(StepPlan(),) * STEPS),
    "MixCache of steps and guidance": MixCache(
        modes=frozenset({Mode.STEP, Mode.CFG}), warm_up=0.99
    ),
    "MixCache of steps, guidance and blocks": MixCache(warm_up=0.99),
}


def run(quick: bool = False) -> BenchReport:
    """Measure; `quick` takes a quarter of the video's length and width."""
    scale = 4 if quick else 1
    height, width = HEIGHT // scale // 16 * 16, WIDTH // scale // 16 * 16
    frames = (FRAMES - 1) // scale + 1
    tokens = ((frames - 1) // 4 + 1) * (height // 16) * (width // 16)
    block_s = _block_seconds(tokens, rounds=1 if quick else 2)
    print(f"a block: {block_s:.1f} s", file=sys.stderr, flush=True)
    step_s = 2 * LAYERS * block_s
    pipe = _hollow()
    taken: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        taken.setdefault("", []).append(_seconds(lambda: _call(pipe, height, width, frames)))
        for name, policy in POLICIES.items():
            accelerate(pipe, policy=policy)
            try:
                own = _seconds(lambda: _call(pipe, height, width, frames))
            finally:
                restore(pipe)
            taken.setdefault(name, []).append(own)
            print(f"{name}: {own / STEPS:.3f} s a step", file=sys.stderr, flush=True)
    plain_s = median(taken.pop("")) / STEPS
    overhead = {name: median(own) / STEPS - plain_s for name, own in taken.items()}
    return BenchReport(
        bench="denoise-overhead",
        claims=tuple(
            at_most(f"{name}, of a step of Wan 1.3B [share]", own / step_s, SHARE)
            for name, own in overhead.items()
        ),
        table=Table(
            columns=("policy", "of a step [ms]", "a step [s]", "share"),
            rows=tuple(
                (name, f"{1e3 * own:.1f}", f"{step_s:.1f}", f"{own / step_s:.3%}")
                for name, own in overhead.items()
            ),
        ),
        facts={
            "tokens": tokens,
            "block_s": block_s,
            "threads": torch.get_num_threads(),
            "step_s": step_s,
            "without_hooks_s": plain_s,
        },
    )


def _denoiser(layers: int) -> Any:  # noqa: ANN401
    diffusers: Any = importlib.import_module("diffusers")
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=HEADS,
        attention_head_dim=HEAD,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT,
        freq_dim=256,
        ffn_dim=FEED_FORWARD,
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=1024,
    ).eval()


def _block_seconds(tokens: int, *, rounds: int) -> float:
    """What one block takes for one output [s]."""
    block: nn.Module = _denoiser(1).blocks[0]
    wide = HEADS * HEAD
    turn = torch.zeros(1, tokens, 1, HEAD)
    given = (torch.randn(1, tokens, wide), torch.randn(1, TOKENS, wide), torch.randn(1, 6, wide))

    def compute() -> object:
        return block(*given, (turn, turn))

    with torch.no_grad():
        return median(_seconds(compute) for _ in range(rounds))


def _hollow() -> Any:  # noqa: ANN401
    """A pipeline whose denoiser is whole but for its blocks, which pass on what they are given."""
    diffusers: Any = importlib.import_module("diffusers")
    denoiser = _denoiser(1)
    with torch.device("meta"):
        blocks = _denoiser(LAYERS).blocks
    for block in blocks:
        block.forward = _passed_on
    denoiser.blocks = blocks
    decoder = diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    pipe = diffusers.WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=decoder,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=denoiser,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _passed_on(hidden_states: Tensor, *_: object, **__: object) -> Tensor:
    return hidden_states


def _call(pipe: Any, height: int, width: int, frames: int) -> object:  # noqa: ANN401
    with torch.no_grad():
        return pipe(
            prompt_embeds=torch.zeros(1, TOKENS, TEXT),
            negative_prompt_embeds=torch.zeros(1, TOKENS, TEXT),
            height=height,
            width=width,
            num_frames=frames,
            num_inference_steps=STEPS,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        )


def _seconds(call: Callable[[], object]) -> float:
    """What a call takes; of one thread what it has of a processor, which others do not lengthen."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begun = clock()
    call()
    return clock() - begun


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
