"""What each denoising step of a video pipeline computes, and which model does it.

    weft.diffusion.accelerate(pipe)
    with weft.diffusion.report(pipe) as report:
        video = pipe(prompt)
    weft.diffusion.restore(pipe)

Names load when they are first used: diffusers is loaded only where it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.lazy import lazy

if TYPE_CHECKING:
    from weft.diffusion.accelerating import Report as Report
    from weft.diffusion.accelerating import accelerate as accelerate
    from weft.diffusion.accelerating import report as report
    from weft.diffusion.accelerating import restore as restore
    from weft.diffusion.accelerating import session as session
    from weft.diffusion.calibration import calibrate as calibrate
    from weft.diffusion.disagreeing import disagreement as disagreement
    from weft.diffusion.families import FAMILIES as FAMILIES
    from weft.diffusion.families import Family as Family
    from weft.diffusion.families import Guidance as Guidance
    from weft.diffusion.history import Keep as Keep
    from weft.diffusion.page import pareto as pareto
    from weft.diffusion.pair import Disagreement as Disagreement
    from weft.diffusion.pair import load_disagreement as load_disagreement
    from weft.diffusion.pair import save_disagreement as save_disagreement
    from weft.diffusion.plan import DenoisePlan as DenoisePlan
    from weft.diffusion.plan import Mode as Mode
    from weft.diffusion.plan import Model as Model
    from weft.diffusion.plan import Predictor as Predictor
    from weft.diffusion.plan import StepPlan as StepPlan
    from weft.diffusion.plan import Weights as Weights
    from weft.diffusion.plan import load_plan as load_plan
    from weft.diffusion.plan import save_plan as save_plan
    from weft.diffusion.policies import Calibrated as Calibrated
    from weft.diffusion.policies import Fixed as Fixed
    from weft.diffusion.policies import MixCache as MixCache
    from weft.diffusion.policies import Mixed as Mixed
    from weft.diffusion.policies import Placed as Placed
    from weft.diffusion.policies import Sketch as Sketch
    from weft.diffusion.profile import Profile as Profile
    from weft.diffusion.profile import load_profile as load_profile
    from weft.diffusion.profile import save_profile as save_profile

_HOME = {
    "Calibrated": "weft.diffusion.policies",
    "DenoisePlan": "weft.diffusion.plan",
    "Disagreement": "weft.diffusion.pair",
    "FAMILIES": "weft.diffusion.families",
    "Family": "weft.diffusion.families",
    "Fixed": "weft.diffusion.policies",
    "Guidance": "weft.diffusion.families",
    "Keep": "weft.diffusion.history",
    "MixCache": "weft.diffusion.policies",
    "Mixed": "weft.diffusion.policies",
    "Mode": "weft.diffusion.plan",
    "Model": "weft.diffusion.plan",
    "Placed": "weft.diffusion.policies",
    "Predictor": "weft.diffusion.plan",
    "Profile": "weft.diffusion.profile",
    "Report": "weft.diffusion.accelerating",
    "Sketch": "weft.diffusion.policies",
    "StepPlan": "weft.diffusion.plan",
    "Weights": "weft.diffusion.plan",
    "accelerate": "weft.diffusion.accelerating",
    "calibrate": "weft.diffusion.calibration",
    "disagreement": "weft.diffusion.disagreeing",
    "load_disagreement": "weft.diffusion.pair",
    "load_plan": "weft.diffusion.plan",
    "load_profile": "weft.diffusion.profile",
    "pareto": "weft.diffusion.page",
    "report": "weft.diffusion.accelerating",
    "restore": "weft.diffusion.accelerating",
    "save_disagreement": "weft.diffusion.pair",
    "save_plan": "weft.diffusion.plan",
    "save_profile": "weft.diffusion.profile",
    "session": "weft.diffusion.accelerating",
}

__all__ = [  # sorted, as a test checks
    "FAMILIES",
    "Calibrated",
    "DenoisePlan",
    "Disagreement",
    "Family",
    "Fixed",
    "Guidance",
    "Keep",
    "MixCache",
    "Mixed",
    "Mode",
    "Model",
    "Placed",
    "Predictor",
    "Profile",
    "Report",
    "Sketch",
    "StepPlan",
    "Weights",
    "accelerate",
    "calibrate",
    "disagreement",
    "load_disagreement",
    "load_plan",
    "load_profile",
    "pareto",
    "report",
    "restore",
    "save_disagreement",
    "save_plan",
    "save_profile",
    "session",
]


__getattr__ = lazy(__name__, _HOME)
