# pyright: standard
"""Environments as `gymnasium.Env`, for agents of other libraries.

Lists of choices, which have any length, are filled up to a fixed one; `info["action_mask"]` says
which of them may be taken, as `Discrete.sample` wants it. One that may not ends the episode.

Needs the extra `gym`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from weft.core.errors import InputError
from weft.parallel.dqn.environment import Environment, Observation

if TYPE_CHECKING:
    import gymnasium

__all__ = ["REFUSED", "as_gymnasium"]

REFUSED = -1.0
"""Reward of a choice that may not be taken. Chosen: that of a conflict, the least there is."""
LARGEST = 1e6
"""Most that a number of an observation is shown as. Chosen: beyond all ratios of real machines."""


def as_gymnasium(environment: Environment, most_choices: int) -> gymnasium.Env[Any, int]:
    """An environment with spaces of fixed sizes.

    Args:
        environment: of any kind.
        most_choices: how many there are at a time, at most: A.

    Returns:
        Observations of "shared" [S], "choices" [A,F] and "allowed" [A]; actions 0 to A - 1.

    Raises:
        InputError: gymnasium is not installed, or no room for choices.
    """
    if most_choices < 1:
        raise InputError(
            need="room for at least one choice",
            got=f"{most_choices}",
            hint="as many as the environment ever offers at a time",
        )
    return _kind()(environment, most_choices)


class _Filled:
    """An environment whose choices are filled up to a fixed number: all but spaces and seeds."""

    def __init__(self, environment: Environment, most_choices: int) -> None:
        self._own, self._most = environment, most_choices
        self._seen: dict[str, Any] = self._nothing()

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Take a choice; one that may not be taken ends the episode."""
        if not self._seen["allowed"][action]:
            seen, info = self._show(None)
            return seen, REFUSED, True, False, {**info, "refused": True}
        turn = self._own.step(int(action))
        seen, info = self._show(turn.observation)
        return seen, float(turn.reward), turn.observation is None, False, info

    def _show(self, observation: Observation | None) -> tuple[dict[str, Any], dict[str, Any]]:
        self._seen = self._nothing() if observation is None else self._filled(observation)
        return self._seen, {"action_mask": self._seen["allowed"].copy()}

    def _nothing(self) -> dict[str, Any]:
        width = self._own.choice_width
        return {
            "shared": np.zeros(self._own.shared_width, dtype=np.float32),
            "choices": np.zeros((self._most, width), dtype=np.float32),
            "allowed": np.zeros(self._most, dtype=np.int8),
        }

    def _filled(self, observation: Observation) -> dict[str, Any]:
        count = len(observation.allowed)
        if count > self._most:
            raise InputError(
                need=f"at most {self._most} choices at a time",
                got=f"{count}",
                hint=f"as_gymnasium(environment, most_choices={count}) or more",
            )
        seen = self._nothing()
        seen["shared"] = np.clip(observation.shared, -LARGEST, LARGEST)
        seen["choices"][:count] = np.clip(observation.choices, -LARGEST, LARGEST)
        seen["allowed"][:count] = observation.allowed
        return seen


@cache
def _kind() -> Any:  # noqa: ANN401
    """The class, which cannot be written before its base is there."""
    try:
        import gymnasium
        from gymnasium import spaces
    except ModuleNotFoundError as error:
        raise InputError(
            need="gymnasium",
            got="it is not installed",
            hint="pip install 'weft[gym]'",
        ) from error

    class GymEnvironment(_Filled, gymnasium.Env[dict[str, Any], int]):
        """An environment of weft's own, filled up."""

        metadata = {"render_modes": []}  # noqa: RUF012

        def __init__(self, environment: Environment, most_choices: int) -> None:
            super().__init__(environment, most_choices)
            shared, width = environment.shared_width, environment.choice_width
            self.observation_space = spaces.Dict(
                {
                    "shared": spaces.Box(-LARGEST, LARGEST, (shared,), np.float32),
                    "choices": spaces.Box(-LARGEST, LARGEST, (most_choices, width), np.float32),
                    "allowed": spaces.MultiBinary(most_choices),
                }
            )
            self.action_space = spaces.Discrete(most_choices)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[dict[str, Any], dict[str, Any]]:
            """Begin an episode."""
            gymnasium.Env.reset(self, seed=seed, options=options)
            return self._show(self._own.reset(self.np_random))

    return GymEnvironment
