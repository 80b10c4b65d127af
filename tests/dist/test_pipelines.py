"""Pipelines on gloo ranks compute what one process computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.core.errors import RunError
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("pipeline_rank.py")

CASES = {
    "gpt, dropout and a table at both ends": {
        "recipe": "gpt.py:gpt_small",
        "pp": 2,
        "micro_batches": 4,
        "schedule": "1f1b",
    },
    "llama, interleaved": {
        "recipe": "llama3.py:llama_tiny",
        "pp": 2,
        "chunks": 2,
        "micro_batches": 4,
        "schedule": "interleaved",
    },
    "u-net, skips across the cut": {
        "recipe": "unet.py:unet_tiny",
        "pp": 2,
        "micro_batches": 4,
        "schedule": "zero-bubble",
        "recompute": "cheap",
    },
    "encoder and decoder, interleaved": {
        "recipe": "translator.py:translator_tiny",
        "pp": 2,
        "chunks": 2,
        "micro_batches": 2,
        "schedule": "interleaved",
    },
    "vit, all forward first, layers run again": {
        "recipe": "vit.py:vit_tiny",
        "pp": 2,
        "micro_batches": 4,
        "schedule": "gpipe",
        "recompute": "full",
    },
    "llama, stages of two ranks that cut products": {
        "recipe": "llama3.py:llama_tiny",
        "pp": 2,
        "tp": 2,
        "sp": True,
        "micro_batches": 2,
    },
    "gpt, stages of two ranks that cut parameters": {
        "recipe": "gpt.py:gpt_tiny",
        "pp": 2,
        "dp": 2,
        "fsdp": True,
        "micro_batches": 4,
        "schedule": "zero-bubble",
    },
    "t5, biases that all layers of a side share": {
        "recipe": "t5.py:t5_tiny",
        "pp": 2,
        "micro_batches": 4,
        "schedule": "1f1b",
    },
    "mixtral, stages of two ranks": {
        "recipe": "mixtral.py:mixtral_tiny",
        "pp": 2,
        "dp": 2,
        "micro_batches": 2,
    },
    "deepseek, layers run again": {
        "recipe": "deepseek.py:deepseek_tiny",
        "pp": 2,
        "micro_batches": 4,
        "schedule": "zero-bubble",
        "recompute": "full",
    },
    "adm, skips and times that all blocks read": {
        "recipe": "adm.py:adm_tiny",
        "pp": 2,
        "micro_batches": 4,
    },
    "gpt, stages of two ranks that cut every third of a fused weight": {
        "recipe": "gpt_fused.py:gpt_fused_tiny",
        "pp": 2,
        "tp": 2,
        "micro_batches": 2,
    },
    "gpt, stages of two ranks that cut the optimizer state": {
        "recipe": "gpt.py:gpt_tiny",
        "pp": 2,
        "dp": 2,
        "zero": 1,
        "micro_batches": 4,
    },
    "gpt, stages of two ranks that cut the sequence": {
        "recipe": "gpt.py:gpt_tiny",
        "pp": 2,
        "cp": 2,
        "zero": 1,
        "micro_batches": 2,
    },
    "gpt on one rank and three, a table at both ends": {
        "recipe": "gpt.py:gpt_tiny",
        "rows": 12,
        "pp": 2,
        "by_group": [{}, {"dp": 3, "zero": 1}],
        "micro_batches": 2,
    },
    "u-net on two ranks that cut parameters and one, skips across the cut": {
        "recipe": "unet.py:unet_tiny",
        "pp": 2,
        "by_group": [{"dp": 2, "fsdp": True}, {}],
        "micro_batches": 4,
        "schedule": "zero-bubble",
        "recompute": "cheap",
    },
    "encoder and decoder on one rank and two, interleaved": {
        "recipe": "translator.py:translator_tiny",
        "pp": 2,
        "by_group": [{}, {"dp": 2}],
        "chunks": 2,
        "micro_batches": 2,
        "schedule": "interleaved",
    },
    "gpt on two ranks that cut products and two that cut the batch, one norm of gradients": {
        "recipe": "gpt.py:gpt_tiny",
        "pp": 2,
        "by_group": [{"tp": 2}, {"dp": 2, "zero": 1}],
        "micro_batches": 4,
        "clip": 0.1,
    },
    "llama on two ranks, one and one": {
        "recipe": "llama3.py:llama_tiny",
        "pp": 3,
        "by_group": [{"tp": 2, "sp": True}, {}, {}],
        "micro_batches": 4,
    },
    "llama, stages of one group on two grids": {
        "recipe": "llama3.py:llama_tiny",
        "pp": 1,
        "by_chunk": [{"dp": 2, "tp": 2}, {"dp": 4, "zero": 1}],
        "micro_batches": 2,
        "schedule": "interleaved",
    },
    "u-net on four ranks": {
        "recipe": "unet.py:unet_tiny",
        "pp": 4,
        "micro_batches": 4,
    },
}


COMPILED = {
    "gpt, a table at both ends": {
        "recipe": "gpt.py:gpt_tiny",
        "pp": 2,
        "micro_batches": 4,
        "schedule": "1f1b",
    },
    "u-net, skips across the cut": {
        "recipe": "unet.py:unet_tiny",
        "pp": 2,
        "micro_batches": 4,
        "schedule": "zero-bubble",
        "recompute": "cheap",
    },
    "llama, stages that are alike on one rank": {
        "recipe": "llama3.py:llama_tiny",
        "pp": 2,
        "chunks": 2,
        "micro_batches": 4,
        "schedule": "interleaved",
    },
    "llama, one group of two ranks that cut parameters": {
        "recipe": "llama3.py:llama_tiny",
        "pp": 1,
        "dp": 2,
        "fsdp": True,
        "micro_batches": 2,
    },
}


def devices(degrees: dict) -> int:
    """Devices of a group with these degrees."""
    first = degrees.get("by_chunk", [degrees])[0]
    return first.get("dp", 1) * first.get("cp", 1) * first.get("tp", 1)


@pytest.mark.dist
@pytest.mark.parametrize("name", CASES)
def test_a_pipeline_follows_one_process(name):
    follows_one_process(dict(CASES[name], steps=4), timeout_s=240)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_pipeline_follows_one_process(name):
    follows_one_process(dict(COMPILED[name], steps=3, compile="inductor"), timeout_s=580)


def follows_one_process(case, *, timeout_s):
    ranks = sum(devices(case | group) for group in case.get("by_group", [{}] * case["pp"]))
    done = launch([str(RANK), json.dumps(case)], ranks, timeout_s=timeout_s, env=python_path())
    found = json.loads(done.outputs[0].stdout.splitlines()[-1])
    assert found["missing"] == 0
    assert found["entries"] > 10
    assert found["loss"] < 1e-12
    assert found["state"] < 1e-9


SEARCHED_RANK = Path(__file__).with_name("searched_rank.py")

SEARCHED = {
    "weights held whole, state shared out": {
        "recipe": "gpt.py:gpt_tiny",
        "config": {"groups": 2, "data": 2, "inner": 1, "micro_batches": 4, "rows": 1},
        "schedule": "1f1b",
    },
    "both axes, interleaved": {
        "recipe": "llama3.py:llama_tiny",
        "config": {"groups": 1, "data": 2, "inner": 2, "micro_batches": 4, "rows": 1},
        "schedule": "1f1b",
    },
    "skips": {
        "recipe": "unet.py:unet_tiny",
        "config": {"groups": 2, "data": 1, "inner": 2, "micro_batches": 4, "rows": 2},
        "schedule": "zero-bubble",
    },
    "groups of two ranks that cut weights, and of one": {
        "recipe": "gpt.py:gpt_tiny",
        "grids": [[1, 2], [1, 1]],
        "micro_batches": 4,
    },
    "groups of one rank, and of two that cut the batch": {
        "recipe": "vgg.py:vgg_tiny",
        "grids": [[1, 1], [2, 1]],
        "micro_batches": 4,
    },
    "tree search: groups that cut weights or the batch, on each other's ranks, and recompute": {
        "recipe": "gpt.py:gpt_tiny",
        "inside": [{"dp": 2, "zero": 1}, {"tp": 2, "sp": True}],
        "standing": [1, 0],
        "micro_batches": 4,
        "schedule": "zero-bubble",
    },
}


@pytest.mark.dist
@pytest.mark.parametrize("name", SEARCHED)
def test_a_searched_pipeline_follows_one_process(name):
    case = dict(SEARCHED[name], steps=3)
    if "grids" in case:
        ranks = sum(data * inner for data, inner in case["grids"])
    elif "inside" in case:
        ranks = sum(own.get("dp", 1) * own.get("tp", 1) for own in case["inside"])
    else:
        sizes = case["config"]
        ranks = sizes["groups"] * sizes["data"] * sizes["inner"]
    done = launch([str(SEARCHED_RANK), json.dumps(case)], ranks, timeout_s=240, env=python_path())
    found = json.loads(done.outputs[0].stdout.splitlines()[-1])
    assert found["missing"] == 0
    assert found["entries"] > 10
    assert found["loss"] < 1e-12
    assert found["state"] < 1e-9


TRAIN = Path(__file__).with_name("pipeline_train.py")
STAGES = {"pp": 2, "micro_batches": 2}


def trained(folder, steps, degrees, *, ranks=2, resume=False, dies_in=None):
    about = {
        "folder": str(folder),
        "steps": steps,
        "degrees": degrees,
        "resume": resume,
        "dies_in": dies_in,
    }
    done = launch([str(TRAIN), json.dumps(about)], ranks, timeout_s=240, env=python_path())
    return dict(json.loads(done.outputs[0].stdout.splitlines()[-1]))


@pytest.mark.dist
def test_a_killed_rank_is_named_and_a_restart_goes_on_where_it_was(tmp_path):
    whole = trained(tmp_path / "whole", 8, STAGES)
    with pytest.raises(RunError, match="rank 1") as caught:
        trained(tmp_path / "killed", 6, STAGES, dies_in=3)
    assert caught.value.rank == 1
    rest = trained(tmp_path / "killed", 5, STAGES, resume=True)
    assert sorted(rest) == [3, 4]
    # The same checkpoints serve a plan of another kind.
    last = trained(tmp_path / "killed", 6, {"dp": 2}, resume=True)
    assert sorted(last) == [5]
    # So they do one of unequal groups, and what that writes serves others again.
    uneven = STAGES | {"by_group": [{}, {"dp": 2, "zero": 1}]}
    more = trained(tmp_path / "killed", 7, uneven, ranks=3, resume=True)
    more |= trained(tmp_path / "killed", 8, STAGES, resume=True)
    assert sorted(more) == [6, 7]
    for step, loss in (rest | last | more).items():
        assert loss == pytest.approx(whole[step], rel=1e-5)
