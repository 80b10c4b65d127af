"""A profile as it might have been learnt, and a run as it might have gone."""

from __future__ import annotations

from tests.unit.diffusion.recorded import recording
from weft.diffusion.costs import Costs
from weft.diffusion.likeness import Check
from weft.diffusion.plan import Mode, Model, Predictor, StepPlan
from weft.diffusion.profile import FewerSteps, Profile
from weft.diffusion.record import Run, StepRecord
from weft.diffusion.validity import Validity

__all__ = ["a_profile", "a_run"]


def a_profile(*, steps=8, checks=True):
    """What calibration might have learnt of a pipeline."""
    share = {Mode.FULL: 1.0, Mode.CFG: 0.5, Mode.BLOCK: 0.6, Mode.STEP: 0.01}
    return Profile(
        holds_for=Validity(
            pipeline="ToyPipeline",
            denoiser="Toy abc",
            scheduler="Euler def",
            guidance=5.0,
            shape=(16, 3, 8, 8),
        ),
        recordings=tuple(recording(steps, numbers=16, seed=seed) for seed in (0, 1)),
        costs=Costs(full_s=0.5, share=share, around_s=0.01),
        value_range=4e4,
        checks=(
            Check(speedup=1.5, psnr_db=41.0, got_speedup=1.4, got_psnr_db=40.0),
            Check(speedup=2.0, psnr_db=33.0, got_speedup=1.9, got_psnr_db=31.5),
        )
        if checks
        else (),
        fewer_steps=(
            FewerSteps(steps=5, speedup=1.58, psnr_db=27.0),
            FewerSteps(steps=4, speedup=1.97, psnr_db=23.0),
        )
        if checks
        else (),
        provenance="a toy, 2026-01-01",
    )


def a_run():
    """Six steps: two in full, one without the other prompt, one not as planned, one predicted, and
    one by a small model of a quarter of the work."""
    cfg = StepPlan(mode=Mode.CFG, predictor=Predictor.LINEAR)
    done = (
        (StepPlan(), 20, 4.0, ""),
        (StepPlan(), 20, 1.0, ""),
        (cfg, 10, 0.5, ""),
        (StepPlan(), 20, 1.0, "block was planned <of nothing>"),
        (StepPlan(mode=Mode.STEP), 0, 0.0, ""),
        (StepPlan(model=Model.SMALL), 20, 0.25, ""),
    )
    return Run(
        pipeline="ToyPipeline",
        policy="by hand",
        steps=tuple(
            StepRecord(
                step=at,
                position=1000.0 - 150 * at,
                done=own,
                why=why,
                outputs=blocks // 10,
                blocks=blocks,
                distances={"cfg": 0.125} if at == 3 else {},
                seconds=seconds,
            )
            for at, (own, blocks, seconds, why) in enumerate(done)
        ),
        has_guidance=True,
        num_blocks=10,
        small_share=0.25,
        kept_bytes=3 * 2**20,
    )
