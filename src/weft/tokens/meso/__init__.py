"""Whether to hand work on, to how many, and how to pay for it and check it."""

from weft.tokens.meso.contract import Contract, contract
from weft.tokens.meso.delegation import Delegation, Handover, delegation
from weft.tokens.meso.team import Team, team_size
from weft.tokens.meso.verification import Checking, checking

__all__ = [
    "Checking",
    "Contract",
    "Delegation",
    "Handover",
    "Team",
    "checking",
    "contract",
    "delegation",
    "team_size",
]
