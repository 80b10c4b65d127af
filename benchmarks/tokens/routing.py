"""Routing and effort on public tables, replayed: what equal accuracy costs.

GSM8K answered by Mixtral 8x7B and by GPT-4 (lm-sys/RouteLLM). Tokens are characters / 4, which is
the rule of thumb for English and no tokenizer's count; prices are the list prices of the time.
Every policy sees the prompt alone, but for the cascade, which sees the small model's answer as well
and pays for it. Each learns on four fifths of the tasks and decides on the other fifth, in turn;
costs and accuracy are of the tasks that were not learnt from. Intervals draw tasks again, decisions
as they are.

Effort: arms of one model on the Aider polyglot benchmark, 225 tasks each, of which only totals are
public, so that tasks under two arms cannot be paired.
"""

from __future__ import annotations

import csv
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.tokens.part import COLUMNS, Part, Row
from benchmarks.tokens.places import data_file
from weft.report.bench import BenchReport, at_most, print_report
from weft.report.table import Table
from weft.tokens.allocate import fit_router
from weft.tokens.micro import Trials, pass_frontier
from weft.tokens.micro.estimate import Floats, Ints

__all__ = ["routing"]

Bools: TypeAlias = NDArray[np.bool_]
TABLE, EFFORT = "routellm_gsm8k_responses.csv", "aider_polyglot_leaderboard.yml"
PRICES = ((0.6e-6, 0.6e-6), (10e-6, 30e-6))
"""Dollars a token read and written: Mixtral 8x7B at Together AI and gpt-4-1106-preview at OpenAI,
early 2024. Source: their list prices."""
CHARACTERS = 4
FOLDS = 5
WORDS = 128
"""Slots of hashed words. Chosen: a tenth of the tasks."""
RIDGE = 100.0
"""Chosen before any test: a feature has to matter in a hundred tasks."""
SHARES = np.linspace(0.0, 1.0, 41)
"""Budgets: shares of the way from the small model's cost to the large one's."""
TARGETS = (0.5, 0.8)
"""Shares of the way from the small model's accuracy to the large one's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """Tasks answered by both: features of prompts and answers, outcomes and costs [n, 2]."""

    prompts: Floats
    answers: Floats
    passed: Floats
    usd: Floats


def _replay(path: Path) -> Replay:
    with path.open(newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    texts = np.array([[len(row[n]) / CHARACTERS for n in (0, 3, 4)] for row in rows])
    usd = np.column_stack(
        [
            texts[:, 0] * read + np.maximum(texts[:, 1 + which], 1.0) * written
            for which, (read, written) in enumerate(PRICES)
        ]
    )
    return Replay(
        prompts=np.array([_features(row[0]) for row in rows]),
        answers=np.array([_answer(row[3]) for row in rows]),
        passed=np.array([[row[1] == "True", row[2] == "True"] for row in rows], dtype=np.float64),
        usd=usd,
    )


def _features(prompt: str) -> list[float]:
    words = re.findall(r"[a-z]+", prompt.lower())
    numbers = re.findall(r"\d[\d,.]*", prompt)
    slots = np.zeros(WORDS)
    for word in set(words):
        slots[zlib.crc32(word.encode()) % WORDS] = 1.0
    counts = (len(words), len(numbers), len(re.findall(r"[.?!](?:\s|$)", prompt)))
    marks = (prompt.count("%"), prompt.count("/"), prompt.count("$"))
    return [*(float(np.log1p(n)) for n in (*counts, *marks)), *slots]


def _answer(text: str) -> list[float]:
    steps, sums = text.count("\n"), len(re.findall(r"=", text))
    return [
        *(float(np.log1p(n)) for n in (len(text), steps, sums)),
        float("####" in text),
        float(bool(re.search(r"sorry|cannot|not enough|assum", text.lower()))),
    ]


Outcome: TypeAlias = tuple[Floats, Floats]
"""Whether each task passed, and what it cost [n]."""
Decisions: TypeAlias = Mapping[float, Outcome]
"""By budget."""
Policy: TypeAlias = Callable[[Replay, Ints, Ints], Callable[[float], Outcome]]
"""From tasks to learn from and to decide on to what comes of a budget."""


def _decided(own: Replay, policy: Policy) -> Decisions:
    count = len(own.usd)
    found = {float(share): (np.zeros(count), np.zeros(count)) for share in SHARES}
    parts = np.array_split(np.random.default_rng(0).permutation(count), FOLDS)
    for fold, test in enumerate(parts):
        learn = np.concatenate([part for other, part in enumerate(parts) if other != fold])
        decide = policy(own, learn, test)
        for share, (passed, usd) in found.items():
            passed[test], usd[test] = decide(share)
    return found


def _taken(own: Replay, test: Ints, large: Bools) -> Outcome:
    which = large.astype(np.int64)
    return own.passed[test, which], own.usd[test, which]


def _by_price(own: Replay, learn: Ints, test: Ints) -> Callable[[float], Outcome]:
    """Weft's: chance beyond its price, the price from the budget."""
    seen, means = own.prompts[learn], own.usd[learn].mean(axis=0)
    router = fit_router(seen, own.passed[learn], own.usd[learn], ("small", "large"), ridge=RIDGE)
    floor = float(router.predicted(seen)[1].min(axis=1).mean()) * (1.0 + 1e-6)

    def decide(share: float) -> Outcome:
        budget = float(means[0] + share * (means[1] - means[0]))
        price = router.price_for(seen, max(budget, floor))
        return _taken(own, test, router.routed(own.prompts[test], price) == 1)

    return decide


