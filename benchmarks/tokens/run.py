"""What is said of tokens, against what is known: `weft bench tokens`.

Parts are measured one after the other; each is a file beside this one with a function that returns
a `Part`. Rivals are asked where they are installed; `python -m benchmarks.tokens.run --rivals
PYTHON` asks those of another environment, since LiteLLM brings along more than weft needs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.tokens.accounting import accounting
from benchmarks.tokens.allocating import allocating
from benchmarks.tokens.budgets import budgets
from benchmarks.tokens.duality import duality
from benchmarks.tokens.fitting import fitting
from benchmarks.tokens.guarding import guarding
from benchmarks.tokens.markets import markets
from benchmarks.tokens.part import COLUMNS, Part
from benchmarks.tokens.principles import principles
from benchmarks.tokens.proxying import proxying
from benchmarks.tokens.routing import routing
from weft.report.bench import BenchReport, print_report, save_report
from weft.report.table import Table

__all__ = ["PARTS", "run"]

PARTS: tuple[Callable[[bool, str], Part], ...] = (
    accounting,
    budgets,
    fitting,
    duality,
    allocating,
    routing,
    principles,
    markets,
    guarding,
    proxying,
)
"""In order; each takes whether to be quick, and the Python whose packages are the rivals."""


def run(quick: bool = False, rivals: str = sys.executable) -> BenchReport:
    """Measure all parts; `quick` takes fewer and smaller cases."""
    parts = [_measured(part, quick, rivals) for part in PARTS]
    return BenchReport(
        bench="tokens",
        claims=tuple(claim for part in parts for claim in part.claims),
        table=Table(columns=COLUMNS, rows=tuple(row for part in parts for row in part.rows)),
        facts={name: value for part in parts for name, value in part.facts.items()},
    )


def _measured(part: Callable[[bool, str], Part], quick: bool, rivals: str) -> Part:
    """A part, with a line on how long it took and what was missed."""
    began = time.perf_counter()
    found = part(quick, rivals)
    missed = [claim.claim for claim in found.claims if not claim.ok]
    said = f"; missed: {'; '.join(missed)}" if missed else ""
    took = f"{part.__name__}: {time.perf_counter() - began:.0f} s"
    print(f"{took}, {len(found.claims)} claims{said}", file=sys.stderr, flush=True)
    return found


def _main() -> None:
    parser = argparse.ArgumentParser(description="Measure accounts of tokens.")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")
    parser.add_argument("--rivals", default=sys.executable, help="a Python with rivals installed")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results/")
    args = parser.parse_args()
    report = run(args.quick, args.rivals)
    if args.save:
        save_report(report, Path(__file__).parents[1] / "results")
    print_report(report)


if __name__ == "__main__":
    _main()
