"""The thread that draws for TRL's trainer."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.unit.rl.tiny import make_model, make_task
from weft.core.errors import RunError
from weft.rl.trl.worker import LocalTransfer, ThreadWorker

BATCH = 16


def made(task=None, **options):
    options = {"staleness": 2, "seed": 0, "make_sample": lambda *pair: pair, **options}
    return ThreadWorker(task or make_task(), **options)


def publish(worker, model, version):
    transfer = LocalTransfer(worker, lambda: model)
    transfer.init_weight_transfer()
    transfer.pause()
    transfer.send_weights(iter(model.named_parameters()))
    transfer.resume()
    worker.update_model_version(version)
    transfer.destroy()


def taken(worker, batches):
    return [worker.rollout_buffer.get(timeout=60) for _ in range(batches * BATCH)]


def test_it_runs_ahead_as_far_as_samples_stay_young_enough_and_no_further():
    worker, model = made(), make_model()
    publish(worker, model, 1)
    worker.start()
    try:
        found = taken(worker, 3)  # trained on after 0, 1 and 2 steps
        assert {rollout.version for rollout, _ in found} == {1}
        assert [rollout.number for rollout, _ in found[::4]] == list(range(12))
        assert worker.rollout_buffer.empty()
        publish(worker, model, 2)
        assert {rollout.version for rollout, _ in taken(worker, 1)} == {2}
        worker.check_health(1.0)
    finally:
        worker.stop()
    assert not worker._thread.is_alive()
    assert worker.rollout_buffer.empty()


def test_weights_count_from_when_their_version_is_told():
    worker = made()
    worker.load({"a": 1})
    assert worker._live is None
    worker.update_model_version(1)
    worker.load({"a": 2})
    assert worker._live == (1, {"a": 1})
    worker.update_model_version(2)
    assert worker._live == (2, {"a": 2})


def test_samples_are_drawn_with_the_weights_that_were_sent():
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight.zero_()  # all tokens alike
    worker = made()
    publish(worker, model, 1)
    worker.start()
    try:
        rollouts = [rollout for rollout, _ in taken(worker, 1)]
    finally:
        worker.stop()
    log_probs = [value for rollout in rollouts for value in rollout.log_probs]
    assert log_probs == pytest.approx([-torch.tensor(16.0).log().item()] * len(log_probs))


def test_advantages_are_taken_within_groups():
    worker = made()
    publish(worker, make_model(), 1)
    worker.start()
    try:
        found = taken(worker, 1)
    finally:
        worker.stop()
    for at in range(0, BATCH, 4):
        group = found[at : at + 4]
        assert len({rollout.number for rollout, _ in group}) == 1
        assert sum(advantage for _, advantage in group) == pytest.approx(0.0, abs=1e-6)
        best = max(group, key=lambda pair: pair[0].reward)
        assert best[1] == max(advantage for _, advantage in group)


def test_rewards_of_the_newest_weights_are_told_once():
    worker = made()
    publish(worker, make_model(), 1)
    assert worker.take_fresh_reward() is None
    worker._fresh.update({1: [0.0], 2: [1.0, 0.5]})
    assert worker.take_fresh_reward() == 0.75
    assert worker.take_fresh_reward() is None


def test_a_resumed_run_goes_on_with_its_prompts():
    worker = made(first_batch=5)
    publish(worker, make_model(), 1)
    worker.start()
    try:
        assert [rollout.number for rollout, _ in taken(worker, 1)[::4]] == [20, 21, 22, 23]
    finally:
        worker.stop()


def test_what_the_thread_dies_of_reaches_the_trainer():
    died = threading.Event()

    def reward(prompt, answer):
        died.set()
        raise ZeroDivisionError("no reward today")

    worker = made(make_task(reward=reward))
    publish(worker, make_model(), 1)
    worker.start()
    assert died.wait(60)
    worker._thread.join(60)
    with pytest.raises(RunError, match="no reward today"):
        worker.check_health(1.0)
    worker.stop()