def _by_score(own: Replay, learn: Ints, test: Ints) -> Callable[[float], Outcome]:
    """A threshold on how likely only the large model is right, by the share of calls to it."""
    wins = (own.passed[:, 1] > own.passed[:, 0]).astype(np.float64)[:, None]
    scorer = fit_router(own.prompts[learn], wins[learn], own.usd[learn, 1:], ("w",), ridge=RIDGE)
    known = scorer.predicted(own.prompts[learn])[0][:, 0]
    scores = scorer.predicted(own.prompts[test])[0][:, 0]

    def decide(share: float) -> Outcome:
        return _taken(own, test, scores >= _threshold(known, 1.0 - share))

    return decide


def _cascade(own: Replay, learn: Ints, test: Ints) -> Callable[[float], Outcome]:
    """The small model first; the large one where the answer does not look right."""
    seen = np.hstack([own.prompts, own.answers])
    judge = fit_router(seen[learn], own.passed[learn, :1], own.usd[learn, :1], ("j",), ridge=RIDGE)
    known, looks = (judge.predicted(seen[rows])[0][:, 0] for rows in (learn, test))

    def decide(share: float) -> Outcome:
        again = looks < _threshold(known, share)
        passed, usd = _taken(own, test, again)
        return passed, usd + again * own.usd[test, 0]

    return decide


def _threshold(scores: Floats, share: float) -> float:
    if share in (0.0, 1.0):
        return -np.inf if share == 0.0 else np.inf
    return float(np.quantile(scores, share))


def _mixed(own: Replay, learn: Ints, test: Ints) -> Callable[[float], Outcome]:
    """A coin, in expectation."""

    def mean(columns: Floats, share: float) -> Floats:
        return (1.0 - share) * columns[test, 0] + share * columns[test, 1]

    return lambda share: (mean(own.passed, share), mean(own.usd, share))


def _oracle(own: Replay, learn: Ints, test: Ints) -> Callable[[float], Outcome]:
    """Who knows outcomes beforehand: the large model where it alone is right, cheapest first."""
    gains = own.passed[test, 1] > own.passed[test, 0]
    more = own.usd[test, 1] - own.usd[test, 0]
    order = np.argsort(np.where(gains, more, np.inf), kind="stable")

    def decide(share: float) -> Outcome:
        large = np.zeros(len(test), dtype=np.bool_)
        large[order] = gains[order] & (np.cumsum(more[order]) <= share * float(more.sum()))
        return _taken(own, test, large)

    return decide


POLICIES: Mapping[str, Policy] = {
    "weft": _by_price,
    "threshold on a score": _by_score,
    "cascade": _cascade,
    "random mix": _mixed,
    "oracle": _oracle,
}


def _cost_at(decisions: Decisions, target: float, rows: Ints) -> float:
    """Least cost of an accuracy, between neighbouring budgets mixed [usd a task]."""
    points = sorted((float(u[rows].mean()), float(p[rows].mean())) for p, u in decisions.values())
    best = np.inf
    for n, (usd, accuracy) in enumerate(points):
        if accuracy >= target:
            best = min(best, usd)
        for other, more in points[n + 1 :]:
            if accuracy < target <= more:
                best = min(best, usd + (other - usd) * (target - accuracy) / (more - accuracy))
    return best


