"""Where models are while they do not compute, told by devices that are only noted."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
import torch

from benchmarks.denoise_matrix import pipelines
from benchmarks.denoise_matrix.pipelines import PIPELINES
from weft.core.errors import InputError
from weft.diffusion import (
    DenoisePlan,
    Mixed,
    Model,
    Sketch,
    StepPlan,
    accelerate,
    restore,
    session,
)
from weft.diffusion.idle import Devices

STEPS = 8
FULL, SMALL = StepPlan(), StepPlan(model=Model.SMALL)
HALF = DenoisePlan(steps=(FULL,) * 4 + (SMALL,) * 4)
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


class Noted(Devices):
    """Says where models would be; the tensors stay where they are."""

    def __init__(self):
        self.places, self.moves = {}, []

    def of(self, module):
        return self.places.get(id(module), GPU)

    def move(self, module, device):
        self.places[id(module)] = device
        self.moves.append((module, device))


@pytest.fixture
def devices(monkeypatch):
    noted = Noted()
    monkeypatch.setattr("weft.diffusion.idle.DEVICES", noted)
    return noted


@pytest.fixture(scope="module")
def pair():
    return PIPELINES["Wan 2.1"].build(STEPS), pipelines._wan_denoiser(3, 2)


@contextmanager
def idle(run, small, policy):
    accelerate(run.pipe, policy=policy, sketch_to=small, idle="cpu")
    try:
        yield
    finally:
        restore(run.pipe)


def watched(devices, run, small):
    """What is called at the end of each step, and where the two were then."""
    seen = []

    def look(pipe, step, *args):
        seen.append((devices.of(run.pipe.transformer).type, devices.of(small).type))
        return {}

    return look, seen


def test_the_small_model_comes_for_its_steps_and_the_large_one_goes(pair, devices):
    run, small = pair
    look, seen = watched(devices, run, small)
    plain = run()
    accelerate(run.pipe, policy=HALF, sketch_to=small)
    wanted = run()
    restore(run.pipe)
    assert not devices.moves
    with idle(run, small, HALF):
        assert devices.of(small) == CPU
        for _ in range(2):
            assert torch.equal(run(callback_on_step_end=look), wanted)
            assert (devices.of(run.pipe.transformer), devices.of(small)) == (GPU, CPU)
    assert seen == ([("cuda", "cpu")] * 4 + [("cpu", "cuda")] * 4) * 2
    assert (devices.of(run.pipe.transformer), devices.of(small)) == (GPU, GPU)
    assert torch.equal(run(), plain)


def test_the_large_model_goes_before_the_small_one_comes(pair, devices):
    run, small = pair
    with idle(run, small, HALF):
        devices.moves.clear()
        run()
    large = run.pipe.transformer
    assert devices.moves[:2] == [(large, CPU), (small, GPU)]


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (Sketch(earliest=0.5, latest=0.5), [("cuda", "cpu")] * 4 + [("cpu", "cuda")] * 4),
        (
            Mixed(tau=9.0, first=0.25, last=0.25),
            [("cuda", "cpu")] * 2 + [("cuda", "cuda")] * 3 + [("cpu", "cuda")] * 3,
        ),
        (
            DenoisePlan(steps=(FULL, SMALL, FULL, SMALL, FULL, FULL, FULL, FULL)),
            [("cuda", "cpu")] + [("cuda", "cuda")] * 3 + [("cuda", "cpu")] * 4,
        ),
    ],
)
def test_who_is_needed_again_stays(pair, devices, policy, wanted):
    run, small = pair
    look, seen = watched(devices, run, small)
    with idle(run, small, policy):
        run(callback_on_step_end=look)
    assert seen == wanted


class Interrupted(Exception):
    pass


def test_a_call_that_fails_puts_both_back(pair, devices):
    run, small = pair
    with idle(run, small, HALF):

        def fails(*args, **kwargs):
            raise Interrupted

        handle = small.register_forward_pre_hook(fails)
        with pytest.raises(Interrupted):
            run()
        handle.remove()
        assert (devices.of(run.pipe.transformer), devices.of(small)) == (GPU, CPU)


def test_a_run_that_broke_off_between_steps_is_tidied_up_by_the_next_one(pair, devices):
    run, small = pair
    look, seen = watched(devices, run, small)

    def breaks(pipe, step, *args):
        if step == 5:
            raise Interrupted
        return {}

    with idle(run, small, HALF):
        wanted = run()
        with pytest.raises(Interrupted):
            run(callback_on_step_end=breaks)
        assert torch.equal(run(callback_on_step_end=look), wanted)
        assert seen[0] == ("cuda", "cpu")
        with pytest.raises(Interrupted):
            run(callback_on_step_end=breaks)
    assert (devices.of(run.pipe.transformer), devices.of(small)) == (GPU, GPU)


def test_nothing_goes_away_while_another_run_may_need_it(pair, devices):
    run, small = pair
    look, seen = watched(devices, run, small)
    begun, done = threading.Event(), threading.Event()
    other = type(run.pipe)(**run.pipe.components)
    other.scheduler = type(run.pipe.scheduler).from_config(run.pipe.scheduler.config)
    other.set_progress_bar_config(disable=True)

    def waits(pipe, step, *args):
        begun.set()
        assert done.wait(60)
        return {}

    def slow():
        given = {**run.inputs, "generator": pipelines.noise(2), "output_type": "latent"}
        with session(other, "slow"), torch.no_grad():
            other(**given, callback_on_step_end=waits)

    with idle(run, small, HALF):
        thread = threading.Thread(target=slow)
        thread.start()
        assert begun.wait(60)
        run(callback_on_step_end=look)
        assert devices.of(run.pipe.transformer) == GPU
        done.set()
        thread.join()
        assert (devices.of(run.pipe.transformer), devices.of(small)) == (GPU, CPU)
    assert seen == [("cuda", "cpu")] * 4 + [("cuda", "cuda")] * 4


def test_all_experts_go(devices):
    run, small = PIPELINES["Wan 2.2"].build(STEPS), pipelines._wan_denoiser(3, 2)
    experts = [run.pipe.transformer, run.pipe.transformer_2]
    places = []

    def look(pipe, step, *args):
        places.append([devices.of(expert).type for expert in experts])
        return {}

    with idle(run, small, DenoisePlan(steps=(FULL,) * 6 + (SMALL,) * 2)):
        run(callback_on_step_end=look)
        assert [devices.of(expert) for expert in experts] == [GPU, GPU]
    assert places == [["cuda", "cuda"]] * 6 + [["cpu", "cpu"]] * 2


def test_real_tensors_are_moved():
    module = torch.nn.Linear(2, 2)
    Devices().move(module, torch.device("meta"))
    assert Devices().of(module) == torch.device("meta")


def test_an_idle_place_needs_a_small_model_and_nobody_else_who_moves_models(pair):
    run, small = pair
    with pytest.raises(InputError, match="sketch_to"):
        accelerate(run.pipe, idle="cpu")
    with pytest.raises(InputError, match="nowhere"):
        accelerate(run.pipe, sketch_to=small, idle="nowhere")
    run.pipe.transformer._hf_hook = object()
    try:
        with pytest.raises(InputError, match="enable_model_cpu_offload"):
            accelerate(run.pipe, sketch_to=small, idle="cpu")
    finally:
        del run.pipe.transformer._hf_hook
