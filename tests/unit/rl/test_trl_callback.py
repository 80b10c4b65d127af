"""GAC as a callback of transformers' own trainer."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.unit.rl.known import equal, weights
from tests.unit.rl.tiny import make_model
from weft.core.errors import InputError, MismatchError
from weft.rl import GAC, GACCallback, Previous, Regime

STEPS = 6
RATE = 0.01
EPSILON = 1e-4  # far above rounding in gradients that are nearly nothing


class Texts(Dataset):
    """Rows that repeat each other in part, so that gradients line up."""

    def __len__(self):
        return 200

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(3, 13, (6,), generator=generator)
        ids[:3] = torch.tensor([3, 4, 5])
        return {"input_ids": ids, "labels": ids.clone()}


class Reporter(TrainerCallback):
    """What TensorBoard's callback would be told."""

    def __init__(self):
        self.lines = []

    def on_log(self, args, state, control, logs=None, **_):
        self.lines.append(dict(logs))


def arguments(folder, **changes):
    options = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": RATE,
        "lr_scheduler_type": "linear",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "adam_epsilon": EPSILON,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": 3,
    }
    return TrainingArguments(**{**options, **changes})


def made(folder, callbacks, **changes):
    rest = {name: changes.pop(name) for name in ("optimizers",) if name in changes}
    return Trainer(
        model=make_model(),
        args=arguments(folder, **changes),
        train_dataset=Texts(),
        callbacks=callbacks,
        **rest,
    )


def batches_of(folder, **changes):
    """The batches that a trainer of these arguments sees, and by which model it begins."""
    return list(made(folder, [], **changes).get_train_dataloader())


def by_hand(batches, accumulate=1, wrap=True, **options):
    """A loop as the trainer's, with `weft.rl.GAC` in it."""
    model = make_model()
    inner = torch.optim.AdamW(
        model.parameters(), lr=RATE, eps=EPSILON, weight_decay=0.0, fused=True
    )
    optimizer = GAC(inner, **options) if wrap else inner
    found = []
    for step in range(STEPS):
        for group in inner.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        for part in range(accumulate):
            loss = model(**batches[step * accumulate + part]).loss
            (loss / accumulate).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(getattr(optimizer, "last", None))
        optimizer.zero_grad()
    return model, found


def close(ones, others):
    return all(torch.allclose(a, b, atol=1e-6, rtol=0) for a, b in zip(ones, others, strict=True))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"mode": "cap", "cosine_low": 0.2, "reference": Previous(), "per": "parameter"}]
)
def test_a_trainer_does_to_weights_what_gac_does_by_hand(tmp_path, accumulate, options):
    changes = {"gradient_accumulation_steps": accumulate}
    callback = GACCallback(**options)
    trainer = made(tmp_path, [callback], **changes)
    trainer.train()
    # What is drawn depends on the seed alone, so another trainer sees the same batches.
    batches = batches_of(tmp_path, **changes)
    expected, decisions = by_hand(batches, accumulate, **options)
    plain, _ = by_hand(batches, accumulate, wrap=False)
    assert close(weights(trainer.model), weights(expected))
    assert not close(weights(trainer.model), weights(plain))
    assert callback.last.cosine_raw == pytest.approx(decisions[-1].cosine_raw, abs=1e-5)
    assert callback.gac.counts[Regime.PROJECT] > 0


def test_measuring_only_changes_no_weight_and_tells_the_cosine(tmp_path):
    callback = GACCallback(measure_only=True)
    measured, plain = made(tmp_path, [callback]), made(tmp_path, [])
    measured.train()
    plain.train()
    assert equal(weights(measured.model), weights(plain.model))
    assert callback.last.cosine_raw > 0.0
    assert callback.gac.counts[Regime.SAFE] == STEPS - 1


def test_logs_hold_the_figures_for_all_who_report_them(tmp_path):
    reporter, callback = Reporter(), GACCallback()
    trainer = made(tmp_path, [reporter, callback])  # reporters come first, as the trainer's own do
    trainer.train()
    lines = [line for line in reporter.lines if "loss" in line]
    assert len(lines) == 3
    history = [line for line in trainer.state.log_history if "loss" in line]
    for line, kept in zip(lines, history, strict=True):
        for name in ("cosine_raw", "cosine_applied", "norm_raw", "norm_applied"):
            assert line[f"gac/{name}"] == kept[f"gac/{name}"]
        assert "gac/staleness" not in line  # nobody knows it here
    _, decisions = by_hand(batches_of(tmp_path))
    pairs = [decisions[at : at + 2] for at in range(0, STEPS, 2)]
    for line, pair in zip(lines, pairs, strict=True):
        mean = sum(one.cosine_raw for one in pair) / 2
        assert line["gac/cosine_raw"] == pytest.approx(mean, abs=1e-5)
    assert [line["gac/steps_first"] for line in lines] == [1, 1, 1]
    done = sum(lines[-1][f"gac/steps_{regime.name.lower()}"] for regime in Regime)
    assert done == STEPS
    assert json.dumps(lines)


def test_without_waiting_for_the_device_the_last_step_is_told(tmp_path):
    reporter = Reporter()
    trainer = made(tmp_path, [GACCallback(synchronise=False), reporter])
    trainer.train()
    _, decisions = by_hand(batches_of(tmp_path))
    lines = [line for line in reporter.lines if "loss" in line]
    found = [line["gac/cosine_raw"] for line in lines]
    assert found == pytest.approx([one.cosine_raw for one in decisions[1::2]], abs=1e-5)


