"""What a proxy adds to a call: weft's, with budgets and a ledger, beside LiteLLM's, with neither.

An open loop sends chats at a fixed rate to a provider that answers at once: directly, through weft,
through LiteLLM, and directly again as a control, in slices that take turns within one run. What is
added is the difference of quantiles to the direct calls of that run. LiteLLM keeps budgets in
Postgres alone, so that it is run without: its keys are checked, and nothing is capped. It takes
turns at a rate that it sustains, and has the full one at the very end, since it would be at work on
what it could not answer while others are measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tokens.part import COLUMNS, Part, Row
from benchmarks.tokens.proxy_load import PATIENCE_S
from benchmarks.tokens.proxy_upstream import USAGE
from weft.report.bench import BenchReport, at_most, exactly, print_report
from weft.report.table import Table
from weft.tokens.budgets import Budget
from weft.tokens.ledger import Ledger

__all__ = ["measure", "proxying"]

ROOT = Path(__file__).parents[2]
KEY = "sk-weft-bench"
RATE, SUSTAINED = 500, 50
"""Calls a second: what is asked of weft, and what one worker of LiteLLM's sustains beside a load
generator on two cores."""
MEDIAN_MS, P99_MS, CORES = 2.0, 10.0, 0.5
START_S = 120.0
BUDGETS = f"""
cap: 1000000 usd monthly
nodes:
  team:
    cap: 1000000 usd daily
    nodes:
      agent: {{cap: 1000000 usd}}
keys:
  {KEY}: team/agent
"""
PRICES = 'prices: [{model: "gpt-4o-mini", usd: {fresh: 0.15, cache_read: 0.075, text: 0.6}}]\n'
LITELLM = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{port}/v1", api_key: x}}
general_settings: {{master_key: {key}, disable_spend_logs: true, disable_error_logs: true}}
litellm_settings:
  {{telemetry: false, callbacks: [], num_retries: 0, turn_off_message_logging: true}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one target did at one rate: latencies [ms], in order, and what was not answered."""

    latencies: tuple[float, ...]
    sent: int
    failed: int

    def at(self, share: float) -> float:
        """A quantile [ms]; where so many were not answered, how long they were waited for."""
        place = int(share * self.sent)
        return self.latencies[place] if place < len(self.latencies) else 1000.0 * PATIENCE_S


def proxying(quick: bool, rivals: str = "") -> Part:
    """Latency that proxies add, and that nothing is lost meanwhile."""
    if quick:
        return measure(rate=100, rounds=1, seconds=2.0)
    return measure(rate=RATE, rounds=6, seconds=5.0, rivals=rivals)


