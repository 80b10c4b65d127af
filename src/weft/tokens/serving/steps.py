"""How long one step of a server that batches takes, whatever is in it.

A step computes some tokens of prompts and one token of each sequence that is being answered. Each
resource is busy for a time linear in what the step holds; the step takes as long as the busiest
one. That is all that prices, tolls and simulators of a server know of it: hardware and model are
behind the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from weft.core.errors import InputError

__all__ = ["ResourceTime", "StepLoad", "StepTimes"]


@dataclass(frozen=True, slots=True)
class StepLoad:
    """What is in one step of a server.

    Attributes:
        tokens: tokens that go through the layers, those of prompts and one for each sequence
            that is being answered.
        sequences: sequences that get a token.
        pairs: of a token that is computed and one that it attends to.
        context_tokens: tokens whose keys and values are read from memory.
    """

    tokens: float
    sequences: float
    pairs: float
    context_tokens: float


@dataclass(frozen=True, slots=True)
class ResourceTime:
    """How long one resource of a server is busy in a step.

    Attributes:
        name: of the resource, such as "compute", "memory" or "network".
        fixed_s: in any step, such as reading all weights once [s].
        token_s: for each token that goes through the layers [s].
        sequence_s: for each sequence that gets a token [s].
        pair_s: for each pair of a token and one that it attends to [s].
        context_token_s: for each token whose keys and values are read [s].
    """

    name: str
    fixed_s: float = 0.0
    token_s: float = 0.0
    sequence_s: float = 0.0
    pair_s: float = 0.0
    context_token_s: float = 0.0

    def __post_init__(self) -> None:
        times = (
            self.fixed_s,
            self.token_s,
            self.sequence_s,
            self.pair_s,
            self.context_token_s,
        )
        if not all(isfinite(time) and time >= 0 for time in times):
            raise InputError(
                need="times of 0 s and more",
                got=f"{self.name}: {times}",
                hint="take them from a Machine: weft.tokens.serving",
            )

    def seconds(self, load: StepLoad) -> float:
        """For how long `load` keeps the resource busy [s]."""
        return (
            self.fixed_s
            + self.token_s * load.tokens
            + self.sequence_s * load.sequences
            + self.pair_s * load.pairs
            + self.context_token_s * load.context_tokens
        )


@dataclass(frozen=True, slots=True)
class StepTimes:
    """How long a step of a server takes.

    Attributes:
        resources: each of which a step keeps busy; they work at the same time.
        cache_tokens: tokens whose keys and values fit into memory.

    Example:
        >>> memory = ResourceTime("memory", fixed_s=0.010, context_token_s=1e-8)
        >>> server = StepTimes((ResourceTime("compute", token_s=2e-5), memory), 400_000)
        >>> server.seconds(StepLoad(tokens=64, sequences=64, pairs=64_000, context_tokens=64_000))
        0.01064
    """

    resources: tuple[ResourceTime, ...]
    cache_tokens: int

    def __post_init__(self) -> None:
        if not self.resources or self.cache_tokens < 1:
            raise InputError(
                need="a resource or more, and room for a token or more",
                got=f"{len(self.resources)} resources, room for {self.cache_tokens} tokens",
                hint="a model that does not fit on a machine serves nobody: take more devices",
            )
        if not self.seconds(StepLoad(tokens=1, sequences=1, pairs=1, context_tokens=1)) > 0.0:
            raise InputError(
                need="steps that take time",
                got="times of 0 s alone",
                hint="take them from a Machine: weft.tokens.serving",
            )

    def seconds(self, load: StepLoad) -> float:
        """How long a step with `load` in it takes [s]."""
        return max(resource.seconds(load) for resource in self.resources)
