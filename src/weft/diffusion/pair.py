"""How far a small model is from the large one, step by step: what was measured of a pair.

It is measured by `weft.diffusion.disagreement` and says which steps the small model may do:

    q_k = mean|small_k - large_k| / mean|large_k|     of the guided output of step k, where the
                                                      large model alone has led

SRDiffusion gives the small model the last steps, of little noise, and so takes for granted that q
falls. Where it does not, other steps are the small model's (`weft.diffusion.Placed`).

Source: the measure is TRACK's, as quoted by surveys; the premise is that of Cheng et al. 2025,
arXiv 2505.19151.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InputError, MismatchError
from weft.core.files import parsed, read_as, write_whole
from weft.diffusion.validity import Validity

__all__ = ["Disagreement", "load_disagreement", "save_disagreement"]

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """What was measured.

    Attributes:
        holds_for: which runs of the large model.
        small: class of the small one and digest of its configuration.
        positions: noise level of each step.
        values: q of each step, the mean over the prompts.
        prompts: how many there were.

    Raises:
        InputError: there are fewer than two steps, or not one value of at least 0 for each.

    Example:
        >>> runs = Validity(pipeline="P", denoiser="D", scheduler="S", guidance=5.0, shape=(4,))
        >>> pair = Disagreement(
        ...     holds_for=runs,
        ...     small="d",
        ...     positions=(900.0, 600.0, 300.0, 100.0),
        ...     values=(0.4, 0.3, 0.1, 0.2),
        ...     prompts=1,
        ... )
        >>> pair.keeps_the_premise, sorted(pair.least(pair.positions, 2))
        (True, [2, 3])
    """

    holds_for: Validity
    small: str
    positions: tuple[float, ...]
    values: tuple[float, ...]
    prompts: int

    def __post_init__(self) -> None:
        is_sound = all(isfinite(value) and value >= 0.0 for value in self.values)
        if len(self.values) != len(self.positions) or len(self.values) < 2 or not is_sound:
            raise InputError(
                need="a disagreement of at least 0 for each of two or more steps",
                got=f"{self.values} for {len(self.positions)} steps",
                hint="weft.diffusion.disagreement(pipe, small_pipe, prompts) measures it",
            )

    @property
    def early(self) -> float:
        """Mean over the first half of the steps."""
        half = len(self.values) // 2
        return float(np.mean(self.values[:half]))

    @property
    def late(self) -> float:
        """Mean over the last half."""
        half = len(self.values) // 2
        return float(np.mean(self.values[-half:]))

    @property
    def trend(self) -> float:
        """Rank correlation with the number of the step: -1 where it falls from step to step."""
        ranks = _ranks(self.values)
        if float(np.ptp(ranks)) == 0.0:
            return 0.0
        return float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])

    @property
    def keeps_the_premise(self) -> bool:
        """Whether the two agree better in the late steps, as SRDiffusion takes for granted."""
        return self.late < self.early and self.trend < 0.0

    def __str__(self) -> str:
        return (
            f"the small model differs from the large one by {self.early:.1%} in the first half of"
            f" the steps and by {self.late:.1%} in the last (rank correlation with the step"
            f" {self.trend:+.2f})"
        )

    def at(self, positions: Sequence[float]) -> tuple[float, ...]:
        """The values for other steps, of which the noise levels are given."""
        order = np.argsort(self.positions)
        known, values = np.asarray(self.positions)[order], np.asarray(self.values)[order]
        return tuple(float(value) for value in np.interp(positions, known, values))

    def least(self, positions: Sequence[float], count: int) -> frozenset[int]:
        """The steps, so many of those with these noise levels, in which the two agree best."""
        values = self.at(positions)
        # Of equals the later one, which fewer steps follow.
        ranked = sorted(range(len(values)), key=lambda step: (values[step], -step))
        return frozenset(ranked[:count])

    def require_pair(self, denoiser: str, small: str) -> None:
        """Check that it was measured on these two models.

        Args:
            denoiser: class of the large one and digest of its configuration.
            small: of the small one.

        Raises:
            MismatchError: it was not.
        """
        for name, own, found in (
            ("large", self.holds_for.denoiser, denoiser),
            ("small", self.small, small),
        ):
            if own != found:
                raise MismatchError(
                    need=f"the {name} model whose disagreement was measured: {own}",
                    got=found,
                    hint="measure this pair with weft.diffusion.disagreement",
                )

    def to_json(self) -> str:
        """As one line of JSON; inverse of `from_json`."""
        return json.dumps({"weft": "disagreement", "version": VERSION, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> Disagreement:
        """Inverse of `to_json`.

        Raises:
            FileError: the text is no disagreement of this version.
        """
        hint = "measure it with weft.diffusion.disagreement"
        return parsed(text, "disagreement", VERSION, _disagreement, hint=hint)


def _disagreement(plain: Mapping[str, Any]) -> Disagreement:
    return Disagreement(
        holds_for=Validity.from_plain(plain["holds_for"]),
        small=str(plain["small"]),
        positions=tuple(float(level) for level in plain["positions"]),
        values=tuple(float(value) for value in plain["values"]),
        prompts=int(plain["prompts"]),
    )


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Places in order, the mean of them for equals."""
    own = np.asarray(values)
    less = (own[None, :] < own[:, None]).sum(1)
    equal = (own[None, :] == own[:, None]).sum(1)
    return less + (equal - 1) / 2


def save_disagreement(found: Disagreement, path: str | Path) -> None:
    """Write a disagreement to a file.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, found.to_json() + "\n", "a disagreement")


def load_disagreement(path: str | Path) -> Disagreement:
    """Read a disagreement from a file.

    Raises:
        FileError: the file is missing or holds no disagreement of this version.
    """
    return read_as(
        path,
        Disagreement.from_json,
        "a disagreement",
        "measure it with weft.diffusion.disagreement",
    )