def test_a_resumed_run_decides_and_ends_as_one_in_one_piece(tmp_path):
    changes = {"save_strategy": "steps", "save_steps": 3}
    options = {"cosine_low": 0.05, "cosine_high": 0.9}
    whole = made(tmp_path / "a", [GACCallback(**options)], **changes)
    whole.train()
    resumed = made(tmp_path / "b", [GACCallback(**options)], **changes)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    ones = [line for line in whole.state.log_history if "loss" in line][-1]
    others = [line for line in resumed.state.log_history if "loss" in line][-1]
    assert {n: v for n, v in ones.items() if n.startswith("gac/")} == {
        n: v for n, v in others.items() if n.startswith("gac/")
    }
    assert equal(weights(whole.model), weights(resumed.model))
    state = torch.load(tmp_path / "a" / "checkpoint-3" / "optimizer.pt", weights_only=True)
    assert state["gac"]["steps"] == 3
    assert all("gac_reference_0" in kept for kept in state["state"].values())


def test_a_checkpoint_without_gac_begins_with_a_first_step(tmp_path):
    made(tmp_path, [], save_strategy="steps", save_steps=3).train()
    callback = GACCallback()
    made(tmp_path, [callback]).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert callback.gac.counts[Regime.FIRST] == 1
    assert sum(callback.gac.counts.values()) == STEPS - 3


def test_skipped_steps_leave_weights_where_they_were(tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            seen.append(weights(model))

    callback = GACCallback(cosine_low=0.0, cosine_high=1e-6, reference=Previous())
    made(tmp_path, [callback, Watch()], lr_scheduler_type="constant").train()
    skipped = callback.gac.counts[Regime.SKIP]
    assert skipped > 0
    assert sum(equal(a, b) for a, b in pairwise(seen)) == skipped


def test_an_optimizer_that_was_made_outside_is_wrapped_too(tmp_path):
    model = make_model()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    callback = GACCallback()
    trainer = Trainer(
        model=model,
        args=arguments(tmp_path),
        train_dataset=Texts(),
        callbacks=[callback],
        optimizers=(inner, torch.optim.lr_scheduler.LambdaLR(inner, lambda step: 0.5**step)),
    )
    trainer.train()
    assert callback.gac.optimizer is inner
    assert inner.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**STEPS)
    assert sum(callback.gac.counts.values()) == STEPS


def test_training_again_goes_on_with_the_same_gac(tmp_path):
    callback = GACCallback()
    trainer = made(tmp_path, [callback])
    trainer.train()
    first = callback.gac
    trainer.train()
    assert callback.gac is first
    assert sum(first.counts.values()) == 2 * STEPS


def test_a_callback_that_comes_later_has_to_be_attached(tmp_path):
    trainer, callback = made(tmp_path, []), GACCallback()
    trainer.add_callback(callback)
    with pytest.raises(InputError, match="attach"):
        trainer.train()
    callback = GACCallback().attach(trainer2 := made(tmp_path, []))
    trainer2.train()
    assert sum(callback.gac.counts.values()) == STEPS


def test_a_trainer_that_has_trained_is_refused(tmp_path):
    trainer = made(tmp_path, [])
    trainer.train()
    with pytest.raises(InputError, match="before train"):
        GACCallback().attach(trainer)


def test_a_callback_belongs_to_one_trainer(tmp_path):
    callback = GACCallback()
    made(tmp_path, [callback])
    with pytest.raises(MismatchError, match="another trainer"):
        made(tmp_path, [callback])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"cosine": 0.1}, "cosine"),
        ({"cosine_low": 2.0}, "cosine_low"),
        ({"mode": "sideways"}, "sideways"),
        ({"compensation": -1.0}, "strength"),
    ],
)
def test_wrong_options_are_refused_where_they_are_written(options, match):
    with pytest.raises(InputError, match=match):
        GACCallback(**options)


def test_compensation_needs_ages(tmp_path):
    with pytest.raises(InputError, match="AsyncGRPOTrainer"):
        made(tmp_path, [GACCallback(compensation=1.0)])


@pytest.mark.parametrize("optim", ["lomo", "galore_adamw_layerwise"])
def test_optimizers_that_step_in_backward_are_refused(tmp_path, optim):
    trainer = made(tmp_path, [])
    trainer.args.optim = optim
    with pytest.raises(InputError, match="in backward"):
        GACCallback().attach(trainer)


def test_deepspeed_is_refused(tmp_path):
    trainer = made(tmp_path, [])
    trainer.is_deepspeed_enabled = True
    with pytest.raises(InputError, match="DeepSpeed"):
        GACCallback().attach(trainer)


def test_fsdp1_is_refused_unless_parts_are_told(tmp_path):
    trainer = made(tmp_path, [])
    trainer.is_fsdp_enabled = True
    with pytest.raises(InputError, match="FSDP1"):
        GACCallback().attach(trainer)


def test_a_callback_outside_of_trainers_says_so():
    with pytest.raises(MismatchError, match="attach"):
        GACCallback().on_init_end(None, None, None)


def test_events_before_training_do_nothing():
    callback = GACCallback()
    callback.on_pre_optimizer_step(None, None, None)
    callback.on_optimizer_step(None, None, None)
    callback.on_log(None, None, None, logs={})
    assert callback.last is None
