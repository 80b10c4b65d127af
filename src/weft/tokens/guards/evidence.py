"""Evidence that adds up: bets against what honest work does, on a capital that nobody adds to.

Each bet puts a share of a capital on "the next score exceeds this threshold", and is paid at odds
by which honest work cannot gain on average:

    e = 1 - bet + bet * [exceeded] / chance

Something may go wrong at any time, so a part of the capital begins to be played at each step:

    played <- (played + part begun now) * e          all = played + parts not begun

With honest work, all of it is never expected to grow, whatever the scores depend on, as long as
each chance given the past is at most its bound. So the chance that it ever exceeds 1 / a is at most
a, however long one looks (Ville's inequality). Parts either fall off, so that there are enough of
them for ever, or are alike, 1 / horizon each: then the chance is at most a within the first
horizon, and a false alarm takes on average at least horizon / a steps.

Source: Ville 1939; Shafer, JRSS A 2021 (testing by betting); Shin, Ramdas and Rinaldo, E-detectors,
New England Journal of Statistics in Data Science 2024; Waudby-Smith and Ramdas, JRSS B 2024.
"""

from __future__ import annotations

import math

import numpy as np

from weft.tokens.guards.odds import Floats

__all__ = ["BETS", "LARGEST", "capital", "part", "play", "returns", "unbegun"]

BETS = (0.2, 0.5, 0.9)
"""Shares of a capital that are put on a threshold. Chosen: the best one depends on how often it
will be exceeded, and is missed on this grid by at most some tenths of the growth."""
LARGEST = 1e300
"""Capital beyond which none is counted. Chosen below the largest float; less capital is no risk."""


def part(step: int, horizon: int | None = None) -> float:
    """Of the capital that begins to be played at a step, from 1 on.

    Example:
        >>> part(1), round(part(3), 4), part(3, horizon=10)
        (0.5, 0.0535, 0.1)
    """
    return unbegun(step - 1, horizon) - unbegun(step, horizon) if horizon is None else 1.0 / horizon


def unbegun(steps: int, horizon: int | None = None) -> float:
    """What is left of the capital after so many steps have begun to play theirs.

    Without a horizon it falls as the logarithm does: at step s, parts are of order 1 / (s log^2 s),
    which is about as much as can be kept for all that come later.
    """
    if horizon is not None:
        return max(1.0 - steps / horizon, 0.0)
    return 1.0 / (1.0 + math.log2(1.0 + steps))


def returns(exceeded: Floats, chances: Floats) -> Floats:
    """What each bet on each threshold makes of one unit.

    Args:
        exceeded: 1 where a threshold was [..., thresholds].
        chances: bounds on the chances of that [..., thresholds].

    Returns:
        [..., thresholds, bets].
    """
    paid = exceeded / chances
    bets = np.array(BETS)
    return 1.0 - bets + bets * paid[..., np.newaxis]


def play(played: Floats, begun: float, paid: Floats) -> Floats:
    """Capital in play after a step [..., thresholds, bets].

    Args:
        played: before it.
        begun: the part that begins now, divided among the bets.
        paid: what each bet makes of a unit.
    """
    bets = max(math.prod(paid.shape[-2:]), 1)
    return np.minimum((played + begun / bets) * paid, LARGEST)


def capital(played: Floats, steps: int, horizon: int | None = None) -> Floats:
    """All of it, which was 1 at the start [...]."""
    return played.sum(axis=(-2, -1)) + unbegun(steps, horizon)
