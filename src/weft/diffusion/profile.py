"""A profile: what was learnt of a model by running it, and what it holds for.

A profile is made by `weft.diffusion.calibrate` and answers which plan gives a speed or a quality.
It holds for one model, scheduler, guidance and size; other numbers of steps are interpolated.
"""

from __future__ import annotations

import base64
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InfeasibleError, InputError
from weft.core.files import parsed, read_as, write_whole
from weft.diffusion.costs import Costs
from weft.diffusion.likeness import Check, Likeness
from weft.diffusion.plan import DenoisePlan, Mode, StepPlan
from weft.diffusion.recording import Recording, with_end
from weft.diffusion.search import EFFORT, STYLES, Found, Search, Style
from weft.diffusion.surrogate import Surrogate
from weft.diffusion.validity import Validity

__all__ = ["Check", "FewerSteps", "Profile", "load_profile", "save_profile"]

VERSION = 3
_SEARCHING = threading.Lock()
"""Held while a plan is searched for: pipelines in several threads may ask the same profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FewerSteps:
    """What all of fewer steps give: the simplest way to be faster.

    Attributes:
        steps: that were run.
        speedup, psnr_db: measured: over, and likeness to, the full run of all steps.
    """

    steps: int
    speedup: float
    psnr_db: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What was learnt.

    Attributes:
        holds_for: which runs.
        recordings: full runs of some prompts.
        costs: what steps take.
        value_range: of the results that likeness is measured on.
        checks: plans that were run, of several styles of search, from slow to fast.
        fewer_steps: that were run in full, to compare with, from slow to fast.
        provenance: machine and date.

    Raises:
        InputError: figures are missing, or are none.
    """

    holds_for: Validity
    recordings: tuple[Recording, ...]
    costs: Costs
    value_range: float
    checks: tuple[Check, ...] = ()
    fewer_steps: tuple[FewerSteps, ...] = ()
    provenance: str = ""

    def __post_init__(self) -> None:
        told = [f for c in self.checks for f in (c.psnr_db, c.got_psnr_db, c.doubt_db)]
        told += [self.costs.around_s, *(f.psnr_db for f in self.fewer_steps)]
        figures = [f for c in self.checks for f in (c.speedup, c.got_speedup)]
        figures += [self.value_range, self.costs.full_s, *self.costs.share.values()]
        figures.append(self.costs.whole_s(1))
        steps = {recording.num_steps for recording in self.recordings}
        known = {Mode.FULL, Mode.STEP}
        if self.recordings and self.recordings[0].offsets is not None:
            known.add(Mode.CFG)
        is_sound = len(steps) == 1 and known <= set(self.costs.share)
        is_sound = is_sound and all(map(math.isfinite, told)) and self.costs.around_s >= 0.0
        if not is_sound or not all(0.0 < figure < float("inf") for figure in figures):
            raise InputError(
                need="recordings of one length, and positive figures for all modes",
                got=f"recordings of {sorted(steps)} steps, figures {figures} and {told}",
                hint="calibrate again",
            )

    def at(self, positions: Sequence[float]) -> Profile:
        """The profile for other steps, of which the noise levels are given."""
        wanted = with_end(positions)
        if np.array_equal(wanted, self.recordings[0].positions):
            return self
        key = tuple(positions)
        if key not in self._others:
            resampled = tuple(_resampled(r, wanted) for r in self.recordings)
            self._others[key] = replace(self, recordings=resampled)
        return self._others[key]

    @cached_property
    def _others(self) -> dict[tuple[float, ...], Profile]:
        return {}

    def search(self, style: Style = STYLES[0], *, effort: int = EFFORT) -> Search:
        """For plans; what it finds for one serves the next."""
        key = (style, effort)
        if key not in self._searches:
            surrogate = self._surrogate(style.doubt)
            warm_up = min(style.warm_up, surrogate.num_steps)
            self._searches[key] = Search(surrogate, self.costs, warm_up=warm_up, effort=effort)
        return self._searches[key]

    @cached_property
    def _searches(self) -> dict[tuple[Style, int], Search]:
        return {}

    @cached_property
    def likeness(self) -> Likeness:
        """What the checks say of plans."""
        return Likeness(self.checks)

    def _surrogate(self, doubt: float) -> Surrogate:
        """One for all searches that doubt as much: what it finds out for one serves the next."""
        if doubt not in self._surrogates:
            self._surrogates[doubt] = Surrogate(self.recordings, doubt)
        return self._surrogates[doubt]

    @cached_property
    def _surrogates(self) -> dict[float, Surrogate]:
        return {}

    def plain_db(self, mean_square: float) -> float:
        """Likeness to the full run's result, of an error [dB]."""
        least = 1e-12 * self.value_range**2
        return float(10 * np.log10(self.value_range**2 / max(mean_square, least)))

    def predicted_db(self, plan: Sequence[StepPlan]) -> float:
        """Likeness of a plan's result to the full run's, before checks correct it [dB].

        Plans of all styles are judged with the same doubt, so that they can be compared.
        """
        return self.plain_db(self._surrogate(STYLES[0].doubt).mean_square(plan))

    def psnr_db(self, found: Found, style: Style) -> float:
        """Likeness of a plan that a search of a style has found, as checks correct it [dB]."""
        plain = self.predicted_db(found.steps)
        return self.likeness.corrected_db(plain, found.speedup, style)

    def surely_db(self, found: Found, style: Style) -> float:
        """The same less a margin, since other prompts may do worse [dB]."""
        plain = self.predicted_db(found.steps)
        return self.likeness.surely_db(plain, found.speedup, style)

    def plan(
        self,
        *,
        target_speedup: float | None = None,
        min_psnr: float | None = None,
        style: Style | None = None,
    ) -> DenoisePlan:
        """The plan for a speed, or for a likeness to the full run's result.

        Args:
            target_speedup: over all steps in full.
            min_psnr: least likeness, as the mean over videos [dB].
            style: of the search; None for the one that checks found to be best there.

        Raises:
            InfeasibleError: no plan is that fast, or only the full one is that good.
        """
        key = (target_speedup, min_psnr, style)
        with _SEARCHING:
            if key not in self._plans:
                self._plans[key] = self._planned(target_speedup, min_psnr, style)
            return self._plans[key]

    @cached_property
    def _plans(self) -> dict[object, DenoisePlan]:
        return {}

    def _planned(
        self, target_speedup: float | None, min_psnr: float | None, style: Style | None
    ) -> DenoisePlan:
        if target_speedup is not None:
            style = style or self.likeness.style_for_speed(target_speedup)
            found = self.search(style).for_speedup(target_speedup)
        else:
            assert min_psnr is not None, "one of the two is asked for"
            style = style or self.likeness.style_for_psnr(min_psnr)
            found = self._for_psnr(style, min_psnr)
        return self.search(style).plan(found, self.psnr_db(found, style))

    def _for_psnr(self, style: Style, min_psnr: float) -> Found:
        """The fastest that is surely as good, and no faster than what was checked."""
        search = self.search(style)
        found = search.fastest(
            lambda own: self.surely_db(own, style) >= min_psnr, self.likeness.fastest(style)
        )
        if all(step.mode is Mode.FULL for step in found.steps):
            known = [self.surely_db(own, style) for own in search.frontier()[1:]]
            best = max(known, default=float("-inf"))
            raise InfeasibleError(
                need=f"a plan that keeps {min_psnr:.1f} dB and saves anything",
                got=f"{best:.1f} dB at best" if known else "steps that are all computed",
                options=(*([f"min_psnr={math.floor(best)}"] if known else []), "more steps"),
            )
        return found

    def to_json(self) -> str:
        """The profile as one line of JSON; inverse of `from_json`."""
        plain = {
            "weft": "denoise profile",
            "version": VERSION,
            "holds_for": asdict(self.holds_for),
            "recordings": [_recording(r) for r in self.recordings],
            "costs": {
                "full_s": self.costs.full_s,
                "around_s": self.costs.around_s,
                "bare_s": self.costs.bare_s,
                "share": {mode.value: share for mode, share in self.costs.share.items()},
            },
            "value_range": self.value_range,
            "checks": [
                [
                    *(c.speedup, c.psnr_db, c.got_speedup, c.got_psnr_db, c.doubt_db, c.videos),
                    *(c.style.doubt, c.style.warm_up),
                ]
                for c in self.checks
            ],
            "fewer_steps": [[f.steps, f.speedup, f.psnr_db] for f in self.fewer_steps],
            "provenance": self.provenance,
        }
        return json.dumps(plain)

    @staticmethod
    def from_json(text: str) -> Profile:
        """Inverse of `to_json`.

        Raises:
            FileError: the text is no denoise profile of this version.
        """
        hint = "make one with weft.diffusion.calibrate"
        return parsed(text, "denoise profile", VERSION, _profile, hint=hint)


