"""Models of the benchmark, what is counted of them, and the arithmetic behind what it claims."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from benchmarks.fusion.contestants import CONTROL, EAGER, INDUCTOR, WEFT
from benchmarks.fusion.point import Point
from benchmarks.fusion.quiet import Quiet
from benchmarks.fusion.timing import Times
from benchmarks.fusion_models import case
from benchmarks.fusion_models.case import Measured
from benchmarks.fusion_models.networks import NETWORKS
from benchmarks.fusion_models.recurrent import AttentionalGRU, BidirectionalLSTM
from benchmarks.fusion_models.run import claims_of, table_of
from benchmarks.fusion_models.share import memory_bound_share
from benchmarks.fusion_models.steps import INFERENCE, TRAINING, Bench, error_of
from benchmarks.fusion_models.traffic import Ledger, Traffic
from weft.capture import AdamW, Workload
from weft.capture.workload import build_model
from weft.report.bench import BenchReport, report_json


def measured(mode=TRAINING, weft_us=100.0, control_us=101.0, error=1e-7):
    us = {EAGER: 200.0, INDUCTOR: 100.0, CONTROL: control_us, WEFT: weft_us}
    return Measured(
        point=Point(
            graph="bert",
            size=mode,
            times=Times(least_us=us, median_us=us, rounds=8),
            errors={EAGER: 1e-7, INDUCTOR: 1e-7, CONTROL: 1e-7, WEFT: error},
            quiet=Quiet(load=0.5, share=0.99, waited_s=0.0),
        ),
        share=0.25,
        traffic={
            INDUCTOR: Traffic(kernels=9, num_bytes=3e6),
            WEFT: Traffic(kernels=5, num_bytes=2e6, regions=2, left=1),
        },
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_small_models_learn_with_all_of_their_parameters_and_infer(name):
    network = NETWORKS[name]
    workload = network.workload(quick=True)
    model, batch = build_model(workload), workload.batch(0)
    again = workload.batch(0)
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    loss = workload.loss(model, batch)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert math.isfinite(loss.item())
    assert all(gradient.isfinite().all() for gradient in gradients)
    model.eval()
    with torch.no_grad():
        made = model(*(batch[key] for key in network.features))
    outputs = made if isinstance(made, tuple) else (made,)
    assert all(output.isfinite().all() for output in outputs)


def test_a_gru_without_weights_is_torchs():
    ours, torchs = AttentionalGRU(5, 4), nn.GRU(5, 4, batch_first=True)
    state = dict(torchs.named_parameters())
    ours.load_state_dict(
        {
            "into.weight": state["weight_ih_l0"],
            "into.bias": state["bias_ih_l0"],
            "again.weight": state["weight_hh_l0"],
            "again.bias": state["bias_hh_l0"],
        }
    )
    x = torch.randn(3, 6, 5)
    # Torch's z is what stays of the state, DIEN's what is new: of the other sign.
    with torch.no_grad():
        for linear in (ours.into, ours.again):
            linear.weight[4:8].neg_()
            linear.bias[4:8].neg_()
    torch.testing.assert_close(ours(x), torchs(x)[0])
    assert torch.equal(ours(x, torch.zeros(3, 6)), torch.zeros(3, 6, 4))


def test_both_directions_of_an_lstm_are_torchs():
    ours = BidirectionalLSTM(5, 4)
    torchs = nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for own, suffix in ((ours.ahead, ""), (ours.back, "_reverse")):
            state = dict(torchs.named_parameters())
            own.into.weight.copy_(state[f"weight_ih_l0{suffix}"])
            own.into.bias.copy_(state[f"bias_ih_l0{suffix}"] + state[f"bias_hh_l0{suffix}"])
            own.again.weight.copy_(state[f"weight_hh_l0{suffix}"])
    x = torch.randn(3, 6, 5)
    torch.testing.assert_close(ours(x), torchs(x)[0])


def test_errors_are_lengths_and_tiny_tensors_count_against_the_longest():
    wanted = [torch.tensor([3.0, 4.0]), torch.tensor([0.0])]
    assert error_of([torch.tensor([3.0, 4.5]), torch.tensor([0.0])], wanted) == pytest.approx(0.1)
    assert error_of([wanted[0], torch.tensor([0.001])], wanted) == pytest.approx(0.2)
    assert math.isnan(error_of([wanted[0], torch.tensor([math.nan])], wanted))


def test_matrix_products_are_bound_by_arithmetic_and_sums_are_not():
    x = torch.randn(512, 512)
    assert memory_bound_share(lambda: x @ x) < 0.6
    assert memory_bound_share(lambda: x + x) == 1.0


def test_a_measurement_travels_between_processes():
    assert Measured.from_json(measured().to_json()) == measured()


def test_claims_hold_for_models_that_are_no_slower():
    assert all(claim.ok for claim in claims_of([measured(), measured(INFERENCE)]))
    assert [c.ok for c in claims_of([measured(weft_us=104.0)])] == [False, True, True]
    assert [c.ok for c in claims_of([measured(control_us=104.0)])] == [True, False, True]
    assert [c.ok for c in claims_of([measured(error=2e-5)])] == [True, True, False]


def test_the_table_shows_what_was_before_and_after():
    failed = Measured(point=Point(graph="dien", size=TRAINING, failure="gone"))
    rows = table_of([measured(), failed]).rows
    assert rows[0][5:] == ("1.000", "1.000", "0.990", "25%", "9 -> 5 (2 weft's)", "3.0 -> 2.0")
    assert rows[1][5] == "failed"
    assert not claims_of([measured(), failed])[0].ok


def test_facts_are_json():
    report = BenchReport(
        bench="fusion-models",
        claims=claims_of([measured()]),
        facts={"points": [measured().fact()]},
    )
    (point,) = json.loads(report_json(report))["points"]
    assert point["traffic"][WEFT]["regions"] == 2


def test_a_process_that_dies_costs_what_it_had_not_measured(monkeypatch):
    out = measured().to_json() + "\n"
    monkeypatch.setattr(case, "run_process", lambda command, timeout_s: (out, "exit code -11: "))
    found = list(case.measure("bert", quick=True, timeout_s=1.0))
    assert [(one.point.size, bool(one.point.failure)) for one in found] == [
        (TRAINING, False),
        (INFERENCE, True),
    ]


class Normalised(nn.Module):
    """A linear layer between what waits for memory, with dropout."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.norm(self.dropout(torch.erf(self.into(x))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what Dynamo and Inductor warn of themselves
