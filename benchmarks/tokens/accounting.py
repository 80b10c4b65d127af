"""Whether tokens and money are counted right, and how fast.

V1: usage as providers report it becomes leaves that add up, and costs what others find. V2: what is
missing is unknown, and what broke off is bounded.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.tokens.hand import TABLE, WORKED
from benchmarks.tokens.part import Part, Row
from weft.report.bench import at_least, exactly
from weft.tokens import Usage
from weft.tokens.adapters import SHAPES, read_usage
from weft.tokens.adapters.replies import modalities
from weft.tokens.adapters.shape import Shape, leaf_class
from weft.tokens.ledger import Ledger, ingest
from weft.tokens.prices import GenaiBook, LitellmBook, PriceBook, cost

__all__ = ["accounting"]

RATE = 1e6
"""Calls a minute that a ledger has to take in."""
AT = 1_793_491_200.0
"""2026-11-01: prices of that day."""
MODELS = (
    *(("openai", m) for m in ("gpt-5", "gpt-5-mini", "gpt-5.4", "gpt-4o", "gpt-4.1", "o3")),
    *(("anthropic", m) for m in ("claude-sonnet-4-6", "claude-opus-4-5", "claude-haiku-4-5")),
    *(("google", m) for m in ("gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite")),
)
LEAVES = ("fresh", "cache_read", "cache_write_5m", "cache_write_1h", "text", "reasoning")
MAP = "litellm/model_prices_and_context_window_backup.json"


def accounting(quick: bool, rivals: str) -> Part:
    """All of it.

    Args:
        quick: fewer draws and calls.
        rivals: the Python whose packages are asked.
    """
    parts = (
        _leaves(300 if quick else 20_000),
        _prices(20 if quick else 200, rivals),
        _unknown(100 if quick else 2_000),
        _rate(60_000 if quick else 1_000_000),
    )
    return Part(
        claims=tuple(claim for part in parts for claim in part.claims),
        rows=tuple(row for part in parts for row in part.rows),
        facts={name: value for part in parts for name, value in part.facts.items()},
    )


def _drawn(shape: Shape, rng: random.Random) -> dict[str, int]:
    """Sizes of leaves, many of them none."""
    everything = sorted(shape.input_leaves | shape.output_leaves)
    return {leaf: rng.choice((0, rng.randrange(10**6))) for leaf in everything}


def _reported(shape: Shape, leaves: Mapping[str, int], left_out: set[int]) -> dict[str, Any]:
    """What a provider says of leaves."""
    payload: dict[str, Any] = {}
    for place, number in enumerate(shape.numbers):
        if place not in left_out:
            at = payload
            *outer, name = number.paths[0]
            for key in outer:
                at = at.setdefault(key, {})
            at[name] = sum(leaves[leaf] for leaf in number.leaves)
    return payload


def _is_off(shape: Shape, leaves: Mapping[str, int], used: Usage) -> bool:
    """Whether the truth lies outside of what was read."""
    truth: dict[str, int] = {}
    for leaf, count in leaves.items():
        kind = leaf_class(leaf).value
        truth[kind] = truth.get(kind, 0) + count
    bounds = [(used[leaf_class(leaf)], truth[leaf_class(leaf).value]) for leaf in leaves]
    bounds.append((used.input, sum(leaves[leaf] for leaf in shape.input_leaves)))
    bounds.append((used.output, sum(leaves[leaf] for leaf in shape.output_leaves)))
    return any(
        not (own.low <= count and (own.high is None or count <= own.high)) for own, count in bounds
    )


def _leaves(draws: int) -> Part:
    """V1: leaves of what every provider reports."""
    rng = random.Random(1)
    off = loose = 0
    for _ in range(draws):
        for shape in SHAPES.values():
            leaves = _drawn(shape, rng)
            used = read_usage(shape.name, _reported(shape, leaves, set()))
            off += _is_off(shape, leaves, used)
            loose += not (used.input.is_exact and used.output.is_exact)
    count = draws * len(SHAPES)
    wrong = sum(read_usage(name, modalities(told)) != meant for name, told, meant in TABLE)
    return Part(
        claims=(
            exactly(f"of {len(TABLE)} reports worked out by hand, those read otherwise", wrong, 0),
            exactly("usages whose leaves are not those they were made of", off, 0),
            exactly("whole reports whose sums are not exact", loose, 0),
        ),
        rows=(
            ("V1", f"{len(TABLE)} reports worked out by hand", "weft", f"{wrong} read otherwise"),
            ("V1", f"{count} usages of {len(SHAPES)} shapes", "weft", f"{off} off"),
        ),
        facts={"usages_drawn": count},
    )


def _cases(draws: int) -> list[dict[str, Any]]:
    rng = random.Random(2)
    worked = {leaf.value: own.low for leaf, own in WORKED.counts.items()}
    cases: list[dict[str, Any]] = [
        {"provider": "openai", "model": "gpt-5", "at": AT, "usage": worked}
    ]
    for provider, model in MODELS:
        for _ in range(draws):
            # Sizes around the thresholds at which prices change, and far from them.
            size = rng.choice((10**3, 10**5, 3 * 10**5))
            usage = {leaf: rng.randrange(size) for leaf in LEAVES}
            if provider != "anthropic":
                usage |= {"cache_write_5m": 0, "cache_write_1h": 0}
            cases.append({"provider": provider, "model": model, "at": AT, "usage": usage})
    for case in cases:
        case["usage"] = {leaf: case["usage"].get(leaf, 0) for leaf in LEAVES}
    return cases


def _prices(draws: int, rivals: str) -> Part:
    """V1: costs beside those that rivals find of the same tokens."""
    cases = _cases(draws)
    ours = cost(WORKED, GenaiBook().rate("openai", "gpt-5", AT))
    additive = Usage.of(fresh=20_000, cache_read=16_000, text=3_000, reasoning=2_500)
    double = cost(additive, GenaiBook().rate("openai", "gpt-5", AT))
    claims = [exactly("20 k read, 16 k cached, 3 k out on gpt-5 [USD]", float(ours.low), 0.037)]
    rows: list[Row] = [
        ("V1", "20 k read, 16 k of it cached, 3 k out", "weft", f"${ours.low:.4f}"),
        ("V1", "the same, parts added to their wholes", "a bug", f"${double.low:.4f}"),
    ]
    # Those of this environment, too: genai-prices is what weft itself takes prices from.
    answer = {**_asked(cases, sys.executable), **_asked(cases, rivals)}
    books: dict[str, PriceBook] = {"genai-prices": GenaiBook()}
    place = _map_of(rivals)
    if place is not None:
        books["litellm"] = LitellmBook(place)
    for name in ("genai-prices", "litellm", "tokencost"):
        if name not in answer:
            rows.append(("V1", "the same tokens", name, "not installed"))
            continue
        by = f"{name} {answer[name]['version']}"
        costs: list[Any] = answer[name]["costs"]
        rows.append(("V1", "20 k read, 16 k of it cached, 3 k out", by, _shown(costs[0])))
        if name in books:
            refused = sum(isinstance(theirs, dict) for theirs in costs)
            off = _differing(cases, costs, books[name])
            told = f"{off} differ, {refused} they refuse"
            rows.append(("V1", f"{len(cases)} costs by the same prices", by, told))
            claims.append(exactly(f"costs that differ from those of {name}", off, 0))
    return Part(claims=tuple(claims), rows=tuple(rows), facts={"costs_compared": len(cases)})


def _shown(theirs: object) -> str:
    return str(theirs) if isinstance(theirs, dict) else f"${float(str(theirs)):.4f}"


def _differing(cases: list[dict[str, Any]], costs: list[Any], book: PriceBook) -> int:
    """Costs that are not ours; those in floating point may differ in their last digits."""
    off = 0
    for case, theirs in zip(cases, costs, strict=True):
        if isinstance(theirs, dict):
            continue
        own = cost(Usage.of(**case["usage"]), book.rate(case["provider"], case["model"], AT))
        if isinstance(theirs, float):
            off += not own.is_exact or abs(float(own.low) - theirs) > 1e-9 * abs(theirs)
        else:
            off += not own.is_exact or own.low != Decimal(theirs)
    return off


def _asked(cases: list[dict[str, Any]], rivals: str) -> dict[str, Any]:
    script = Path(__file__).with_name("rivals.py")
    # The map that came with the package is meant, not the one of the day.
    done = subprocess.run(
        [rivals, str(script)],
        input=json.dumps(cases),
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _map_of(rivals: str) -> Path | None:
    """LiteLLM's map among a Python's packages."""
    find = (
        "import importlib.metadata as m\n"
        f"try: print(m.distribution('litellm').locate_file({MAP!r}))\n"
        "except m.PackageNotFoundError: pass"
    )
    done = subprocess.run([rivals, "-c", find], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()) if done.stdout.strip() else None


def _unknown(draws: int) -> Part:
    """V2: reports with holes, and streams that broke off."""
    rng = random.Random(3)
    off = zero = broken = holes = 0
    for _ in range(draws):
        for shape in SHAPES.values():
            leaves = _drawn(shape, rng)
            sizes = [sum(leaves[leaf] for leaf in number.leaves) for number in shape.numbers]
            free = [
                place
                for place, number in enumerate(shape.numbers)
                if not (number.absent_is_none and sizes[place])
            ]
            left_out = set(rng.sample(free, rng.randrange(len(free) + 1)))
            used = read_usage(shape.name, _reported(shape, leaves, left_out))
            holes += bool(left_out)
            off += _is_off(shape, leaves, used)
            zero += any(
                count and used[leaf_class(leaf)].high == 0 for leaf, count in leaves.items()
            )
            generated = sum(leaves[leaf] for leaf in shape.output_leaves)
            seen = {leaf: leaves[leaf] // 2 for leaf in shape.output_leaves}
            cut = read_usage(
                shape.name,
                _reported(shape, {**leaves, **seen}, set()),
                broke_off=True,
                max_tokens=generated + rng.randrange(1000),
            )
            is_held = cut.output.low <= generated <= (cut.output.high or 0)
            broken += not is_held and generated > 0
    count = draws * len(SHAPES)
    return Part(
        claims=(
            exactly("reports with holes whose truth lies outside of the bounds", off, 0),
            exactly("missing counts that were taken for zero", zero, 0),
            exactly("streams that broke off whose truth lies outside of the bounds", broken, 0),
        ),
        rows=(
            ("V2", f"{holes} reports with holes", "weft", f"{off} outside of the bounds"),
            ("V2", f"{count} streams that broke off", "weft", f"{broken} outside of the bounds"),
        ),
    )


def _lines(count: int) -> Iterator[str]:
    """Replies of two providers as a log has them, with 80 characters of text each."""
    rng = random.Random(4)
    for number in range(count):
        read, out = rng.randrange(100, 30_000), rng.randrange(1, 3_000)
        cached, thought = rng.randrange(read), rng.randrange(out)
        who = {"agent": f"agent {number % 4}", "task": f"task {number // 8}"}
        if number % 2:
            usage: dict[str, Any] = {
                "prompt_tokens": read,
                "completion_tokens": out,
                "total_tokens": read + out,
                "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": 0},
            }
            message = {"role": "assistant", "content": "x" * 80}
            reply: dict[str, Any] = {
                "id": f"chatcmpl-{rng.getrandbits(96):x}",
                "object": "chat.completion",
                "created": int(AT) + number,
                "model": "gpt-5",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": usage,
            }
        else:
            usage = {
                "input_tokens": read - cached,
                "cache_read_input_tokens": cached,
                "cache_creation_input_tokens": thought,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": thought,
                    "ephemeral_1h_input_tokens": 0,
                },
                "output_tokens": out,
            }
            reply = {
                "id": f"msg_{rng.getrandbits(96):x}",
                "type": "message",
                "model": "claude-sonnet-4-6",
                "content": [{"type": "text", "text": "x" * 80}],
                "stop_reason": "end_turn",
                "usage": usage,
            }
        yield json.dumps({"timestamp": AT + number, **who, "response": reply}) + "\n"


def _rate(count: int) -> Part:
    """How fast a log is taken in: parsed, checked, written, each call once."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.jsonl")
        with log.open("w") as file:
            file.writelines(_lines(count))
        num_bytes = log.stat().st_size
        with Ledger(Path(folder, "ledger.db")) as ledger:
            start = time.perf_counter()
            done = ingest(ledger, [log])
            seconds = time.perf_counter() - start
    rate = done.calls / seconds * 60.0
    told = f"{seconds:.1f} s, {rate / 1e6:.2f} M a minute"
    return Part(
        claims=(
            exactly("calls of a log that are not in the ledger", count - done.calls, 0),
            at_least("calls taken in a minute", rate, RATE),
        ),
        rows=(("V1", f"{count} calls, {num_bytes / 2**20:.0f} MiB of log", "weft", told),),
        facts={"ingested_calls": count, "ingest_s": seconds, "load": os.getloadavg()[0]},
    )
