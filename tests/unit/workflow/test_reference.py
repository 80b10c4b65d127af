import pytest
import torch

from weft.capture import SGD, Workload
from weft.core.records import read_records
from weft.workflow.reference import run_reference


def workload():
    return Workload(
        name="line",
        model=lambda: torch.nn.Linear(3, 1),
        loss=lambda model, batch: model(batch["x"]).square().mean(),
        batch=lambda step: {"x": torch.full((4, 3), 1.0 + step)},
        optimizer=SGD(lr=0.01),
    )


def plain_losses(steps):
    """The same training, written with torch alone."""
    this = workload()
    torch.manual_seed(this.seed)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for number in range(steps):
        optimizer.zero_grad()
        loss = model(this.batch(number)["x"]).square().mean()
        loss.backward()
        optimizer.step()
        yield loss.item()


def test_the_reference_is_what_plain_torch_computes(tmp_path):
    path = tmp_path / "records.jsonl"
    run_reference(workload(), 4, path)
    found = [r.fields for r in read_records(path, "reference")]
    assert [f["step"] for f in found] == [0, 1, 2, 3]
    assert [f["loss"] for f in found] == pytest.approx(list(plain_losses(4)), rel=1e-6)


def test_progress_ends_at_one_and_threads_are_left_as_they_were(tmp_path):
    shares, threads = [], torch.get_num_threads()
    run_reference(
        workload(),
        3,
        tmp_path / "r.jsonl",
        progress=lambda stage, share, detail="": shares.append(share),
    )
    assert shares == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert torch.get_num_threads() == threads
