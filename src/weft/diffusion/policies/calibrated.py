"""The plan that a profile gives for a speed or a quality, made when a run begins."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import InputError
from weft.diffusion.policies.fixed import Fixed
from weft.diffusion.policy import Decider, Policy, RunFacts
from weft.diffusion.profile import Profile

__all__ = ["Calibrated"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibrated(Policy):
    """Ask a profile for a plan.

    Attributes:
        profile: of the model.
        target_speedup: over all steps in full.
        min_psnr: least likeness to the full run's result [dB].

    Raises:
        InputError: not one of the two is asked for.
    """

    profile: Profile
    target_speedup: float | None = None
    min_psnr: float | None = None

    def __post_init__(self) -> None:
        asked = [value for value in (self.target_speedup, self.min_psnr) if value is not None]
        if len(asked) != 1 or (self.target_speedup is not None and self.target_speedup < 1.0):
            raise InputError(
                need="either target_speedup, of at least 1, or min_psnr",
                got=f"target_speedup={self.target_speedup}, min_psnr={self.min_psnr}",
                hint="target_speedup=2.0, for example",
            )

    @property
    def name(self) -> str:
        """With what was asked for."""
        if self.min_psnr is not None:
            return f"calibrated for {self.min_psnr:g} dB"
        return f"calibrated for {self.target_speedup:g} times the speed"

    def ranges(self, num_blocks: int) -> frozenset[tuple[int, int]]:
        """Those that were calibrated."""
        return frozenset(self.profile.recordings[0].blocks)

    def begin(self, facts: RunFacts) -> Decider:
        """Make the plan for the run's steps.

        Raises:
            MismatchError: the profile is of another model, scheduler, guidance or size.
            InfeasibleError: no plan is as fast, or as good.
        """
        self.profile.holds_for.require(facts.validity)
        plan = self.profile.at(facts.positions).plan(
            target_speedup=self.target_speedup, min_psnr=self.min_psnr
        )
        return Fixed(plan=plan).begin(facts)
