"""Which runs a profile holds for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weft.core.errors import MismatchError

__all__ = ["Validity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """What a profile holds for.

    Attributes:
        pipeline: class.
        denoiser: digest of its configuration.
        scheduler: class and digest of its configuration.
        guidance: factor of the prompt's influence.
        shape: of the latents, without the batch.
    """

    pipeline: str
    denoiser: str
    scheduler: str
    guidance: float
    shape: tuple[int, ...]

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Validity:
        """Of what `asdict` gives, as it comes back from JSON."""
        return Validity(**{**plain, "shape": tuple(plain["shape"])})

    def require(self, other: Validity) -> None:
        """Check that the profile holds for another run.

        Raises:
            MismatchError: it does not; the error names what differs.
        """
        for name in ("pipeline", "denoiser", "scheduler", "guidance", "shape"):
            own, found = getattr(self, name), getattr(other, name)
            if own != found:
                raise MismatchError(
                    need=f"a run with the {name} that was calibrated: {own}",
                    got=f"{found}",
                    hint="calibrate for this run with weft.diffusion.calibrate",
                )
