"""What a benchmark claims, and how it says so.

A benchmark script measures and returns a `BenchReport`: a table for people and claims, each
a value next to its target. A missed claim is a finding, not a failure, so nothing here raises
when a target is not met. The last line that a benchmark prints is one line of JSON.

Example:
    >>> report = BenchReport(
    ...     bench="scaling",
    ...     claims=(at_least("two ranks over one, in the same run", 1.72, 1.6),),
    ... )
    >>> report.claims[0].ok, report.claims[0].condition
    (True, '>= 1.6')
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import operator
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from weft.core.errors import InputError
from weft.report.table import Table, format_table

__all__ = [
    "BenchReport",
    "Claim",
    "at_least",
    "at_most",
    "environment",
    "exactly",
    "print_report",
    "report_json",
    "save_report",
]

RESULTS = "benchmarks/results"
"""Where results are kept in the checkout."""
_VERSIONS = ("weft", "torch", "numpy", "highspy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence with a number, and whether the number is good enough.

    Attributes:
        claim: what is measured, with its unit: "median error of the predicted step [share]".
        value: what was measured.
        target: what the value is compared with.
        comparison: how: "<=", ">=" or "=".
    """

    claim: str
    value: float
    target: float
    comparison: str

    @property
    def ok(self) -> bool:
        """Whether the claim holds; a value that is not a number misses every target."""
        return _COMPARISONS[self.comparison](self.value, self.target)

    @property
    def condition(self) -> str:
        """Comparison and target in text: "<= 0.2"."""
        return f"{self.comparison} {self.target:g}"


_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {"<=": operator.le, ">=": operator.ge, "=": operator.eq}
)


def at_most(claim: str, value: float, limit: float) -> Claim:
    """A claim that holds if `value <= limit`."""
    return Claim(claim=claim, value=value, target=limit, comparison="<=")


def at_least(claim: str, value: float, limit: float) -> Claim:
    """A claim that holds if `value >= limit`."""
    return Claim(claim=claim, value=value, target=limit, comparison=">=")


def exactly(claim: str, value: float, wanted: float) -> Claim:
    """A claim that holds if the value is the wanted one."""
    return Claim(claim=claim, value=value, target=wanted, comparison="=")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """What one run of a benchmark found.

    Attributes:
        bench: name of the benchmark, as in `weft bench NAME`.
        claims: what has to hold.
        table: the measurements behind the claims, for people.
        facts: further JSON values that belong to the result (settings, repetitions).
        device: what it ran on, if that is not the host's processor.
    """

    bench: str
    claims: tuple[Claim, ...]
    table: Table | None = None
    facts: Mapping[str, object] = field(default_factory=dict[str, object])
    device: str = ""

    @property
    def ok(self) -> bool:
        """True if every claim holds."""
        return all(claim.ok for claim in self.claims)


def environment(device: str = "") -> dict[str, object]:
    """Where and when: hardware, date, versions and commit of this run.

    Args:
        device: the hardware; the host's processor if empty.
    """
    return {
        "hardware": device or f"{_processor()}, {os.cpu_count()} CPUs",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            **{name: v for name in _VERSIONS if (v := _version(name))},
        },
        "commit": _commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """Short commit of the checkout around this file; empty outside of one.

    It ends in "-dirty" if anything but results of benchmarks differs from it: of several runs, the
    first leaves its own.
    """
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":!/{RESULTS}")
    return f"{commit}-dirty" if commit and changed != "" else commit or ""


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def report_json(report: BenchReport) -> str:
    """One line of JSON: the benchmark, its claims, its facts and where it ran.

    A value that is not a finite number becomes null, since JSON has no such numbers.

    Raises:
        InputError: a fact has a name that the report uses itself.
    """
    claims = [
        {
            "claim": c.claim,
            "value": c.value if math.isfinite(c.value) else None,
            "target": c.target,
            "comparison": c.comparison,
            "ok": c.ok,
        }
        for c in report.claims
    ]
    own = {"bench": report.bench, "claims": claims, "ok": report.ok, **environment(report.device)}
    clash = sorted(set(own) & set(report.facts))
    if clash:
        raise InputError(
            need="facts with names of their own",
            got=f"facts {', '.join(clash)} in the report of {report.bench}",
            hint="rename them: these names belong to the report itself",
        )
    return json.dumps({**own, **report.facts}, allow_nan=False)


def print_report(
    report: BenchReport,
    *,
    write: Callable[[str], object] | None = None,
    only_json: bool = False,
) -> None:
    """Print the table, the claims and, last, the line of JSON."""
    say = sys.stdout.write if write is None else write
    if not only_json:
        if report.table is not None:
            say(format_table(report.table) + "\n\n")
        say(format_table(claim_table(report)) + "\n")
    say(report_json(report) + "\n")


def claim_table(report: BenchReport) -> Table:
    """The claims as a table."""
    return Table(
        columns=("claim", "value", "target", "holds"),
        rows=tuple(
            (c.claim, f"{c.value:.4g}", c.condition, "yes" if c.ok else "NO") for c in report.claims
        ),
    )


def save_report(report: BenchReport, folder: Path) -> Path:
    """Append the report to `<bench>_<hardware>_<yyyymm>.jsonl` in a folder; returns the file."""
    facts = environment(report.device)
    hardware = re.sub(r"[^a-z0-9]+", "-", str(facts["hardware"]).lower()).strip("-")
    month = str(facts["date"])[:7].replace("-", "")
    path = folder / f"{report.bench}_{hardware}_{month}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(report_json(report) + "\n")
    return path
