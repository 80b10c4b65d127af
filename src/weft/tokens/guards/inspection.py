"""The price of security: what a call costs once it is checked often enough, and how often that is.

    price = model + share * (check + wage * time) + expected loss

What is expected to be lost depends on how much is checked, in two ways. A check finds what is
wrong; and who knows that they are checked does not try what does not pay (`checking`, of
`weft.tokens.meso`, which this is built on).

Where something goes wrong once and stays wrong until it is found, such as a key that was stolen or
a tool that was poisoned, what matters is the time between inspections. With a rate of going wrong
of h a call, d usd lost a call until it is found, v usd an inspection that finds it with chance c,

    usd a call = v / n + d - d / (h n N) + r / (n N),     N = 1 / (1 - exp(-h n)) + 1 / c - 1

every n calls, where N is the expected number of inspections until one finds it, and r the cost of
putting it right. For rare trouble the best n is about sqrt(2 v c / (h d (2 - c))).

Source: arXiv 2605.09104, section 6, as transcribed by others (the price); Barlow and Proschan,
Mathematical Theory of Reliability, 1965, section 4.3 (inspection); the formula with c: derived, by
renewal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.tokens.meso import Checking, checking

__all__ = ["Inspection", "SecurityPrice", "best_interval", "inspection_usd", "security_price"]

LONGEST = 10**9
"""Calls between inspections beyond which none pays. Chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityPrice:
    """What a call costs with its risks, by how much is checked.

    Attributes:
        usd: at the share that is best [usd].
        share: of calls that are checked.
        model_usd, check_usd, loss_usd: parts of `usd` [usd].
        unchecked_usd: what a call costs if nothing is checked [usd].
        all_checked_usd: what it costs if everything is [usd].
        even_wrong: share of wrong calls at which a check pays for itself by what it finds; above 1
            where it never does.
        checking: of which the share is.
    """

    usd: float
    share: float
    model_usd: float
    check_usd: float
    loss_usd: float
    unchecked_usd: float
    all_checked_usd: float
    even_wrong: float
    checking: Checking


def security_price(
    *,
    model_usd: float,
    check_usd: float,
    check_s: float = 0.0,
    wage_usd_per_s: float = 0.0,
    wrong: float,
    caught: float,
    damage_usd: float,
    tempted: float = 0.0,
    gain_usd: float = 0.0,
    stake_usd: float = 0.0,
) -> SecurityPrice:
    """How much to check, and what a call then costs.

    Args:
        model_usd: of a call, as it is billed [usd].
        check_usd, check_s: tokens and time of a check [usd, s].
        wage_usd_per_s: worth of that time [usd/s].
        wrong, caught: share of calls that do damage, and chance that a check finds it.
        damage_usd: of one that is not found [usd].
        tempted: share of calls that somebody would turn to their own use, did it pay.
        gain_usd, stake_usd: what that brings them, and what they lose where it is found [usd].

    Raises:
        InputError: a share is none, or an amount is negative.

    Example:
        >>> priced = security_price(model_usd=0.01, check_usd=0.002, wrong=0.001, caught=0.9,
        ...     damage_usd=1.0, tempted=0.05, gain_usd=0.5, stake_usd=5.0)
        >>> round(priced.share, 3), round(priced.usd, 4), round(priced.unchecked_usd, 3)
        (0.111, 0.0111, 0.061)
    """
    whole = check_usd + check_s * wage_usd_per_s
    _check_risks(min(model_usd, check_s, wage_usd_per_s), wrong, tempted)
    own = checking(
        check_usd=whole,
        wrong=wrong,
        caught=caught,
        damage_usd=damage_usd,
        saving_usd=gain_usd * (tempted > 0.0),
        stake_usd=stake_usd,
    )

    def parts(share: float) -> tuple[float, float]:
        pays = tempted > 0.0 and gain_usd > share * caught * stake_usd * (1.0 + 1e-12)
        return share * whole, (wrong + tempted * pays) * (1.0 - share * caught) * damage_usd

    best = min(sorted({own.share, 0.0, 1.0}), key=lambda share: sum(parts(share)))
    checks, loss = parts(best)
    return SecurityPrice(
        usd=model_usd + checks + loss,
        share=best,
        model_usd=model_usd,
        check_usd=checks,
        loss_usd=loss,
        unchecked_usd=model_usd + sum(parts(0.0)),
        all_checked_usd=model_usd + sum(parts(1.0)),
        even_wrong=whole / (caught * damage_usd) if caught * damage_usd else math.inf,
        checking=own,
    )