def test_contestants_make_what_is_exact_and_tell_what_they_move(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    workload = Workload(
        name="normalised",
        model=Normalised,
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=lambda step: {"x": torch.linspace(-1, 1, 512 * 64).view(512, 64)},
        optimizer=AdamW(lr=1e-3),
    )
    bench = Bench(workload, ("x",))
    entries = {EAGER: bench.eager()} | {n: bench.compiled(n) for n in (INDUCTOR, WEFT)}
    exact = bench.exact()
    for mode in (TRAINING, INFERENCE):
        for entry in entries.values():
            entry.calls[mode]()
    assert entries[EAGER].traffic[TRAINING] == Traffic(kernels=0, num_bytes=0.0)
    assert entries[INDUCTOR].traffic[TRAINING].regions == 0
    assert entries[INDUCTOR].traffic[INFERENCE].num_bytes >= 2 * 4 * 512 * 64
    assert entries[WEFT].traffic[TRAINING].regions > 0
    for mode in (TRAINING, INFERENCE):
        for entry in entries.values():
            assert error_of(entry.graded[mode], exact[mode]) < 1e-4
    torch._dynamo.reset()


def test_a_ledger_counts_nothing_while_it_does_not_listen():
    ledger = Ledger()
    torch._dynamo.reset()
    torch.compile(lambda x: x + 1, backend="inductor")(torch.ones(3))
    assert ledger.traffic() == Traffic(kernels=0, num_bytes=0.0)
    torch._dynamo.reset()
