"""How often to spend tokens on checking.

Checked with chance q, an agent that cuts corners saves `saving` and, where it is caught, loses
`stake`. It does not cut corners from

    q = saving / (stake * caught)

on, and more checking buys nothing but what it mends: of honest work a share is wrong, and a check
that finds it saves its damage. So all is checked where a check mends more than it costs, else just
enough.

Source: Becker, Journal of Political Economy 1968; inspection as in Mookherjee and Png, Quarterly
Journal of Economics 1989.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import InputError

__all__ = ["Checking", "checking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checking:
    """What to check.

    Attributes:
        share: of results that are checked.
        usd_per_task: what that costs [usd].
        mends_usd: what a check is worth by what it finds in honest work [usd].
        is_enough: whether cutting corners does not pay at this share; where it does even if all is
            checked, a larger stake is needed.
    """

    share: float
    usd_per_task: float
    mends_usd: float
    is_enough: bool


def checking(
    *,
    check_usd: float,
    wrong: float,
    caught: float,
    damage_usd: float,
    saving_usd: float,
    stake_usd: float,
) -> Checking:
    """The cheapest share of results to check that keeps work honest.

    Args:
        check_usd: of one check [usd].
        wrong: share of honest results that are wrong.
        caught: chance that a check finds what is wrong, corners that were cut included.
        damage_usd: of a wrong result that is not found [usd].
        saving_usd: what cutting corners saves the agent [usd].
        stake_usd: what it loses where it is caught: pay, future work [usd].

    Raises:
        InputError: a share is none, or an amount is negative.

    Example:
        >>> found = checking(check_usd=0.1, wrong=0.05, caught=0.8, damage_usd=1.0, saving_usd=0.2,
        ...                  stake_usd=1.0)
        >>> round(found.share, 3), found.is_enough
        (0.25, True)
    """
    amounts = (check_usd, damage_usd, saving_usd, stake_usd)
    if min(amounts) < 0.0 or not 0.0 <= wrong <= 1.0 or not 0.0 <= caught <= 1.0:
        raise InputError(
            need="shares from 0 to 1, and amounts of at least zero",
            got=f"wrong {wrong}, caught {caught}, amounts {amounts}",
            hint="measure both on results of which the truth is known",
        )
    mends = wrong * caught * damage_usd
    deterrent = stake_usd * caught
    needed = 0.0 if saving_usd == 0.0 else saving_usd / deterrent if deterrent else 2.0
    share = 1.0 if mends > check_usd else min(needed, 1.0)
    return Checking(
        share=share, usd_per_task=share * check_usd, mends_usd=mends, is_enough=needed <= 1.0
    )
