"""Event files, read back."""

from __future__ import annotations

import math
import sys

import pytest

from weft.core.errors import FileError, InputError
from weft.core.records import RecordLog, read_records
from weft.rl.tensorboard import TensorBoardEvents, TensorBoardLog, write_tensorboard

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)


def read(folder):
    found = accumulator.EventAccumulator(
        str(folder), size_guidance=dict.fromkeys(("scalars", "histograms", "tensors"), 0)
    )
    found.Reload()
    return found


def scalars(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def age(folder, life):
    """Files are read in the order of their names, which tell seconds: here, a life takes none."""
    for path in folder.glob("events.out.tfevents.1*"):
        path.rename(path.with_name(f"events.out.tfevents.{life:010}.of"))


def step(number, **more):
    return {
        "step": number,
        "reward": 0.25 * number,
        "cosine_raw": None,
        "regime": "project",
        "lags": {"0": 3, "2": 5},
        "samples": 8,
    } | more


def a_run(path, numbers=(1, 2, 3), **about):
    log = RecordLog(path)
    log.append("rl-run", **{"method": "gac", "seed": 0, "versions": {"torch": "2"}} | about)
    for number in numbers:
        log.append("rl-step", **step(number))
    return path


def test_numbers_of_a_file_come_back_with_their_steps_and_times(tmp_path):
    path = a_run(tmp_path / "records.jsonl")
    assert write_tensorboard(path, tmp_path / "tb") == 3
    assert scalars(tmp_path / "tb", "reward/reward") == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert scalars(tmp_path / "tb", "gradient/regime") == [(1, 2), (2, 2), (3, 2)]
    times = [record.time_s for record in read_records(path, "rl-step")]
    found = [event.wall_time for event in read(tmp_path / "tb").Scalars("speed/samples")]
    assert found == times


def test_what_nobody_knows_is_left_out_and_nan_is_not(tmp_path):
    log = RecordLog(tmp_path / "records.jsonl")
    log.append("rl-run", method="gac")
    log.append("rl-step", **step(1, loss=math.nan, kl=math.inf, own=3, note="hello", flag=True))
    write_tensorboard(tmp_path / "records.jsonl", tmp_path / "tb")
    tags = set(read(tmp_path / "tb").Tags()["scalars"])
    assert "gradient/cosine_raw" not in tags and not {t for t in tags if "note" in t or "flag" in t}
    assert math.isnan(scalars(tmp_path / "tb", "reward/loss")[0][1])
    assert scalars(tmp_path / "tb", "policy/kl") == [(1, math.inf)]
    assert scalars(tmp_path / "tb", "more/own") == [(1, 3.0)]


def test_lags_are_a_histogram_with_a_bucket_each(tmp_path):
    write_tensorboard(a_run(tmp_path / "records.jsonl"), tmp_path / "tb")
    events = read(tmp_path / "tb").Histograms("age/lags")
    value = events[0].histogram_value
    assert len(events) == 3 and value.num == 8 and value.sum == 10
    assert list(value.bucket) == [3, 0, 5] and list(value.bucket_limit) == [0.5, 1.5, 2.5]


def test_the_fields_of_the_run_are_a_text(tmp_path):
    write_tensorboard(a_run(tmp_path / "records.jsonl"), tmp_path / "tb")
    (event,) = read(tmp_path / "tb").Tensors("run/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert "method: gac" in text and '{"torch": "2"}' in text


def test_several_runs_of_a_file_get_a_folder_each_and_a_resumed_one_is_one(tmp_path):
    path = a_run(tmp_path / "records.jsonl", (1, 2), seed=0)
    a_run(path, (1,), seed=1)
    a_run(path, (2, 3), seed=0)
    assert write_tensorboard(path, tmp_path / "tb") == 4
    assert [s for s, _ in scalars(tmp_path / "tb" / "0", "reward/reward")] == [1, 2, 3]
    assert [s for s, _ in scalars(tmp_path / "tb" / "1", "reward/reward")] == [1]


def test_a_live_log_writes_both_and_can_be_watched(tmp_path):
    with TensorBoardLog(tmp_path / "records.jsonl", tmp_path / "tb") as log:
        log.append("rl-run", method="gac")
        assert log.append("rl-step", **step(1)).fields["step"] == 1
        log.flush()
        assert scalars(tmp_path / "tb", "reward/reward") == [(1, 0.25)]
        log.append("rl-step", **step(2))
        log.append("other", anything=1)
    assert [r.kind for r in read_records(tmp_path / "records.jsonl")] == [
        "rl-run",
        "rl-step",
        "rl-step",
        "other",
    ]
    assert scalars(tmp_path / "tb", "reward/reward") == [(1, 0.25), (2, 0.5)]


def test_a_run_that_begins_anew_in_a_folder_takes_the_old_one_back(tmp_path):
    for life, reward in enumerate((0.25, 0.75)):
        events = TensorBoardEvents(tmp_path / "tb")
        path = tmp_path / f"{life}.jsonl"
        log = RecordLog(path)
        events.write(log.append("rl-run", method="gac"))
        events.write(log.append("rl-step", **step(1, reward=reward)))
        events.close()
        age(tmp_path / "tb", life)
    assert scalars(tmp_path / "tb", "reward/reward") == [(1, 0.75)]


def test_steps_that_are_taken_again_after_a_resume_show_once(tmp_path):
    for life, numbers in enumerate(((1, 2, 3), (3, 4))):
        with TensorBoardLog(tmp_path / "records.jsonl", tmp_path / "tb") as log:
            for number in numbers:
                log.append("rl-step", **step(number, reward=number + life))
        age(tmp_path / "tb", life)
    found = scalars(tmp_path / "tb", "reward/reward")
    assert found == [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0)]


def test_files_without_runs_full_folders_and_steps_without_numbers_are_refused(tmp_path):
    with pytest.raises(FileError, match="a record file"):
        write_tensorboard(tmp_path / "records.jsonl", tmp_path / "tb")
    RecordLog(tmp_path / "records.jsonl").append("step", loss=1.0)
    with pytest.raises(FileError, match="records of a run"):
        write_tensorboard(tmp_path / "records.jsonl", tmp_path / "tb")
    path = a_run(tmp_path / "own.jsonl")
    write_tensorboard(path, tmp_path / "tb")
    with pytest.raises(FileError, match="without event files"):
        write_tensorboard(path, tmp_path / "tb")
    RecordLog(path).append("rl-step", reward=1.0)
    with pytest.raises(InputError, match="number of the step"):
        write_tensorboard(path, tmp_path / "tb2")


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for make in (
        lambda: TensorBoardEvents(tmp_path),
        lambda: TensorBoardLog(tmp_path / "records.jsonl", tmp_path / "tb"),
    ):
        with pytest.raises(InputError, match=r"pip install 'weft\[rl\]'"):
            make()
    assert not (tmp_path / "records.jsonl").exists()
