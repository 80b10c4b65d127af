"""What each reference buys in stability beyond a smaller step, by lag: computed, not simulated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from weft.rl.delayed import (
    PLAIN,
    Delayed,
    Lead,
    applied_factor,
    mean_factor,
    momentum_cosine,
)

__all__ = ["LAGS", "net_steps", "time_constants"]

LAGS = (1, 2, 4, 8, 16, 32, 64)
SPREAD = 100.0
"""Condition number of the quadratics whose speed is compared."""


def leads(cosine: float, beta: float, lag: int) -> Iterator[tuple[str, Lead]]:
    """Filters by name, for gradients of one signal and fresh noise."""
    yield "Previous", Lead.mean(mean_factor(cosine), 0.0)
    for decay in (0.3, 0.5, 0.7, 0.9):
        yield f"Ema {decay:g}", Lead.mean(mean_factor(cosine, decay), decay)
    for count in (1, 2, 4, 8, 16):
        yield f"Applied {count}", Lead.applied(applied_factor(cosine, count), count)
    yield "Applied, as many as the lag", Lead.applied(applied_factor(cosine, lag), lag)
    yield "the gradient of lag steps ago", Lead.previous(cosine, back=lag)
    if beta:
        yield "Previous, of steps of momentum", Lead.previous(momentum_cosine(cosine, beta))


def net_steps(cosine: float, beta: float) -> Mapping[str, tuple[tuple[float, float], ...]]:
    """Thresholds over those without GAC, as they are and net of shorter steps, for each lag."""
    found: dict[str, list[tuple[float, float]]] = {}
    for lag in LAGS:
        bare = Delayed(lag=lag, beta=beta).largest_step()
        for name, lead in leads(cosine, beta, lag):
            model = Delayed(lag=lag, beta=beta, lead=lead)
            pair = (model.largest_step() / bare, model.net_step() / bare)
            found.setdefault(name, []).append(pair)
        if beta:
            without = Delayed(lag=lag).largest_step() / bare
            found.setdefault("no momentum instead", []).append((without, without))
    return {name: tuple(pairs) for name, pairs in found.items()}


def time_constants(cosine: float, beta: float, lag: int) -> Mapping[str, float]:
    """Growth of the slowest error at the best step, for each way to deal with a lag."""
    ways = {
        "none": Delayed(lag=lag, beta=beta),
        **{
            name: Delayed(lag=lag, beta=beta, lead=lead)
            for name, lead in leads(cosine, beta, lag)
            if name in ("Previous", "Ema 0.5", "Applied 4", "Applied, as many as the lag")
        },
        "compensation, exact": Delayed(lag=lag, beta=beta, known=1.0),
        "compensation, 0.6 of it": Delayed(lag=lag, beta=beta, known=0.6),
        "no lag": Delayed(lag=0, beta=beta, lead=PLAIN),
    }
    return {name: way.best_growth(SPREAD)[1] for name, way in ways.items()}
