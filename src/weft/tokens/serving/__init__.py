"""A served model: what a step of its server takes, and what tokens of each class therefore cost."""

from __future__ import annotations

from weft.tokens.serving.capacity import Capacity, Limits, capacity
from weft.tokens.serving.decoder import Decoder, load_decoder
from weft.tokens.serving.demand import Demand, demand_of, load_requests
from weft.tokens.serving.list_price import list_usd
from weft.tokens.serving.plan_file import is_served_plan, load_served_plan, save_served_plan
from weft.tokens.serving.prices import BreakEven, ServedPrices, break_even, served_prices
from weft.tokens.serving.served import PricedSteps, ServedPlan, priced_steps, step_seconds
from weft.tokens.serving.simulate import Request, Served, serve
from weft.tokens.serving.steps import ResourceTime, StepLoad, StepTimes

__all__ = [
    "BreakEven",
    "Capacity",
    "Decoder",
    "Demand",
    "Limits",
    "PricedSteps",
    "Request",
    "ResourceTime",
    "Served",
    "ServedPlan",
    "ServedPrices",
    "StepLoad",
    "StepTimes",
    "break_even",
    "capacity",
    "demand_of",
    "is_served_plan",
    "list_usd",
    "load_decoder",
    "load_requests",
    "load_served_plan",
    "priced_steps",
    "save_served_plan",
    "serve",
    "served_prices",
    "step_seconds",
]
