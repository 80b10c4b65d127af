"""Simulated throughput of Auto-MAP's models, by planner: `weft bench automap-throughput`.

Five models on the paper's three configurations; who planned, what, and in what time.
"""

from __future__ import annotations

import sys

from benchmarks.automap.models import BATCH
from benchmarks.automap.throughput import throughput_claims, throughput_table, throughputs
from weft.report.bench import BenchReport, print_report

__all__ = ["run"]

QUICK = ("VGG-19",)


def run(quick: bool = False) -> BenchReport:
    """Plan everything by everybody; `quick` takes one model on the smallest configuration."""
    found = list(throughputs(QUICK, ("A",)) if quick else throughputs())
    return BenchReport(
        bench="automap-throughput",
        claims=throughput_claims(found),
        table=throughput_table(found),
        facts={
            "batch": BATCH,
            "throughput": [
                {
                    "model": f.model,
                    "configuration": f.configuration,
                    "by": f.by,
                    "per_s": f.per_s,
                    "step_s": f.step_s,
                    "what": f.what,
                    "s": f.seconds,
                }
                for f in found
            ],
        },
    )


if __name__ == "__main__":
    print_report(run("--quick" in sys.argv))