def measure(*, rate: int, rounds: int, seconds: float, rivals: str = "") -> Part:
    """Measure at a rate of calls a second, in so many rounds of slices of so many seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _targets(folder, rivals) as targets:
            seen, cpu = _measured(targets, rate, rounds, seconds)
        calls, booked = _kept(folder)
    return _part(seen, rate, cpu, calls, booked, targets)


def _part(
    seen: Mapping[str, Seen],
    rate: int,
    cpu: float,
    calls: int,
    booked: int,
    targets: Mapping[str, object],
) -> Part:
    direct, weft, control = (seen[f"{name} {rate}"] for name in ("direct", "weft", "control"))
    median, p99 = (weft.at(share) - direct.at(share) for share in (0.5, 0.99))
    claims = [
        at_most(f"weft's proxy adds at {rate}/s, median [ms]", median, MEDIAN_MS),
        at_most(f"weft's proxy adds at {rate}/s, p99 [ms]", p99, P99_MS),
        exactly("calls through weft that failed or were not answered", weft.failed, 0),
        exactly("calls that were answered, less those booked and settled", calls - booked, 0),
        at_most("load generator [cores]", cpu, CORES),
    ]
    if "litellm" in targets:
        own, rival, base = (seen[f"{name} {SUSTAINED}"] for name in ("weft", "litellm", "direct"))
        shares = [
            (own.at(share) - base.at(share)) / (rival.at(share) - base.at(share))
            for share in (0.5, 0.99)
        ]
        claims += [
            at_most(f"weft's added latency over LiteLLM's, {SUSTAINED}/s, median", shares[0], 1.0),
            at_most(f"weft's added latency over LiteLLM's, {SUSTAINED}/s, p99", shares[1], 1.0),
        ]
    facts = {
        "proxy_control_ms": [round(control.at(s) - direct.at(s), 3) for s in (0.5, 0.99)],
        "proxy_load_cores": round(cpu, 3),
        "proxy_calls": calls,
    }
    return Part(claims=tuple(claims), rows=tuple(_rows(seen)), facts=facts)


def _rows(seen: Mapping[str, Seen]) -> list[Row]:
    rows: list[Row] = []
    for name, own in seen.items():
        target, rate = name.split()
        base = seen[f"direct {rate}"]
        added = ", ".join(f"{own.at(s) - base.at(s):+.2f}" for s in (0.5, 0.9, 0.99))
        shown = ", ".join(f"{own.at(s):.2f}" for s in (0.5, 0.9, 0.99))
        told = f"{shown} ms at median, p90, p99"
        told += "" if target == "direct" else f"; adds {added}"
        told += f"; {own.failed} of {own.sent} failed" if own.failed else f"; {own.sent} calls"
        rows.append(("proxy", f"{rate} a second", target, told))
    return rows


def _measured(
    targets: Mapping[str, Mapping[str, object]], rate: int, rounds: int, seconds: float
) -> tuple[dict[str, Seen], float]:
    """All targets in turn, after a round that does not count."""
    warm = [{"target": name, "rate": SUSTAINED, "seconds": 2.0} for name in targets]
    _load(targets, warm)
    steps: list[tuple[str, int]] = []
    for _ in range(rounds):
        steps += [(name, rate) for name in targets if name != "litellm"]
        if "litellm" in targets:
            steps += [(name, SUSTAINED) for name in targets]
    # Last, since it goes on working at what nobody waits for any more.
    steps += [("litellm", rate)] if "litellm" in targets else []
    slices = [{"target": name, "rate": each, "seconds": seconds} for name, each in steps]
    plain = _load(targets, slices)
    found: dict[str, Seen] = {}
    for name, own in plain["found"].items():
        found[name] = Seen(
            latencies=tuple(sorted(1000.0 * own for own in own["latencies"])),
            sent=own["sent"],
            failed=own["errors"] + own["lost"],
        )
    return found, plain["cpu"]


def _load(targets: Mapping[str, object], slices: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    plan = json.dumps({"targets": targets, "slices": slices})
    command = [sys.executable, "-m", "benchmarks.tokens.proxy_load", plan]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _kept(folder: Path) -> tuple[int, int]:
    """Calls that were answered, by the budget; and those in the ledger, if they cost the same."""
    with Ledger(folder / "ledger.db") as ledger:
        found = list(ledger.calls())
        if ledger.quarantine(1):
            return len(found), -1
    budget = Budget.open(folder / "budgets.db")
    (standing,) = budget.standing()
    budget.verify()
    each = USAGE["prompt_tokens"] * 150 + USAGE["completion_tokens"] * 600
    is_exact = all(
        (call.usage.input + call.usage.output).low == USAGE["total_tokens"] for call in found
    )
    return standing.spent.nano // each, len(found) if is_exact and not standing.held.nano else -1


@contextlib.contextmanager
def _targets(folder: Path, rivals: str) -> Generator[dict[str, dict[str, object]]]:
    """Ports and keys of all that is measured, running."""
    (folder / "budgets.yaml").write_text(BUDGETS)
    (folder / "prices.yaml").write_text(PRICES)
    up, weft, rival = _port(), _port(), _port()
    module = [sys.executable, "-m"]
    own = [*module, "weft", "tokens", "serve", "--upstream", f"http://127.0.0.1:{up}"]
    own += ["--budgets", "budgets.yaml", "--prices", "prices.yaml", "--ledger", "ledger.db"]
    targets: dict[str, dict[str, object]] = {
        "direct": {"port": up, "key": KEY},
        "weft": {"port": weft, "key": KEY},
    }
    with contextlib.ExitStack() as stack:
        provider = [*module, "benchmarks.tokens.proxy_upstream", str(up)]
        stack.enter_context(_process(provider, folder, up))
        stack.enter_context(_process([*own, "--port", str(weft)], folder, weft))
        command = _litellm(folder, rivals, up, rival)
        if command:
            stack.enter_context(_process(command, folder, rival))
            targets["litellm"] = {"port": rival, "key": KEY}
        targets["control"] = {"port": up, "key": KEY}
        yield targets


def _litellm(folder: Path, rivals: str, up: int, port: int) -> list[str]:
    """The command of LiteLLM's proxy; empty where it is not installed."""
    program = Path(rivals).parent / "litellm"
    if not rivals or not program.is_file():
        return []
    (folder / "litellm.yaml").write_text(LITELLM.format(port=up, key=KEY))
    options = ["--config", "litellm.yaml", "--port", str(port), "--host", "127.0.0.1"]
    # One worker, as weft has: two cores are shared with the load and the provider.
    return [str(program), *options, "--num_workers", "1", "--telemetry", "False"]


@contextlib.contextmanager
def _process(command: Sequence[str], folder: Path, port: int) -> Generator[None]:
    log = folder / f"{port}.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            until = time.monotonic() + START_S
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-500:]}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(30)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5.0):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return {**os.environ, "PYTHONPATH": path, "LITELLM_LOG": "ERROR", "OMP_NUM_THREADS": "1"}


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a proxy adds to a call.")
    parser.add_argument("--rate", type=int, default=RATE, help="calls a second")
    parser.add_argument("--rounds", type=int, default=6, help="of slices")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a slice")
    parser.add_argument("--rivals", default=sys.executable, help="a Python with LiteLLM's proxy")
    args = parser.parse_args()
    part = measure(rate=args.rate, rounds=args.rounds, seconds=args.seconds, rivals=args.rivals)
    table = Table(columns=COLUMNS, rows=part.rows)
    print_report(
        BenchReport(bench="tokens-proxy", claims=part.claims, table=table, facts=part.facts)
    )


if __name__ == "__main__":
    _main()
