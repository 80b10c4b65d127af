"""Audit of billed tokens: what was billed for a text against what the text is encoded to.

Each call gives the ratio of tokens that were billed, less those that are no text, to those of the
canonical encoding. An honest model now and then generates a text in other tokens than its canonical
ones, and more of them, so a ratio above 1 proves nothing. What is tested is that ratios are 1 +
`honest` or less on average, given the calls before:

    e = 1 + bet * (ratio - 1 - honest),      0 <= bet < 1 / (1 + honest - least)

Ratios are taken as at least `least`, below which no canonical encoding is beaten; from above they
need no bound. Evidence multiplies over calls and may be looked at after each (Ville's inequality).
The same bets against other averages give a bound on the overcharge that holds at all times.

Where it is not known how much of what was billed is text, since reasoning is hidden, the ratio is
an interval, of which the lower end is evidence, and the upper end only what cannot be excluded.

Source: Waudby-Smith and Ramdas, JRSS B 2024 (means of bounded variables by betting). That bills
can be raised by choice of tokens: arXiv 2505.21627.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from weft.core.errors import FileError, InputError
from weft.tokens.count import Count, exactly
from weft.tokens.guards.encoders import Encoder
from weft.tokens.guards.odds import Floats

__all__ = ["TokenAudit", "TokenVerdict", "bet_logs", "hidden_tokens"]

HONEST = 0.01
"""Chosen: one token in a hundred beyond the canonical ones. Measure it where the model can be run,
and say how much a contract allows where it cannot."""
LEAST = 0.9
"""Chosen: the canonical encoding of byte pairs is not always the shortest, but nearly."""
BETS = (0.02, 0.1, 0.3, 0.6, 0.95)
"""Shares of the largest bet. Chosen: small ones for ratios that vary, large ones for those that do
not."""
GRID = np.concatenate(
    [np.linspace(0.0, 0.2, 81), np.linspace(0.21, 1.0, 80), np.geomspace(1.1, 20)]
)
"""Overcharges that the bound is one of. Chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenVerdict:
    """What is known of what was billed.

    Attributes:
        calls: that were looked at.
        billed: tokens that were billed for text, from and to.
        canonical: tokens that the texts are encoded to.
        tripped: whether evidence was ever enough.
        evidence: that more was billed on average than honest models need; the most so far.
        needed: evidence that is enough.
        at: number of the call at which it was, from 1; None if it never was.
        overcharge: share by which is billed too much, at least, at the level; 0 for none.
        usd_after: spent after it tripped [usd].
    """

    calls: int
    billed: Count
    canonical: int
    tripped: bool
    evidence: float
    needed: float
    at: int | None
    overcharge: float
    usd_after: float

    @property
    def ratio(self) -> tuple[float, float]:
        """Billed over canonical, from and to."""
        high = math.inf if self.billed.high is None else self.billed.high / max(self.canonical, 1)
        return self.billed.low / max(self.canonical, 1), high


def bet_logs(ratios: Floats, honest: Floats | float, least: float = LEAST) -> Floats:
    """Logarithms of what each bet makes of a unit.

    Args:
        ratios: billed over canonical [...].
        honest: share that honest models need beyond the canonical [...].
        least: what ratios are taken to be at least.

    Returns:
        [..., bets].
    """
    room = 1.0 + np.asarray(honest, dtype=np.float64) - least
    gained = (np.maximum(ratios, least) - least) / room - 1.0
    return np.log1p(np.array(BETS) * gained[..., np.newaxis])