def _check_risks(least: float, wrong: float, tempted: float) -> None:
    if least < 0.0 or not 0.0 <= tempted <= 1.0 - wrong:
        raise InputError(
            need="amounts of at least zero, and shares that add up to at most 1",
            got=f"an amount or time of {least}, {wrong} wrong, {tempted} tempted",
            hint="wrong + tempted is the share of calls that can do damage",
        )


def inspection_usd(
    every: float,
    *,
    rate: float,
    damage_usd: float,
    inspect_usd: float,
    caught: float = 1.0,
    repair_usd: float = 0.0,
) -> float:
    """What trouble and looking for it cost a call, with an inspection every so many calls [usd].

    Args:
        every: calls between inspections.
        rate: at which it goes wrong, a call.
        damage_usd: each call until it is found [usd].
        inspect_usd: an inspection [usd].
        caught: chance that one finds it.
        repair_usd: of putting it right [usd].

    Raises:
        InputError: an interval, rate or chance is not above zero, or an amount negative.
    """
    amounts = (damage_usd, inspect_usd, repair_usd)
    if not 0.0 < every < math.inf or rate <= 0.0 or not 0.0 < caught <= 1.0 or min(amounts) < 0.0:
        raise InputError(
            need="an interval, a rate and a chance above zero, amounts of at least zero",
            got=f"every {every}, rate {rate}, caught {caught}, amounts {amounts}",
            hint="an inspection that never finds anything is none",
        )
    looks = 1.0 / -math.expm1(-rate * every) + 1.0 / caught - 1.0
    calls = every * looks
    return inspect_usd / every + damage_usd - damage_usd / (rate * calls) + repair_usd / calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """How often to look.

    Attributes:
        every: calls between inspections; LONGEST where none pays.
        usd: what trouble and looking for it then cost a call [usd].
        never_usd: what trouble costs a call in the long run if nobody looks [usd].
    """

    every: int
    usd: float
    never_usd: float


def best_interval(
    *,
    rate: float,
    damage_usd: float,
    inspect_usd: float,
    caught: float = 1.0,
    repair_usd: float = 0.0,
) -> Inspection:
    """The number of calls between inspections that costs least.

    Arguments are those of `inspection_usd`.

    Raises:
        InputError: a rate or chance is not above zero, or an amount negative.

    Example:
        >>> best = best_interval(rate=1e-5, damage_usd=0.5, inspect_usd=1.0)
        >>> best.every, round(best.usd, 5)
        (634, 0.00316)
    """

    def usd_at(every: int) -> float:
        return inspection_usd(
            every,
            rate=rate,
            damage_usd=damage_usd,
            inspect_usd=inspect_usd,
            caught=caught,
            repair_usd=repair_usd,
        )

    # Costs fall and then rise, except towards the end, where all is lost anyway: a grid in
    # logarithms finds the valley, and whole numbers around it are looked through by thirds.
    grid = sorted({max(round(10.0 ** (own / 8.0)), 1) for own in range(8 * 9 + 1)})
    place = min(range(len(grid)), key=lambda own: usd_at(grid[own]))
    low, high = grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)]
    while high - low > 2:
        third = (high - low) // 3
        if usd_at(low + third) <= usd_at(high - third):
            high -= third
        else:
            low += third
    every = min(range(low, high + 1), key=usd_at)
    return Inspection(every=every, usd=usd_at(every), never_usd=damage_usd)
