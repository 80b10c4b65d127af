"""One rank that trains with GAC in trainers; prints what it decided, and its weights."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback

from tests.unit.rl.test_trl_callback import Texts, arguments, made
from tests.unit.rl.test_trl_engine import run_trainer
from tests.unit.rl.tiny import make_model
from weft.rl import GACCallback


class Watch(TrainerCallback):
    """What was done in each step."""

    def __init__(self, callback):
        self.callback, self.seen = callback, []

    def on_optimizer_step(self, args, state, control, **_):
        last, lags = self.callback.last, self.callback.lags
        self.seen.append([last.regime.name, last.cosine_raw, lags and sorted(lags.items())])


def plain(folder):
    """Transformers' own trainer, with the whole model on each rank."""
    callback = GACCallback()
    watch = Watch(callback)
    trainer = made(folder, [callback, watch], per_device_train_batch_size=2)
    trainer.train()
    return told(trainer, watch)


def asynchronous(folder):
    """TRL's, whose first rank has all samples."""
    callback = GACCallback(compensation=10.0)
    watch = Watch(callback)
    return told(run_trainer(folder, [callback, watch], per_device_train_batch_size=8), watch)


def sharded(folder, resume=None):
    """FSDP2, with a checkpoint after three steps."""
    options = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": ["Qwen2DecoderLayer"],
        "state_dict_type": "SHARDED_STATE_DICT",
    }
    args = arguments(
        folder,
        per_device_train_batch_size=2,
        save_strategy="steps",
        save_steps=3,
        fsdp=True,
        fsdp_config=options,
    )
    assert args.device.type == "cpu"
    # accelerate shards on devices only; torch does on CPUs as well.
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    model = make_model()
    model.config.tie_word_embeddings = False  # which accelerate cannot shard
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    callback = GACCallback()
    watch = Watch(callback)
    trainer = Trainer(model=model, args=args, train_dataset=Texts(), callbacks=[callback, watch])
    trainer.train(resume_from_checkpoint=resume)
    assert all(isinstance(parameter, DTensor) for parameter in callback.gac.parameters())
    return told(trainer, watch)


def told(trainer, watch):
    model = trainer.accelerator.unwrap_model(trainer.model)
    whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    sums = [parameter.double().sum().item() for parameter in whole]
    return {"ranks": trainer.args.world_size, "seen": watch.seen, "sums": sums}


def main(folder):
    with tempfile.TemporaryDirectory() as own:
        # First: as soon as there is a process group, models are saved by its first rank alone.
        found = {"asynchronous": asynchronous(Path(own))}
    found["plain"] = plain(folder)
    found["sharded"] = sharded(folder / "sharded")
    found["resumed"] = sharded(folder / "resumed", str(folder / "sharded" / "checkpoint-3"))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
