"""One call of a model: who asked, what it used, what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from weft.core.errors import InputError
from weft.tokens.usage import Usage

__all__ = ["Call", "Status"]


class Status(StrEnum):
    """How a call ended."""

    DONE = "done"
    FAILED = "failed"
    """The provider answered with an error; what it billed, if anything, is in the usage."""
    ABORTED = "aborted"
    """The stream broke off: the output is known from below only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a ledger holds of one call.

    Attributes:
        id: of the call, unique within its source; a second one is the same call again.
        source: whose ids these are: "openai", "otel", a file's format.
        at: when it began [s since 1970, UTC].
        seconds: how long it took; None if that is unknown [s].
        provider, model: as prices know them, lower case.
        usage: tokens by class.
        status: how it ended.
        payer, agent, task, session: who pays, who asked, for what, within which conversation; empty
            where nobody said.
        parent: id of the call or span that led to this one; empty for none.
        tier: which of a provider's tiers served it ("batch", "flex", "priority"); empty for the
            standard one.
        arm: which setting was drawn for it in an experiment (effort, budget, model); or empty.
        passed: whether the task's outcome was good, of the call that ended it; None if unknown.
        labels: anything else.

    Raises:
        InputError: it has no id, or a time that is none.
    """

    id: str
    source: str
    at: float
    model: str
    provider: str = ""
    seconds: float | None = None
    usage: Usage = field(default_factory=Usage)
    status: Status = Status.DONE
    payer: str = ""
    agent: str = ""
    task: str = ""
    session: str = ""
    parent: str = ""
    tier: str = ""
    arm: str = ""
    passed: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        took = 0.0 if self.seconds is None else self.seconds
        if not self.id or not math.isfinite(self.at) or not 0.0 <= took < math.inf:
            raise InputError(
                need="a call with an id, a time and a duration that is not negative",
                got=f"id {self.id!r}, at {self.at}, {self.seconds} s",
                hint="look at the span or log line that it is from: was a clock set back?",
            )
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))
