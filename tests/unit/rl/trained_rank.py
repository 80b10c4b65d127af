"""One rank that trains with GAC in a trainer; prints what it decided, and its weights."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch.distributed as dist
from transformers import TrainerCallback

from tests.unit.rl.test_trl_callback import made
from tests.unit.rl.test_trl_engine import run_trainer
from weft.rl import GACCallback


class Watch(TrainerCallback):
    """What was done in each step."""

    def __init__(self, callback):
        self.callback, self.seen = callback, []

    def on_optimizer_step(self, args, state, control, **_):
        last = self.callback.last
        lags = self.callback.lags
        self.seen.append([last.regime.name, last.cosine_raw, lags and sorted(lags.items())])


def plain(folder):
    """Transformers' own trainer."""
    callback = GACCallback()
    watch = Watch(callback)
    trainer = made(folder, [callback, watch], per_device_train_batch_size=2)
    trainer.train()
    return trainer, watch.seen


def asynchronous(folder):
    """TRL's, whose first rank has all samples."""
    callback = GACCallback(compensation=10.0)
    watch = Watch(callback)
    trainer = run_trainer(folder, [callback, watch], per_device_train_batch_size=8)
    return trainer, watch.seen


def main(way):
    with tempfile.TemporaryDirectory() as folder:
        trainer, seen = {"plain": plain, "asynchronous": asynchronous}[way](Path(folder))
    model = trainer.accelerator.unwrap_model(trainer.model)
    sums = [parameter.double().sum().item() for parameter in model.parameters()]
    print(json.dumps({"ranks": dist.get_world_size(), "seen": seen, "sums": sums}))


if __name__ == "__main__":
    main(sys.argv[1])