def _profile(plain: Mapping[str, Any]) -> Profile:
    costs = plain["costs"]
    return Profile(
        holds_for=Validity.from_plain(plain["holds_for"]),
        recordings=tuple(map(_read_recording, plain["recordings"])),
        costs=Costs(
            full_s=float(costs["full_s"]),
            around_s=float(costs["around_s"]),
            bare_s=None if costs["bare_s"] is None else float(costs["bare_s"]),
            share={Mode(m): float(s) for m, s in costs["share"].items()},
        ),
        value_range=float(plain["value_range"]),
        checks=tuple(
            Check(
                speedup=float(a),
                psnr_db=float(b),
                got_speedup=float(c),
                got_psnr_db=float(d),
                doubt_db=float(e),
                videos=int(videos),
                style=Style(doubt=float(doubt), warm_up=int(warm_up)),
            )
            for a, b, c, d, e, videos, doubt, warm_up in plain["checks"]
        ),
        fewer_steps=tuple(
            FewerSteps(steps=int(n), speedup=float(s), psnr_db=float(p))
            for n, s, p in plain.get("fewer_steps", ())
        ),
        provenance=str(plain["provenance"]),
    )


def _recording(own: Recording) -> dict[str, object]:
    return {
        "positions": own.positions.tolist(),
        "responses": own.responses.tolist(),
        "gains": own.gains.tolist(),
        "states": _packed(own.states),
        "guidance": own.guidance,
        "elements": own.elements,
        "outputs": _packed(own.outputs),
        "offsets": None if own.offsets is None else _packed(own.offsets),
        "blocks": [[*blocks, _packed(values)] for blocks, values in own.blocks.items()],
    }


