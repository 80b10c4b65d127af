"""Which steps are stable at which lag, computed and simulated: `weft bench gac-phase`.

Thresholds are computed from polynomials, and put to the test by the optimizers themselves: SGD with
and without momentum, alone and inside GAC, on late gradients of quadratics, for lags up to 64.
`--picture FILE` draws the phase diagram of docs/explain/stale_gradients.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import inf, log, pi, sin
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.gac_phase.compensation import excess
from benchmarks.gac_phase.contestants import ALONE, COSINE, COUNT, HELD
from benchmarks.gac_phase.picture import Cell, Limit, Panel, phase_picture
from benchmarks.gac_phase.simulation import CURVATURES, Floats, rates_alone, rates_held
from benchmarks.gac_phase.study import LAGS as STUDIED
from benchmarks.gac_phase.study import net_steps, time_constants
from weft.report.bench import BenchReport, at_least, at_most, print_report
from weft.report.table import Table
from weft.rl.delayed import Delayed

__all__ = ["Map", "agreement", "run"]

LAGS = (0, 1, 2, 4, 8, 16, 32, 64)
NEAR = 0.04
"""How near a threshold a cell is told apart: there, errors change too slowly for the time given."""
REST = 1e-3
"""Growth of the logarithm in lag + 1 steps from which a model that is alone is said to grow."""
IDLE = 0.02
"""Share of the pace of plain descent along the flattest direction below which it is at rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """What became of each cell of one contestant.

    Attributes:
        name: the contestant's.
        limits: the computed threshold of each lag; infinite where none is predicted.
        steps: step size times curvature of each cell, for each lag.
        rates: growth of the logarithm of the error in lag + 1 steps of each cell, for each lag.
    """

    name: str
    limits: tuple[float, ...]
    steps: tuple[Floats, ...]
    rates: tuple[Floats, ...]


def run(quick: bool = False, picture: Path | None = None) -> BenchReport:
    """Compute and simulate; `quick` looks at lags up to 8 and fewer cells."""
    lags = LAGS[:5] if quick else LAGS
    held = _held(lags, count=16 if quick else 40, turns=40 if quick else 60)
    alone = _alone(lags, count=12 if quick else 28, turns=40)
    if picture is not None:
        picture.write_text(_picture(held, alone, lags))
    agreed, cells, near_agreed, near = agreement(held)
    single, single_cells, *_ = agreement([one for one in alone if one.limits[0] < inf])
    noisy = excess(lag=4 if quick else 16, turns=100)
    return BenchReport(
        bench="gac-phase",
        claims=(
            at_least("cosine held: cells as computed [share]", agreed / cells, 0.98),
            at_least("alone: cells as derived [share]", single / single_cells, 0.98),
            at_most(
                "delay compensation: loss over that without lag, at the step that diverges without",
                noisy["compensated"] / noisy["no lag"],
                1.2,
            ),
        ),
        table=_table([*held, *alone], lags),
        facts={
            "lags": list(lags),
            "cosine": COSINE,
            "cells": cells,
            "cells_near": near,
            "cells_near_as_computed": near_agreed,
            "cells_alone": single_cells,
            "thresholds": {one.name: [round(x, 5) for x in one.limits] for one in held},
            "alone_first_growing": {one.name: _first_growing(one) for one in alone},
            "alone_at_rest": {one.name: _share_at_rest(one, lags) for one in alone},
            "compensation": noisy,
            "lags_of_net": list(STUDIED),
            "net": {f"beta {b:g}": _rounded(net_steps(COSINE, b)) for b in (0.0, 0.9)},
            "time_constants": {f"lag {s}": _times(s) for s in ((4,) if quick else (4, 16))},
        },
    )


def agreement(maps: list[Map]) -> tuple[int, int, int, int]:
    """Cells that came out as computed, and all of them; the same of those near a threshold."""
    counts = np.zeros(4, dtype=int)
    for one in maps:
        for limit, steps, rates in zip(one.limits, one.steps, one.rates, strict=True):
            as_computed = (rates > 0) == (steps > limit)
            if one.name in {contestant.name for contestant in ALONE}:
                # One that has come to rest neither grows nor shrinks but for rounding.
                as_computed = (rates > REST) == (steps > limit)
            near = np.abs(steps / limit - 1.0) < NEAR
            counts += (
                int((as_computed & ~near).sum()),
                int((~near).sum()),
                int((as_computed & near).sum()),
                int(near.sum()),
            )
    agreed, cells, near_agreed, near_cells = counts.tolist()
    return agreed, cells, near_agreed, near_cells


def _held(lags: tuple[int, ...], *, count: int, turns: int) -> list[Map]:
    maps: list[Map] = []
    for contestant in HELD:
        models = [Delayed(lag=s, beta=contestant.beta, lead=contestant.lead) for s in lags]
        limits = tuple(model.largest_step() for model in models)
        steps = np.geomspace(0.007, 6.0, count)
        rates = tuple(
            rates_held(contestant, lag=s, steps=steps, cosine=COSINE, turns=turns) for s in lags
        )
        found = Map(name=contestant.name, limits=limits, steps=(steps,) * len(lags), rates=rates)
        maps.append(found)
        print(f"held: {contestant.name}", file=sys.stderr, flush=True)
    return maps


