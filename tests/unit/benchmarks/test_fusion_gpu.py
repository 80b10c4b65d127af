"""The arithmetic of the fusion benchmark on GPUs, with a GPU that is made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.fusion import gpu, run
from benchmarks.fusion.cases import GRAPHS
from benchmarks.fusion.contestants import EAGER, WEFT
from benchmarks.fusion.gpu import DEFAULT, HARD, TUNED, GpuPoint, claims_on, measure_on, table_on
from benchmarks.fusion.timing import Times
from weft.core.errors import InputError
from weft.report.bench import report_json


class Paper:
    """Takes a microsecond more for each call that it has seen of a name."""

    name = "paper"

    def __init__(self):
        self.calls = []

    def put(self, inputs):
        return tuple(inputs)

    def cold_us(self, call):
        self.calls.append(call())
        return 10.0 + len(self.calls)


def point(graph="adam", weft=50.0, default=60.0, tuned=55.0, **named):
    least = {EAGER: 200.0, DEFAULT: default, TUNED: tuned, WEFT: weft}
    errors = dict.fromkeys(least, 1e-7)
    return GpuPoint(
        graph=graph,
        size="L",
        num_bytes=100_000_000,
        times=Times(least_us=least, median_us=least, rounds=10),
        copy_bytes_per_us=2_500_000.0,
        errors=errors,
        **named,
    )


def holds(points):
    return [claim.ok for claim in claims_on(points)]


def test_the_better_of_both_rivals_counts():
    assert point().speedup == pytest.approx(1.1)
    assert point(default=52.0).speedup == pytest.approx(1.04)


def test_bandwidth_is_that_of_a_copy_if_a_copy_takes_as_long():
    assert point(weft=40.0).bandwidth_share == pytest.approx(1.0)


def test_claims_hold_at_their_targets_and_fail_below():
    hard = [point(name, weft=30.0, tuned=45.1) for name in HARD[:3]]
    assert holds([*hard, point()]) == [True, True, True, True]
    assert holds([*hard[:2], point(HARD[2]), point()])[2] is False
    assert holds([*hard, point(weft=58.0)])[1] is False
    assert holds([point(weft=54.0)] * 3)[0] is False
    wrong = replace(point(), errors={**point().errors, WEFT: 1e-3})
    assert holds([*hard, wrong])[3] is False


def test_a_hard_graph_counts_once_whatever_its_sizes():
    points = [point(HARD[0], weft=20.0), point(HARD[0], weft=20.0), point(HARD[0], weft=20.0)]
    assert claims_on(points)[2].value == 1


def test_a_failure_of_weft_is_a_speed_up_of_nothing():
    failed = point(failure="RunError: no")
    assert failed.speedup == failed.bandwidth_share == 0
    assert holds([point(), failed])[:2] == [False, False]
    assert "failed" in table_on([failed]).rows[0]


def test_contestants_take_turns_and_a_broken_weft_is_told_of():
    def compiled(graph, size):
        def broken(*inputs):
            raise ValueError("no kernel")

        return {DEFAULT: graph.compute, TUNED: graph.compute, WEFT: broken}

    paper = Paper()
    made = measure_on(paper, GRAPHS["row_col_stats"], "S", 1e6, 5, compiled)
    assert made.failure == "ValueError: no kernel"
    assert set(made.times.least_us) == {EAGER, DEFAULT, TUNED}
    assert len(paper.calls) == 15 and made.errors[EAGER] < 1e-5
    assert made.num_bytes == 4 * (256 * 1024 + 2 * 256 + 2 * 1024)


def test_a_whole_run_is_a_report(monkeypatch):
    monkeypatch.setattr(gpu, "GRAPHS", {"row_col_stats": GRAPHS["row_col_stats"]})
    monkeypatch.setattr(gpu, "COPY_BYTES", 4096)

    def compiled(graph, size):
        return dict.fromkeys((DEFAULT, TUNED, WEFT), graph.compute)

    report = gpu.run_on(Paper(), quick=True, compiled=compiled)
    assert '"device": "paper"' in report_json(report)
    assert report.table is not None and len(report.table.rows) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what a host without a GPU says")
def test_without_a_gpu_the_error_says_what_else_there_is():
    with pytest.raises(InputError, match="CUDA device") as raised:
        run.run(quick=True, device="cuda")
    assert "fusion-triton" in raised.value.hint


def test_another_device_is_an_error():
    with pytest.raises(InputError, match="cpu or cuda"):
        run.run(device="tpu")
