"""Pay for results, where effort cannot be seen and nobody can be fined.

An agent passes with chance `high` if it makes an effort that costs `effort_usd`, else with `low`.
With pay for a pass alone, and none below zero, effort is worth its while from

    pay = effort / (high - low)

on. It then earns `low * pay` more than its effort: what cannot be seen has a price.

Source: Innes, Journal of Economic Theory 1990; Laffont and Martimort, The Theory of Incentives,
2002, section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import InputError

__all__ = ["Contract", "contract"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What is paid.

    Attributes:
        pay_usd: for a pass [usd].
        expected_usd: paid, at effort [usd].
        rent_usd: of that, beyond the effort [usd].
        worth_usd: to who pays, beyond what is paid; effort is not worth asking for where it is less
            than without [usd].
        is_worth_it: whether it is worth asking for effort at all.
    """

    pay_usd: float
    expected_usd: float
    rent_usd: float
    worth_usd: float
    is_worth_it: bool


def contract(*, effort_usd: float, high: float, low: float, worth_usd: float) -> Contract:
    """The cheapest pay that makes an effort worth its while.

    Args:
        effort_usd: what the effort costs the agent [usd].
        high, low: chances of a pass with it and without.
        worth_usd: of a pass, to who pays [usd].

    Raises:
        InputError: effort does not raise the chance.

    Example:
        >>> own = contract(effort_usd=0.2, high=0.9, low=0.5, worth_usd=2.0)
        >>> round(own.pay_usd, 3), round(own.rent_usd, 3), own.is_worth_it
        (0.5, 0.25, True)
    """
    if not 0.0 <= low < high <= 1.0 or effort_usd < 0.0:
        raise InputError(
            need="an effort of some cost that raises the chance of a pass",
            got=f"from {low} to {high}, for {effort_usd} usd",
            hint="without a difference no pay for passes brings effort about",
        )
    pay = effort_usd / (high - low)
    worth = high * (worth_usd - pay)
    return Contract(
        pay_usd=pay,
        expected_usd=high * pay,
        rent_usd=low * pay,
        worth_usd=worth,
        is_worth_it=worth > low * worth_usd,
    )
