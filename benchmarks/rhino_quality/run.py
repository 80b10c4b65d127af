"""How good the plans are: `weft bench rhino-quality`.

Each model is planned on machines of published kinds. Beside the step of the plan, as simulated,
stand those of the best plan of one stage and of the best that hand-tuning finds on a grid over
all classical degrees (`benchmarks.rhino_quality.grid`). All three go through one simulator.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from benchmarks.rhino_quality.case import Case, Outcome, measure
from weft.core.units import format_seconds
from weft.report.bench import BenchReport, Claim, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["run"]

CASES = (
    Case(
        name="GPT-3 6.7 B",
        recipe="gpt3:gpt3_6_7b",
        sizes=(32, 4096, 32),
        machine="dgx-h100x8",
        batch=512,
    ),
    Case(
        name="GPT-3 175 B",
        recipe="gpt3:gpt3_175b",
        sizes=(96, 12_288, 96),
        machine="dgx-a100x128",
        batch=1536,
    ),
    Case(name="Llama-3 8 B", recipe="llama3:llama3_8b", machine="dgx-h100x8", batch=128),
    Case(name="Llama-3 70 B", recipe="llama3:llama3_70b", machine="dgx-h100x64", batch=512),
    Case(name="Llama-3 405 B", recipe="llama3:llama3_405b", machine="dgx-h100x512", batch=512),
    Case(name="T5-11B", recipe="t5:t5_11b", machine="dgx-h100x8", batch=512, level="fast"),
    Case(name="VGG-19", recipe="vgg:vgg19", machine="dgx-h100x1", batch=256, level="fast"),
    Case(
        name="Wide-ResNet 1 B",
        recipe="wide_resnet:wide_resnet_1b_grouped",
        machine="dgx-h100x4",
        batch=1024,
        level="fast",
    ),
    Case(name="U-Net", recipe="unet:unet_tiny", machine="dgx-h100x1", batch=64),
    Case(
        name="CLIP ViT-L/14",
        recipe="clip:clip_vit_l14",
        machine="dgx-h100x8",
        batch=1024,
        level="fast",
    ),
    Case(
        name="Mixtral 8x7B",
        recipe="mixtral:mixtral_8x7b",
        machine="dgx-h100x8",
        batch=256,
        level="fast",
    ),
    Case(
        name="DeepSeek-V2 Lite",
        recipe="deepseek:deepseek_v2_lite",
        machine="dgx-h100x8",
        batch=256,
        level="fast",
    ),
)
QUICK = ("Llama-3 8 B", "U-Net")
GAIN = 1.10
NEVER_WORSE = 1.0 + 1e-4
"""Programmes are solved to a thousandth, in slices of time; so the same plan found twice may differ
in its last placements, by a hundred-thousandth of a step where that was seen."""


def run(quick: bool = False) -> BenchReport:
    """Plan every model; `quick` plans two, with less effort."""
    cases = [case for case in CASES if not quick or case.name in QUICK]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = dict(zip([case.name for case in cases], pool.map(_told, cases), strict=True))
    outcomes = {name: outcome for name, (_, outcome) in found.items()}
    return BenchReport(
        bench="rhino-quality",
        claims=_claims(outcomes),
        table=_table(found),
        facts={name: _plain(outcome) for name, outcome in outcomes.items()},
    )


def _told(case: Case) -> tuple[Case, Outcome]:
    outcome = measure(case)
    print(f"{case.name}: {_line(outcome)}", file=sys.stderr, flush=True)
    return case, outcome


def _plain(outcome: Outcome) -> dict[str, object]:
    """As JSON values: what does not fit has no time."""
    return {name: None if value == math.inf else value for name, value in asdict(outcome).items()}


def gain(outcome: Outcome) -> float:
    """Step by hand over step found; 1 where neither has a plan that fits."""
    return outcome.hand_s / outcome.found_s if math.isfinite(outcome.hand_s) else 1.0


def _claims(outcomes: Mapping[str, Outcome]) -> tuple[Claim, ...]:
    gains = [gain(o) for o in outcomes.values()]
    worst = max(o.found_s / min(o.hand_s, o.single_s) for o in outcomes.values())
    mean = math.exp(sum(map(math.log, gains)) / len(gains))
    return (
        at_most("slowest plan over the best by hand or of one stage [ratio]", worst, NEVER_WORSE),
        at_least("step by hand over step found, geometric mean [ratio]", mean, GAIN),
    )


def _line(outcome: Outcome) -> str:
    return (
        f"{outcome.found}: {format_seconds(outcome.found_s)}; "
        f"by hand {outcome.hand}: {_seconds(outcome.hand_s)}; "
        f"one stage: {_seconds(outcome.single_s)}"
    )


def _table(found: Mapping[str, tuple[Case, Outcome]]) -> Table:
    rows = [
        (
            name,
            case.machine,
            outcome.found,
            format_seconds(outcome.found_s),
            f"{100 * outcome.gap:.0f} %",
            _seconds(outcome.single_s),
            f"{outcome.hand} ({outcome.priced} priced)",
            _seconds(outcome.hand_s),
            f"{gain(outcome):.2f}x",
        )
        for name, (case, outcome) in found.items()
    ]
    columns = (
        "model",
        "machine",
        "plan",
        "step",
        "gap",
        "one stage",
        "best by hand",
        "step by hand",
        "gain",
    )
    return Table(columns=columns, rows=tuple(rows))


def _seconds(seconds: float) -> str:
    return format_seconds(seconds) if math.isfinite(seconds) else "does not fit"


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
