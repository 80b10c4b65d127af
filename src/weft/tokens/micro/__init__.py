"""What a token does for an outcome, with intervals, and how far that may be believed."""

from weft.tokens.micro.bootstrap import Bootstrap, bootstrapped
from weft.tokens.micro.design import (
    Candidate,
    Criterion,
    Design,
    Knowledge,
    Verdict,
    design,
    verdict,
)
from weft.tokens.micro.estimate import Estimate, Interval
from weft.tokens.micro.expenditure import Expenditure, cheapest, least_cost
from weft.tokens.micro.families import Ces, CobbDouglas, Family, Translog
from weft.tokens.micro.fit import fit_production
from weft.tokens.micro.identification import Link, Mode
from weft.tokens.micro.passing import ArmCost, FrontierStep, cost_of_pass, pass_frontier
from weft.tokens.micro.production import Production
from weft.tokens.micro.trials import Trials
from weft.tokens.micro.world import World, simulated

__all__ = [
    "ArmCost",
    "Bootstrap",
    "Candidate",
    "Ces",
    "CobbDouglas",
    "Criterion",
    "Design",
    "Estimate",
    "Expenditure",
    "Family",
    "FrontierStep",
    "Interval",
    "Knowledge",
    "Link",
    "Mode",
    "Production",
    "Translog",
    "Trials",
    "Verdict",
    "World",
    "bootstrapped",
    "cheapest",
    "cost_of_pass",
    "design",
    "fit_production",
    "least_cost",
    "pass_frontier",
    "simulated",
    "verdict",
]
