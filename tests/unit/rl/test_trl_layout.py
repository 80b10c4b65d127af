"""What is known of TRL, and what is said where it is not so."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import weft.rl
from weft.core.errors import InputError, MismatchError
from weft.rl.trl import layout


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(InputError, match=r"no trl\n(.|\n)*weft\[rl\]"):
        layout.trl_module("async_grpo_trainer")


def test_without_transformers_all_but_the_callback_is_there():
    code = """
import sys
sys.modules["transformers"] = sys.modules["accelerate"] = None
import weft.rl
weft.rl.GAC
try:
    weft.rl.GACCallback
except weft.WeftError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(weft.rl.__path__[0]).removesuffix("/weft/rl")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "no transformers and no accelerate" in done.stdout
    assert "weft[rl]" in done.stdout


def test_another_layout_names_version_and_part():
    with pytest.raises(MismatchError, match=r"TRL \d.*without module trl.*nonsense"):
        layout.trl_module("nonsense")
    with pytest.raises(MismatchError, match="without b in SimpleNamespace"):
        layout.part_of(SimpleNamespace(a=1), "b")
    assert layout.part_of(SimpleNamespace(a=SimpleNamespace(b=3)), "a", "b") == 3


class Queue:
    def __init__(self, *versions):
        self.samples = [SimpleNamespace(model_version=v, metrics={"reward": 1.0}) for v in versions]

    def get(self, timeout=None):
        return self.samples.pop(0)

    def qsize(self):
        return len(self.samples)


class Trainer:
    """As much of TRL's trainer as ages need; two ranks, three samples a batch."""

    def __init__(self, interval=1, staleness=4, main=True, versions=(), row="samples"):
        self.args = SimpleNamespace(weight_sync_steps=interval, max_staleness=staleness)
        self.state = SimpleNamespace(global_step=0)
        self.accelerator = SimpleNamespace(is_main_process=main)
        self.model_version = 1
        self._rollout_dataset = SimpleNamespace(queue=Queue(*versions))
        self.row = row

    def get_train_dataloader(self):
        return SimpleNamespace(collate_fn=SimpleNamespace(torch_call=lambda rows: {"ids": 1}))

    def training_step(self, model, inputs, num_items=None):
        return dict(inputs)

    def fetch(self, loader):
        source = self._rollout_dataset.queue
        samples = [{"metrics": source.get(timeout=1).metrics} for _ in range(3)]
        rows = [SimpleNamespace(**{self.row: part}) for part in (samples[:2], samples[2:])]
        return loader.collate_fn.torch_call([rows])


def test_a_batch_tells_how_old_its_samples_are_when_it_is_trained_on():
    trainer = Trainer(versions=[1, 1, 1, 1, 2, 3])
    origins = layout.Origins(trainer)
    origins.begin(0)
    loader = trainer.get_train_dataloader()
    assert trainer._rollout_dataset.queue.qsize() == 6
    batch = trainer.fetch(loader)
    assert batch[layout.AGES_KEY].shape == (2, 3)  # a row for each rank, all samples in each
    assert trainer.training_step(None, batch) == {"ids": 1}
    assert origins.lags(0) == {0: 3}
    trainer.state.global_step, trainer.model_version = 2, 3
    batch = trainer.fetch(loader)  # fetched a step before it is trained on
    trainer.state.global_step, trainer.model_version = 3, 4
    trainer.training_step(None, batch)
    assert origins.lags(3) == {1: 1, 2: 1, 3: 1}


def test_ages_count_steps_also_where_weights_are_published_now_and_then():
    trainer = Trainer(interval=4, staleness=2, versions=[3, 2, 1])
    origins = layout.Origins(trainer)
    assert origins.longest == 12  # two versions and three steps behind, fetched one step ahead
    origins.begin(0)
    loader = trainer.get_train_dataloader()
    trainer.state.global_step, trainer.model_version = 10, 3  # published after 0, 4 and 8
    trainer.training_step(None, trainer.fetch(loader))
    assert origins.lags(10) == {2: 1, 6: 1, 10: 1}


def test_a_resumed_run_counts_from_where_it_went_on():
    trainer = Trainer(interval=4, versions=[9, 8, 8])
    origins = layout.Origins(trainer)
    loader = trainer.get_train_dataloader()
    trainer.state.global_step, trainer.model_version = 10, 8
    origins.begin(10)  # publishes version 8 after ten steps, and 9 after twelve
    trainer.state.global_step, trainer.model_version = 13, 9
    trainer.training_step(None, trainer.fetch(loader))
    assert origins.lags(13) == {1: 1, 3: 2}


def test_other_ranks_get_ages_with_their_batches():
    trainer = Trainer(main=False)
    origins = layout.Origins(trainer)
    loader = trainer.get_train_dataloader()
    assert layout.AGES_KEY not in loader.collate_fn.torch_call([])
    trainer.state.global_step = 5
    for row in ([3, 4], [5, -1]):  # several batches to a step; padding does not count
        trainer.training_step(None, {layout.AGES_KEY: torch.tensor([row])})
    assert origins.lags(5) == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda t: delattr(t.args, "max_staleness"), "max_staleness"),
        (lambda t: delattr(t, "_rollout_dataset"), "_rollout_dataset"),
        (lambda t: delattr(t._rollout_dataset, "queue"), "queue"),
        (lambda t: setattr(t, "row", "sequences"), "samples"),
        (lambda t: delattr(t, "model_version"), "model_version"),
    ],
)
def test_a_trainer_of_another_layout_is_refused(change, missing):
    trainer = Trainer(versions=[1, 1, 1])
    change(trainer)

    def begin():
        layout.Origins(trainer)
        trainer.fetch(trainer.get_train_dataloader())

    with pytest.raises(MismatchError, match=rf"without {missing}(.|\n)*ages=False"):
        begin()


def test_samples_that_lost_their_version_are_noticed():
    trainer = Trainer()
    origins = layout.Origins(trainer)
    loader = trainer.get_train_dataloader()
    row = SimpleNamespace(samples=[{"metrics": {"reward": 1.0}}])
    with pytest.raises(MismatchError, match="metrics of a sample"):
        loader.collate_fn.torch_call([[row]])
    with pytest.raises(MismatchError, match="versions of samples"):
        trainer.training_step(None, {"ids": 1})
    with pytest.raises(MismatchError, match="versions of samples"):
        origins.lags(0)