class TokenAudit:
    """Looks at calls one by one.

    Args:
        encoder: of the model that is billed.
        level: chance of a false alarm.
        honest: share of tokens that an honest model needs beyond the canonical, on average.
        overhead: tokens of a call that are no text and are billed, such as that of its end.
        least: what a ratio is at least.

    Example:
        >>> class Letters:
        ...     name = "letters"
        ...     def count(self, text: str) -> int:
        ...         return len(text)
        >>> audit = TokenAudit(Letters())
        >>> for _ in range(20):
        ...     told = audit.observe("some text of a call", exactly(22))
        >>> told.tripped, told.at, told.overcharge > 0.05
        (True, 8, True)
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        level: float = 0.01,
        honest: float = HONEST,
        overhead: int = 0,
        least: float = LEAST,
    ) -> None:
        if not 0.0 < level < 1.0 or honest < 0.0 or overhead < 0 or not 0.0 <= least < 1.0 + honest:
            raise InputError(
                need="a level between 0 and 1, and shares and tokens of at least 0",
                got=f"level {level}, honest {honest}, overhead {overhead}, least {least}",
                hint="honest=0.01 allows one token in a hundred beyond the canonical ones",
            )
        self.encoder = encoder
        self._level, self._honest, self._overhead, self._least = level, honest, overhead, least
        self._against = np.concatenate([[honest], honest + GRID])
        self._logs = np.zeros((len(self._against), len(BETS)))
        self._most = np.zeros(len(self._against))
        self._calls = self._canonical = 0
        self._billed = exactly(0)
        self._at: int | None = None
        self._usd_after = 0.0

    def observe(self, text: str, billed: Count, usd: float = 0.0) -> TokenVerdict:
        """Take a call in.

        Args:
            text: all that was shown, tool calls included as they were generated.
            billed: tokens that were billed for it.
            usd: what the call cost [usd].
        """
        canonical = self.encoder.count(text)
        low = max(billed.low - self._overhead, 0)
        high = None if billed.high is None else max(billed.high - self._overhead, 0)
        if self._at is not None:
            self._usd_after += usd
        if canonical:
            self._calls += 1
            self._canonical += canonical
            self._billed += Count(low, high)
            ratio = np.full(len(self._against), low / canonical)
            self._logs += bet_logs(ratio, self._against, self._least)
            self._most = np.maximum(self._most, _mean(self._logs))
            if self._at is None and self._most[0] >= -math.log(self._level):
                self._at = self._calls
        return self.verdict()

    def verdict(self) -> TokenVerdict:
        """What is known now."""
        excluded = self._most[1:] >= -math.log(self._level)
        # Overcharges are excluded from zero on; the first that is not bounds what is left.
        place = int(np.argmin(excluded)) if not bool(excluded.all()) else len(GRID) - 1
        return TokenVerdict(
            calls=self._calls,
            billed=self._billed,
            canonical=self._canonical,
            tripped=self._at is not None,
            evidence=math.exp(min(float(self._most[0]), 690.0)),
            needed=1.0 / self._level,
            at=self._at,
            overcharge=float(GRID[max(place - 1, 0)]),
            usd_after=self._usd_after,
        )

    def to_json(self) -> str:
        """Its state as one line; encoder and level are those of who reads it."""
        told = {
            "weft": "token audit",
            "against": self._against.tolist(),
            "logs": self._logs.tolist(),
            "most": self._most.tolist(),
            "calls": self._calls,
            "canonical": self._canonical,
            "billed": [self._billed.low, self._billed.high],
            "at": self._at,
            "usd_after": self._usd_after,
        }
        return json.dumps(told)

    def restore(self, text: str) -> Self:
        """Go on where another was that allowed as much.

        Raises:
            FileError: the text is something else.
        """
        try:
            told = json.loads(text)
            if told["weft"] != "token audit" or told["against"] != self._against.tolist():
                raise ValueError("not a state of an audit that allowed as much")
            logs = np.array(told["logs"]).reshape(self._logs.shape)
            most = np.array(told["most"]).reshape(self._most.shape)
            self._calls, self._canonical = int(told["calls"]), int(told["canonical"])
            self._billed, self._at = Count(*told["billed"]), told["at"]
            self._usd_after = float(told["usd_after"])
        except (ValueError, TypeError, KeyError, InputError) as error:
            raise FileError(
                need="an audit's state as weft writes it", got=str(error), hint="begin anew"
            ) from error
        self._logs, self._most = logs, most
        return self


def _mean(logs: Floats) -> Floats:
    """Logarithm of the mean over bets, without overflow [...]."""
    top = logs.max(axis=-1)
    return top + np.log(np.exp(logs - top[..., np.newaxis]).mean(axis=-1))


def hidden_tokens(billed: Count, shown: int, *, seconds: float, tokens_per_s: float) -> Count:
    """Tokens of reasoning that nobody saw, from what else is known.

    Args:
        billed: output in all [tokens].
        shown: of it, canonical tokens of the text that was shown [tokens].
        seconds: that the call took [s].
        tokens_per_s: the fastest that the model generates, as seen on calls that hide nothing
            [tokens/s].

    Returns:
        From and to; the upper end is what was billed or what there was time for, if that is less.

    Raises:
        InputError: time or speed is negative.

    Example:
        >>> hidden_tokens(exactly(5_000), 400, seconds=20.0, tokens_per_s=100.0)
        0 to 1600
        >>> hidden_tokens(exactly(900), 400, seconds=20.0, tokens_per_s=100.0)
        0 to 500
    """
    if not (0.0 <= seconds < math.inf and 0.0 <= tokens_per_s < math.inf and shown >= 0):
        raise InputError(
            need="a time, a speed and a number of tokens of at least zero",
            got=f"{seconds} s at {tokens_per_s} tokens/s, {shown} shown",
            hint="leave the call out where its time is not known",
        )
    in_time = max(math.floor(seconds * tokens_per_s) - shown, 0)
    if billed.high is None:
        return Count(0, in_time)
    return Count(0, min(in_time, max(billed.high - shown, 0)))
