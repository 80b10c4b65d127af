"""A market on a trace: clients who send what is worth it, and a mechanism that shares the server.

A request that comes looks at its price and at the delay that it has to expect by how full the
server is; it is sent if it is worth both. Values and costs are drawn once, so that mechanisms meet
the same crowd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from weft.tokens.macro.clients import Crowd
from weft.tokens.macro.engine import Engine
from weft.tokens.macro.mechanisms import Mechanism
from weft.tokens.micro.estimate import Floats, Ints
from weft.tokens.serving.steps import StepTimes

__all__ = ["MarketRun", "run_market"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketRun:
    """What came of it.

    Attributes:
        welfare_usd: value of what was served less what its delays cost, by second [usd/s].
        value_usd: value alone [usd/s].
        revenue_usd: paid [usd/s].
        sent: share of requests that were sent.
        delay_s, late_s: of these, on average and of one in twenty at least [s].
        work: seconds of work that were served, by second.
        fairness: Jain's index of work served by work wanted, over payers: one where all get the
            same part of what they want, 1 / payers where one gets all.
        shares: of the work that was served, by payer.
    """

    welfare_usd: float
    value_usd: float
    revenue_usd: float
    sent: float
    delay_s: float
    late_s: float
    work: float
    fairness: float
    shares: tuple[float, ...]


def run_market(
    those: Crowd,
    times: StepTimes,
    mechanism: Mechanism,
    *,
    max_sequences: int,
    tell: Callable[[float], None] | None = None,
) -> MarketRun:
    """Play a trace.

    Args:
        those: who send it.
        times: of the server's steps.
        mechanism: that shares it; a new one, since mechanisms remember.
        max_sequences: most requests in a batch.
        tell: told the share of the trace that is done, now and then.
    """
    engine = Engine(times, mechanism.order, max_sequences=max_sequences)
    trace, clients = those.trace, those.clients
    waits = _Waits(engine, those, mechanism.turns)
    number: list[int] = []
    paid = np.zeros(len(trace))
    for request in range(len(trace)):
        if tell is not None and request % 256 == 0:
            tell(request / len(trace))
        job = those.job(request)
        engine.run(job.arrival_s)
        client, work = clients[int(those.payer[request])], float(those.work_s[request])
        price = mechanism.price(request, client.name, work, engine)
        delay = waits.expected(client.name) + job.output * engine.token_s + work
        if those.value_usd[request] < price + client.delay_usd_per_s * delay:
            continue
        engine.submit(job)
        waits.add(client.name, work)
        mechanism.sent(client.name, work, client.delay_usd_per_s, engine)
        paid[request] = price
        number.append(request)
    engine.run()
    return _counted(those, engine, np.array(number, dtype=np.int64), paid)


class _Waits:
    """What those who wait are going to take, by payer.

    With turns, a payer waits for what it has waiting itself, with the turns of others in between.
    """

    def __init__(self, engine: Engine, those: Crowd, turns: Mapping[str, float] | None) -> None:
        self._engine, self._turns = engine, turns
        self._work = dict.fromkeys((own.name for own in those.clients), 0.0)
        self._count = dict.fromkeys(self._work, 0)
        self._queued: list[tuple[str, float]] = []

    def add(self, payer: str, work_s: float) -> None:
        """A request waits."""
        self._work[payer] += work_s
        self._count[payer] += 1
        self._queued.append((payer, work_s))

    def expected(self, payer: str) -> float:
        """Until a request of a payer that comes now has a place [s]."""
        for number in self._engine.started:
            name, work = self._queued[number]
            self._count[name] -= 1
            self._work[name] = self._work[name] - work if self._count[name] else 0.0
        self._engine.started.clear()
        whole = sum(self._work.values())
        if self._turns is None:
            return whole
        active = sum(turns for name, turns in self._turns.items() if self._count[name])
        active += 0.0 if self._count[payer] else self._turns[payer]
        return min(whole, self._work[payer] * active / self._turns[payer])


def _counted(those: Crowd, engine: Engine, sent: Ints, paid: Floats) -> MarketRun:
    delays = np.array([job.end_s - job.arrival_s for job in engine.jobs])
    costs = np.array([own.delay_usd_per_s for own in those.clients])[those.payer[sent]]
    seconds = max(those.trace.seconds, 1e-9)
    value = float(those.value_usd[sent].sum())
    wanted = np.bincount(those.payer, those.work_s, len(those.clients))
    served = np.bincount(those.payer[sent], those.work_s[sent], len(those.clients))
    part = served / np.maximum(wanted, 1e-300)
    return MarketRun(
        welfare_usd=(value - float(costs @ delays)) / seconds,
        value_usd=value / seconds,
        revenue_usd=float(paid.sum()) / seconds,
        sent=len(sent) / len(those.trace),
        delay_s=float(delays.mean()) if len(delays) else 0.0,
        late_s=float(np.quantile(delays, 0.95)) if len(delays) else 0.0,
        work=float(served.sum()) / seconds,
        fairness=float(part.sum() ** 2 / max(len(part) * (part**2).sum(), 1e-300)),
        shares=tuple((served / max(served.sum(), 1e-300)).tolist()),
    )
