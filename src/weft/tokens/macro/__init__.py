"""Shared servers: what a request costs all others, what it should pay, and who gets how much."""

from weft.tokens.macro.auction import Bid, Bidder, Sale, first_price, vcg, winners
from weft.tokens.macro.batching import BatchServer, Kind, Occupancy
from weft.tokens.macro.congestion import Response, Server, externality
from weft.tokens.macro.counters import Counters
from weft.tokens.macro.demand import Demand, EvenValues, SkewedValues, Values
from weft.tokens.macro.fairness import FairShares, fair_shares
from weft.tokens.macro.queues import FifoQueue, Service, SharedQueue, exponential, fixed
from weft.tokens.macro.tariff import Tariff, request_tolls, tariff
from weft.tokens.macro.toll import Market, Outcome, best_toll, equilibrium

__all__ = [
    "BatchServer",
    "Bid",
    "Bidder",
    "Counters",
    "Demand",
    "EvenValues",
    "FairShares",
    "FifoQueue",
    "Kind",
    "Market",
    "Occupancy",
    "Outcome",
    "Response",
    "Sale",
    "Server",
    "Service",
    "SharedQueue",
    "SkewedValues",
    "Tariff",
    "Values",
    "best_toll",
    "equilibrium",
    "exponential",
    "externality",
    "fair_shares",
    "first_price",
    "fixed",
    "request_tolls",
    "tariff",
    "vcg",
    "winners",
]