def _costs(
    found: Mapping[str, Decisions], own: Replay, rows: Ints
) -> dict[tuple[str, float], float]:
    small, large = own.passed[rows].mean(axis=0)
    return {
        (name, share): _cost_at(decisions, float(small + share * (large - small)), rows)
        for name, decisions in found.items()
        for share in TARGETS
    }


def _routed(path: Path, draws: int) -> Part:
    own = _replay(path)
    found = {name: _decided(own, policy) for name, policy in POLICIES.items()}
    every = np.arange(len(own.usd))
    point = _costs(found, own, every)
    rng = np.random.default_rng(0)
    drawn = [_costs(found, own, rng.integers(len(every), size=len(every))) for _ in range(draws)]
    rows: list[Row] = []
    facts: dict[str, list[float]] = {}
    for share in TARGETS:
        what = f"GSM8K, {share:.0%} of the way from {own.passed[:, 0].mean():.1%} to "
        what += f"{own.passed[:, 1].mean():.1%}"
        for name in POLICIES:
            ratios = [one["weft", share] / one[name, share] for one in drawn]
            low, high = np.quantile(ratios, [0.025, 0.975])
            ratio = point["weft", share] / point[name, share]
            facts[f"weft / {name} at {share}"] = [ratio, float(low), float(high)]
            against = f"; weft takes {ratio:.3f} [{low:.3f}, {high:.3f}] of it"
            told = f"{1e3 * point[name, share]:.3f} usd for 1,000 tasks"
            rows.append(("routing", what, name, told + ("" if name == "weft" else against)))
    return Part(
        claims=tuple(
            at_most(
                f"cost at {share:.0%} of the gap, weft over {name}: upper end of 95 %",
                facts[f"weft / {name} at {share}"][2],
                1.0,
            )
            for name in ("random mix", "threshold on a score", "cascade")
            for share in TARGETS
        ),
        rows=tuple(rows),
        facts={"routing": facts, "routing_tokens": f"characters / {CHARACTERS}"},
    )


def _efforts(path: Path) -> Part:
    runs = yaml.safe_load(path.read_text())
    keys = ("pass_num_2", "total_cost", "test_cases")
    found = {
        str(run["reasoning_effort"]): tuple(float(run[key]) for key in keys)
        for run in runs
        if run["model"].startswith("gpt-5 (")
    }
    trials = [
        (effort, n < passed, usd / cases)
        for effort, (passed, usd, cases) in found.items()
        for n in range(int(cases))
    ]
    steps = pass_frontier(
        Trials(
            inputs={"attempts": [1.0] * len(trials)},
            outcome=[float(passed) for _, passed, _ in trials],
            task=[str(n) for n in range(len(trials))],
            arm=[effort for effort, _, _ in trials],
            usd=[usd for _, _, usd in trials],
        )
    )
    rows = tuple(
        (
            "routing",
            f"gpt-5 on Aider polyglot: {step.before} to {step.after}",
            "weft",
            f"one more pass {step.usd_per_pass} usd",
        )
        for step in steps
    )
    told = {f"{s.before} to {s.after}": s.usd_per_pass.value for s in steps}
    return Part(claims=(), rows=rows, facts={"effort_usd_per_pass": told})


def routing(quick: bool = False, rivals: str = sys.executable) -> Part:
    """Measure; `quick` draws fewer bootstraps. A table that is not there is said so."""
    parts: list[Part] = []
    for name, measure in ((TABLE, lambda p: _routed(p, 40 if quick else 500)), (EFFORT, _efforts)):
        path = data_file(name)
        if path is None:
            parts.append(Part(claims=(), rows=(("routing", name, "weft", "is not there"),)))
        else:
            parts.append(measure(path))
    return Part(
        claims=tuple(claim for part in parts for claim in part.claims),
        rows=tuple(row for part in parts for row in part.rows),
        facts={name: value for part in parts for name, value in part.facts.items()},
    )


if __name__ == "__main__":
    part = routing("--quick" in sys.argv)
    print_report(
        BenchReport(
            bench="tokens-routing",
            claims=part.claims,
            table=Table(columns=COLUMNS, rows=part.rows),
            facts=part.facts,
        )
    )
