"""Make or buy: whether a part of a task is worth handing to another agent.

    delegate where   E[dV] - price * (what is said twice) - coordination - risk  >  0

What is said twice is measured: tokens that the parent sends on to a child, and those of the child's
that it reads when the child returns. They are paid for although they are no new work.

Source: Coase, Economica 1937 (the boundary of the firm); the rule for tokens as arXiv 2605.09104
has it, as transcribed by others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.core.quantiles import student_t
from weft.tokens.micro.estimate import Interval

__all__ = ["Delegation", "Handover", "delegation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """One part of a task that was handed on, as it was measured.

    Attributes:
        sent: tokens of the child's prompt that were the parent's already.
        read: tokens of the child's answer that the parent read.
        gain: value over that of the parent alone, in dollars; less what the work itself cost [usd].
    """

    sent: int
    read: int
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """Whether it pays.

    Attributes:
        usd: what a handover brings beyond its costs [usd].
        said_twice: tokens that a handover says twice.
        communication_usd: what they cost [usd].
    """

    usd: Interval
    said_twice: float
    communication_usd: float

    @property
    def is_decided(self) -> bool:
        """Whether the interval leaves no doubt on which side of zero it is."""
        return 0.0 not in self.usd

    def explain(self) -> str:
        """In words."""
        does = "pays" if self.usd.value > 0.0 else "does not pay"
        sure = "" if self.is_decided else ", which is not told from nothing"
        return (
            f"handing on {does}: {self.usd} usd each{sure}; {self.said_twice:,.0f} tokens are said "
            f"twice, for {self.communication_usd:.3g} usd"
        )


def delegation(
    handovers: Sequence[Handover],
    *,
    sent_usd: float,
    read_usd: float,
    coordination_usd: float = 0.0,
    risk_usd: float = 0.0,
    level: float = 0.95,
) -> Delegation:
    """From handovers that were tried.

    Args:
        handovers: of which gains are known; draw at random what is handed on, for otherwise they
            are those of parts that somebody thought worth it.
        sent_usd, read_usd: a token that a child and a parent read; often that of a cache [usd].
        coordination_usd: of each handover, besides tokens: waiting, for example [usd].
        risk_usd: expected damage of each [usd].
        level: of the interval.

    Raises:
        InputError: there are fewer than two.

    Example:
        >>> tried = [Handover(sent=4000, read=500, gain=g) for g in (0.03, 0.05, 0.04)]
        >>> delegation(tried, sent_usd=3e-6, read_usd=3e-6).explain().split(":")[0]
        'handing on pays'
    """
    if len(handovers) < 2:
        raise InputError(
            need="two handovers or more",
            got=f"{len(handovers)}",
            hint="one gain says nothing of how gains vary",
        )
    talk = np.array([h.sent * sent_usd + h.read * read_usd for h in handovers])
    net = np.array([h.gain for h in handovers]) - talk - coordination_usd - risk_usd
    half = student_t(level, len(net) - 1) * float(net.std(ddof=1)) / math.sqrt(len(net))
    value = float(net.mean())
    return Delegation(
        usd=Interval(value=value, low=value - half, high=value + half, level=level),
        said_twice=float(np.mean([h.sent + h.read for h in handovers])),
        communication_usd=float(talk.mean()),
    )
