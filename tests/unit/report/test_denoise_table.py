"""Denoising plans and profiles as tables."""

from tests.unit.diffusion.known import a_profile
from weft.diffusion.plan import DenoisePlan, Mode, Model, Predictor, StepPlan, Weights
from weft.report.denoise_table import plan_table, profile_plain, profile_sentence, profile_tables


def test_a_plan_is_shown_step_by_step():
    fitted = StepPlan(
        mode=Mode.BLOCK,
        blocks=(1, 29),
        predictor=Predictor.FITTED,
        weights=Weights(blocks=(-0.5, 1.5)),
    )
    plan = DenoisePlan(
        steps=(StepPlan(), fitted, StepPlan(model=Model.SMALL)),
        policy="calibrated",
        speedup=2.0,
        psnr_db=31.25,
    )
    table = plan_table(plan)
    assert table.caption.endswith("predicted 2.00 times the speed at 31.2 dB")
    assert table.rows == (
        ("0", "large", "full", "", "", ""),
        ("1", "large", "block", "1 to 28", "fitted", "blocks -0.5, 1.5"),
        ("2", "small", "full", "", "", ""),
    )


def test_a_plan_without_predictions_says_none():
    assert plan_table(DenoisePlan(steps=(StepPlan(),), policy="by hand")).caption == (
        "1 steps by hand: 1 full"
    )


def test_a_profile_shows_what_was_predicted_beside_what_was_achieved():
    profile = a_profile()
    assert profile_sentence(profile) == (
        "ToyPipeline with Euler def, guidance 5, latents 16 x 3 x 8 x 8: 8 steps of 2 prompts"
        " (a toy, 2026-01-01)"
    )
    costs, checked = profile_tables(profile)
    assert ("cfg", "250 ms", "50.0%") in costs.rows
    assert ("plan 2", "2.00", "1.90", "33.0", "31.5") in checked.rows
    assert ("4 steps in full", "", "1.97", "", "23.0") in checked.rows
    assert len(profile_tables(a_profile(checks=False))) == 1


def test_json_leaves_recordings_out():
    plain = profile_plain(a_profile())
    assert plain["recordings"] == {"prompts": 2, "steps": 8}
    assert plain["fewer_steps"] == [[5, 1.58, 27.0], [4, 1.97, 23.0]]