def _alone(lags: tuple[int, ...], *, count: int, turns: int) -> list[Map]:
    steps = np.geomspace(0.007, 4.0, count)
    maps: list[Map] = []
    for contestant in ALONE:
        limits = tuple(_derived(contestant.name, lag) for lag in lags)
        rates = tuple(rates_alone(contestant, lag=s, steps=steps, turns=turns) for s in lags)
        found = Map(name=contestant.name, limits=limits, steps=(steps,) * len(lags), rates=rates)
        maps.append(found)
        print(f"alone: {contestant.name}", file=sys.stderr, flush=True)
    return maps


def _derived(name: str, lag: int) -> float:
    """Where a quadratic that is alone begins to grow: the derivation is in the page.

    With the gradient before as reference, the steepest direction moves only when its gradient has
    turned, which is when it has seen the last step. With the last `COUNT` applied, it moves once in
    COUNT + 1 steps. No such rule is known for running means.
    """
    if name.endswith("Previous"):
        return 2.0
    if "Applied" in name:
        lag = lag // (COUNT + 1)
    elif "Ema" in name:
        return inf
    return 2.0 * sin(pi / (4 * lag + 2))


def _table(maps: list[Map], lags: tuple[int, ...]) -> Table:
    rows = [
        (one.name if at == 0 else "", str(lag), _limit(one.limits[at]), _between(one, at))
        for one in maps
        for at, lag in enumerate(lags)
    ]
    return Table(columns=("optimizer", "lag", "computed", "simulated"), rows=tuple(rows))


def _limit(value: float) -> str:
    return f"{value:.4f}" if value < inf else "-"


def _between(one: Map, at: int) -> str:
    """The last cell that does not grow, and the first that does."""
    grows = one.rates[at] > REST
    first = int(np.argmax(grows)) if grows.any() else len(grows)
    low = f"{one.steps[at][first - 1]:.4f}" if first else "-"
    high = f"{one.steps[at][first]:.4f}" if first < len(grows) else "-"
    return f"{low} to {high}"


def _first_growing(one: Map) -> list[float | None]:
    found = [s[r > REST] for s, r in zip(one.steps, one.rates, strict=True)]
    return [round(float(values[0]), 4) if len(values) else None for values in found]


def _share_at_rest(one: Map, lags: tuple[int, ...]) -> float:
    rests = [_at_rest(s, r, lag) for s, r, lag in zip(one.steps, one.rates, lags, strict=True)]
    return round(float(np.concatenate(rests).mean()), 3)


def _rounded(found: object) -> object:
    if isinstance(found, dict):
        return {name: _rounded(value) for name, value in found.items()}
    if isinstance(found, tuple):
        return [_rounded(value) for value in found]
    return round(found, 3) if isinstance(found, float) else found


def _times(lag: int) -> dict[str, dict[str, float]]:
    """Steps in which the slowest error falls to 1 / e, at the best step size of each."""
    return {
        f"beta {beta:g}": {
            name: round(-1.0 / log(growth), 1)
            for name, growth in time_constants(COSINE, beta, lag).items()
        }
        for beta in (0.0, 0.9)
    }


def _picture(held: list[Map], alone: list[Map], lags: tuple[int, ...]) -> str:
    bare = Limit(
        name="computed, SGD",
        values=tuple(Delayed(lag=s).largest_step() for s in lags),
        style="line line-dashed",
    )
    by_name = {("held", m.name): m for m in held} | {("alone", m.name): m for m in alone}
    chosen = (
        ("held", "SGD", "no GAC", ()),
        ("held", "GAC, Ema 0.5", "cosine held at 0.5 by the rest", (bare,)),
        ("alone", "GAC, Ema 0.5", "nothing else, no noise", (bare,)),
        ("alone", "GAC, Applied 4", "nothing else, no noise", (bare,)),
    )
    panels = [
        _panel(by_name[way, name], note, others, lags, is_alone=way == "alone")
        for way, name, note, others in chosen
    ]
    text = (
        "Four maps of lag against step size times curvature. Plain gradient descent grows above a"
        " threshold that falls with the lag; simulated cells agree with it. With GAC and a cosine"
        " held at one half the threshold is higher, again as computed. Alone and without noise,"
        " GAC with a running mean comes to rest without reaching the minimum and grows only at"
        " steps near 1; with applied gradients it converges up to five times the lag."
    )
    return phase_picture(panels, lags, title="Which steps are stable at which lag", text=text)


def _panel(
    one: Map, note: str, others: tuple[Limit, ...], lags: tuple[int, ...], *, is_alone: bool
) -> Panel:
    cells: list[Cell] = []
    for at, (steps, rates) in enumerate(zip(one.steps, one.rates, strict=True)):
        rests = _at_rest(steps, rates, lags[at]) if is_alone else np.zeros(len(steps), dtype=bool)
        grows = rates > (REST if is_alone else 0.0)
        cells += [
            Cell(at=at, x=float(x), style="grows" if up else "stalls" if idle else "stable")
            for x, up, idle in zip(steps, grows, rests, strict=True)
        ]
    own = () if one.limits[0] == inf else (Limit(name="computed", values=one.limits),)
    return Panel(title=one.name, note=note, cells=tuple(cells), limits=(*own, *others))


def _at_rest(steps: Floats, rates: Floats, lag: int) -> NDArray[np.bool_]:
    """Which cells change less than they should even along the flattest direction."""
    return (np.abs(rates) < IDLE * steps * min(CURVATURES) * (lag + 1)) & (rates <= REST)


if __name__ == "__main__":
    wanted = sys.argv[sys.argv.index("--picture") + 1] if "--picture" in sys.argv else None
    print_report(run(quick="--quick" in sys.argv, picture=Path(wanted) if wanted else None))
