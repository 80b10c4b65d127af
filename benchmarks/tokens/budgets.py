"""Budgets: nothing is overspent, whoever is killed, and how much of a budget can be put to use.

Sizes of calls are those of the Azure LLM inference trace 2023 (conversations): its first half is
what quantiles were learnt from, its second half is run. Without the trace, lengths are drawn from
lognormals with its means and medians, and the facts say so.

The cap of the runs with 200 workers is the one at which reserving max_tokens puts 0.585 to use by
the first refusal, so that policies are compared where that one loses 41.5 %.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.tokens.budget_storm import Storm, storm
from benchmarks.tokens.budget_use import (
    MAX_TOKENS,
    MODEL,
    TASK,
    Sizes,
    Use,
    mean_cost,
    run_calls,
    worst_cost,
)
from benchmarks.tokens.own_redis import redis_server, without_redis
from benchmarks.tokens.part import COLUMNS, Part, Row
from benchmarks.tokens.places import data_file
from weft.report.bench import BenchReport, at_least, at_most, exactly, print_report
from weft.report.table import Table
from weft.tokens import usd
from weft.tokens.budgets import Budget, Cap
from weft.tokens.budgets.reserving import Outputs

__all__ = ["budgets"]

TRACE = "azure_llm_2023_conv.csv"
WORKERS, ALPHA, BASELINE = 200, 0.01, 0.585
STORM_WORKERS = 64
SETTINGS = (
    # name, back end, processes (0: this one), threads in each, share of the operations, kills
    ("64 processes", "sqlite", 64, 1, 0.4, True),
    ("64 threads, killed together", "sqlite", 1, 64, 0.3, True),
    ("64 threads", "memory", 0, 64, 0.2, False),
    ("64 processes", "redis", 64, 1, 0.1, True),
)


def budgets(quick: bool, rivals: str = "") -> Part:
    """Overspending, use and speed of budgets."""
    return _measured(quick, data_file(TRACE))


def _measured(quick: bool, trace: Path | None) -> Part:
    storms = _storms(2_000 if quick else 1_000_000)
    uses, facts = _uses(_sizes(trace))
    pairs = _speeds(0.3 if quick else 3.0)
    total = sum(own.operations for _, own in storms)
    quantile, foil = uses["end", "quantile"], uses["end", "check"]
    claims = (
        exactly(
            f"budgets overspent, {total} operations, {STORM_WORKERS} workers, kills [times]",
            sum(own.overspent for _, own in storms),
            0,
        ),
        at_least("operations under that storm", total, 2_000 if quick else 1_000_000),
        at_least("budget put to use, 200-way, quantiles of 1 % [share]", quantile.share, 0.95),
        at_most("answers longer than their quantile [share]", quantile.below, ALPHA),
        at_least("check, then spend, overspends: spent over cap", foil.share, 1.0 + 1e-9),
    )
    rows = [_storm_row(name, own) for name, own in storms]
    rows += [_use_row(refused, policy, use) for (refused, policy), use in uses.items()]
    rows += [
        ("budgets", "reserve + settle, three caps, one thread", name, f"{rate:,.0f} a second")
        for name, rate in pairs.items()
    ]
    speeds = {name: round(rate) for name, rate in pairs.items()}
    return Part(claims=claims, rows=tuple(rows), facts={**facts, "budget_pairs_per_s": speeds})


def _storm_row(name: str, own: Storm) -> Row:
    told = (
        f"{own.overspent} overspent in {own.operations} operations ({own.refused} refused), "
        f"{own.kills} kills, {own.recovered} holds recovered, {own.operations / own.seconds:,.0f}/s"
    )
    return "budgets", "storm", name, told


def _use_row(refused: str, policy: str, use: Use) -> Row:
    words = {
        "end": "until the first refusal",
        "wait": "refused calls wait",
        "drop": "200 at once, refused ones are dropped",
    }
    told = (
        f"{use.share:.3f} used, {use.calls} calls, {use.flying:.0f} in flight, "
        f"{use.below:.2%} longer than reserved at least, {use.cut:.2%} cut"
    )
    return "budgets", words[refused], policy, told


def _storms(operations: int) -> list[tuple[str, Storm]]:
    done: list[tuple[str, Storm]] = []
    for name, kind, processes, threads, share, kill in SETTINGS:
        with tempfile.TemporaryDirectory() as folder, _place(kind, Path(folder)) as where:
            if where:
                wanted = int(operations * share)
                own = storm(
                    where,
                    Path(folder),
                    processes=processes,
                    threads=threads,
                    operations=wanted,
                    kill=kill,
                )
                done.append((f"{name}, {kind}", own))
    return done


@contextmanager
def _place(kind: str, folder: Path) -> Iterator[str]:
    """Where a new budget may be kept; empty where there is no Redis."""
    if kind == "memory":
        yield ":memory:"
    elif kind == "sqlite":
        yield str(folder / "team.db")
    elif without_redis():
        yield ""
    else:
        with redis_server(folder) as address:
            yield address


def _sizes(trace: Path | None) -> tuple[list[Sizes], str]:
    if trace is None:
        drawn = random.Random(2023)
        # Medians and spreads of the trace's conversations.
        return [
            (int(drawn.lognormvariate(6.93, 0.6)), max(1, int(drawn.lognormvariate(4.86, 1.0))))
            for _ in range(19_366)
        ], "drawn from lognormals like the Azure trace's"
    with trace.open(newline="") as file:
        rows = list(csv.DictReader(file))
    sizes = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows]
    return sizes, f"{trace.name}, {len(sizes)} calls"


def _uses(sized: tuple[list[Sizes], str]) -> tuple[dict[tuple[str, str], Use], dict[str, object]]:
    sizes, source = sized
    past, calls = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    worst, mean = worst_cost(calls), mean_cost(calls)
    cap = round(WORKERS * (worst - mean) / (1.0 - BASELINE))
    burst = round(WORKERS * mean / 12)  # as small beside 200 calls as that of 1 where they cost 12
    uses: dict[tuple[str, str], Use] = {}
    for refused, policies in (
        ("end", ("max_tokens", "quantile", "check")),
        ("wait", ("max_tokens", "quantile")),
        ("drop", ("max_tokens", "quantile", "check")),
    ):
        for policy in policies:
            outputs = Outputs(alpha=ALPHA)
            for _, tokens in past:
                outputs.observe(MODEL, TASK, min(tokens, MAX_TOKENS))
            uses[refused, policy] = run_calls(
                calls,
                burst if refused == "drop" else cap,
                workers=WORKERS,
                policy=policy,
                refused=refused,
                outputs=outputs,
            )
    facts: dict[str, object] = {
        "budget_sizes": source,
        "budget_cap_usd": round(cap / 1e9, 2),
        "budget_burst_cap_usd": round(burst / 1e9, 4),
        "budget_worst_over_mean": round(worst / mean, 2),
    }
    return uses, facts


def _speeds(seconds: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind in ("memory", "sqlite", "redis"):
        with tempfile.TemporaryDirectory() as folder, _place(kind, Path(folder)) as where:
            if not where:
                continue
            budget = Budget.open(where, cap=usd(10**6))
            budget.add("team", Cap.of(usd(10**6), "daily"))
            budget.add("team/agent", usd(10**6))
            started, done = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                for _ in range(50):
                    handle = budget.reserve("team/agent", usd("0.02"))
                    budget.settle(handle, usd("0.01"))
                done += 50
            found[kind] = done / (time.perf_counter() - started)
            budget.close()
    return found


def _main() -> None:
    parser = argparse.ArgumentParser(description="Measure budgets.")
    parser.add_argument("--quick", action="store_true", help="fewer operations")
    parser.add_argument("--trace", type=Path, default=data_file(TRACE), help="sizes of calls, CSV")
    args = parser.parse_args()
    part = _measured(args.quick, args.trace)
    table = Table(columns=COLUMNS, rows=part.rows)
    print_report(
        BenchReport(bench="tokens-budgets", claims=part.claims, table=table, facts=part.facts)
    )


if __name__ == "__main__":
    _main()
