"""Plans for unlike devices on gloo ranks compute what one process computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.job import python_path
from weft.runtime.launch import launch

RANK = Path(__file__).with_name("uneven_rank.py")
LAYOUTS = [[4, 2, 1, 1], [1, 1, 0, 0], [0, 2, 1, 1], [1, 0, 0, 0]]
EQUAL = [[4, 2, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]
"""With places among whose devices layers can be cut."""

CASES = {
    "gpt, the batch in proportion": {
        "recipe": "gpt.py:gpt_tiny",
        "plan": {"shares": [4, 2, 1, 1]},
    },
    "llama in proportion, places of two ranks that cut products": {
        "recipe": "llama3.py:llama_tiny",
        "plan": {"shares": [3, 1], "tp": 2},
    },
    "mlp, factors of gradients": {
        "recipe": "mlp.py:mlp_wide",
        "plan": {"factors": True},
    },
    "mlp in proportion, factors of gradients": {
        "recipe": "mlp.py:mlp_wide",
        "plan": {"shares": [4, 2, 1, 1], "factors": True},
    },
    "gpt, nodes wherever they fall": {
        "recipe": "gpt.py:gpt_tiny",
        "plan": {"layouts": LAYOUTS, "seed": 1},
    },
    "resnet, wherever they fall, parameters served": {
        "recipe": "resnet.py:resnet_tiny",
        "plan": {"layouts": LAYOUTS, "seed": 0, "served": True},
    },
    "gpt in proportion, some layers cut in places of two ranks": {
        "recipe": "gpt.py:gpt_tiny",
        "plan": {"shares": [3, 1], "tp": 2, "wide": True, "seed": 4},
    },
    "llama, some layers cut over all ranks": {
        "recipe": "llama3.py:llama_tiny",
        "plan": {"tp": 4, "wide": True, "seed": 5},
    },
    "resnet, some layers cut in places of two ranks": {
        "recipe": "resnet.py:resnet_tiny",
        "plan": {"tp": 2, "wide": True, "seed": 6},
    },
    "gpt, nodes wherever they fall but for layers that are cut": {
        "recipe": "gpt.py:gpt_tiny",
        "plan": {"layouts": EQUAL, "seed": 7, "wide": True},
    },
    "llama, wherever they fall, some layers cut": {
        "recipe": "llama3.py:llama_tiny",
        "plan": {"layouts": EQUAL, "seed": 8, "wide": True},
    },
    "llama, places of two ranks, parameters served": {
        "recipe": "llama3.py:llama_tiny",
        "plan": {"layouts": [[3, 1], [1, 0], [0, 1]], "seed": 3, "served": True, "tp": 2},
    },
}


FEW = (
    "gpt, the batch in proportion",
    "mlp in proportion, factors of gradients",
    "gpt in proportion, some layers cut in places of two ranks",
    "llama, places of two ranks, parameters served",
)
"""One of each kind; the others take as long again."""


@pytest.mark.dist
@pytest.mark.parametrize("name", FEW)
def test_unlike_ranks_follow_one_process(name):
    follows_one_process(dict(CASES[name], steps=3), timeout_s=240)


@pytest.mark.dist
def test_unlike_ranks_go_on_from_a_checkpoint(tmp_path):
    case = CASES["resnet, wherever they fall, parameters served"]
    follows_one_process(dict(case, steps=3, folder=str(tmp_path / "kept")), timeout_s=240)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("name", [name for name in CASES if name not in FEW])
def test_more_unlike_ranks_follow_one_process(name):
    follows_one_process(dict(CASES[name], steps=3), timeout_s=240)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("name", [n for n in CASES if "gpt" in n])
def test_compiled_unlike_ranks_follow_one_process(name):
    follows_one_process(dict(CASES[name], steps=3, compile="inductor"), timeout_s=580)


def follows_one_process(case, *, timeout_s):
    done = launch([str(RANK), json.dumps(case)], 4, timeout_s=timeout_s, env=python_path())
    found = json.loads(done.outputs[0].stdout.splitlines()[-1])
    assert found["missing"] == 0
    assert found["entries"] >= 8
    assert found["loss"] < 1e-12
    assert found["state"] < 1e-9
    assert not [out.stderr for out in done.outputs if "unwaited" in out.stderr]