def _read_recording(plain: Mapping[str, Any]) -> Recording:
    return Recording(
        positions=np.asarray(plain["positions"], dtype=np.float64),
        responses=np.asarray(plain["responses"], dtype=np.float64),
        gains=np.asarray(plain["gains"], dtype=np.float64),
        states=_unpacked(plain["states"]),
        guidance=float(plain["guidance"]),
        elements=int(plain["elements"]),
        outputs=_unpacked(plain["outputs"]),
        offsets=None if plain["offsets"] is None else _unpacked(plain["offsets"]),
        blocks={(first, last): _unpacked(values) for first, last, values in plain["blocks"]},
    )


def _packed(values: NDArray[np.float64]) -> list[object]:
    return [values.shape[1], base64.b64encode(values.astype("<f4").tobytes()).decode()]


def _unpacked(packed: Sequence[Any]) -> NDArray[np.float64]:
    numbers, text = packed
    flat = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    return flat.reshape(-1, numbers).astype(np.float64)


def _resampled(own: Recording, positions: NDArray[np.float64]) -> Recording:
    """A recording at other noise levels: what it holds between its own is interpolated."""
    old, new = own.positions[:-1], positions[:-1]
    order = np.argsort(old)

    def along(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([np.interp(new, old[order], column) for column in values[order].T], axis=1)

    return replace(
        own,
        positions=positions,
        outputs=along(own.outputs),
        offsets=None if own.offsets is None else along(own.offsets),
        blocks={r: along(values) for r, values in own.blocks.items()},
        responses=along(own.responses.T).T,
        gains=np.interp(new, old[order], own.gains[order]),
        states=np.concatenate([along(own.states[:-1]), own.states[-1:]]),
    )


def save_profile(profile: Profile, path: str | Path) -> None:
    """Write a profile to a file.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, profile.to_json() + "\n", "a denoise profile")


def load_profile(path: str | Path) -> Profile:
    """Read a profile from a file.

    Raises:
        FileError: the file is missing or holds no denoise profile of this version.
    """
    return read_as(
        path, Profile.from_json, "a denoise profile", "make one with weft.diffusion.calibrate"
    )
