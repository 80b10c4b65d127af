"""The capacity programme: the fewest servers for a demand, and what tokens of each class cost.

Servers take steps, each of which takes what `StepTimes` says of what is in it. So with z servers
that take s steps a second together, for each resource

    fixed x s + sum over classes of (seconds of a unit x units a second) <= z

Answers get a token a step, so those that are answered at once are units a second over s: they have
to fit into memory, and into batches; prompts have to fit into steps. No token may take longer than
it is allowed to, so s is at least z over that. The least z is a linear programme, and what one more
token a second costs follows from its duals: each price is the sum over constraints of their dual
times what a token takes there. At full load that is the price to ask for (Bergemann, Bonatti and
Smolin, Menu Pricing of Large Language Models, arXiv 2502.07736: committed spend at marginal cost).

A token that attends and one that is attended to both cause what that takes, so marginal costs add
up to more than the cost. Where each bears half of it they add up exactly (Aumann and Shapley,
Values of Non-Atomic Games, 1974, of a cost of degree two): parts of the cost, beside derivatives.

Prompts that are cut up read what came before them once; keys and values of a prompt that is being
computed take no place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import highspy
import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.serving.demand import Demand
from weft.tokens.serving.steps import StepTimes

__all__ = ["Capacity", "Limits", "capacity"]

_Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server has to keep to.

    Attributes:
        token_s: longest time between two tokens of an answer [s].
        sequences: most that are answered at once.
        step_tokens: most tokens of prompts in a step.
    """

    token_s: float = 0.1
    sequences: int = 256
    step_tokens: int = 2048

    def __post_init__(self) -> None:
        if not (self.token_s > 0 and self.sequences >= 1 and self.step_tokens >= 1):
            raise InputError(
                need="a time above 0 s, and at least one sequence and one token",
                got=f"{self.token_s} s, {self.sequences} sequences, {self.step_tokens} tokens",
                hint="0.1 s for a token is faster than people read",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a demand takes of servers at full load.

    Attributes:
        server_s: seconds of a server for a request of the demand [s].
        fresh_s, cached_s, output_s: for one more token of a class, each request in proportion to
            those that it has; one in each where there are none [s].
        fresh_part_s, cached_part_s, output_part_s: that a token of a class bears, so that all
            tokens of a request together bear its cost [s].
        held_s: for keys and values of one token that stay in memory for a second [s].
        steps_per_s: of a server [1/s].
        answered: requests that are answered by a server at once.
        binding: what limits, each with its share of the cost.
    """

    server_s: float
    fresh_s: float
    cached_s: float
    output_s: float
    fresh_part_s: float
    cached_part_s: float
    output_part_s: float
    held_s: float
    steps_per_s: float
    answered: float
    binding: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class _Units:
    """What a request takes, and how that grows with tokens of a class [5 x 4].

    Rows are the request itself and its derivatives by a factor on fresh, cached and output tokens;
    by a number of them in each request where it has none. Columns are tokens, sequences, pairs and
    tokens of context, as in `StepTimes`, then tokens and context of answers, and tokens of prompts.
    """

    units: _Floats

    @staticmethod
    def of(d: Demand) -> _Units:
        context = d.output_fresh + d.output_cached + 0.5 * d.output_output
        of_output = context + 0.5 * d.output_output
        prompt = d.fresh_cached + 0.5 * d.fresh_fresh
        # Tokens of the class, and what they are multiplied with: the same, other parts of prompts,
        # and answers.
        fresh = (d.fresh, d.fresh_fresh, d.fresh_cached, d.output_fresh)
        fresh = fresh if d.fresh else (1.0, 0.0, d.cached, d.output)
        cached = (d.cached, d.fresh_cached, d.output_cached)
        cached = cached if d.cached else (1.0, d.fresh, d.output)
        rows = (
            (d.fresh + d.output, d.output, prompt + context, d.cached + context),
            (fresh[0], 0.0, fresh[1] + fresh[2] + fresh[3], fresh[3]),
            (0.0, 0.0, cached[1] + cached[2], cached[0] + cached[2]),
            (d.output, d.output, of_output, of_output),
        )
        answers = (
            (d.output, context, d.fresh),
            (0.0, fresh[3], fresh[0]),
            (0.0, cached[2], 0.0),
            (d.output, of_output, 0.0),
        )
        return _Units(np.hstack([np.array(rows), np.array(answers)]))

    def shared(self) -> _Units:
        """The same, with half of what two tokens cause together."""
        units = self.units.copy()
        # Context that is read is that of answers, and cached tokens, which are read once.
        units[1:, 3] -= 0.5 * units[1:, 5]
        units[1:, [2, 5]] *= 0.5
        return _Units(units)

    def taken(self, times: StepTimes) -> _Floats:
        """Of each resource, of places in the batch, of memory and of places for prompts [r x 4]."""
        lines = [[r.token_s, r.sequence_s, r.pair_s, r.context_token_s] for r in times.resources]
        return np.vstack([np.array(lines) @ self.units[:, :4].T, self.units[:, 4:].T])


_KEYS = "room for keys and values"
_ROOMS = ("room in the batch", _KEYS, "room for prompts")
"""What a step brings, beside the resources that it keeps busy."""
_LEAST_SHARE = 1e-9
"""Of the cost, below which a constraint does not bind but by rounding."""


def capacity(times: StepTimes, demand: Demand, limits: Limits = Limits()) -> Capacity:
    """The fewest servers for one request of the demand a second, and what they are worth.

    Args:
        times: of steps of a server.
        demand: means of requests.
        limits: what servers keep to.

    Raises:
        InfeasibleError: no step is as quick as a token has to be, or a request does not fit.
    """
    _require_quick(times, limits)
    units = _Units.of(demand)
    taken = units.taken(times)
    names = [own.name for own in times.resources] + list(_ROOMS)
    busy = len(times.resources)
    # What a server has of it, and what a step takes away, or brings.
    has = np.array([1.0] * busy + [0.0] * 3)
    room = (limits.sequences, times.cache_tokens, limits.step_tokens)
    brings = np.array([*(-own.fixed_s for own in times.resources), *map(float, room)])
    try:
        servers, steps, duals = _solve(has, brings, taken[:, 0], 1.0 / limits.token_s)
    except InfeasibleError:
        _require_room(times, demand)  # which is why, for most
        raise
    # One more of a class takes its derivative, at the price of each constraint.
    counts = np.array([demand.fresh or 1.0, demand.cached or 1.0, demand.output])
    grown = duals @ taken[:, 1:] / counts
    borne = duals @ units.shared().taken(times)[:, 1:] / counts
    parts = duals * taken[:, 0] / servers
    return Capacity(
        server_s=servers,
        fresh_s=float(grown[0]),
        cached_s=float(grown[1]),
        output_s=float(grown[2]),
        fresh_part_s=float(borne[0]),
        cached_part_s=float(borne[1]),
        output_part_s=float(borne[2]),
        held_s=abs(float(duals[busy + _ROOMS.index(_KEYS)])) * steps / servers,
        steps_per_s=steps / servers,
        answered=demand.output / steps,
        binding=tuple(
            (name, float(part))
            for name, part in sorted(zip(names, parts, strict=True), key=lambda own: -own[1])
            if part > _LEAST_SHARE
        ),
    )


def _require_quick(times: StepTimes, limits: Limits) -> None:
    fixed = max(own.fixed_s for own in times.resources)
    if fixed >= limits.token_s:
        raise InfeasibleError(
            need=f"a token every {limits.token_s:g} s",
            got=f"{fixed:.3g} s for a step with nothing in it",
            options=("more devices for a server", "more time for a token"),
        )


def _require_room(times: StepTimes, demand: Demand) -> None:
    mean = demand.fresh + demand.cached + demand.output
    if mean > times.cache_tokens:
        raise InfeasibleError(
            need=f"room for the {mean:,.0f} tokens of a mean request",
            got=f"{times.cache_tokens:,}",
            options=("more devices for a server", "leave out what is no request"),
        )


def _solve(
    has: _Floats, brings: _Floats, taken: _Floats, slowest: float
) -> tuple[float, float, _Floats]:
    """Servers and their steps a second for a request a second, and duals by constraint.

    Least servers so that for each constraint r: has[r] servers + brings[r] steps >= taken[r], and
    steps are at least `slowest` a server.
    """
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("primal_feasibility_tolerance", 1e-10)
    highs.setOptionValue("dual_feasibility_tolerance", 1e-10)
    # Each row as a share of what is taken, so that all are of one size.
    scale = np.where(taken > 0.0, taken, 1.0)
    count = len(taken)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = 2, count + 1
    model.col_cost_ = np.array([1.0, 0.0])
    model.col_lower_, model.col_upper_ = np.zeros(2), np.full(2, np.inf)
    model.row_lower_ = np.append(taken / scale, 0.0)
    model.row_upper_ = np.full(count + 1, np.inf)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = 2 * np.arange(count + 2)
    model.a_matrix_.index_ = np.tile([0, 1], count + 1)
    rows = np.vstack([np.column_stack([has, brings]) / scale[:, None], [[-slowest, 1.0]]])
    model.a_matrix_.value_ = rows.ravel()
    highs.passModel(model)
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise InfeasibleError(
            need="servers that keep to their limits",
            got=highs.modelStatusToString(highs.getModelStatus()),
            options=("more time for a token", "more devices for a server"),
        )
    found = highs.getSolution()
    servers, steps = found.col_value
    return servers, steps, np.array(found.row_dual[:-1]) / scale
