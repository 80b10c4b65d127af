"""Whether the expenditure function keeps the laws of one, at random prices and qualities.

Shephard's lemma (what is bought is the derivative of the cost), homogeneity of degree one,
concavity, and that no cheaper inputs reach the quality, of which a local search tries to find some.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from benchmarks.tokens.part import COLUMNS, Part
from weft.report.bench import BenchReport, at_least, at_most, print_report
from weft.report.table import Table
from weft.tokens.micro import Ces, CobbDouglas, Estimate, Family, Link, Mode, Production, least_cost
from weft.tokens.micro.estimate import Floats

__all__ = ["duality"]

FACTORS: tuple[str, ...] = ("compute", "reasoning", "tool")
SHAPES: tuple[tuple[Family, tuple[float, ...]], ...] = (
    (CobbDouglas(), (0.2, 0.3, 0.1)),
    (Ces(), (0.7, -1.5, 0.2, -0.4)),
    (Ces(), (0.7, 0.6, 0.2, -0.4)),
    (Ces((("compute",), ("reasoning", "tool"))), (0.7, -1.0, 0.2, 0.5, -0.4)),
)
CASES, FEW = 400, 40
STEP = 1e-5
"""Relative, of finite differences: their own error is about 1e-10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Off:
    """Largest breaches of each law, and the least that a search spends over the cost."""

    shephard: float
    homogeneous: float
    concave: float
    cheapest: float

    def __str__(self) -> str:
        laws = f"Shephard {self.shephard:.1e}, homogeneous {self.homogeneous:.1e}, "
        return f"{laws}concave {self.concave:.1e}, best other {self.cheapest:.6f} of the cost"


def _production(family: Family, theta: tuple[float, ...]) -> Production:
    values = np.array([0.1, *theta])
    return Production(
        family=family,
        link=Link.LOG,
        mode=Mode.EXPERIMENTAL,
        factors=FACTORS,
        centre=np.log([500.0, 1000.0, 200.0]),
        tried=np.array([[-9.0] * 3, [9.0] * 3]),
        models=("",),
        parameters=Estimate(values=values, influence=np.zeros((30, len(values)))),
        controls=None,
        first_stage=(),
        num_trials=0,
        num_tasks=30,
        num_arms=0,
        warnings=(),
    )


def _laws(own: Production, cases: int, rng: np.random.Generator) -> _Off:
    shephard = homogeneous = concave = 0.0
    cheapest = np.inf
    for _ in range(cases):
        prices, other = np.exp(rng.uniform(-14.0, -9.0, (2, 3)))
        floor = float(rng.uniform(0.5, 3.0))
        cost, tokens = _cost(own, floor, prices)
        steps = np.diag(STEP * prices)
        slopes = [
            (_cost(own, floor, prices + s)[0] - _cost(own, floor, prices - s)[0]) / (2.0 * s.sum())
            for s in steps
        ]
        # In dollars of each input: of one, hardly any may be bought.
        off = float(np.max(np.abs(np.array(slopes) - tokens) * prices) / cost)
        shephard = max(shephard, off)
        scale = float(np.exp(rng.uniform(-3.0, 3.0)))
        scaled = _cost(own, floor, scale * prices)[0]
        homogeneous = max(homogeneous, abs(scaled / (scale * cost) - 1.0))
        weight = float(rng.random())
        chord = weight * cost + (1.0 - weight) * _cost(own, floor, other)[0]
        mixed = _cost(own, floor, weight * prices + (1.0 - weight) * other)[0]
        concave = max(concave, (chord - mixed) / chord)
        cheapest = min(cheapest, _searched(own, tokens, prices, rng) / cost)
    return _Off(shephard=shephard, homogeneous=homogeneous, concave=concave, cheapest=cheapest)


def _cost(own: Production, floor: float, prices: Floats) -> tuple[float, Floats]:
    named: dict[str, float] = dict(zip(FACTORS, map(float, prices), strict=True))
    cost, tokens = least_cost(own, floor, named)
    return cost, np.array([tokens[name] for name in FACTORS])


def _searched(own: Production, tokens: Floats, prices: Floats, rng: np.random.Generator) -> float:
    """The least that 200 other mixes cost which reach the same index."""
    theta, best = own.shape.values, np.log(tokens) - own.centre
    logs = best + 0.3 * rng.standard_normal((200, 3))
    short = own.family.index(theta, best[None, :]) - own.family.index(theta, logs)
    returns = own.family.elasticities(theta, logs).sum(axis=1)
    logs = logs + (short / returns)[:, None]
    return float((np.exp(logs + own.centre) @ prices).min())


def duality(quick: bool = False, rivals: str = sys.executable) -> Part:
    """Measure; `quick` takes fewer prices. There is no rival."""
    rng = np.random.default_rng(0)
    cases = FEW if quick else CASES
    found = [_laws(_production(*shape), cases, rng) for shape in SHAPES]
    rows = tuple(
        ("duality", f"{family.name} {theta}", "weft", str(own))
        for (family, theta), own in zip(SHAPES, found, strict=True)
    )
    return Part(
        claims=(
            at_most(
                "Shephard's lemma: off by [share of cost]", max(f.shephard for f in found), 1e-8
            ),
            at_most("homogeneity: off by [share]", max(f.homogeneous for f in found), 1e-12),
            at_most("concavity: breach [share]", max(f.concave for f in found), 1e-12),
            at_least("cheapest other inputs [share of cost]", min(f.cheapest for f in found), 1.0),
        ),
        rows=rows,
        facts={"duality_cases": cases},
    )


if __name__ == "__main__":
    part = duality("--quick" in sys.argv)
    print_report(
        BenchReport(
            bench="tokens-duality",
            claims=part.claims,
            table=Table(columns=COLUMNS, rows=part.rows),
            facts=part.facts,
        )
    )
